//! Fields of one line, by its form. Pure and bounded: at most [`MAX_FIELDS`], nested objects to a depth of [`MAX_DEPTH`].

use regex::Regex;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::{borrow::Cow, fmt};

/// More fields of a line are not looked at.
const MAX_FIELDS: usize = 128;
/// Deeper objects are not looked at.
const MAX_DEPTH: usize = 4;

/// Names and values in the order of the line.
#[derive(Debug, Default)]
pub(in crate::tail) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    /// The value of a field.
    pub(in crate::tail) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of `name`, or of the first of `usual` that is there if no name is given.
    pub(super) fn first(&self, name: &str, usual: &[&str]) -> Option<&str> {
        if name.is_empty() { usual.iter().find_map(|name| self.get(name)) } else { self.get(name) }
    }

    fn push(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        if self.0.len() < MAX_FIELDS {
            self.0.push((name.into(), value.into()));
        }
    }
}

/// What stands between pairs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Divider {
    /// logfmt.
    Space,
    /// Spaces, commas, semicolons, ampersands.
    Any,
}

/// `a=1 b="two words"`.
pub(super) fn pairs(text: &str, divider: Divider) -> Fields<'_> {
    let divides = |c: char| c.is_whitespace() || divider == Divider::Any && matches!(c, ',' | ';' | '&');
    let mut fields = Fields::default();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(divides);
        let Some(end) = rest.find(|c: char| c == '=' || divides(c)) else { return fields };
        let name = &rest[..end];
        rest = &rest[end..];
        let Some(value) = rest.strip_prefix('=') else { continue };
        let (value, after) = quoted(value).unwrap_or_else(|| {
            let end = value.find(divides).unwrap_or(value.len());
            (Cow::Borrowed(&value[..end]), &value[end..])
        });
        fields.push(name, value);
        rest = after;
    }
}

/// A text in double quotes with backslashes, and what is behind it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let whole = &text[..at + 2];
                // JSON's rules; what they do not know is taken as it stands.
                let value = serde_json::from_str::<String>(whole).map_or(Cow::Borrowed(&inner[..at]), Cow::Owned);
                return Some((value, &inner[at + 1..]));
            }
            _ => {}
        }
    }
    None
}

/// Named groups of a pattern.
pub(super) fn groups<'a>(regex: &Regex, text: &'a str) -> Fields<'a> {
    let mut fields = Fields::default();
    if let Some(found) = regex.captures(text) {
        for name in regex.capture_names().flatten() {
            if let Some(value) = found.name(name) {
                fields.push(name.to_owned(), value.as_str());
            }
        }
    }
    fields
}

/// `host ident user [time] "METHOD path HTTP/1.1" status bytes "referer" "agent"`, of nginx and Apache.
pub(super) fn combined(text: &str) -> Fields<'_> {
    parse_combined(text).unwrap_or_default()
}

fn parse_combined(text: &str) -> Option<Fields<'_>> {
    let mut fields = Fields::default();
    let (before, rest) = text.split_once(" [")?;
    let mut words = before.split(' ');
    fields.push("remote_addr", words.next()?);
    fields.push("remote_user", words.next_back().unwrap_or("-"));
    let (time, rest) = rest.split_once("] ")?;
    fields.push("time", time);
    let (request, rest) = quoted(rest)?;
    let mut words = request.splitn(3, ' ').map(ToOwned::to_owned);
    for name in ["method", "path", "protocol"] {
        if let Some(word) = words.next() {
            fields.push(name, word);
        }
    }
    let mut words = rest.split_ascii_whitespace();
    let (status, bytes) = (words.next()?, words.next().unwrap_or("-"));
    if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    fields.push("status", status);
    fields.push("bytes", bytes);
    let behind = rest.split_once('"').map(|(before, _)| &rest[before.len()..]);
    if let Some((referer, rest)) = behind.and_then(quoted) {
        fields.push("referer", referer);
        if let Some((agent, rest)) = quoted(rest.trim_start()) {
            fields.push("user_agent", agent);
            push_behind(&mut fields, rest);
        }
    }
    Some(fields)
}

/// What people put behind `combined`: `$request_time`, bare or as `rt=…`, and other pairs.
fn push_behind<'a>(fields: &mut Fields<'a>, rest: &'a str) {
    for (at, word) in rest.split_ascii_whitespace().enumerate() {
        match word.split_once('=') {
            Some(("rt" | "request_time", value)) => fields.push("request_time", value.trim_matches('"')),
            Some((name, value)) => fields.push(name, value.trim_matches('"')),
            None if at == 0 && word.trim_matches('"').parse::<f64>().is_ok() => fields.push("request_time", word.trim_matches('"')),
            None => {}
        }
    }
}

/// Scalars of an object; those of inner objects as `outer.inner`. Lists are left out.
pub(super) fn json(text: &str) -> Fields<'_> {
    let mut fields = Fields::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let object = Object { fields: &mut fields, prefix: "", depth: 0 };
    // What was read before a mistake (a line that was cut) is good.
    let _whole = object.deserialize(&mut reader);
    fields
}

/// Reads an object, or a scalar named `prefix`.
struct Object<'f, 'a> {
    fields: &'f mut Fields<'a>,
    prefix: &'f str,
    depth: usize,
}

impl<'a> DeserializeSeed<'a> for Object<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Object<'_, 'a> {
    fn put(self, value: impl Into<Cow<'a, str>>) {
        if self.depth > 0 {
            self.fields.push(self.prefix.to_owned(), value);
        }
    }
}

impl<'a> Visitor<'a> for Object<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(value.to_string());
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'a str) -> Result<(), E> {
        self.put(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.put(value.to_owned());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut list: S) -> Result<(), S::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<Cow<'a, str>>()? {
            if self.fields.0.len() >= MAX_FIELDS {
                return Err(M::Error::custom("too many fields"));
            }
            if self.depth >= MAX_DEPTH {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let name = if self.prefix.is_empty() { key.into_owned() } else { format!("{}.{key}", self.prefix) };
            map.next_value_seed(Object { fields: self.fields, prefix: &name, depth: self.depth + 1 })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &Fields<'_>, expected: &[(&str, &str)]) {
        let got: Vec<(&str, &str)> = fields.0.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn json_objects() {
        check(
            &json(r#"{"a":"x","n":1,"f":1.5,"b":true,"z":null,"l":[1,{"q":2}],"o":{"i":"\u652f"}}"#),
            &[("a", "x"), ("n", "1"), ("f", "1.5"), ("b", "true"), ("o.i", "支")],
        );
        check(&json(r#"{"a":"x","cut":"of"#), &[("a", "x")]);
        check(&json("[1]"), &[]);
        check(&json("no"), &[]);
        check(&json(&format!("{}1{}", r#"{"a":"#.repeat(300), "}".repeat(300))), &[]);
        let many = (0..500).map(|at| format!("\"k{at}\":{at}")).collect::<Vec<_>>().join(",");
        assert_eq!(json(&format!("{{{many}}}")).0.len(), MAX_FIELDS);
    }

    #[test]
    fn pairs_of_both_kinds() {
        check(
            &pairs(r#"a=1 b="two \"words\"" c= flag d=x=y"#, Divider::Space),
            &[("a", "1"), ("b", "two \"words\""), ("c", ""), ("d", "x=y")],
        );
        check(&pairs("a=1, b=2;c=3 & d=4", Divider::Any), &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        check(&pairs("a=\"open", Divider::Space), &[("a", "\"open")]);
        check(&pairs("nothing here", Divider::Space), &[]);
        check(&pairs("支=付", Divider::Space), &[("支", "付")]);
    }

    #[test]
    fn access_lines() {
        check(
            &combined(r#"10.0.0.1 - bob [23/Nov/2026:08:00:00 +0000] "GET /a?b=1 HTTP/1.1" 200 512 "http://x/" "Mozilla \"5\"" 0.01"#),
            &[
                ("remote_addr", "10.0.0.1"),
                ("remote_user", "bob"),
                ("time", "23/Nov/2026:08:00:00 +0000"),
                ("method", "GET"),
                ("path", "/a?b=1"),
                ("protocol", "HTTP/1.1"),
                ("status", "200"),
                ("bytes", "512"),
                ("referer", "http://x/"),
                ("user_agent", "Mozilla \"5\""),
                ("request_time", "0.01"),
            ],
        );
        assert_eq!(combined(r#"1.1.1.1 - - [t] "\x16\x03" 400 0"#).get("status"), Some("400"));
        check(&combined("2026-11-23 ERROR [x] y"), &[]);
        check(&combined(""), &[]);
    }

    #[test]
    fn groups_of_a_pattern() {
        let regex = Regex::new(r"(?<a>\d+)(?<b>x)?").unwrap();
        check(&groups(&regex, "n 12"), &[("a", "12")]);
        check(&groups(&regex, "none"), &[]);
    }
}
