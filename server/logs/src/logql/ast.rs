//! What a query says, read and checked.

use super::{extract::Pattern, json::Step, template::Template};
use crate::query::matcher::{LineFilter, Matcher};
use regex::Regex;

/// A whole query.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Log(Pipeline),
    Metric(Metric),
}

/// A stream selector and what is done with each line.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Line(LineCondition),
    /// With paths: only these.
    Json(Vec<(String, Vec<Step>, String)>),
    /// With names: only these, each from its key.
    Logfmt {
        strict: bool,
        keep_empty: bool,
        picks: Vec<(String, String)>,
    },
    Pattern(Pattern, String),
    Regexp(Regex),
    Unpack,
    Label(LabelCondition),
    LineFormat(Template),
    LabelFormat(Vec<(String, Value)>),
    Drop(Vec<Pick>),
    Keep(Vec<Pick>),
    Decolorize,
}

/// `|= "a" or "b"`.
#[derive(Clone, Debug)]
pub(crate) struct LineCondition {
    pub(crate) op: &'static str,
    pub(crate) texts: Vec<String>,
    pub(crate) filter: LineFilter,
}

#[derive(Clone, Debug)]
pub(crate) enum LabelCondition {
    Text(Matcher),
    Number(NumberCondition),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

#[derive(Clone, Debug)]
pub(crate) struct NumberCondition {
    pub(crate) name: String,
    pub(crate) op: Comparison,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    /// As it was written.
    pub(crate) shown: String,
}

/// How a label's text is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    Number,
    Duration,
    Bytes,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }

    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// What `label_format` sets a label to.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// The other label is renamed.
    Label(String),
    Template(Template),
}

/// What `keep` and `drop` name.
#[derive(Clone, Debug)]
pub(crate) enum Pick {
    Name(String),
    Matching(Matcher),
}

/// A metric query.
#[derive(Clone, Debug)]
pub(crate) enum Metric {
    Number(f64),
    Vector(f64),
    Range(Box<Range>),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Sort { descending: bool, inner: Box<Self> },
    LabelReplace(Box<LabelReplace>),
}

/// `sum_over_time({…} | unwrap x [5m] offset 1h) by (a)`.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) op: RangeOp,
    pub(crate) pipeline: Pipeline,
    pub(crate) unwrap: Option<Unwrap>,
    pub(crate) range_ns: i64,
    pub(crate) offset_ns: i64,
    pub(crate) grouping: Option<Grouping>,
}

#[derive(Clone, Debug)]
pub(crate) struct Unwrap {
    pub(crate) label: String,
    pub(crate) conversion: Conversion,
    /// Conditions behind `unwrap`.
    pub(crate) conditions: Vec<LabelCondition>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Conversion {
    Number,
    Seconds,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RangeOp {
    Count,
    Rate,
    BytesOverTime,
    BytesRate,
    Absent,
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    StdDev,
    StdVar,
    Quantile(f64),
}

impl RangeOp {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Count => "count_over_time",
            Self::Rate => "rate",
            Self::BytesOverTime => "bytes_over_time",
            Self::BytesRate => "bytes_rate",
            Self::Absent => "absent_over_time",
            Self::Sum => "sum_over_time",
            Self::Avg => "avg_over_time",
            Self::Min => "min_over_time",
            Self::Max => "max_over_time",
            Self::First => "first_over_time",
            Self::Last => "last_over_time",
            Self::StdDev => "stddev_over_time",
            Self::StdVar => "stdvar_over_time",
            Self::Quantile(_) => "quantile_over_time",
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Grouping {
    pub(crate) without: bool,
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub(crate) op: AggregateOp,
    pub(crate) grouping: Option<Grouping>,
    pub(crate) inner: Metric,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    StdDev,
    StdVar,
    Top(usize),
    Bottom(usize),
}

impl AggregateOp {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::StdDev => "stddev",
            Self::StdVar => "stdvar",
            Self::Top(_) => "topk",
            Self::Bottom(_) => "bottomk",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) op: BinaryOp,
    pub(crate) left: Metric,
    pub(crate) right: Metric,
    /// Comparisons give 0 or 1.
    pub(crate) returns_bool: bool,
    pub(crate) matching: Option<Matching>,
}

/// `on (a)`, `ignoring (b)`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Matching {
    pub(crate) on: bool,
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BinaryOp {
    Or,
    And,
    Unless,
    Compare(Comparison),
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

impl BinaryOp {
    /// Binds tighter when larger.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Compare(_) => 3,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide | Self::Modulo => 5,
            Self::Power => 6,
        }
    }

    pub(crate) const fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }

    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Compare(comparison) => comparison.sign(),
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }
}

/// `label_replace(x, "to", "$1", "from", "(.*)")`.
#[derive(Clone, Debug)]
pub(crate) struct LabelReplace {
    pub(crate) inner: Metric,
    pub(crate) to: String,
    pub(crate) replacement: String,
    pub(crate) from: String,
    pub(crate) pattern: String,
    pub(crate) regex: Regex,
}
