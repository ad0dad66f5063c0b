//! From text to a checked query.
//!
//! # Invariants
//! - What is parsed can be evaluated but for its data and for [`EvalOptions::experimental`]: unknown and unsupported parts
//!   are refused here.
//! - Text is looked at before the grammar sees it, for what would overflow a stack or a duration.

use super::{Error, EvalOptions};
use crate::matcher::{MatchOp, Matcher};
use promql_parser::{
    label,
    parser::{self, AggregateExpr, Expr, SubqueryExpr, VectorMatchCardinality, VectorSelector, token, value::ValueType},
};
use shipwatch_common::model::Labels;
use std::time::Duration;

/// Longest query in bytes.
const MAX_BYTES: usize = 128 << 10;

/// Most operators, parentheses and brackets outside of selectors: bounds the stack of the grammar's own recursion.
const MAX_OPERATORS: usize = 2_000;

/// Deepest nesting that is evaluated: bounds the stack of ours.
const MAX_DEPTH: usize = 128;

/// Longest duration in seconds, 1,000 years: sums with times stay far from overflow.
const MAX_DURATION_S: f64 = 3.2e10;

/// A query that can be evaluated many times.
#[derive(Clone, Debug)]
pub struct Query {
    pub(crate) expr: Expr,
    /// As it was written.
    pub(crate) text: Box<str>,
    experimental: Option<String>,
}

impl Query {
    /// Parses and checks.
    ///
    /// # Errors
    /// [`Error::BadData`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check_text(text)?;
        let expr = parser::parse(text).map_err(|error| Error::BadData(format!("parse error: {error} in `{}`", shorten(text))))?;
        let experimental = check(&expr)?;
        Ok(Self { expr, text: text.trim().into(), experimental })
    }

    /// The first part that only works with [`EvalOptions::experimental`], such as `limitk`.
    #[must_use]
    pub fn experimental(&self) -> Option<&str> {
        self.experimental.as_deref()
    }

    /// The query as text, indented where it is long.
    #[must_use]
    pub fn pretty(&self) -> String {
        self.expr.prettify()
    }

    pub(crate) fn check_experimental(&self, options: &EvalOptions) -> Result<(), Error> {
        match &self.experimental {
            Some(part) if !options.experimental => {
                Err(Error::BadData(format!("`{part}` is experimental: it works with `promql_experimental = true`")))
            }
            _ => Ok(()),
        }
    }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(200).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Parses a `match[]` parameter: a selector such as `up{job="node"}` or `{__name__=~"node_.*"}`.
///
/// # Errors
/// [`Error::BadData`] with what is wrong.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, Error> {
    match Query::parse(text)?.expr {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => matchers(&selector),
        _ => Err(Error::BadData(format!("`{}` is not a series selector, such as up{{job=\"node\"}}", shorten(text)))),
    }
}

/// The matchers of a selector, with the metric's name.
pub(crate) fn matchers(selector: &VectorSelector) -> Result<Vec<Matcher>, Error> {
    let mut all = Vec::with_capacity(selector.matchers.matchers.len() + 1);
    if let Some(name) = &selector.name {
        all.push(Matcher::equal(Labels::NAME, name.as_str()));
    }
    if !selector.matchers.or_matchers.is_empty() {
        return Err(Error::BadData("`or` inside of a selector is not supported: write `a or b` outside of the braces".to_owned()));
    }
    for matcher in &selector.matchers.matchers {
        let op = match matcher.op {
            label::MatchOp::Equal => MatchOp::Equal,
            label::MatchOp::NotEqual => MatchOp::NotEqual,
            label::MatchOp::Re(_) => MatchOp::Regex,
            label::MatchOp::NotRe(_) => MatchOp::NotRegex,
        };
        all.push(Matcher::new(op, matcher.name.as_str(), matcher.value.as_str())?);
    }
    Ok(all)
}

/// Goes over the text outside of strings and comments.
fn check_text(text: &str) -> Result<(), Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::BadData(format!("the query has {} bytes, more than the {MAX_BYTES} that are allowed", text.len())));
    }
    let bytes = text.as_bytes();
    let (mut at, mut operators, mut braces) = (0, 0, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' | b'`' => at = end_of_string(bytes, at),
            b'#' => at += bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at),
            b'{' => braces += 1,
            b'}' => braces = braces.saturating_sub(1),
            _ if braces > 0 => {}
            b'[' => {
                operators += 1;
                let inside = text.get(at + 1..).unwrap_or("").split(']').next().unwrap_or("");
                inside.split(':').try_for_each(check_duration)?;
            }
            b'(' | b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'=' | b'<' | b'>' | b'!' | b',' => operators += 1,
            _ if byte.is_ascii_alphabetic() || *byte == b'_' => {
                let word_len = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')).count();
                let word = text.get(at..at + word_len).unwrap_or("").to_ascii_lowercase();
                if matches!(word.as_str(), "and" | "or" | "unless" | "atan2") {
                    operators += 1;
                } else if word == "offset" {
                    let rest = text.get(at + word_len..).unwrap_or("").trim_start().trim_start_matches(['+', '-']).trim_start();
                    let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-')).count();
                    check_duration(&rest[..len])?;
                }
                at += word_len.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    if operators > MAX_OPERATORS {
        return Err(Error::BadData(format!("the query has {operators} operators, more than the {MAX_OPERATORS} that are allowed")));
    }
    Ok(())
}

/// The closing quote, or the text's end.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quote != b'`' => at += 1,
            byte if *byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Numbers stand for seconds; the grammar would panic on ones that no duration can hold.
fn check_duration(text: &str) -> Result<(), Error> {
    let cleaned: String = text.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    let longer = || Error::BadData(format!("parse error: `{}` is not a duration that can be used", shorten(text)));
    // What is no number is a duration with units or no duration at all: the grammar tells.
    match cleaned.parse::<f64>() {
        Ok(seconds) if !(0.0..=MAX_DURATION_S).contains(&seconds) => Err(longer()),
        _ => Ok(()),
    }
}

fn unsupported(what: &str) -> Error {
    Error::BadData(format!("{what} is not supported"))
}

/// Depth, functions, operators, durations; without recursion. Returns a part that is experimental, if there is one.
fn check(root: &Expr) -> Result<Option<String>, Error> {
    let mut open = vec![(root, 1)];
    let mut experimental = None;
    while let Some((expr, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::BadData(format!("the query is nested deeper than {MAX_DEPTH} levels")));
        }
        let mut found = None;
        match expr {
            Expr::Aggregate(node) => {
                found = check_aggregate(node)?;
                open.push((&node.expr, depth + 1));
                open.extend(node.param.as_deref().map(|param| (param, depth + 1)));
            }
            Expr::Unary(node) => open.push((&node.expr, depth + 1)),
            Expr::Paren(node) => open.push((&node.expr, depth + 1)),
            Expr::Binary(node) => {
                found = check_modifier(node)?;
                open.extend([(&*node.lhs, depth + 1), (&*node.rhs, depth + 1)]);
            }
            Expr::Subquery(node) => {
                check_subquery(node)?;
                open.push((&node.expr, depth + 1));
            }
            Expr::VectorSelector(node) => check_selector(node)?,
            Expr::MatrixSelector(node) => {
                if node.range.as_millis() == 0 || node.range.as_secs_f64() > MAX_DURATION_S {
                    return Err(Error::BadData("a range must be from 1ms to 1000y".to_owned()));
                }
                check_selector(&node.vs)?;
            }
            Expr::Call(node) => {
                found = check_function(node.func.name)?;
                open.extend(node.args.args.iter().map(|arg| (&**arg, depth + 1)));
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
            Expr::Extension(_) => return Err(unsupported("an extension of the grammar")),
        }
        experimental = experimental.or(found);
    }
    Ok(experimental)
}

fn check_aggregate(node: &AggregateExpr) -> Result<Option<String>, Error> {
    if !matches!(node.op.id(), token::T_LIMITK | token::T_LIMIT_RATIO) {
        return Ok(None);
    }
    // The grammar only asks for the types of the older ones.
    match node.param.as_deref().map(Expr::value_type) {
        Some(ValueType::Scalar) => Ok(Some(node.op.to_string())),
        _ => Err(Error::BadData(format!("expected type scalar in the parameter of `{}`", node.op))),
    }
}

/// What Prometheus 3 puts behind `promql-experimental-functions`.
const EXPERIMENTAL: [&str; 17] = [
    "double_exponential_smoothing",
    "end",
    "first_over_time",
    "histogram_quantiles",
    "info",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "sort_by_label",
    "sort_by_label_desc",
    "start",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];

/// What only reads native histograms.
const NATIVE: [&str; 5] = ["histogram_avg", "histogram_count", "histogram_stddev", "histogram_stdvar", "histogram_sum"];

fn check_function(name: &str) -> Result<Option<String>, Error> {
    if NATIVE.contains(&name) {
        let instead = "histogram_quantile and histogram_fraction read classic ones, with the label `le`";
        return Err(Error::BadData(format!("function `{name}` reads native histograms, which are not supported: {instead}")));
    }
    if !super::functions::is_supported(name) {
        return Err(unsupported(&format!("function `{name}`")));
    }
    Ok(EXPERIMENTAL.contains(&name).then(|| name.to_owned()))
}

fn check_selector(node: &VectorSelector) -> Result<(), Error> {
    check_offset(node.offset.as_ref())?;
    let names = node.matchers.matchers.iter().filter(|matcher| matcher.name == Labels::NAME).count();
    if node.name.is_some() && names > 0 {
        return Err(Error::BadData("parse error: metric name must not be set twice".to_owned()));
    }
    matchers(node).map(|_| ())
}

fn check_subquery(node: &SubqueryExpr) -> Result<(), Error> {
    let is_too_long = |duration: Duration| duration.as_secs_f64() > MAX_DURATION_S;
    if is_too_long(node.range) || node.step.is_some_and(is_too_long) {
        return Err(Error::BadData("range and step of a subquery must be at most 1000y".to_owned()));
    }
    if node.range.as_millis() == 0 || node.step.is_some_and(|step| step.as_millis() == 0) {
        return Err(Error::BadData("range and step of a subquery must be at least 1ms".to_owned()));
    }
    check_offset(node.offset.as_ref())
}

fn check_modifier(node: &parser::BinaryExpr) -> Result<Option<String>, Error> {
    let Some(modifier) = &node.modifier else { return Ok(None) };
    let fills = modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some();
    if fills && node.op.is_set_operator() {
        return Err(Error::BadData(format!("filling in missing series not allowed for `{}` operation", node.op)));
    }
    let grouped = matches!(modifier.card, VectorMatchCardinality::ManyToOne(_) | VectorMatchCardinality::OneToMany(_));
    if grouped && node.op.is_set_operator() {
        return Err(Error::BadData(format!("no grouping allowed for `{}` operation", node.op)));
    }
    Ok(fills.then(|| "fill".to_owned()))
}

fn check_offset(offset: Option<&parser::Offset>) -> Result<(), Error> {
    match offset {
        Some(parser::Offset::Pos(by) | parser::Offset::Neg(by)) if by.as_secs_f64() > MAX_DURATION_S => {
            Err(Error::BadData("an offset must be at most 1000y".to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_queries_are_refused_with_their_reason() {
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        let many = "1+".repeat(5_000) + "1";
        let long = format!("up{{a=\"{}\"}}", "x".repeat(MAX_BYTES));
        let unary = "-".repeat(1_500) + "up";
        for (text, reason) in [
            ("sum(", "parse error"),
            ("", "no expression found"),
            ("up[Inf]", "not a duration"),
            ("up[1e300]", "not a duration"),
            ("up[5m:1e300]", "not a duration"),
            ("up offset 1e300", "not a duration"),
            ("up offset -1e300", "not a duration"),
            ("up offset 4294967295y", "at most 1000y"),
            ("up[4294967295y]", "1000y"),
            ("nope(up)", "unknown function"),
            ("limitk(up, up)", "expected type scalar"),
            ("histogram_sum(up)", "reads native histograms"),
            ("a and on(x) fill(0) b", "filling in missing series not allowed"),
            ("up{__name__=\"down\"}", "must not be set twice"),
            ("{a=\"b\" or c=\"d\"}", "`or` inside of a selector"),
            ("{}", "non-empty matcher"),
            ("up{a=~\"(\"}", "illegal regex"),
            (&deep, "nested deeper"),
            (&unary, "nested deeper"),
            (&many, "operators"),
            (&long, "bytes"),
        ] {
            let error = Query::parse(text).map(|query| query.expr.to_string()).unwrap_err().to_string();
            assert!(error.contains(reason), "{}: {error}", shorten(text));
        }
    }

    #[test]
    fn selectors_read() {
        let found = parse_selector(r#"up{job!="a",b=~"c|d"}"#).unwrap();
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["__name__=\"up\"", "job!=\"a\"", "b=~\"c|d\""]);
        assert_eq!(parse_selector(r#"{"my.metric", "a b"="c"}"#).unwrap().len(), 2);
        for bad in ["up[5m]", "up offset 5m", "1", "sum(up)", "{}"] {
            assert!(parse_selector(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_text_panics(words in proptest::collection::vec(proptest::sample::select(vec![
            "up", "sum", "rate", "(", ")", "[", "]", "{", "}", "5m", "1e400", "Inf", "NaN", "offset", "@", ":", "by", "on", ",", "-", "+",
            "\"x\"", "'", "`", "#", "=", "=~", "!=", "0x", "09", "1_0", "start", "end", "bool", "group_left", "é", "\\", "\n", " ", "topk", "unless",
            "99999999999999999999y", "1ms", "0s", ".5", "1.e", "_",
        ]), 0..14)) {
            for glue in ["", " "] {
                let _ = Query::parse(&words.join(glue)).map(|query| query.expr.to_string());
            }
        }
    }
}
