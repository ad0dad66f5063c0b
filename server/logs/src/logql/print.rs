//! A query as it would be written, on one line.

use super::{
    ast::{
        Aggregate, AggregateOp, Binary, Conversion, Expr, Grouping, LabelCondition, Metric, Pick, Pipeline, Range, RangeOp, Stage, Unwrap,
        Value,
    },
    units::show_duration,
};
use crate::query::matcher::{MatchOp, Matcher};
use std::fmt::{Display, Formatter, Result, Write as _};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Log(pipeline) => pipeline.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}

const fn sign(op: MatchOp) -> &'static str {
    match op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Matches => "=~",
        MatchOp::NotMatches => "!~",
    }
}

/// A text in quotes, with the escapes that the parser reads.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\U{:08x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn matcher(matcher: &Matcher) -> String {
    format!("{}{}{}", matcher.name(), sign(matcher.op()), quoted(matcher.value()))
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(", ")
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{{{}}}", list(&self.matchers, matcher))?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

fn named(name: &str, text: &str) -> String {
    if name == text { name.to_owned() } else { format!("{name}={}", quoted(text)) }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let pick = |pick: &Pick| match pick {
            Pick::Name(name) => name.clone(),
            Pick::Matching(found) => matcher(found),
        };
        match self {
            Self::Line(line) => {
                let texts: Vec<_> = line.texts.iter().map(|text| quoted(text)).collect();
                write!(f, "{} {}", line.op, texts.join(" or "))
            }
            Self::Json(picks) if picks.is_empty() => f.write_str("| json"),
            Self::Json(picks) => write!(f, "| json {}", list(picks, |(name, _, text)| named(name, text))),
            Self::Logfmt { strict, keep_empty, picks } => {
                f.write_str("| logfmt")?;
                f.write_str(if *strict { " --strict" } else { "" })?;
                f.write_str(if *keep_empty { " --keep-empty" } else { "" })?;
                if picks.is_empty() { Ok(()) } else { write!(f, " {}", list(picks, |(name, text)| named(name, text))) }
            }
            Self::Pattern(_, text) => write!(f, "| pattern {}", quoted(text)),
            Self::Regexp(regex) => write!(f, "| regexp {}", quoted(regex.as_str())),
            Self::Unpack => f.write_str("| unpack"),
            Self::Decolorize => f.write_str("| decolorize"),
            Self::Label(condition) => write!(f, "| {condition}"),
            Self::LineFormat(template) => write!(f, "| line_format {}", quoted(template.source())),
            Self::LabelFormat(formats) => {
                let format = |(name, value): &(String, Value)| match value {
                    Value::Label(other) => format!("{name}={other}"),
                    Value::Template(template) => format!("{name}={}", quoted(template.source())),
                };
                write!(f, "| label_format {}", list(formats, format))
            }
            Self::Drop(picks) => write!(f, "| drop {}", list(picks, pick)),
            Self::Keep(picks) => write!(f, "| keep {}", list(picks, pick)),
        }
    }
}

impl Display for LabelCondition {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Text(found) => f.write_str(&matcher(found)),
            Self::Number(number) => write!(f, "{} {} {}", number.name, number.op.sign(), number.shown),
            Self::And(left, right) => write!(f, "({left} and {right})"),
            Self::Or(left, right) => write!(f, "({left} or {right})"),
        }
    }
}

fn number(value: f64) -> String {
    if value.is_infinite() { if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { value.to_string() }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} ({})", if self.without { "without" } else { "by" }, self.names.join(", "))
    }
}

impl Display for Metric {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Number(value) => f.write_str(&number(*value)),
            Self::Vector(value) => write!(f, "vector({})", number(*value)),
            Self::Range(range) => range.fmt(f),
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Binary(binary) => binary.fmt(f),
            Self::Sort { descending, inner } => write!(f, "{}({inner})", if *descending { "sort_desc" } else { "sort" }),
            Self::LabelReplace(replace) => {
                let texts = [&replace.to, &replace.replacement, &replace.from, &replace.pattern].map(|text| quoted(text)).join(", ");
                write!(f, "label_replace({}, {texts})", replace.inner)
            }
        }
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}(", self.op.name())?;
        if let RangeOp::Quantile(q) = self.op {
            write!(f, "{}, ", number(q))?;
        }
        self.pipeline.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, " [{}]", show_duration(self.range_ns))?;
        if self.offset_ns != 0 {
            write!(f, " offset {}", show_duration(self.offset_ns))?;
        }
        f.write_char(')')?;
        self.grouping.as_ref().map_or(Ok(()), |grouping| write!(f, " {grouping}"))
    }
}

impl Display for Unwrap {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.conversion {
            Conversion::Number => write!(f, "| unwrap {}", self.label)?,
            Conversion::Seconds => write!(f, "| unwrap duration({})", self.label)?,
            Conversion::Bytes => write!(f, "| unwrap bytes({})", self.label)?,
        }
        self.conditions.iter().try_for_each(|condition| write!(f, " | {condition}"))
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.op.name())?;
        if let Some(grouping) = &self.grouping {
            write!(f, " {grouping} ")?;
        }
        match self.op {
            AggregateOp::Top(count) | AggregateOp::Bottom(count) => write!(f, "({count}, {})", self.inner),
            _ => write!(f, "({})", self.inner),
        }
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "({} {}", self.left, self.op.sign())?;
        f.write_str(if self.returns_bool { " bool" } else { "" })?;
        if let Some(matching) = &self.matching {
            write!(f, " {} ({})", if matching.on { "on" } else { "ignoring" }, matching.names.join(", "))?;
        }
        write!(f, " {})", self.right)
    }
}
