//! How fast the masker is on one core: `cargo run --release -p shipwatch-common --example mask_speed [-- PART OF A NAME]`.
//!
//! Makes lines as shops write them, with and without personal data, and masks each kind for a while. Time is the thread's own time on the processor, as Linux
//! tells it, so that busy neighbours do not count.

use shipwatch_common::mask::{Config, LineState, Masker};
use std::{fmt::Write as _, io::Write as _};

/// A line by its number; the numbers in it vary so that no line is like the one before.
type Line = fn(u64) -> String;

const SAMPLES: &[(&str, Line)] = &[
    ("JSON with personal data", |n| {
        format!(
            r#"{{"ts":"2026-11-24T08:{:02}:{:02}.{:03}Z","level":"info","order_id":"SO20261124{n:08}","receiver_name":"张伟","mobile":"138{:08}","address":"广东省深圳市南山区科技园路{}号","email":"user{n}@example.com","amount":{}.50,"status":"PAID"}}"#,
            n / 60 % 60,
            n % 60,
            n % 1000,
            n * 7919 % 100_000_000,
            n % 300,
            n % 999
        )
    }),
    ("text with personal data", |n| {
        format!(
            "2026-11-24 08:{:02}:{:02},{:03} INFO [http-nio-8080-exec-{}] c.e.shop.PayService - charged order {n} card 4111111111111111 phone=+86139{:08} by buyer{n}@example.com in {} ms",
            n / 60 % 60,
            n % 60,
            n % 1000,
            n % 20,
            n * 104_729 % 100_000_000,
            n % 400
        )
    }),
    ("access log with secrets", |n| {
        format!(
            "10.2.{}.{} - - [24/Nov/2026:08:00:{:02} +0000] \"GET /api/v1/login?user=u{n}&password=pw{n}x&token=abc{n:012}def HTTP/1.1\" 200 {} \"-\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" rt=0.{:03}",
            n % 256,
            n * 3 % 256,
            n % 60,
            n * 31 % 90_000,
            n % 1000
        )
    }),
    ("escaped JSON (PHP)", |n| {
        format!(
            r#"[2026-11-24 08:00:{:02}] prod.INFO: {{"\u6536\u8d27\u4eba":"\u5f20\u4f1f","url":"https:\/\/shop.example.com\/o\/{n}","phone":"138{:08}","note":"ok"}}"#,
            n % 60,
            n * 7919 % 100_000_000
        )
    }),
    ("nothing to mask", |n| {
        format!(
            "2026-11-24 08:{:02}:{:02},{:03} DEBUG [worker-{}] c.e.shop.StockSync - synced sku {n} warehouse 7 qty {} from cache, {} ms, trace_id=4bf92f3577b34da6a3ce929d0e0e{:04x}",
            n / 60 % 60,
            n % 60,
            n % 1000,
            n % 16,
            n % 77,
            n % 300,
            n % 65536
        )
    }),
];

/// The fastest one counts: neighbours can only make a round slower.
const ROUNDS: u32 = 40;

/// Nanoseconds that this thread ran.
fn on_processor() -> Result<u64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn measure(masker: &Masker, lines: &[String]) -> Result<(f64, u64), Box<dyn std::error::Error>> {
    let bytes: usize = lines.iter().map(String::len).sum();
    let (mut hits, mut best) = (0_u64, u64::MAX);
    let mut state = LineState::default();
    for _ in 0..ROUNDS {
        let start = on_processor()?;
        hits = lines.iter().map(|line| u64::from(masker.mask_line(&mut state, line).hits)).sum();
        best = best.min(on_processor()? - start);
    }
    let seconds = best as f64 / 1e9;
    Ok((bytes as f64 / 1e6 / seconds, hits))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let masker = Masker::new(&Config::default())?;
    let mut out = String::new();
    let mut mixed = Vec::new();
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for (name, line) in SAMPLES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let lines: Vec<String> = (0..20_000).map(line).collect();
        let (speed, hits) = measure(&masker, &lines)?;
        writeln!(out, "{name:<26} {speed:>6.0} MB/s  {:.1} findings a line", hits as f64 / lines.len() as f64)?;
        mixed.extend(lines.into_iter().step_by(SAMPLES.len()));
    }
    let (speed, hits) = measure(&masker, &mixed)?;
    writeln!(out, "{:<26} {speed:>6.0} MB/s  {:.1} findings a line", "all of them", hits as f64 / mixed.len() as f64)?;
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(())
}
