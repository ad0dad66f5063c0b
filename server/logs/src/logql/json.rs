//! JSON in log lines: every field of an object by its flattened name, or the value at a path. Numbers keep their digits.
//!
//! # Invariants
//! - Any text is read or refused; depth is bounded by [`DEPTH`]. Nothing is copied but names of nested fields and texts
//!   with escapes.

use std::borrow::Cow;

/// Deepest nesting.
const DEPTH: usize = 64;

type Result<T> = std::result::Result<T, String>;

/// A value, its insides not looked at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'t> {
    Null,
    Text(Cow<'t, str>),
    /// A number, `true`, `false`.
    Plain(&'t str),
    /// An object or an array, as it is written.
    Inside(&'t str),
}

/// A step of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Calls `found` with each text, number and truth value of an object; names of nested fields are joined by `_`. Arrays and
/// nulls are left out.
pub(crate) fn flatten<'t>(text: &'t str, found: &mut dyn FnMut(Cow<'t, str>, Cow<'t, str>) -> Result<()>) -> Result<()> {
    let mut reader = Reader { text, at: 0 };
    reader.space();
    if reader.peek() != Some(b'{') {
        return Err(reader.expected("an object"));
    }
    reader.flatten("", 0, found)?;
    reader.end()
}

/// Calls `found` with the fields of an object, not looking deeper.
pub(crate) fn fields<'t>(text: &'t str, found: &mut dyn FnMut(Cow<'t, str>, Value<'t>) -> Result<()>) -> Result<()> {
    let mut reader = Reader { text, at: 0 };
    reader.object(&mut |reader, name| {
        let value = reader.value(1)?;
        found(name, value)
    })?;
    reader.end()
}

/// The value at a path; nothing where there is none.
pub(crate) fn find<'t>(text: &'t str, path: &[Step]) -> Result<Option<Value<'t>>> {
    let mut reader = Reader { text, at: 0 };
    let Some((step, rest)) = path.split_first() else {
        let value = reader.value(0)?;
        return reader.end().map(|()| Some(value));
    };
    let mut found = None;
    reader.space();
    match (step, reader.peek()) {
        (Step::Key(key), Some(b'{')) => reader.object(&mut |reader, name| {
            let value = reader.raw(1)?;
            if found.is_none() && name == *key {
                found = Some(value);
            }
            Ok(())
        })?,
        (Step::Index(index), Some(b'[')) => {
            let mut at = 0;
            reader.array(&mut |reader| {
                let value = reader.raw(1)?;
                if at == *index {
                    found = Some(value);
                }
                at += 1;
                Ok(())
            })?;
        }
        _ => drop(reader.value(0)?),
    }
    reader.end()?;
    found.map_or(Ok(None), |inner| find(inner, rest))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expected(&self, what: &str) -> String {
        let found = self.rest().chars().next().map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
        format!("expected {what} at byte {}, found {found}", self.at)
    }

    fn take(&mut self, sign: u8) -> bool {
        self.space();
        let is = self.peek() == Some(sign);
        self.at += usize::from(is);
        is
    }

    fn end(&mut self) -> Result<()> {
        self.space();
        if self.rest().is_empty() { Ok(()) } else { Err(self.expected("the end")) }
    }

    /// An object; `field` reads each value.
    fn object(&mut self, field: &mut dyn FnMut(&mut Self, Cow<'t, str>) -> Result<()>) -> Result<()> {
        if !self.take(b'{') {
            return Err(self.expected("an object"));
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let name = self.string()?;
            if !self.take(b':') {
                return Err(self.expected("`:`"));
            }
            field(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `}`"));
            }
        }
    }

    fn array(&mut self, item: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if !self.take(b'[') {
            return Err(self.expected("an array"));
        }
        if self.take(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("`,` or `]`"));
            }
        }
    }

    fn flatten(&mut self, prefix: &str, depth: usize, found: &mut dyn FnMut(Cow<'t, str>, Cow<'t, str>) -> Result<()>) -> Result<()> {
        if depth > DEPTH {
            return Err(format!("nested deeper than {DEPTH}"));
        }
        self.object(&mut |reader, name| {
            let name = if prefix.is_empty() { name } else { format!("{prefix}_{name}").into() };
            reader.space();
            if reader.peek() == Some(b'{') {
                return reader.flatten(&name, depth + 1, found);
            }
            match reader.value(depth + 1)? {
                Value::Text(text) => found(name, text),
                Value::Plain(text) => found(name, text.into()),
                Value::Null | Value::Inside(_) => Ok(()),
            }
        })
    }

    /// Any value; what is inside is checked and skipped.
    fn value(&mut self, depth: usize) -> Result<Value<'t>> {
        if depth > DEPTH {
            return Err(format!("nested deeper than {DEPTH}"));
        }
        self.space();
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => {
                self.object(&mut |reader, _| reader.value(depth + 1).map(drop))?;
                Ok(Value::Inside(self.text.get(start..self.at).unwrap_or_default()))
            }
            Some(b'[') => {
                self.array(&mut |reader| reader.value(depth + 1).map(drop))?;
                Ok(Value::Inside(self.text.get(start..self.at).unwrap_or_default()))
            }
            _ => self.plain(),
        }
    }

    /// Any value as it is written.
    fn raw(&mut self, depth: usize) -> Result<&'t str> {
        self.space();
        let start = self.at;
        self.value(depth)?;
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn plain(&mut self) -> Result<Value<'t>> {
        let length = self.rest().bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')).count();
        let word = self.rest().get(..length).unwrap_or_default();
        let value = match word {
            "null" => Value::Null,
            "true" | "false" => Value::Plain(word),
            _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') && word.parse::<f64>().is_ok() => Value::Plain(word),
            _ => return Err(self.expected("a value")),
        };
        self.at += length;
        Ok(value)
    }

    fn string(&mut self) -> Result<Cow<'t, str>> {
        if !self.take(b'"') {
            return Err(self.expected("`\"`"));
        }
        let start = self.at;
        let mut owned: Option<String> = None;
        loop {
            let rest = self.rest();
            let length = rest.find(['"', '\\']).ok_or("a text is not closed")?;
            let piece = rest.get(..length).unwrap_or_default();
            if let Some(owned) = &mut owned {
                owned.push_str(piece);
            }
            self.at += length + 1;
            if rest.as_bytes().get(length) == Some(&b'"') {
                let whole = self.text.get(start..self.at - 1).unwrap_or_default();
                return Ok(owned.map_or(Cow::Borrowed(whole), Cow::Owned));
            }
            let so_far = owned.get_or_insert_with(|| self.text.get(start..self.at - 1).unwrap_or_default().to_owned());
            let c = Self::escape(self.text, &mut self.at)?;
            so_far.push(c);
        }
    }

    fn escape(text: &str, at: &mut usize) -> Result<char> {
        let sign = text.as_bytes().get(*at).copied();
        *at += 1;
        Ok(match sign {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(sign @ (b'"' | b'\\' | b'/')) => char::from(sign),
            Some(b'u') => {
                let first = hex4(text, at)?;
                let paired = (0xd800..0xdc00).contains(&first) && text.get(*at..).is_some_and(|rest| rest.starts_with("\\u"));
                if !paired {
                    return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let mut after = *at + 2;
                let second = hex4(text, &mut after)?;
                match (0xdc00..0xe000).contains(&second) {
                    true => {
                        *at = after;
                        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    false => char::REPLACEMENT_CHARACTER,
                }
            }
            _ => return Err(format!("an escape at byte {} is not known", at.saturating_sub(2))),
        })
    }
}

fn hex4(text: &str, at: &mut usize) -> Result<u32> {
    let digits = text.get(*at..*at + 4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    *at += 4;
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| "`\\u` is not followed by four digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<Vec<(String, String)>> {
        let mut out = Vec::new();
        flatten(text, &mut |name, value| {
            out.push((name.into_owned(), value.into_owned()));
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn objects_are_flattened() {
        let found = all(r#" {"a":{"b":"c","d":{"e":1.50}},"f":[1,{"g":2}],"h":null,"i":true,"j":"x\"\u652f\ud83d\ude00"} "#).unwrap();
        let expected = [("a_b", "c"), ("a_d_e", "1.50"), ("i", "true"), ("j", "x\"支😀")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for bad in ["", "[]", "1", "{", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1} x"#, r#"{"a":"\q"}"#, r#"{"a":01x}"#, "{a:1}"] {
            assert!(all(bad).is_err(), "{bad}");
        }
        assert!(all(&r#"{"a":"#.repeat(100)).unwrap_err().contains("deeper"));
    }

    #[test]
    fn paths_find_values() {
        let text = r#"{"servers":["10.0.0.1",{"x y":2}],"o":{"k":"v"},"n":null}"#;
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(find(text, &[key("servers"), Step::Index(0)]), Ok(Some(Value::Text("10.0.0.1".into()))));
        assert_eq!(find(text, &[key("servers"), Step::Index(1), key("x y")]), Ok(Some(Value::Plain("2"))));
        assert_eq!(find(text, &[key("o")]), Ok(Some(Value::Inside(r#"{"k":"v"}"#))));
        assert_eq!(find(text, &[key("o"), Step::Index(0)]), Ok(None));
        assert_eq!(find(text, &[key("n")]), Ok(Some(Value::Null)));
        assert!(find("{", &[key("n")]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}\\[\\]\",:a1.\\\\u\\- 支n]{0,40}") {
            let _ = all(&text);
            let _ = find(&text, &[Step::Key("a".into()), Step::Index(1)]);
        }

        #[test]
        fn a_json_library_agrees(text in "\\PC{0,20}", number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let line = serde_json::json!({"t": text, "n": number}).to_string();
            let expected = [("t", text), ("n", serde_json::to_string(&number).unwrap())];
            prop_assert_eq!(all(&line).unwrap(), expected.map(|(name, value)| (name.to_owned(), value)));
        }
    }
}
