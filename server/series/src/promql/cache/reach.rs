//! Which queries can be kept step by step, and how far ahead of a step their samples lie.
//!
//! # Invariants
//! - What [`Reach::of`] accepts has at each step the same value and the same series, whatever other steps are asked for with
//!   it, and an error only if one of its steps has.
//! - What does not: `start()`, `end()`, `range()`, `@ start()`, `@ end()`; `info()`, which looks for the hosts of all steps at
//!   once; ranks by a number that moves; and functions of ranges of several metrics, since series that only their names told
//!   apart may not meet even at different steps.

use crate::promql::{labels::METADATA, over_time, tree};
use promql_parser::{
    label::MatchOp,
    parser::{
        AggregateExpr, AtModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, VectorMatchCardinality, VectorSelector, token,
        value::ValueType,
    },
};
use shipwatch_common::{model::Labels, time::UnixMs};

/// Earlier than every sample, with room for sums.
const NEVER: i64 = i64::MIN / 4;

/// The latest samples that a value depends on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reach {
    /// From the step on.
    ahead: i64,
    /// The same for all steps (`@`).
    fixed: i64,
    /// Annotations may come from other steps than the query's.
    pub(crate) has_subquery: bool,
}

impl Reach {
    const NOTHING: Self = Self { ahead: NEVER, fixed: NEVER, has_subquery: false };
    const STEP: Self = Self { ahead: 0, fixed: NEVER, has_subquery: false };

    /// Nothing for what cannot be kept, or is not worth it.
    pub(crate) fn of(expr: &Expr) -> Option<Self> {
        walk(expr).filter(|reach| reach.ahead != NEVER || reach.fixed != NEVER)
    }

    /// Steps before this time hold although samples from `changed` on have changed.
    pub(crate) const fn holds_before(self, changed: UnixMs) -> UnixMs {
        if self.fixed >= changed { i64::MIN } else { changed.saturating_sub(self.ahead) }
    }

    fn and(self, other: Self) -> Self {
        Self {
            ahead: self.ahead.max(other.ahead),
            fixed: self.fixed.max(other.fixed),
            has_subquery: self.has_subquery || other.has_subquery,
        }
    }

    fn moved(self, at: Option<&AtModifier>, offset: Option<&Offset>) -> Option<Self> {
        let by = tree::offset(offset);
        match at {
            None => Some(Self { ahead: self.ahead.saturating_sub(by).max(NEVER), ..self }),
            Some(AtModifier::Start | AtModifier::End) => None,
            Some(AtModifier::At(_)) => {
                let latest = tree::timestamp(at)?.saturating_sub(by).saturating_add(self.ahead);
                Some(Self { ahead: NEVER, fixed: self.fixed.max(latest), ..self })
            }
        }
    }
}

fn walk(expr: &Expr) -> Option<Reach> {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Some(Reach::NOTHING),
        Expr::Paren(node) => walk(&node.expr),
        Expr::Unary(node) => walk(&node.expr),
        Expr::Binary(node) => Some(walk(&node.lhs)?.and(walk(&node.rhs)?)),
        Expr::VectorSelector(node) => Reach::STEP.moved(node.at.as_ref(), node.offset.as_ref()),
        Expr::MatrixSelector(node) => Reach::STEP.moved(node.vs.at.as_ref(), node.vs.offset.as_ref()),
        Expr::Subquery(node) => Reach { has_subquery: true, ..walk(&node.expr)? }.moved(node.at.as_ref(), node.offset.as_ref()),
        Expr::Aggregate(node) => aggregate(node),
        Expr::Call(node) => call(node),
        Expr::Extension(_) => None,
    }
}

fn is_rank(node: &AggregateExpr) -> bool {
    matches!(node.op.id(), token::T_TOPK | token::T_BOTTOMK | token::T_LIMITK | token::T_LIMIT_RATIO)
}

fn aggregate(node: &AggregateExpr) -> Option<Reach> {
    let param = node.param.as_deref();
    // Whether a number is out of bounds is asked of all steps at once.
    if is_rank(node) && !param.is_some_and(is_number) {
        return None;
    }
    let of_param = param.map_or(Some(Reach::NOTHING), walk)?;
    Some(walk(&node.expr)?.and(of_param))
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::NumberLiteral(_) => true,
        Expr::Paren(node) => is_number(&node.expr),
        Expr::Unary(node) => is_number(&node.expr),
        _ => false,
    }
}

fn call(node: &Call) -> Option<Reach> {
    let name = node.func.name;
    if matches!(name, "start" | "end" | "range" | "info") {
        return None;
    }
    let mut all = Reach::NOTHING;
    for arg in &node.args.args {
        if arg.value_type() == ValueType::Matrix && !over_time::keeps_name(name) && named(arg) == Named::Unknown {
            return None;
        }
        all = all.and(walk(arg)?);
    }
    Some(all)
}

/// The names of the series that an expression can have.
#[derive(Debug, Eq, PartialEq)]
enum Named<'a> {
    Nothing,
    Same(&'a str),
    Unknown,
}

fn named(expr: &Expr) -> Named<'_> {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Unary(_) => Named::Nothing,
        Expr::Paren(node) => named(&node.expr),
        Expr::Subquery(node) => named(&node.expr),
        Expr::VectorSelector(node) => selected(node),
        Expr::MatrixSelector(node) => selected(&node.vs),
        Expr::Aggregate(node) if is_rank(node) => named(&node.expr),
        Expr::Aggregate(node) => match &node.modifier {
            _ if node.op.id() == token::T_COUNT_VALUES => Named::Unknown,
            Some(LabelModifier::Include(names)) if names_metadata(&names.labels) => Named::Unknown,
            _ => Named::Nothing,
        },
        Expr::Binary(node) => combined(node),
        Expr::Call(node) => returned(node),
        Expr::Extension(_) => Named::Unknown,
    }
}

fn names_metadata(labels: &[String]) -> bool {
    labels.iter().any(|label| METADATA.contains(&label.as_str()))
}

fn selected(node: &VectorSelector) -> Named<'_> {
    let matchers = node.matchers.matchers.iter();
    let mut fixed =
        matchers.filter(|matcher| matcher.name == Labels::NAME && matcher.op == MatchOp::Equal).map(|matcher| matcher.value.as_str());
    node.name.as_deref().or_else(|| fixed.next()).filter(|name| !name.is_empty()).map_or(Named::Unknown, Named::Same)
}

fn combined(node: &BinaryExpr) -> Named<'_> {
    let card = node.modifier.as_ref().map(|modifier| &modifier.card);
    if let Some(VectorMatchCardinality::ManyToOne(copied) | VectorMatchCardinality::OneToMany(copied)) = card
        && (names_metadata(&copied.labels) || node.op.is_comparison_operator())
    {
        return Named::Unknown;
    }
    match node.op.id() {
        token::T_LOR if named(&node.lhs) != named(&node.rhs) => Named::Unknown,
        token::T_LAND | token::T_LUNLESS | token::T_LOR => named(&node.lhs),
        _ if node.op.is_comparison_operator() && !node.return_bool() => {
            named(if node.lhs.value_type() == ValueType::Vector { &node.lhs } else { &node.rhs })
        }
        _ => Named::Nothing,
    }
}

fn returned(node: &Call) -> Named<'_> {
    let arg = |at: usize| node.args.args.get(at).map(|arg| &**arg);
    match node.func.name {
        "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => arg(0).map_or(Named::Unknown, named),
        name if over_time::keeps_name(name) => arg(0).map_or(Named::Unknown, named),
        "label_replace" | "label_join" => match (arg(0), arg(1)) {
            (Some(vector), Some(Expr::StringLiteral(target))) if !METADATA.contains(&target.val.as_str()) => named(vector),
            _ => Named::Unknown,
        },
        "info" | "histogram_quantiles" => Named::Unknown,
        _ => Named::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::Query;

    fn of(text: &str) -> Option<Reach> {
        Reach::of(&Query::parse(text).unwrap().expr)
    }

    #[test]
    fn samples_lie_as_far_ahead_as_offsets_say() {
        for (text, ahead, fixed) in [
            ("up", 0, NEVER),
            ("-(up) + 1", 0, NEVER),
            ("rate(up[5m] offset 1m)", -60_000, NEVER),
            ("up offset -1m + up", 60_000, NEVER),
            ("up offset 1m + up offset 2m", -60_000, NEVER),
            ("max_over_time(rate(up[5m] offset -1m)[1h:] offset -2m)", 180_000, NEVER),
            ("up @ 100", NEVER, 100_000),
            ("up @ 100 offset -1s + up", 0, 101_000),
            ("max_over_time((up offset -1m)[1h:] @ 100)", NEVER, 160_000),
            ("max_over_time((up @ 500)[1h:] @ 100)", NEVER, 500_000),
            ("topk(-(3), up)", 0, NEVER),
            ("quantile(scalar(up offset -1s), up)", 1_000, NEVER),
        ] {
            let reach = of(text).unwrap();
            assert_eq!((reach.ahead, reach.fixed, reach.has_subquery), (ahead, fixed, text.contains(":]")), "{text}");
        }
        let reach = Reach { ahead: 60_000, fixed: 500_000, has_subquery: false };
        assert_eq!([500_000, 500_001, i64::MIN].map(|changed| reach.holds_before(changed)), [i64::MIN, 440_001, i64::MIN]);
        assert_eq!(Reach { ahead: -60_000, ..Reach::NOTHING }.holds_before(i64::MAX), i64::MAX);
    }

    #[test]
    fn what_depends_on_other_steps_is_not_kept() {
        for text in [
            "start() + up",
            "up / range()",
            "up @ start()",
            "rate(up[5m] @ end())",
            "max_over_time(up[1h:] @ start())",
            "info(up)",
            "topk(scalar(up), up)",
            "rate({job=\"x\"}[5m])",
            "rate({__name__=~\"a|b\"}[5m])",
            "max_over_time((a or b)[5m:])",
            "max_over_time(count_values(\"__name__\", a)[5m:])",
            "max_over_time(label_replace(a, \"__name__\", \"$1\", \"x\", \"(.*)\")[5m:])",
            "max_over_time(sum by (__name__) ({job=\"x\"})[5m:])",
            "max_over_time((a * on (x) group_left (__name__) b)[5m:])",
            "1 + time()",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        for text in [
            "rate({__name__=\"up\"}[5m])",
            "last_over_time({job=\"x\"}[5m])",
            "max_over_time((a or a)[5m:])",
            "max_over_time(sum by (job) ({job=\"x\"})[5m:])",
            "max_over_time((1 < a)[5m:])",
            "max_over_time(sort(topk(2, a))[5m:])",
            "max_over_time(label_replace(a, \"y\", \"$1\", \"x\", \"(.*)\")[5m:])",
            "step() + up",
        ] {
            assert!(of(text).is_some(), "{text}");
        }
    }
}
