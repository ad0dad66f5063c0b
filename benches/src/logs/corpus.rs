//! Lines for the log engine: nginx as it comes, and a shop's mix with random ids.
//!
//! # Invariants
//! - The same seed gives the same lines, each a little later than the one before.

use crate::random::Random;
use shipwatch_common::{model::Severity, time::UnixNs};

const HEX: &str = "0123456789abcdef";
const PATHS: [&str; 12] = [
    "/",
    "/cart",
    "/static/app.js",
    "/static/main.css",
    "/api/v1/orders",
    "/api/v1/goods/search?q=shoes",
    "/checkout/address",
    "/api/v2/stock",
    "/images/banner.webp",
    "/login",
    "/api/v1/reviews",
    "/favicon.ico",
];
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (X11; Linux x86_64; rv:123.0) Gecko/20100101 Firefox/123.0",
    "okhttp/4.9.3",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.6167.178 Mobile Safari/537.36",
    "curl/7.88.1",
];
const CLASSES: [&str; 6] = ["OrderService", "PayClient", "StockJob", "CartController", "GoodsSearch", "CouponService"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Makes the lines of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    random: Random,
    kind: Kind,
    ts_ns: UnixNs,
    pace_ns: u64,
}

/// What the lines look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// The combined format.
    Nginx,
    /// nginx with a random request id.
    NginxIds,
    /// Spring in JSON with a random trace id.
    Java,
    /// Laravel with Chinese text.
    Php,
    /// `key=value` with a random id.
    Logfmt,
}

impl Lines {
    pub(super) const fn new(seed: u64, kind: Kind, start_ns: UnixNs, pace_ns: u64) -> Self {
        Self { random: Random::new(seed), kind, ts_ns: start_ns, pace_ns }
    }

    /// The next line.
    pub(super) fn line(&mut self) -> (UnixNs, Severity, String) {
        let pause = self.random.below(self.pace_ns * 2);
        self.ts_ns += i64::try_from(pause).unwrap_or(0);
        self.ts_ns -= self.ts_ns.rem_euclid(1_000_000);
        let severity = match self.random.below(100) {
            0 => Severity::Error,
            1..5 => Severity::Warn,
            _ => Severity::Info,
        };
        let text = match self.kind {
            Kind::Nginx => self.nginx(),
            Kind::NginxIds => format!("{} rid={}", self.nginx(), self.random.text(HEX, 32)),
            Kind::Java => self.java(severity),
            Kind::Php => self.php(),
            Kind::Logfmt => self.logfmt(severity),
        };
        (self.ts_ns, severity, text)
    }

    fn clock(&self) -> (String, i64) {
        let seconds = self.ts_ns.div_euclid(1_000_000_000).rem_euclid(86_400);
        let ms = self.ts_ns.div_euclid(1_000_000).rem_euclid(1_000);
        (format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60), ms)
    }

    fn day(&self) -> (i64, u32, u32) {
        crate::corpus::civil(self.ts_ns.div_euclid(86_400_000_000_000))
    }

    fn nginx(&mut self) -> String {
        let ((clock, _), (year, month, day)) = (self.clock(), self.day());
        let random = &mut self.random;
        let month = MONTHS.get(month as usize - 1).unwrap_or(&"Jan");
        let (a, b, c) = (random.below(256), random.below(256), 1 + random.below(254));
        let method = if random.below(6) == 0 { "POST" } else { "GET" };
        let mut path = (*random.pick(&PATHS)).to_owned();
        if path == "/api/v1/orders" {
            path.push_str(&format!("/{}", 100_000 + random.below(900_000)));
        }
        let status = random.pick(&[200, 200, 200, 200, 200, 304, 302, 404, 499, 502]);
        let (size, agent, time) = (random.below(60_000), random.pick(&AGENTS), random.below(2_000));
        format!(
            r#"10.{a}.{b}.{c} - - [{day:02}/{month}/{year}:{clock} +0000] "{method} {path} HTTP/1.1" {status} {size} "https://shop.example/" "{agent}" {}.{:03}"#,
            time / 1000,
            time % 1000
        )
    }

    fn java(&mut self, severity: Severity) -> String {
        let ((clock, ms), (year, month, day)) = (self.clock(), self.day());
        let random = &mut self.random;
        let (class, thread, trace) = (random.pick(&CLASSES), 1 + random.below(64), random.text(HEX, 32));
        let (order, took) = (random.digits(8), random.below(900));
        let what = random.pick(&["moved to PACKED", "paid by card", "reserved in stock", "cannot be delivered", "库存同步完成"]);
        format!(
            r#"{{"ts":"{year}-{month:02}-{day:02}T{clock}.{ms:03}Z","level":"{}","thread":"nio-8080-exec-{thread}","logger":"com.shop.{class}","trace":"{trace}","msg":"order {order} {what} in {took} ms"}}"#,
            severity.as_str()
        )
    }

    fn php(&mut self) -> String {
        let ((clock, _), (year, month, day)) = (self.clock(), self.day());
        let random = &mut self.random;
        let uuid = [8, 4, 4, 4, 12].map(|length| random.text(HEX, length)).join("-");
        let (attempts, waybill, count) = (1 + random.below(3), random.digits(12), random.below(500));
        format!(
            r#"[{year}-{month:02}-{day:02} {clock}] production.INFO: 订单支付成功，共{count}件 {{"job":"App\\Jobs\\SyncStock","attempts":{attempts},"uuid":"{uuid}","waybill":"SF{waybill}"}}"#
        )
    }

    fn logfmt(&mut self, severity: Severity) -> String {
        let ((clock, ms), (year, month, day)) = (self.clock(), self.day());
        let random = &mut self.random;
        let (class, span, user) = (random.pick(&CLASSES), random.text(HEX, 16), random.below(100_000));
        let (rows, took) = (random.below(1_000), random.below(50_000));
        format!(
            "time={year}-{month:02}-{day:02}T{clock}.{ms:03}Z level={} component={class} span={span} user_id={user} rows={rows} took={}.{:03}ms msg=\"query of the catalogue done\" caller=store/catalogue.go:{}",
            severity.as_str(),
            took / 1000,
            took % 1000,
            100 + random.below(12)
        )
    }
}
