//! The text of a LogQL query: the selector and the stages of a pipeline here, conditions on labels in [`condition`],
//! metric queries in [`metric`].
//!
//! # Invariants
//! - Any text is read or refused with a column. Length of the text, number of conditions and depth are bounded before
//!   anything is compiled. What Loki has and this has not is refused by its name.

mod condition;
mod metric;

use super::{
    ast::{Expr, LineCondition, Pick, Pipeline, Stage, Value},
    extract::{Pattern, label_name},
    json::Step,
    template::Template,
};
use crate::query::{
    matcher::{LineFilter, Matcher, compile},
    scan::{ParseError, Scanner},
};

/// Deepest parentheses.
const DEPTH: usize = 32;

type Result<T> = std::result::Result<T, ParseError>;

/// Reads a query.
pub(crate) fn parse(text: &str) -> Result<Expr> {
    let mut scanner = Scanner::new(text, true)?;
    scanner.space();
    let expr = match scanner.peek() {
        Some('{') => Expr::Log(scanner.pipeline()?),
        None => return Err(scanner.error(scanner.at, "the query is empty")),
        // Parentheses around a log query are allowed as well.
        Some('(') if scanner.rest().trim_start_matches(|c: char| c == '(' || c.is_whitespace()).starts_with('{') => {
            scanner.log_in_parentheses(0)?
        }
        Some(_) => Expr::Metric(scanner.metric(0, 0)?),
    };
    scanner.space();
    if scanner.peek().is_some() { Err(scanner.expected("the end of the query")) } else { Ok(expr) }
}

/// Reads a stream selector with nothing behind it.
pub(crate) fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    let mut scanner = Scanner::new(text, true)?;
    let matchers = scanner.selector(true)?;
    scanner.space();
    if scanner.peek().is_some() { Err(scanner.expected("the end behind `}`")) } else { Ok(matchers) }
}

impl Scanner<'_> {
    fn log_in_parentheses(&mut self, depth: usize) -> Result<Expr> {
        if !self.take("(") {
            return self.pipeline().map(Expr::Log);
        }
        if depth > DEPTH {
            return Err(self.error(self.at, format!("parentheses deeper than {DEPTH}")));
        }
        let inner = self.log_in_parentheses(depth + 1)?;
        if self.take(")") { Ok(inner) } else { Err(self.expected("`)`")) }
    }

    fn pipeline(&mut self) -> Result<Pipeline> {
        let matchers = self.selector(false)?;
        let mut stages = Vec::new();
        while let Some(stage) = self.stage()? {
            stages.push(stage);
        }
        Ok(Pipeline { matchers, stages })
    }

    /// `{a="b", c=~"d"}`. Something must be selected by a value, unless `any` is allowed.
    fn selector(&mut self, any: bool) -> Result<Vec<Matcher>> {
        self.space();
        let at = self.at;
        if !self.take("{") {
            return Err(self.expected("`{`"));
        }
        let mut matchers = Vec::new();
        while !self.take("}") {
            matchers.push(self.matcher()?);
            if !self.take(",") && self.peek() != Some('}') {
                return Err(self.expected("`,` or `}`"));
            }
        }
        let selects = |matcher: &Matcher| !matcher.op().is_negated() && !matcher.matches_value("");
        if any || matchers.iter().any(selects) {
            return Ok(matchers);
        }
        Err(self.error(
            at,
            "queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
        ))
    }

    /// The next stage; nothing where none begins. `unwrap` is left for the caller.
    fn stage(&mut self) -> Result<Option<Stage>> {
        self.space();
        let known = ["|=", "!=", "|~", "!~", "|>", "!>"];
        if let Some(op) = known.into_iter().find(|sign| self.rest().starts_with(sign)) {
            self.count()?;
            self.at += op.len();
            return self.line_condition(op).map(|line| Some(Stage::Line(line)));
        }
        let before = self.at;
        if !self.take("|") {
            return Ok(None);
        }
        self.count()?;
        self.space();
        let at = self.at;
        if self.peek() == Some('(') {
            return self.label_condition(0).map(|condition| Some(Stage::Label(condition)));
        }
        let name = self.name().ok_or_else(|| self.expected("a parser, a formatter, or a condition on a label"))?;
        self.space();
        // `| json="x"` is a condition on a label of that name.
        let is_condition = ["=", "!=", "!~", ">", "<"].iter().any(|sign| self.rest().starts_with(sign));
        let stage = match name.as_str() {
            _ if is_condition => None,
            "unwrap" => {
                self.at = before;
                return Ok(None);
            }
            other => self.named_stage(other, at)?,
        };
        match stage {
            Some(stage) => Ok(Some(stage)),
            None => {
                self.at = at;
                self.label_condition(0).map(|condition| Some(Stage::Label(condition)))
            }
        }
    }

    fn named_stage(&mut self, name: &str, at: usize) -> Result<Option<Stage>> {
        Ok(Some(match name {
            "json" => Stage::Json(self.json_picks()?),
            "logfmt" => self.logfmt_stage()?,
            "unpack" => Stage::Unpack,
            "decolorize" => Stage::Decolorize,
            "pattern" => {
                let (at, text) = self.placed_string()?;
                let pattern = Pattern::new(&text).map_err(|wrong| self.error(at, wrong))?;
                if !pattern.captures() {
                    return Err(self.error(at, "the pattern captures nothing; name what is wanted, such as <status>"));
                }
                Stage::Pattern(pattern, text)
            }
            "regexp" => {
                let (at, text) = self.placed_string()?;
                let regex = compile(&text).map_err(|wrong| self.error(at, format!("the pattern is wrong: {wrong}")))?;
                if regex.capture_names().flatten().next().is_none() {
                    return Err(self.error(at, "the pattern captures nothing; name a group, such as (?P<status>\\d+)"));
                }
                Stage::Regexp(regex)
            }
            "line_format" => {
                let (at, text) = self.placed_string()?;
                Stage::LineFormat(Template::new(&text).map_err(|wrong| self.error(at, wrong))?)
            }
            "label_format" => Stage::LabelFormat(self.label_formats()?),
            "drop" => Stage::Drop(self.picks()?),
            "keep" => Stage::Keep(self.picks()?),
            "distinct" => return Err(self.error(at, "`distinct` is not supported")),
            _ => return Ok(None),
        }))
    }

    fn placed_string(&mut self) -> Result<(usize, String)> {
        self.space();
        let at = self.at;
        Ok((at, self.string()?))
    }

    fn line_condition(&mut self, op: &'static str) -> Result<LineCondition> {
        self.space();
        let at = self.at;
        if self.peek_word("ip") {
            return Err(self.error(at, "`ip()` is not supported; compare with a pattern"));
        }
        let mut texts = vec![self.string()?];
        while self.word("or") {
            self.count()?;
            texts.push(self.string()?);
        }
        let negated = op.starts_with('!');
        let filter = match (op, texts.as_slice()) {
            ("|=" | "!=", [text]) => LineFilter::contains(text, negated),
            ("|~" | "!~", [text]) => LineFilter::pattern(text, negated),
            _ => alternatives(op, &texts).and_then(|pattern| LineFilter::pattern(&pattern, negated)),
        };
        let filter = filter.map_err(|wrong| self.error(at, format!("the pattern is wrong: {wrong}")))?;
        Ok(LineCondition { op, texts, filter })
    }

    fn peek_word(&self, word: &str) -> bool {
        let rest = self.rest().strip_prefix(word);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    }

    /// Takes a word, whole, if it is next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.space();
        let is = self.peek_word(word);
        self.at += if is { word.len() } else { 0 };
        is
    }

    fn json_picks(&mut self) -> Result<Vec<(String, Vec<Step>, String)>> {
        let picks = self.named_texts()?;
        picks.into_iter().map(|(at, name, text)| Ok((name, json_path(&text).map_err(|wrong| self.error(at, wrong))?, text))).collect()
    }

    fn logfmt_stage(&mut self) -> Result<Stage> {
        let (mut strict, mut keep_empty) = (false, false);
        loop {
            if self.take("--strict") {
                strict = true;
            } else if self.take("--keep-empty") {
                keep_empty = true;
            } else {
                break;
            }
        }
        let picks = self.named_texts()?.into_iter().map(|(_, name, text)| (name, text)).collect();
        Ok(Stage::Logfmt { strict, keep_empty, picks })
    }

    /// `a="b", c`: names with texts; a name alone stands for itself. Empty where no name follows.
    fn named_texts(&mut self) -> Result<Vec<(usize, String, String)>> {
        let mut picks = Vec::new();
        loop {
            self.space();
            let (start, at) = (self.at, self.at);
            let Some(name) = self.name() else {
                return if picks.is_empty() { Ok(picks) } else { Err(self.expected("a label's name")) };
            };
            // `sum(rate({…} | json [1m])) by (x)` and `count_over_time({…}[5m] | json offset 1h)` end the list.
            if picks.is_empty() && matches!(name.as_str(), "offset" | "or" | "and" | "by" | "without") {
                self.at = start;
                return Ok(picks);
            }
            self.count()?;
            let (at, text) = if self.take("=") { self.placed_string()? } else { (at, name.clone()) };
            picks.push((at, name, text));
            if !self.take(",") {
                return Ok(picks);
            }
        }
    }

    fn label_formats(&mut self) -> Result<Vec<(String, Value)>> {
        let mut formats: Vec<(String, Value)> = Vec::new();
        loop {
            self.count()?;
            self.space();
            let at = self.at;
            let name = self.name().ok_or_else(|| self.expected("a label's name"))?;
            if formats.iter().any(|(known, _)| *known == name) {
                return Err(self.error(at, format!("`{name}` is set twice in one label_format")));
            }
            if matches!(name.as_str(), "__error__" | "__error_details__") {
                return Err(self.error(at, format!("`{name}` cannot be set")));
            }
            if !self.take("=") {
                return Err(self.expected("`=`"));
            }
            self.space();
            let value = match self.peek() {
                Some('"' | '`') => {
                    let (at, text) = self.placed_string()?;
                    Value::Template(Template::new(&text).map_err(|wrong| self.error(at, wrong))?)
                }
                _ => Value::Label(self.name().ok_or_else(|| self.expected("a label's name, or a template in quotes"))?),
            };
            formats.push((name, value));
            if !self.take(",") {
                return Ok(formats);
            }
        }
    }

    fn picks(&mut self) -> Result<Vec<Pick>> {
        let mut picks = Vec::new();
        loop {
            self.count()?;
            self.space();
            let start = self.at;
            let name = self.name().ok_or_else(|| self.expected("a label's name"))?;
            self.space();
            let is_matcher = ["=", "!=", "!~"].iter().any(|sign| self.rest().starts_with(sign));
            picks.push(if is_matcher {
                self.at = start;
                Pick::Matching(self.matcher()?)
            } else {
                Pick::Name(name)
            });
            if !self.take(",") {
                return Ok(picks);
            }
        }
    }
}

/// Any of several texts.
fn alternatives(op: &str, texts: &[String]) -> std::result::Result<String, String> {
    let one = |text: &String| match op {
        "|=" | "!=" => Ok(regex::escape(text)),
        "|>" | "!>" => Pattern::new(text).map(|pattern| pattern.to_regex()),
        // Compiled by itself first: an unbalanced parenthesis must not be balanced by its neighbour.
        _ => compile(text).map(|_| text.clone()),
    };
    let all = texts.iter().map(|text| one(text).map(|text| format!("(?:{text})"))).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(all.join("|"))
}

/// `a.b[0]["c d"]`.
fn json_path(text: &str) -> std::result::Result<Vec<Step>, String> {
    let wrong = || format!("`{text}` is no path in JSON; write it like a.b[0][\"c d\"]");
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix("[\"") {
            let (key, after) = inner.split_once("\"]").ok_or_else(wrong)?;
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = inner.split_once(']').ok_or_else(wrong)?;
            steps.push(Step::Index(index.parse().map_err(|_| wrong())?));
            rest = after;
        } else {
            let key = if steps.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(wrong)? };
            let length = key.find(['.', '[']).unwrap_or(key.len());
            let (key, after) = key.split_at_checked(length).ok_or_else(wrong)?;
            if key.is_empty() || label_name(key.into()).is_empty() {
                return Err(wrong());
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        }
    }
    if steps.is_empty() { Err(wrong()) } else { Ok(steps) }
}

#[cfg(test)]
mod tests;
