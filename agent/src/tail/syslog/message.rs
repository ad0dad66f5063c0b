//! One message of syslog, in the form of RFC 5424, of RFC 3164, or in what senders make of it.
//!
//! Pure. What does not have a form is taken as it stands: a message is never lost for its form.

use crate::tail::parse::Parser;
use shipwatch_common::{model::Severity, time::UnixNs};
use std::{borrow::Cow, fmt::Write as _};

/// Names of facilities, by number.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// Longest tag of RFC 3164 that is believed; the RFC says 32.
const TAG_CHARS: usize = 128;

/// What a message says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) facility: Option<&'static str>,
    pub(super) severity: Severity,
    pub(super) ts_ns: Option<UnixNs>,
    pub(super) host: Option<String>,
    pub(super) app: Option<String>,
    pub(super) text: String,
}

/// Reads a message. Times without a zone or year are of the parser's zone, and of the year that brings them nearest to `now`.
pub(super) fn parse(text: &str, parser: &Parser, now: UnixNs) -> Message {
    let text = text.trim_end_matches(['\r', '\n', '\0']);
    let Some((priority, rest)) = priority(text) else { return Message { text: text.to_owned(), ..Message::default() } };
    let mut message = rest.strip_prefix("1 ").and_then(|rest| rfc5424(rest, parser, now)).unwrap_or_else(|| rfc3164(rest, parser, now));
    message.facility = FACILITIES.get(usize::from(priority / 8)).copied();
    message.severity = match priority % 8 {
        0..=2 => Severity::Fatal,
        3 => Severity::Error,
        4 => Severity::Warn,
        5 | 6 => Severity::Info,
        _ => Severity::Debug,
    };
    message
}

fn priority(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    let is_number = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let priority = digits.parse().ok().filter(|priority| is_number && *priority <= 191)?;
    Some((priority, rest))
}

fn named(word: &str) -> Option<String> {
    (word != "-" && !word.is_empty()).then(|| word.to_owned())
}

/// `TIME HOST APP PROCESS ID STRUCTURED-DATA MESSAGE`, behind the version.
fn rfc5424(rest: &str, parser: &Parser, now: UnixNs) -> Option<Message> {
    let mut words = rest.splitn(6, ' ');
    let (time, host, app, process, id) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let rest = words.next()?;
    let ts_ns = parser.told_time(time, now);
    if ts_ns.is_none() && time != "-" {
        return None;
    }
    let (data, rest) = structured(rest)?;
    let body = rest.strip_prefix(' ').unwrap_or(rest).trim_start_matches('\u{feff}');
    // rsyslog keeps the space that stood behind a tag.
    let body = body.strip_prefix(' ').unwrap_or(body);
    let mut text = body.to_owned();
    // An object stays one, so that its fields are found.
    let is_object = body.starts_with('{') && body.ends_with('}');
    if !is_object {
        for (name, word) in [("procid", process), ("msgid", id)] {
            if word != "-" {
                let _never_fails = write!(text, "{}{name}={word}", if text.is_empty() { "" } else { " " });
            }
        }
    }
    for (name, value) in data {
        let quoted = serde_json::to_string(&value).unwrap_or_default();
        let _never_fails = write!(text, "{}{name}={quoted}", if text.is_empty() { "" } else { " " });
    }
    Some(Message { ts_ns, host: named(host), app: named(app), text, ..Message::default() })
}

type Data = Vec<(String, String)>;

/// `-`, or `[id name="value" …]…` with `\"`, `\\` and `\]`, as `id.name` and value; and what is behind.
fn structured(text: &str) -> Option<(Data, &str)> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some((Data::new(), rest));
    }
    let (mut data, mut rest) = (Data::new(), text);
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        // Without the number of its owner, which would make an address of it: `order@32473.id`.
        let id = element[..end].split('@').next().unwrap_or_default();
        rest = &element[end..];
        loop {
            rest = rest.trim_start_matches(' ');
            if let Some(behind) = rest.strip_prefix(']') {
                rest = behind;
                break;
            }
            let (name, value) = rest.split_once("=\"")?;
            let (value, behind) = quoted(value)?;
            data.push((format!("{id}.{name}"), value));
            rest = behind;
        }
    }
    (!data.is_empty() || rest.len() < text.len()).then_some((data, rest))
}

/// Up to a quote that no backslash stands before, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '"' | '\\' | ']' if escaped => {
                value.pop();
                value.push(c);
                escaped = false;
            }
            '"' => return Some((value, &text[at + 1..])),
            _ => {
                value.push(c);
                escaped = c == '\\';
            }
        }
    }
    None
}

/// `TIME HOST TAG[PROCESS]: MESSAGE`, of which each part may be missing.
fn rfc3164(rest: &str, parser: &Parser, now: UnixNs) -> Message {
    let (time, behind) = split_time(rest);
    let ts_ns = time.and_then(|time| parser.told_time(&time, now));
    if ts_ns.is_none() {
        let (app, text) = split_tag(rest);
        return Message { app, text, ..Message::default() };
    }
    let behind = behind.trim_start();
    // A local logger leaves the host out: then the first word is the tag.
    let (host, rest) = match behind.split_once(' ') {
        Some((word, rest)) if !word.ends_with(':') && !word.contains('[') && !word.is_empty() => (named(word), rest),
        _ => (None, behind),
    };
    let (app, text) = split_tag(rest);
    Message { ts_ns, host, app, text, ..Message::default() }
}

/// `Nov 23 08:00:00`, `Nov 23 2026 08:00:00`, with a fraction, or ISO 8601; and what is behind it.
fn split_time(text: &str) -> (Option<Cow<'_, str>>, &str) {
    // Devices mark clocks that are not set.
    let text = text.trim_start_matches(['*', '.']);
    let words = if text.starts_with(|c: char| c.is_ascii_digit()) { 1 } else { 3 };
    let (mut end, mut seen, mut inside) = (0, 0, false);
    for (at, c) in text.char_indices().take(64) {
        if inside && c == ' ' {
            seen += 1;
            // A year stands before the clock on some devices.
            let is_year = seen == 3 && at - end == 5 && words == 3 && text[end..at].trim().bytes().all(|byte| byte.is_ascii_digit());
            if seen == words && !is_year {
                return (Some(Cow::Borrowed(&text[..at])), &text[at..]);
            }
            if seen > words {
                // The usual order has it last.
                let (day, year, clock) = (&text[..end - 5], &text[end - 5..end], &text[end..at]);
                return (Some(Cow::Owned(format!("{day}{clock}{year}"))), &text[at..]);
            }
            end = at;
        }
        inside = c != ' ';
    }
    (None, text)
}

/// `tag: text`, `tag[1]: text`; the process stays with the text.
fn split_tag(text: &str) -> (Option<String>, String) {
    let is_tag = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@' | '%' | '(' | ')' | '#');
    let end = text.find(|c| !is_tag(c)).unwrap_or(text.len());
    let (tag, rest) = text.split_at(end);
    if tag.is_empty() || tag.chars().count() > TAG_CHARS {
        return (None, text.to_owned());
    }
    let (process, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((process, rest)) => (process, rest),
        None => ("", rest),
    };
    let Some(body) = rest.strip_prefix(':') else { return (None, text.to_owned()) };
    let body = body.strip_prefix(' ').unwrap_or(body);
    let is_object = body.starts_with('{') && body.ends_with('}');
    let told = if process.is_empty() || is_object { body.to_owned() } else { format!("{body} procid={process}") };
    (Some(tag.to_owned()), told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::parse::Config;

    const NOW: UnixNs = 1_795_420_800_000_000_000; // 2026-11-23T08:00:00Z

    /// Facility, severity, seconds from now, host, app, text.
    #[track_caller]
    fn check(text: &str, facility: &str, severity: Severity, seconds: Option<i64>, host: &str, app: &str, body: &str) {
        let zone = jiff::tz::TimeZone::get("Asia/Shanghai").unwrap();
        let parser = Parser::new(&Config::default(), zone).unwrap();
        let message = parse(text, &parser, NOW);
        let or_none = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        assert_eq!(message.text, body);
        assert_eq!((message.facility.unwrap_or(""), message.severity), (facility, severity), "{text}");
        assert_eq!(message.ts_ns.map(|at| (at - NOW) / 1_000_000_000), seconds, "{text}");
        assert_eq!((message.host, message.app), (or_none(host), or_none(app)), "{text}");
    }

    #[test]
    fn messages_of_rfc_5424() {
        use Severity::{Error, Fatal, Info};
        let data = r#"<165>1 2026-11-23T08:00:03.000003Z web-1 shop 77 ID47 [a@1 x="1" y="q\"\]\\"][b z="支"] paid"#;
        check(data, "local4", Info, Some(3), "web-1", "shop", r#"paid procid=77 msgid=ID47 a.x="1" a.y="q\"]\\" b.z="支""#);
        check("<34>1 2026-11-23T16:00:01+08:00 - su - - - \u{feff}'su' failed", "auth", Fatal, Some(1), "", "su", "'su' failed");
        check("<11>1 - - - - - -", "user", Error, None, "", "", "");
        check("<14>1 - h a 5 - - {\"a\":1}", "user", Info, None, "h", "a", "{\"a\":1}");
        check("<14>1 - h a - - [x] text", "user", Info, None, "h", "a", "text");
        // What is not well-formed is not lost.
        check("<14>1 yesterday h a: - -", "user", Info, None, "", "", "1 yesterday h a: - -");
        check("<14>1 - h a - - [x y=\"1 text", "user", Info, None, "", "", "1 - h a - - [x y=\"1 text");
    }

    #[test]
    fn messages_of_rfc_3164_and_its_kin() {
        use Severity::{Debug, Error, Info, Unknown, Warn};
        check("<14>Nov 23 16:00:05 web-1 sshd[42]: Accepted", "user", Info, Some(5), "web-1", "sshd", "Accepted procid=42");
        check("<11>Nov  3 16:00:00 web-1 cron: x", "user", Error, Some(-20 * 86_400), "web-1", "cron", "x");
        check("<12>2026-11-23T08:00:06.5+00:00 web-1 app: x y", "user", Warn, Some(6), "web-1", "app", "x y");
        check("<15>Nov 23 16:00:07 app[1]: no host", "user", Debug, Some(7), "", "app", "no host procid=1");
        check("<189>*Nov 23 2026 16:00:08 sw1 %SYS-5-CONFIG: by console", "local7", Info, Some(8), "sw1", "%SYS-5-CONFIG", "by console");
        check("<13>app: no time", "user", Info, None, "", "app", "no time");
        check("<13>free text, with: nothing", "user", Info, None, "", "", "free text, with: nothing");
        check("<192>x", "", Unknown, None, "", "", "<192>x");
        check("no priority\r\n\0", "", Unknown, None, "", "", "no priority");
        check("", "", Unknown, None, "", "", "");
        check("<13>", "user", Info, None, "", "", "");
        // Without a year it is of the last one that is not ahead.
        check("<14>Dec 31 16:00:00 h a: x", "user", Info, Some(-327 * 86_400), "h", "a", "x");
    }
}
