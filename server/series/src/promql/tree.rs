//! A query's tree as JSON, in the shape that Prometheus' `parse_query` answers.

use super::{Query, format_value, select::millis};
use promql_parser::{
    label::MatchOp,
    parser::{
        AggregateExpr, AtModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, SubqueryExpr, VectorMatchCardinality, VectorSelector,
        value::ValueType,
    },
};
use serde_json::{Value, json};
use shipwatch_common::model::Labels;
use std::time::{Duration, SystemTime};

/// The tree of a query. Its depth is bounded, since a [`Query`]'s is.
#[must_use]
pub fn tree(query: &Query) -> Value {
    node(&query.expr)
}

fn node(expr: &Expr) -> Value {
    match expr {
        Expr::Aggregate(aggregate) => aggregation(aggregate),
        Expr::Unary(unary) => json!({"type": "unaryExpr", "op": "-", "expr": node(&unary.expr)}),
        Expr::Paren(paren) => json!({"type": "parenExpr", "expr": node(&paren.expr)}),
        Expr::Binary(operation) => binary(operation),
        Expr::Subquery(inner) => subquery(inner),
        Expr::NumberLiteral(number) => json!({"type": "numberLiteral", "val": format_value(number.val)}),
        Expr::StringLiteral(text) => json!({"type": "stringLiteral", "val": text.val}),
        Expr::VectorSelector(vector) => selector(vector, None),
        Expr::MatrixSelector(matrix) => selector(&matrix.vs, Some(matrix.range)),
        Expr::Call(function) => call(function),
        Expr::Extension(_) => Value::Null,
    }
}

fn aggregation(aggregate: &AggregateExpr) -> Value {
    let (grouping, without) = match &aggregate.modifier {
        None => (&[][..], false),
        Some(LabelModifier::Include(names)) => (&names.labels[..], false),
        Some(LabelModifier::Exclude(names)) => (&names.labels[..], true),
    };
    json!({
        "type": "aggregation",
        "op": aggregate.op.to_string(),
        "expr": node(&aggregate.expr),
        "param": aggregate.param.as_deref().map(node),
        "grouping": grouping,
        "without": without,
    })
}

fn binary(operation: &BinaryExpr) -> Value {
    let is_vector = |expr: &Expr| expr.value_type() == ValueType::Vector;
    let matching = (is_vector(&operation.lhs) && is_vector(&operation.rhs)).then(|| {
        let modifier = operation.modifier.clone().unwrap_or_default();
        let (labels, on) = match &modifier.matching {
            None => (Vec::new(), false),
            Some(LabelModifier::Include(names)) => (names.labels.clone(), true),
            Some(LabelModifier::Exclude(names)) => (names.labels.clone(), false),
        };
        let (card, include) = match &modifier.card {
            VectorMatchCardinality::OneToOne => ("one-to-one", Vec::new()),
            VectorMatchCardinality::ManyToMany => ("many-to-many", Vec::new()),
            VectorMatchCardinality::ManyToOne(names) => ("many-to-one", names.labels.clone()),
            VectorMatchCardinality::OneToMany(names) => ("one-to-many", names.labels.clone()),
        };
        json!({"card": card, "labels": labels, "on": on, "include": include})
    });
    json!({
        "type": "binaryExpr",
        "op": operation.op.to_string(),
        "lhs": node(&operation.lhs),
        "rhs": node(&operation.rhs),
        "matching": matching,
        "bool": operation.return_bool(),
    })
}

fn call(function: &Call) -> Value {
    let args: Vec<Value> = function.args.args.iter().map(|arg| node(arg)).collect();
    let types: Vec<String> = function.func.arg_types.iter().map(ToString::to_string).collect();
    json!({
        "type": "call",
        "func": {
            "name": function.func.name,
            "argTypes": types,
            "variadic": function.func.variadic,
            "returnType": function.func.return_type.to_string(),
        },
        "args": args,
    })
}

fn subquery(inner: &SubqueryExpr) -> Value {
    json!({
        "type": "subquery",
        "expr": node(&inner.expr),
        "range": millis(inner.range),
        "offset": offset(inner.offset.as_ref()),
        "step": inner.step.map_or(0, millis),
        "timestamp": timestamp(inner.at.as_ref()),
        "startOrEnd": start_or_end(inner.at.as_ref()),
    })
}

fn selector(vector: &VectorSelector, range: Option<Duration>) -> Value {
    let mut matchers: Vec<Value> = Vec::new();
    for matcher in &vector.matchers.matchers {
        let op = match matcher.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Re(_) => "=~",
            MatchOp::NotRe(_) => "!~",
        };
        matchers.push(json!({"name": matcher.name, "type": op, "value": matcher.value}));
    }
    if let Some(name) = &vector.name {
        matchers.push(json!({"name": Labels::NAME, "type": "=", "value": name}));
    }
    let mut all = json!({
        "type": if range.is_some() { "matrixSelector" } else { "vectorSelector" },
        "name": vector.name.clone().unwrap_or_default(),
        "offset": offset(vector.offset.as_ref()),
        "matchers": matchers,
        "timestamp": timestamp(vector.at.as_ref()),
        "startOrEnd": start_or_end(vector.at.as_ref()),
    });
    if let (Some(range), Some(fields)) = (range, all.as_object_mut()) {
        fields.insert("range".to_owned(), json!(millis(range)));
    }
    all
}

/// Milliseconds.
pub(crate) fn offset(offset: Option<&Offset>) -> i64 {
    match offset {
        None => 0,
        Some(Offset::Pos(by)) => millis(*by),
        Some(Offset::Neg(by)) => -millis(*by),
    }
}

/// Milliseconds of a fixed time.
pub(crate) fn timestamp(at: Option<&AtModifier>) -> Option<i64> {
    match at {
        Some(AtModifier::At(time)) => Some(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }),
        _ => None,
    }
}

const fn start_or_end(at: Option<&AtModifier>) -> Option<&'static str> {
    match at {
        Some(AtModifier::Start) => Some("start"),
        Some(AtModifier::End) => Some("end"),
        _ => None,
    }
}
