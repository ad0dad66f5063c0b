//! `shipwatch-agent mask`: what the agent would make of a log, line by line. Nothing is sent and nothing is stored.
//!
//! # Invariants
//! - One line out for each line in; private keys are masked over lines, as in a followed file.
//! - Memory does not grow with the input: a line that is longer than the masker takes is passed over and told as refused.
//! - `--explain` names places and reasons, never a value.

use super::{Failure, failed};
use clap::Args;
use encoding_rs::Encoding;
use shipwatch_common::{
    config::{Problems, nearest},
    mask::{Config, LineState, Masker},
};
use std::io::{self, BufRead, Read as _, Write};

/// What the command takes.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Says what was found where and why, instead of the masked line; never the value.
    #[arg(long)]
    explain: bool,
    /// Encoding of the input: utf-8, gbk, gb18030 or big5. The output is UTF-8.
    #[arg(long, value_name = "NAME", default_value = "utf-8")]
    encoding: String,
    /// Policy instead of the configured one: default, pci, gdpr or strict.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

const ENCODINGS: [&str; 4] = ["utf-8", "gbk", "gb18030", "big5"];

fn wrong(text: String) -> Failure {
    Failure { text, code: 2 }
}

fn encoding(name: &str) -> Result<&'static Encoding, Failure> {
    let known = ENCODINGS.contains(&name.to_ascii_lowercase().as_str());
    Encoding::for_label(name.as_bytes()).filter(|_| known).ok_or_else(|| {
        let hint = nearest(name, ENCODINGS.into_iter()).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        wrong(format!("--encoding must be {}, not {name:?}{hint}", ENCODINGS.join(", ")))
    })
}

/// Masks standard input to standard output.
pub(super) fn run(mut config: Config, options: &Options) -> Result<(), Failure> {
    if let Some(policy) = &options.policy {
        policy.clone_into(&mut config.policy);
        let mut problems = Problems::new();
        config.check(&mut problems);
        if let Some(problem) = problems.list().iter().find(|problem| problem.key == "policy") {
            return Err(wrong(format!("--policy {}", problem.message)));
        }
    }
    let filter = Filter {
        masker: Masker::new(&config).map_err(|error| wrong(format!("masking rules: {error}")))?,
        encoding: encoding(&options.encoding)?,
        explain: options.explain,
        max_bytes: config.max_line_bytes,
    };
    match filter.run(io::stdin().lock(), io::BufWriter::new(io::stdout().lock())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(()),
    }
}

struct Filter {
    masker: Masker,
    encoding: &'static Encoding,
    explain: bool,
    max_bytes: u64,
}

impl Filter {
    fn run(&self, mut input: impl BufRead, mut out: impl Write) -> io::Result<()> {
        let mut state = LineState::default();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            // Room for a line end of two bytes, and one more to tell that the line is too long.
            input.by_ref().take(self.max_bytes + 3).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            let whole = line.last() == Some(&b'\n');
            let (text, _) = self.encoding.decode_with_bom_removal(&line);
            self.write(&mut out, &mut state, number, text.trim_end_matches(['\n', '\r']))?;
            if !whole {
                pass_over(&mut input)?;
            }
        }
        out.flush()
    }

    fn write(&self, out: &mut impl Write, state: &mut LineState, number: u64, text: &str) -> io::Result<()> {
        if !self.explain {
            return writeln!(out, "{}", self.masker.mask_line(state, text).text);
        }
        for finding in self.masker.explain_line(state, text) {
            write!(out, "line {number}, bytes {} to {}: {}, {}", finding.start, finding.end, finding.kind, finding.detector)?;
            match finding.key {
                Some(key) => writeln!(out, " {key}")?,
                None => writeln!(out)?,
            }
        }
        Ok(())
    }
}

/// Reads to the end of a line.
fn pass_over(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (used, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(explain: bool, encoding: &'static Encoding) -> Filter {
        let config = Config { max_line_bytes: 256, ..Config::default() };
        Filter { masker: Masker::new(&config).unwrap(), encoding, explain, max_bytes: config.max_line_bytes }
    }

    fn output(filter: &Filter, input: &[u8]) -> String {
        let mut out = Vec::new();
        filter.run(input, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_line_out_for_each_line_in() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", "A".repeat(64));
        let input = format!("password=a1b2\r\n\n{key}{}\nlast", "x".repeat(400));
        let masked = output(&filter(false, encoding_rs::UTF_8), input.as_bytes());
        let lines: Vec<&str> = masked.lines().collect();
        assert_eq!(lines[..5], ["password=[password]", "", "[private_key]", "[private_key]", "[private_key]"]);
        assert!(lines[5].starts_with("[masking failed: "), "{}", lines[5]);
        assert_eq!(lines[6..], ["last"]);
    }

    #[test]
    fn broken_input_has_a_line_for_each_of_its_lines() {
        let told = output(&filter(false, encoding_rs::UTF_8), b"\xff\xfe\0 password=a1b2\n\r\n\xef\xbb\xbfcvv=123\n\xc3");
        assert_eq!(told.lines().collect::<Vec<_>>(), ["\u{fffd}\u{fffd}\0 password=[password]", "", "cvv=[cvv]", "\u{fffd}"]);
        let told = output(&filter(false, encoding_rs::GBK), b"\xff password=a1b2 \x81\n\x81");
        assert_eq!(told.lines().count(), 2, "{told:?}");
        assert!(!told.contains("a1b2"), "{told:?}");
        assert_eq!(output(&filter(false, encoding_rs::UTF_8), b""), "");
        // Two lines too long, the last without an end.
        let long = [vec![b'x'; 300], b"\n".to_vec(), vec![b'y'; 5000]].concat();
        assert_eq!(output(&filter(false, encoding_rs::UTF_8), &long).lines().count(), 2);
    }

    #[test]
    fn other_encodings_are_read() {
        let (gbk, ..) = encoding_rs::GBK.encode("收货人：张三，状态：已付\n");
        assert_eq!(output(&filter(false, encoding_rs::GBK), &gbk), "收货人：[name]，状态：已付\n");
        assert!(encoding("gbk").is_ok() && encoding("BIG5").is_ok());
        assert!(encoding("utf-16le").is_err());
        assert!(encoding("gbkk").is_err_and(|failure| failure.text.contains("did you mean \"gbk\"")));
    }

    #[test]
    fn explanations_name_place_and_reason_but_no_value() {
        let told = output(&filter(true, encoding_rs::UTF_8), b"ok\nphone=13812345678 a@example.com\n");
        assert_eq!(told, "line 2, bytes 6 to 17: phone, key phone\nline 2, bytes 18 to 31: email, address of mail\n");
    }
}
