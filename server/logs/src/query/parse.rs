//! The text of a query.
//!
//! ```text
//! query    = selector { filter } | words
//! selector = "{" matcher { "," matcher } "}"
//! matcher  = name ( "=" | "!=" | "=~" | "!~" ) string
//! filter   = ( "|=" | "!=" | "|~" | "!~" ) string
//!          | "|" ( "severity" | "level" | "detected_level" ) ( "=" | "!=" | "=~" | "!~" ) string
//! string   = '"' with Go's escapes '"' | "`" as it is "`"
//! words    = { word | '"' phrase '"' }        where no "{" is outside of quotes
//! ```
//!
//! # Invariants
//! - Any text is read or refused with a column; sizes are bounded before patterns are compiled.

use super::{
    ANY_SEVERITY, Query,
    matcher::{LineFilter, Matcher},
    scan::{ParseError, Scanner},
    severity_bit,
};
use crate::store::block::SEVERITIES;

pub(crate) fn parse(text: &str) -> Result<Query, ParseError> {
    let mut parser = Scanner::new(text, false)?;
    parser.space();
    if parser.peek() == Some('{') { parser.logql() } else { parser.words() }
}

impl Scanner<'_> {
    fn logql(&mut self) -> Result<Query, ParseError> {
        let mut query = Query::default();
        self.take("{");
        loop {
            if query.matchers.is_empty() && self.take("}") {
                return Err(self.error(self.at - 1, "expected at least one label, such as {app=\"shop\"}"));
            }
            query.matchers.push(self.matcher()?);
            if self.take("}") {
                break;
            }
            if !self.take(",") {
                return Err(self.expected("`,` or `}`"));
            }
        }
        self.space();
        while self.peek().is_some() {
            self.filter(&mut query)?;
            self.space();
        }
        Ok(query)
    }

    pub(crate) fn matcher(&mut self) -> Result<Matcher, ParseError> {
        self.count()?;
        let name = self.name().ok_or_else(|| self.expected("a label's name"))?;
        let op = self.operator()?;
        self.space();
        let at = self.at;
        let value = self.string()?;
        Matcher::new(&name, op, &value).map_err(|wrong| self.error(at, format!("the pattern is wrong: {wrong}")))
    }

    pub(crate) fn name(&mut self) -> Option<String> {
        self.space();
        let length = self.rest().bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':')).count();
        let name = self.rest().get(..length)?.to_owned();
        let sound = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        self.at += if sound { length } else { 0 };
        sound.then_some(name)
    }

    fn filter(&mut self, query: &mut Query) -> Result<(), ParseError> {
        self.count()?;
        let known = [("|=", false, false), ("!=", true, false), ("|~", false, true), ("!~", true, true)];
        if let Some((_, negated, pattern)) = known.into_iter().find(|(sign, ..)| self.take(sign)) {
            self.space();
            let at = self.at;
            let text = self.string()?;
            let made = if pattern { LineFilter::pattern(&text, negated) } else { LineFilter::contains(&text, negated) };
            query.filters.push(made.map_err(|wrong| self.error(at, format!("the pattern is wrong: {wrong}")))?);
            return Ok(());
        }
        if !self.take("|") {
            return Err(self.expected("`|=`, `!=`, `|~`, `!~` or `| level=`"));
        }
        self.space();
        let at = self.at;
        match self.name().as_deref() {
            Some("severity" | "level" | "detected_level") => {
                query.severities &= self.severities()?;
                Ok(())
            }
            Some(other) => Err(self.error(at, format!("`{other}` is not known here; known are severity and level"))),
            None => Err(self.expected("`severity` or `level`")),
        }
    }

    fn severities(&mut self) -> Result<u8, ParseError> {
        let op = self.operator()?;
        self.space();
        let at = self.at;
        let value = self.string()?;
        if !op.is_pattern() && !SEVERITIES.iter().any(|severity| severity.as_str() == value) {
            let known: Vec<_> = SEVERITIES.iter().map(|severity| severity.as_str()).collect();
            return Err(self.error(at, format!("`{value}` is not a severity; known are {}", known.join(", "))));
        }
        let matcher = Matcher::new("severity", op, &value).map_err(|wrong| self.error(at, format!("the pattern is wrong: {wrong}")))?;
        let wanted = SEVERITIES.iter().filter(|severity| matcher.matches_value(severity.as_str()));
        Ok(wanted.fold(0, |mask, severity| mask | severity_bit(*severity)) & ANY_SEVERITY)
    }

    /// Every word or quoted phrase must be in the line, in any case.
    fn words(&mut self) -> Result<Query, ParseError> {
        let mut query = Query::default();
        loop {
            self.space();
            let at = self.at;
            let word = match self.peek() {
                None => return Ok(query),
                // A quote that is not closed is a part of the word: people type, and this runs at each key.
                Some('"') if self.rest().get(1..).is_some_and(|rest| rest.contains('"')) => {
                    self.next();
                    let length = self.rest().find('"').unwrap_or_default();
                    let phrase = self.rest().get(..length).unwrap_or_default().to_owned();
                    self.at += length + 1;
                    phrase
                }
                Some(_) => {
                    let length = self.rest().find(char::is_whitespace).unwrap_or(self.rest().len());
                    let word = self.rest().get(..length).unwrap_or_default().to_owned();
                    if let Some(brace) = word.find('{') {
                        let message = "a query with labels begins with `{`; to find this character, put the words in quotes";
                        return Err(self.error(at + brace, message));
                    }
                    self.at += length;
                    word
                }
            };
            if !word.is_empty() {
                self.count()?;
                query.filters.push(LineFilter::word(&word).map_err(|wrong| self.error(at, wrong))?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::scan::{CONDITIONS, TEXT_BYTES};
    use proptest::prelude::*;
    use shipwatch_common::model::{Labels, Severity};

    #[track_caller]
    fn refused(text: &str, column: usize, message: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.column == column && error.message.contains(message), "{text}: {error}");
    }

    #[track_caller]
    fn matches(query: &str, severity: Severity, line: &str, expected: bool) {
        let labels = Labels::new([("app", "shop"), ("env", "prod")]).unwrap();
        let parsed = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(parsed.matches(&labels, severity, line), expected, "{query} on {line}");
    }

    #[test]
    fn logql_selects_lines() {
        let error = Severity::Error;
        for (query, line, expected) in [
            (r#"{app="shop"}"#, "x", true),
            (r#" { app = "shop" , env =~ "p.*" } "#, "x", true),
            (r#"{app!="shop"}"#, "x", false),
            (r#"{app="shop",region=""}"#, "x", true),
            (r#"{app="shop"} |= "time" != "retry""#, "a timeout", true),
            (r#"{app="shop"} |= "time" != "retry""#, "a timeout, retry", false),
            (r#"{app="shop"} |= "Time""#, "a timeout", false),
            (r#"{app="shop"} |~ "id=\\d+$""#, "id=17", true),
            (r"{app=`shop`} |~ `id=\d+$`", "id=x", false),
            (r#"{app="shop"} !~ "(?i)ERROR""#, "an error", false),
            (r#"{app="shop"} | level="error" | severity=~"e.*|fatal""#, "x", true),
            (r#"{app="shop"} | level!="error""#, "x", false),
            (r#"{app="shop"} |= "\u652f\x41\101\t\"""#, "支AA\t\"", true),
            (r#"{app="shop"}|="""#, "x", true),
            (r#"{app="shop"}!="""#, "x", false),
        ] {
            matches(query, error, line, expected);
        }
    }

    #[test]
    fn words_select_lines() {
        for (query, line, expected) in [
            ("", "anything", true),
            ("TIMEOUT  order", "order 5: Timeout", true),
            ("timeout order", "timeout", false),
            (r#""order 5" timeout"#, "order: 5 timeout", false),
            ("支付 失败", "订单支付,失败", true),
            (r#""{x}""#, "a {X} b", true),
            (r#"say "hi"#, r#"say "hi there"#, true),
            ("a|= b", "B A|=", true),
        ] {
            matches(query, Severity::Unknown, line, expected);
        }
    }

    #[test]
    fn mistakes_are_told_with_their_column() {
        refused("{}", 2, "expected at least one label");
        refused(r#"{app}"#, 5, "expected `=`, `!=`, `=~` or `!~`, found `}`");
        refused(r#"{app="shop""#, 12, "expected `,` or `}`, found the end");
        refused(r#"{app="shop", }"#, 14, "expected a label's name");
        refused(r#"{app=shop}"#, 6, "expected a text in quotes");
        refused(r#"{app="shop}"#, 6, "not closed");
        refused(r#"{app=~"("}"#, 7, "unclosed group");
        refused(r#"{名="x"}"#, 2, "expected a label's name");
        refused(r#"{app="支付"} |= x"#, 15, "expected a text in quotes");
        refused(r#"{app="shop"} |~ "\d""#, 18, r"write `\\d`, or put the text in backticks");
        refused(r#"{app="shop"} | json"#, 16, "`json` is not known here");
        refused(r#"{app="shop"} | level="warning""#, 22, "known are unknown, trace");
        refused(r#"{app="shop"} x"#, 14, "expected `|=`");
        refused(r#"rate({app="shop"}[5m])"#, 6, "begins with `{`");
        refused(&"x".repeat(TEXT_BYTES + 1), 1, "more than the 16384");
        refused(&"x ".repeat(CONDITIONS + 1), 130, "more than 64 conditions");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn anything_like_a_query_is_read_or_refused(text in "[{}=!~|\"`\\\\a-c,x0-9 u支\\n()*+]{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("{{a=\"b\"}} {text}"));
        }
    }
}
