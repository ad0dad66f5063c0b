//! What differs between two answers, and the list of reasons why 3.x may answer otherwise than 2.42.

use crate::queries::Question;
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// Relative difference that counts as the same number.
const TOLERANCE: f64 = 1e-9;

/// Why an answer of 3.x, and ours, differs from one of 2.42.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Reason {
    /// 3.x puts series together that only their names told apart and that have no step in common; `-` in 2.42 is an error.
    NegationMerges,
    /// 3.x looks for ambiguous matches also among what a comparison filters out.
    FilteredMatches,
    /// Durations of 3.x may be numbers, `offset 90`, and numbers durations, `5m * 2`.
    NumberAsDuration,
    /// Labels of 3.x may have any name.
    AnyName,
    /// Regular expressions that only one of the two libraries takes: `[[` and `a++`.
    RegexDialect,
    /// Near the start of a series 3.x stretches a rate at most to the zero point of the counter, 2.42 sometimes beyond. The
    /// same query with `delta`, which knows no zero point, has the same answer on both sides.
    ZeroPoint,
    /// Powers and trigonometry differ in the last digit, and remainders and periods of large numbers in all digits.
    LastDigit,
    /// Names in quotes are new in 3.x.
    QuotedName,
    /// `start()` and `end()` are functions in 3.x.
    NewerFunction,
    /// Compensated sums of 2.42 are NaN after an infinity, which trends get to see; those of 3.x stay infinite.
    CompensatedInfinity,
    /// Aggregations of 2.42 add without compensation, so the last digits differ; 1e-5 is allowed.
    Rounding,
    /// Parts of the calendar of what is no time: NaN here, something far away in 2.42.
    CalendarOfNothing,
    /// Which of equal values `topk` keeps.
    Ties,
}

/// The first difference.
#[derive(Debug)]
pub(crate) enum Difference {
    /// One side has an error, or another kind of error.
    Status([String; 2]),
    /// Another type, other series or other steps.
    Shape(String),
    /// Numbers.
    Numbers(Vec<(f64, f64)>, String),
    /// The order of a sorted vector.
    Order,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(texts) => write!(f, "another status, ours and theirs: {texts:?}"),
            Self::Shape(what) => write!(f, "{what}"),
            Self::Numbers(all, first) => {
                write!(f, "{} numbers from {first} on, ours and theirs: {:?}", all.len(), &all[..all.len().min(4)])
            }
            Self::Order => write!(f, "another order"),
        }
    }
}

fn number(text: &Value) -> f64 {
    match text.as_str().unwrap() {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().unwrap(),
    }
}

fn same(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

/// Series and steps with their numbers.
type Points = BTreeMap<String, BTreeMap<String, f64>>;

fn points(answer: &Value) -> Points {
    let result = &answer["data"]["result"];
    let one = |point: &Value| (point[0].to_string(), number(&point[1]));
    match answer["data"]["resultType"].as_str().unwrap() {
        "scalar" => BTreeMap::from([(String::new(), BTreeMap::from([one(result)]))]),
        _ => {
            let labels = |series: &Value| {
                let sorted: BTreeMap<String, Value> = series["metric"].as_object().unwrap().clone().into_iter().collect();
                serde_json::to_string(&sorted).unwrap()
            };
            let numbers = |series: &Value| match series["values"].as_array() {
                Some(values) => values.iter().map(one).collect(),
                None => BTreeMap::from([one(&series["value"])]),
            };
            result.as_array().unwrap().iter().map(|series| (labels(series), numbers(series))).collect()
        }
    }
}

/// What an error is about.
fn kind(answer: &Value) -> &'static str {
    let text = answer["error"].as_str().unwrap_or("");
    let known = ["invalid regular expression", "same labelset", "invalid expression type", "parse error"];
    // Which of two faulty matches is met first is chance.
    if ["many-to-many matching not allowed", "multiple matches for labels"].iter().any(|matching| text.contains(matching)) {
        return "matching";
    }
    known.into_iter().find(|known| text.contains(known)).unwrap_or("another error")
}

pub(crate) fn difference(question: &Question, ours: &Value, theirs: &Value) -> Option<Difference> {
    let errors = [ours, theirs].map(|answer| answer["error"].as_str().unwrap_or("none").to_owned());
    if ours["status"] != theirs["status"] || ours["errorType"] != theirs["errorType"] {
        return Some(Difference::Status(errors));
    }
    if ours["status"] == "error" {
        return (kind(ours) != kind(theirs)).then_some(Difference::Status(errors));
    }
    if question.only_status {
        return None;
    }
    if ours["data"]["resultType"] != theirs["data"]["resultType"] {
        return Some(Difference::Shape("another type".to_owned()));
    }
    let (mine, yours) = (points(ours), points(theirs));
    if mine.keys().ne(yours.keys()) {
        return Some(Difference::Shape(format!("series {:?} instead of {:?}", mine.keys(), yours.keys())));
    }
    let (mut numbers, mut first) = (Vec::new(), String::new());
    for ((labels, mine), yours) in mine.iter().zip(yours.values()) {
        if mine.keys().ne(yours.keys()) {
            return Some(Difference::Shape(format!("{labels}: steps {mine:?} instead of {yours:?}")));
        }
        for ((step, mine), yours) in mine.iter().zip(yours.values()).filter(|((_, mine), yours)| !same(**mine, **yours, TOLERANCE)) {
            if numbers.is_empty() {
                first = format!("{labels} at {step}");
            }
            numbers.push((*mine, *yours));
        }
    }
    if !numbers.is_empty() {
        return Some(Difference::Numbers(numbers, first));
    }
    let is_sorted = !question.is_range() && question.ours.starts_with("sort");
    let order = |answer: &Value| -> Vec<f64> {
        answer["data"]["result"].as_array().unwrap().iter().map(|series| number(&series["value"][1])).collect()
    };
    (is_sorted && !order(ours).iter().zip(order(theirs)).all(|(mine, yours)| same(*mine, yours, TOLERANCE))).then_some(Difference::Order)
}

/// Why the answers may differ like this.
pub(crate) fn reason(question: &Question, difference: &Difference, ours: &Value, theirs: &Value) -> Option<Reason> {
    match difference {
        Difference::Status([mine, yours]) if mine == "none" && yours.contains("same labelset") && question.has(&["-"]) => {
            Some(Reason::NegationMerges)
        }
        Difference::Status([mine, yours])
            if mine == "none" && ["expected duration", "missing unit"].iter().any(|text| yours.contains(text)) =>
        {
            Some(Reason::NumberAsDuration)
        }
        Difference::Status([mine, yours])
            if mine == "none"
                && ["invalid source label name", "invalid destination label name", "invalid label name"]
                    .iter()
                    .any(|text| yours.contains(text)) =>
        {
            Some(Reason::AnyName)
        }
        Difference::Status([mine, yours]) if mine == "none" && yours.contains("in label matching, expected identifier") => {
            Some(Reason::QuotedName)
        }
        Difference::Status([mine, yours]) if mine == "none" && yours.contains("unexpected \"(\"") && question.has(&["start", "end"]) => {
            Some(Reason::NewerFunction)
        }
        Difference::Status([mine, yours]) if is_regex_error(mine) && yours == "none" => Some(Reason::RegexDialect),
        Difference::Status([mine, yours]) if mine == "none" && is_regex_error(yours) => Some(Reason::RegexDialect),
        Difference::Status([_, yours]) if yours.contains("parse error") && has_duration_as_number(&question.ours) => {
            Some(Reason::NumberAsDuration)
        }
        Difference::Status([mine, yours]) if mine.starts_with("multiple matches") && yours == "none" => {
            question.has(&["==", "!=", ">", "<", ">=", "<="]).then_some(Reason::FilteredMatches)
        }
        Difference::Numbers(all, _) => reason_of_numbers(question, all),
        Difference::Shape(_) if question.has(&["topk", "bottomk"]) && ours["data"]["resultType"] == theirs["data"]["resultType"] => {
            (values_by_step(ours) == values_by_step(theirs)).then_some(Reason::Ties)
        }
        _ => None,
    }
}

fn is_regex_error(text: &str) -> bool {
    ["illegal regex", "error parsing regexp", "invalid regular expression"].iter().any(|known| text.contains(known))
}

/// Whether there is a duration outside of brackets and not after `offset`.
fn has_duration_as_number(query: &str) -> bool {
    let outside: String = query.split('[').map(|part| part.rsplit(']').next().unwrap_or(part)).collect();
    outside.replace("offset -", "offset ").split("offset ").enumerate().any(|(at, part)| {
        let part = if at == 0 { part } else { part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()) };
        part.contains("5m")
    })
}

fn reason_of_numbers(question: &Question, all: &[(f64, f64)]) -> Option<Reason> {
    let close = all.iter().all(|(mine, yours)| same(*mine, *yours, 1e-5) || (mine - yours).abs() < 1e-12);
    if close && question.has(&["sum", "avg", "stddev", "stdvar", "avg_over_time"]) {
        return Some(Reason::Rounding);
    }
    let theirs_is_nan = all.iter().all(|(mine, yours)| mine.is_infinite() && yours.is_nan());
    if theirs_is_nan && question.has(&["predict_linear", "deriv"]) {
        return Some(Reason::CompensatedInfinity);
    }
    let inexact = ["^", "exp", "sinh", "cosh", "sin", "cos", "tan", "ln", "log2", "log10"];
    if question.has(&inexact) && question.has(&["%", "sin", "cos", "tan", "floor", "ceil", "round"]) {
        return Some(Reason::LastDigit);
    }
    let ours_is_nan = all.iter().all(|(mine, yours)| same(*mine, *yours, 1e-6) || (mine.is_nan() && !yours.is_nan()));
    let of_calendar = ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];
    (ours_is_nan && question.has(&of_calendar)).then_some(Reason::CalendarOfNothing)
}

/// The numbers at each step, sorted, without their series.
fn values_by_step(answer: &Value) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (step, value) in points(answer).into_values().flatten() {
        all.entry(step).or_default().push(value.to_string());
    }
    all.values_mut().for_each(|values| values.sort());
    all
}
