//! Labels out of a line's text: logfmt, patterns, regular expressions.

use regex::Regex;
use std::borrow::Cow;

/// A name and what it is worth, in the order of the line.
pub(crate) type Pair<'t> = (Cow<'t, str>, Cow<'t, str>);

/// Makes a label's name of any text: other characters than ASCII letters and digits become `_`.
pub(crate) fn label_name(name: Cow<'_, str>) -> Cow<'_, str> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit_first = name.starts_with(|c: char| c.is_ascii_digit());
    if !digit_first && name.chars().all(is_fine) {
        return name;
    }
    let mut made = if digit_first { "_".to_owned() } else { String::new() };
    made.extend(name.chars().map(|c| if is_fine(c) { c } else { '_' }));
    made.into()
}

/// Calls `found` with each pair of `key=value key="quoted value" word`; a word alone has the empty value. `strict` refuses
/// what is no pair, otherwise it is skipped.
pub(crate) fn logfmt<'t>(text: &'t str, strict: bool, found: &mut dyn FnMut(Pair<'t>) -> Result<(), String>) -> Result<(), String> {
    let mut at = 0;
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let is_key = |byte: u8| byte > b' ' && byte != b'=' && byte != b'"';
    loop {
        while byte(at).is_some_and(|byte| byte <= b' ') {
            at += 1;
        }
        let start = at;
        while byte(at).is_some_and(is_key) {
            at += 1;
        }
        let key = text.get(start..at).unwrap_or_default();
        match byte(at) {
            None if key.is_empty() => return Ok(()),
            Some(b'=') if !key.is_empty() => {
                at += 1;
                match value(text, &mut at) {
                    Ok(value) => found((key.into(), value))?,
                    Err(error) if strict => return Err(error),
                    Err(_) => {
                        while byte(at).is_some_and(|byte| byte > b' ') {
                            at += 1;
                        }
                    }
                }
            }
            None | Some(0..=b' ') => found((key.into(), "".into()))?,
            Some(_) if strict => {
                return Err(format!(
                    "unexpected `{}` at byte {at}",
                    text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default()
                ));
            }
            // What is no pair is skipped up to the next space.
            Some(_) => {
                while byte(at).is_some_and(|byte| byte > b' ') {
                    at += 1;
                }
            }
        }
    }
}

fn value<'t>(text: &'t str, at: &mut usize) -> Result<Cow<'t, str>, String> {
    let rest = text.get(*at..).unwrap_or_default();
    let Some(quoted) = rest.strip_prefix('"') else {
        let length = rest.bytes().position(|byte| byte <= b' ').unwrap_or(rest.len());
        let value = rest.get(..length).unwrap_or_default();
        if value.contains(['"', '=']) {
            return Err(format!("unexpected `\"` or `=` in the value at byte {at}"));
        }
        *at += length;
        return Ok(value.into());
    };
    let mut escaped = false;
    let mut end = None;
    for (index, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                end = Some(index);
                break;
            }
            _ => {}
        }
    }
    let Some(end) = end else { return Err(format!("the value at byte {at} is not closed")) };
    *at += end + 2;
    let inner = quoted.get(..end).unwrap_or_default();
    Ok(if inner.contains('\\') { unescape(inner).into() } else { inner.into() })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('u') => {
                    let digits: String = chars.clone().take(4).collect();
                    match u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4) {
                        Some(code) => {
                            out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                            chars.nth(3);
                        }
                        None => out.push('u'),
                    }
                }
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// A pattern such as `<ip> - - <_> "<method> <path>"`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Pattern(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(String),
    /// Nothing is the name of `<_>`.
    Capture(Option<String>),
}

impl Pattern {
    /// # Errors
    /// No capture, or two with nothing between.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let name = rest.strip_prefix('<').and_then(|inner| inner.split_once('>')).map(|(name, _)| name).filter(|name| is_name(name));
            let Some(name) = name else {
                literal.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            } else if matches!(parts.last(), Some(Part::Capture(_))) {
                return Err(format!("`<{name}>` follows another capture at once; put a text between them"));
            }
            parts.push(Part::Capture((name != "_").then(|| name.to_owned())));
            rest = rest.get(name.len() + 2..).unwrap_or_default();
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let names: Vec<_> = parts.iter().filter_map(|part| if let Part::Capture(Some(name)) = part { Some(name) } else { None }).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        if unique.len() != names.len() {
            return Err("a name is captured twice".to_owned());
        }
        Ok(Self(parts))
    }

    /// Whether a name is captured at all.
    pub(crate) fn captures(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Capture(Some(_))))
    }

    /// What the captures hold, as far as the line follows the pattern.
    pub(crate) fn extract<'t>(&'t self, text: &'t str, found: &mut dyn FnMut(Pair<'t>)) {
        let mut rest = text;
        let mut parts = self.0.as_slice();
        if let Some((Part::Literal(literal), after)) = parts.split_first() {
            let Some(behind) = rest.strip_prefix(literal.as_str()) else { return };
            (rest, parts) = (behind, after);
        }
        while let Some((Part::Capture(name), after)) = parts.split_first() {
            let (value, behind, next) = match after.split_first() {
                Some((Part::Literal(literal), next)) => match rest.split_once(literal.as_str()) {
                    Some((value, behind)) => (value, behind, next),
                    // Without its end, a capture takes the rest of the line.
                    None => (rest, "", [].as_slice()),
                },
                _ => (rest, "", [].as_slice()),
            };
            if let Some(name) = name {
                found((name.as_str().into(), value.into()));
            }
            (rest, parts) = (behind, next);
        }
    }

    /// The regular expression of a line filter `|>`: the whole line must follow the pattern.
    pub(crate) fn to_regex(&self) -> String {
        let part = |part: &Part| match part {
            Part::Literal(literal) => regex::escape(literal),
            Part::Capture(_) => ".*".to_owned(),
        };
        format!("^(?s:{})$", self.0.iter().map(part).collect::<String>())
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Calls `found` with the named groups of the first match.
pub(crate) fn regexp<'t>(regex: &'t Regex, text: &'t str, found: &mut dyn FnMut(Pair<'t>)) {
    let Some(groups) = regex.captures(text) else { return };
    for name in regex.capture_names().flatten() {
        if let Some(value) = groups.name(name) {
            found((name.into(), value.as_str().into()));
        }
    }
}

/// Takes out colours and other sequences of terminals.
pub(crate) fn decolorize(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1b}') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let end = after.find(|c: char| ('\u{40}'..='\u{7e}').contains(&c));
        rest = end.and_then(|end| after.get(end + 1..)).unwrap_or_default();
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str, strict: bool) -> Result<String, String> {
        let mut out = Vec::new();
        logfmt(text, strict, &mut |(name, value)| {
            out.push(format!("{name}={value}"));
            Ok(())
        })?;
        Ok(out.join("|"))
    }

    #[test]
    fn logfmt_gives_pairs() {
        let line = r#"at=info method=GET path=/ host=grafana.net fwd="124.133.124.161" note="a \"b\" \u652f" empty= flag status=200"#;
        let expected = "at=info|method=GET|path=/|host=grafana.net|fwd=124.133.124.161|note=a \"b\" 支|empty=|flag=|status=200";
        assert_eq!(pairs(line, true).unwrap(), expected);
        assert_eq!(pairs(r#"a=1 "junk" b=2 =x c="open d=3"#, false).unwrap(), "a=1|b=2|d=3");
        for bad in [r#"a=1 "junk""#, "=x", r#"c="open"#, "a=b=c"] {
            assert!(pairs(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_labels_are_made() {
        for (name, expected) in [("a", "a"), ("a.b-c", "a_b_c"), ("1a", "_1a"), ("支付", "__"), ("", "")] {
            assert_eq!(label_name(name.into()), expected);
        }
    }

    #[track_caller]
    fn captured(pattern: &str, text: &str, expected: &str) {
        let pattern = Pattern::new(pattern).unwrap();
        let mut out = Vec::new();
        pattern.extract(text, &mut |(name, value)| out.push(format!("{name}={value}")));
        assert_eq!(out.join("|"), expected, "{pattern:?} on {text}");
    }

    #[test]
    fn patterns_capture() {
        let line = r#"0.191.12.2 - - [10/Jun/2021:09:14:29 +0000] "GET /api/plugins/versioncheck HTTP/1.1" 200 2 "-" "Go-http-client/2.0" "13.76.247.102, 34.120.177.193" "TLSv1.2" "US" """#;
        captured(
            r#"<ip> - - <_> "<method> <uri> <_>" <status> <size> <_> "<agent>" <_>"#,
            line,
            "ip=0.191.12.2|method=GET|uri=/api/plugins/versioncheck|status=200|size=2|agent=Go-http-client/2.0",
        );
        captured("level=<level> msg", "level=info msg", "level=info");
        captured("level=<level> msg", "x level=info msg", "");
        captured("<a>:<b>", "no end", "a=no end");
        captured("<a>:<b>", "1:2:3", "a=1|b=2:3");
        captured("<not a name> <x>", "<not a name> 5", "x=5");
        assert!(Pattern::new("<a><b>").unwrap_err().contains("between them"));
        assert!(Pattern::new("<a> <a>").unwrap_err().contains("twice"));
        assert!(!Pattern::new("<_> x").unwrap().captures());
        let filter = Regex::new(&Pattern::new("<_>level=<_> (x)").unwrap().to_regex()).unwrap();
        assert!(filter.is_match("a level=b (x)") && !filter.is_match("a level=b (x) y"));
    }

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(decolorize("\u{1b}[31mred\u{1b}[0m x"), "red x");
        assert_eq!(decolorize("plain"), "plain");
        assert_eq!(decolorize("cut \u{1b}[3"), "cut ");
    }

    proptest! {
        #[test]
        fn any_text_is_looked_through(text in "\\PC{0,40}", pattern in "[<>a_b \"=]{0,20}") {
            let _ = pairs(&text, false);
            let _ = pairs(&text, true);
            let _ = decolorize(&text);
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.extract(&text, &mut |_| ());
                assert!(Regex::new(&pattern.to_regex()).is_ok());
            }
        }
    }
}
