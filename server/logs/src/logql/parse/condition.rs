//! Conditions on labels, and numbers with their units.

use super::{DEPTH, Result};
use crate::{
    logql::{
        ast::{Comparison, LabelCondition, NumberCondition, Unit},
        units,
    },
    query::scan::{ParseError, Scanner},
};

impl Scanner<'_> {
    /// Conditions on labels; `and` and `,` bind tighter than `or`.
    pub(super) fn label_condition(&mut self, depth: usize) -> Result<LabelCondition> {
        let mut condition = self.label_conjunction(depth)?;
        while self.word("or") {
            condition = LabelCondition::Or(Box::new(condition), Box::new(self.label_conjunction(depth)?));
        }
        Ok(condition)
    }

    fn label_conjunction(&mut self, depth: usize) -> Result<LabelCondition> {
        let mut condition = self.label_term(depth)?;
        loop {
            if !self.word("and") && !self.take(",") {
                return Ok(condition);
            }
            condition = LabelCondition::And(Box::new(condition), Box::new(self.label_term(depth)?));
        }
    }

    fn label_term(&mut self, depth: usize) -> Result<LabelCondition> {
        if depth > DEPTH {
            return Err(self.error(self.at, format!("parentheses deeper than {DEPTH}")));
        }
        if self.take("(") {
            let condition = self.label_condition(depth + 1)?;
            return if self.take(")") { Ok(condition) } else { Err(self.expected("`)`")) };
        }
        self.count()?;
        self.space();
        let start = self.at;
        let name = self.name().ok_or_else(|| self.expected("a label's name"))?;
        self.space();
        let sign_at = self.at;
        let signs = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
            ("=", Comparison::Equal),
        ];
        let is_pattern = self.rest().starts_with("=~") || self.rest().starts_with("!~");
        let sign = if is_pattern { None } else { signs.into_iter().find(|(sign, _)| self.take(sign)) };
        self.space();
        match (sign, self.peek()) {
            (Some((_, op)), Some(c)) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number_condition(name, op),
            (None | Some(("=" | "!=" | "==", _)), _) => {
                let at = self.at;
                if self.peek_word("ip") {
                    return Err(self.error(at, "`ip()` is not supported; compare with a pattern"));
                }
                if is_pattern || matches!(sign, Some(("=" | "!=", _))) {
                    self.at = start;
                    return self.matcher().map(LabelCondition::Text);
                }
                if matches!(sign, Some(("==", _))) {
                    return Err(self.expected("a number; texts are compared with `=`"));
                }
                self.at = sign_at;
                Err(self.unknown_stage(&name, start))
            }
            (Some(_), _) => Err(self.expected("a number, a duration such as 20ms, or a size such as 5KB")),
        }
    }

    fn unknown_stage(&mut self, name: &str, at: usize) -> ParseError {
        self.space();
        let found = self.peek().map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
        self.error(
            at,
            format!("`{name}` is no stage of a pipeline, and a condition on a label of that name lacks its operator (found {found}); docs/logql.md lists all stages"),
        )
    }

    fn number_condition(&mut self, name: String, op: Comparison) -> Result<LabelCondition> {
        let at = self.at;
        let shown = self.literal();
        let found = units::number(&shown)
            .map(|value| (value, Unit::Number))
            .or_else(|| units::duration(&shown).map(|value| (value, Unit::Duration)))
            .or_else(|| units::size(&shown).map(|value| (value, Unit::Bytes)));
        let (value, unit) =
            found.ok_or_else(|| self.error(at, format!("`{shown}` is not a number, a duration such as 20ms, or a size such as 5KB")))?;
        Ok(LabelCondition::Number(NumberCondition { name, op, value, unit, shown }))
    }

    /// A number with its unit, as far as it goes.
    pub(super) fn literal(&mut self) -> String {
        let rest = self.rest();
        let mut end = 0;
        let mut before = ' ';
        for c in rest.chars() {
            let sign = matches!(c, '+' | '-') && (end == 0 || (matches!(before, 'e' | 'E') && rest.get(..end).is_some_and(is_decimal)));
            if !(sign || c.is_alphanumeric() || c == '.') {
                break;
            }
            end += c.len_utf8();
            before = c;
        }
        self.at += end;
        rest.get(..end).unwrap_or_default().to_owned()
    }
}

fn is_decimal(text: &str) -> bool {
    text.trim_end_matches(['e', 'E']).parse::<f64>().is_ok()
}
