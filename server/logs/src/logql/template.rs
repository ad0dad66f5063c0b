//! Texts with actions, for `line_format` and `label_format`: `{{.method}} took {{ .took | default "?" | upper }}`.
//!
//! Of Go's templates there are fields, calls, pipes and parentheses; no `if`, `range`, `with`, variables or comments. What a
//! template says is checked when it is read: functions, their number of arguments, patterns.
//!
//! # Invariants
//! - Depth of parentheses and length of what is made are bounded.

use super::record::Record;
use crate::query::matcher::compile;
use functions::{Function, lookup};
use regex::Regex;

mod functions;

/// Deepest parentheses.
const DEPTH: usize = 16;
/// Longest text that one template makes.
const MADE_BYTES: usize = 1 << 20;

/// A template that was read.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Action(Operand),
}

#[derive(Clone, Debug)]
enum Operand {
    Text(String),
    Field(String),
    Line,
    Timestamp,
    Call(Function, Vec<Self>),
    /// A function whose first argument is a pattern.
    Pattern(Function, Regex, Vec<Self>),
}

impl Template {
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn new(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once("{{") {
            let mut reader = Reader { rest: after };
            let trims = reader.rest.strip_prefix("- ").map(|rest| reader.rest = rest).is_some();
            parts.push(Part::Text(if trims { before.trim_end() } else { before }.to_owned()));
            parts.push(Part::Action(reader.pipe(0)?));
            reader.space();
            rest = match (reader.rest.strip_prefix("}}"), reader.rest.strip_prefix("-}}")) {
                (Some(rest), _) => rest,
                (None, Some(rest)) => rest.trim_start(),
                (None, None) => return Err(reader.expected("`}}`")),
            };
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { source: source.to_owned(), parts })
    }

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Names of the labels that it asks for.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let mut out = Vec::new();
        for part in &self.parts {
            if let Part::Action(operand) = part {
                operand.fields(&mut out);
            }
        }
        out
    }

    /// # Errors
    /// A function cannot do what it is asked for.
    pub(crate) fn render(&self, record: &Record<'_>) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Action(operand) => out.push_str(&operand.value(record)?),
            }
            if out.len() > MADE_BYTES {
                return Err(format!("the template makes more than {MADE_BYTES} bytes"));
            }
        }
        Ok(out)
    }
}

impl Operand {
    fn fields<'t>(&'t self, out: &mut Vec<&'t str>) {
        match self {
            Self::Field(name) => out.push(name),
            Self::Call(_, arguments) | Self::Pattern(_, _, arguments) => arguments.iter().for_each(|argument| argument.fields(out)),
            Self::Text(_) | Self::Line | Self::Timestamp => {}
        }
    }

    fn value(&self, record: &Record<'_>) -> Result<String, String> {
        let values = |operands: &[Self]| operands.iter().map(|operand| operand.value(record)).collect::<Result<Vec<_>, _>>();
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Field(name) => Ok(record.get(name).unwrap_or_default().to_owned()),
            Self::Line => Ok(record.text.clone().into_owned()),
            Self::Timestamp => Ok(functions::rfc3339(record.ts_ns)),
            Self::Call(function, arguments) => function.call(&values(arguments)?),
            Self::Pattern(function, regex, arguments) => Ok(function.replace(regex, &values(arguments)?)),
        }
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn expected(&self, what: &str) -> String {
        let found = self.rest.chars().next().map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
        format!("template: expected {what}, found {found}")
    }

    /// `a | f x | g`: each value becomes the last argument of what follows.
    fn pipe(&mut self, depth: usize) -> Result<Operand, String> {
        if depth > DEPTH {
            return Err(format!("template: parentheses deeper than {DEPTH}"));
        }
        let mut value = self.command(None, depth)?;
        loop {
            self.space();
            let Some(rest) = self.rest.strip_prefix('|') else { return Ok(value) };
            self.rest = rest;
            value = self.command(Some(value), depth)?;
        }
    }

    fn command(&mut self, piped: Option<Operand>, depth: usize) -> Result<Operand, String> {
        self.space();
        let length = self.rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let name = self.rest.get(..length).filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
        let Some(name) = name else {
            let value = self.operand(depth)?.ok_or_else(|| self.expected("a field such as `.name`, a text, or a function"))?;
            return if piped.is_none() { Ok(value) } else { Err("template: a value is piped into what is no function".to_owned()) };
        };
        self.rest = self.rest.get(length..).unwrap_or_default();
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(depth)? {
            arguments.push(argument);
        }
        arguments.extend(piped);
        call(name, arguments)
    }

    fn operand(&mut self, depth: usize) -> Result<Option<Operand>, String> {
        self.space();
        let mut chars = self.rest.chars();
        Ok(Some(match chars.next() {
            Some('.') => {
                let rest = chars.as_str();
                let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                let (name, rest) = rest.split_at_checked(length).unwrap_or_default();
                if name.is_empty() {
                    return Err("template: expected the name of a label behind `.`".to_owned());
                }
                self.rest = rest;
                Operand::Field(name.to_owned())
            }
            Some('(') => {
                self.rest = chars.as_str();
                let value = self.pipe(depth + 1)?;
                self.space();
                self.rest = self.rest.strip_prefix(')').ok_or_else(|| self.expected("`)`"))?;
                value
            }
            Some('`') => {
                let (text, rest) = chars.as_str().split_once('`').ok_or("template: a text is not closed")?;
                self.rest = rest;
                Operand::Text(text.to_owned())
            }
            Some('"') => Operand::Text(self.quoted()?),
            Some(c) if c.is_ascii_digit() || (c == '-' && chars.as_str().starts_with(|c: char| c.is_ascii_digit())) => {
                let length = 1 + chars.as_str().bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
                let (number, rest) = self.rest.split_at_checked(length).unwrap_or_default();
                self.rest = rest;
                Operand::Text(number.to_owned())
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                match self.rest.split_once(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                    Some((name @ ("__line__" | "__timestamp__"), _)) => {
                        self.rest = self.rest.get(name.len()..).unwrap_or_default();
                        call(name, Vec::new())?
                    }
                    _ => return Err("template: put a call inside of another into parentheses".to_owned()),
                }
            }
            _ => return Ok(None),
        }))
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = self.rest.chars();
        chars.next();
        loop {
            match chars.next() {
                Some('"') => break,
                Some('\\') => match chars.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some(c @ ('"' | '\\')) => out.push(c),
                    other => return Err(format!("template: `\\{}` is not an escape", other.map(String::from).unwrap_or_default())),
                },
                Some(c) => out.push(c),
                None => return Err("template: a text is not closed".to_owned()),
            }
        }
        self.rest = chars.as_str();
        Ok(out)
    }
}

fn call(name: &str, mut arguments: Vec<Operand>) -> Result<Operand, String> {
    match name {
        "__line__" if arguments.is_empty() => return Ok(Operand::Line),
        "__timestamp__" if arguments.is_empty() => return Ok(Operand::Timestamp),
        "if" | "else" | "end" | "range" | "with" | "define" | "block" | "template" => {
            return Err(format!("template: `{name}` is not supported; docs/logql.md lists what is"));
        }
        _ => {}
    }
    let (function, expected) =
        lookup(name).ok_or_else(|| format!("template: the function `{name}` is not known; docs/logql.md lists all"))?;
    if !expected.contains(&arguments.len()) {
        return Err(format!("template: `{name}` does not take {} arguments", arguments.len()));
    }
    if function.takes_pattern() {
        let Operand::Text(pattern) = arguments.remove(0) else {
            return Err(format!("template: the pattern of `{name}` must be a text"));
        };
        return Ok(Operand::Pattern(
            function,
            compile(&pattern).map_err(|wrong| format!("template: the pattern is wrong: {wrong}"))?,
            arguments,
        ));
    }
    Ok(Operand::Call(function, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shipwatch_common::model::{Labels, Severity};

    #[track_caller]
    fn rendered(template: &str, expected: &str) {
        let labels = Labels::new([("app", "shop"), ("took", "1.5"), ("path", "/a b?c=支"), ("n", "7")]).unwrap();
        let record = Record::new(1_700_000_000_123_000_000, &labels, Severity::Info, "the line");
        let made = Template::new(template).and_then(|template| template.render(&record)).unwrap_or_else(|error| format!("error: {error}"));
        assert_eq!(made, expected, "{template}");
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.app}}-{{ .missing }}-{{.took}}", "shop--1.5"),
            ("{{ .app | ToUpper }} {{ ToUpper .app }} {{ .app | upper | lower }}", "SHOP SHOP shop"),
            (r#"{{ .missing | default "-" }}{{ .app | default "-" }}"#, "-shop"),
            (r#"{{ Replace .app "s" "S" -1 }} {{ .app | replace "o" "0" }}"#, "Shop sh0p"),
            ("{{ trunc 2 .app }} {{ trunc -2 .app }} {{ substr 1 3 .app }}", "sh op ho"),
            (r#"{{ trimPrefix "sh" .app }} {{ TrimSuffix .app "op" }} {{ .app | trimAll "sp" }}"#, "op sh ho"),
            (r#"{{ .path | urlencode }} {{ urldecode "%2Fa+b" }}"#, "%2Fa+b%3Fc%3D%E6%94%AF /a b"),
            ("{{ add 1 2 3 }} {{ sub 5 2 }} {{ mul .n 2 }} {{ div 7 2 }} {{ mod 7 2 }}", "6 3 14 3 1"),
            ("{{ addf 1.5 .took }} {{ mulf .took 2 }} {{ round .took 0 }} {{ int .took }}", "3 3 2 1"),
            (r#"{{ regexReplaceAll "(s)h" .app "${1}x" }} {{ regexReplaceAllLiteral "s" .app "$1" }}"#, "sxop $1hop"),
            (r#"{{ contains "ho" .app }} {{ hasPrefix "x" .app }} {{ eq .app "shop" }}"#, "true false true"),
            ("{{ __line__ | upper }} at {{ __timestamp__ }}", "THE LINE at 2023-11-14T22:13:20.123Z"),
            (r#"{{ (add .n 1) | mul 2 }} {{ printf "%s-%03d" .app .n }} a {{- .app -}} b"#, "16 shop-007 ashopb"),
            ("{{ .app | len }} {{ repeat 2 .app }} {{ .app | b64enc | b64dec }} {{ title .app }}", "4 shopshop shop Shop"),
            ("{{ div 1 0 }}", "error: template: division by zero"),
            ("{{ add .app 1 }}", "error: template: `shop` is not a whole number"),
            ("{{ if .app }}x{{ end }}", "error: template: `if` is not supported; docs/logql.md lists what is"),
            ("{{ nope .app }}", "error: template: the function `nope` is not known; docs/logql.md lists all"),
            ("{{ upper }}", "error: template: `upper` does not take 0 arguments"),
            ("{{ .app", "error: template: expected `}}`, found the end"),
            (r#"{{ regexReplaceAll "(" .app "" }}"#, "error: template: the pattern is wrong: unclosed group"),
        ] {
            rendered(template, expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}|.a-c\"`() 0-9-]{0,40}") {
            let labels = Labels::default();
            if let Ok(template) = Template::new(&text) {
                let _ = template.render(&Record::new(0, &labels, Severity::Info, "x"));
            }
        }
    }
}
