//! What the stages of a pipeline do to one line.
//!
//! # Invariants
//! - A stage that cannot do its work marks the line with `__error__` and lets it pass; it never drops it.
//! - The line filters that stand before anything changes the text are the store's work ([`Split`]); the rest is done here.

use super::{
    ast::{LabelCondition, NumberCondition, Pick, Pipeline, Stage, Unit, Unwrap, Value},
    extract, json,
    record::{ERROR, ERROR_DETAILS, FIELDS_MAX, Kind, Record},
    units,
};
use crate::query::{ANY_SEVERITY, Query};
use std::{borrow::Cow, collections::HashSet};

/// A pipeline, split into what the store looks for and what is left to be done with each line.
#[derive(Clone, Debug)]
pub(crate) struct Split<'a> {
    pub(crate) query: Query,
    pub(crate) stages: Vec<&'a Stage>,
    /// Labels that parsers look for; nothing is all.
    wanted: Option<Wanted<'a>>,
}

/// Names of labels that something asks for.
pub(crate) type Wanted<'a> = HashSet<&'a str>;

impl Pipeline {
    pub(crate) fn split(&self) -> Split<'_> {
        let mut query = Query { matchers: self.matchers.clone(), filters: Vec::new(), severities: ANY_SEVERITY };
        let mut stages = Vec::new();
        let mut original = true;
        for stage in &self.stages {
            match stage {
                Stage::Line(line) if original => query.filters.push(line.filter.clone()),
                _ => stages.push(stage),
            }
            original &= !matches!(stage, Stage::Unpack | Stage::LineFormat(_) | Stage::Decolorize);
        }
        Split { query, stages, wanted: None }
    }
}

impl<'a> Split<'a> {
    /// Lets parsers leave out what neither a stage, nor `unwrap`, nor the grouping `by` asks for.
    pub(crate) fn only_for(&mut self, by: &'a [String], unwrap: Option<&'a Unwrap>) {
        let mut wanted: Wanted<'a> = by.iter().map(String::as_str).collect();
        for stage in &self.stages {
            match stage {
                Stage::Label(condition) => names(condition, &mut wanted),
                Stage::LineFormat(template) => wanted.extend(template.fields()),
                Stage::LabelFormat(formats) => formats.iter().for_each(|(_, value)| match value {
                    Value::Label(other) => drop(wanted.insert(other)),
                    Value::Template(template) => wanted.extend(template.fields()),
                }),
                _ => {}
            }
        }
        if let Some(unwrap) = unwrap {
            wanted.insert(&unwrap.label);
            unwrap.conditions.iter().for_each(|condition| names(condition, &mut wanted));
        }
        // It may get its ending only where it is found.
        let plain: Vec<_> = wanted.iter().filter_map(|name| name.strip_suffix(BESIDE)).collect();
        wanted.extend(plain);
        self.wanted = Some(wanted);
    }

    /// Whether labels and severity alone decide what becomes of a line that the store found.
    pub(crate) fn stages_ignore_text(&self) -> bool {
        let ignores = |stage: &&Stage| match stage {
            Stage::Label(_) | Stage::Drop(_) | Stage::Keep(_) => true,
            Stage::LabelFormat(formats) => formats.iter().all(|(_, value)| matches!(value, Value::Label(_))),
            _ => false,
        };
        self.stages.iter().all(ignores)
    }

    /// Runs the stages. `false` drops the line.
    pub(crate) fn run<'l>(&self, record: &mut Record<'l>) -> bool
    where
        'a: 'l,
    {
        self.stages.iter().all(|stage| stage.apply(record, self.wanted.as_ref()))
    }
}

/// Ending of a field beside a label of the stream with its name.
const BESIDE: &str = "_extracted";

fn names<'a>(condition: &'a LabelCondition, into: &mut Wanted<'a>) {
    match condition {
        LabelCondition::Text(matcher) => drop(into.insert(matcher.name())),
        LabelCondition::Number(number) => drop(into.insert(&number.name)),
        LabelCondition::And(left, right) | LabelCondition::Or(left, right) => {
            names(left, into);
            names(right, into);
        }
    }
}

impl Stage {
    pub(crate) fn apply<'l>(&'l self, record: &mut Record<'l>, wanted: Option<&Wanted<'_>>) -> bool {
        match self {
            Self::Line(line) => return line.filter.keeps(&record.text),
            Self::Label(condition) => return holds(condition, record),
            Self::Json(picks) if picks.is_empty() => parse(record, wanted, "JSONParserErr", |text, found| {
                json::flatten(text, &mut |name, value| found(extract::label_name(name), value))
            }),
            Self::Json(picks) => parse(record, wanted, "JSONParserErr", |text, found| {
                for (name, path, _) in picks {
                    let value = match json::find(text, path)? {
                        Some(json::Value::Text(value)) => value,
                        Some(json::Value::Plain(value) | json::Value::Inside(value)) => value.into(),
                        Some(json::Value::Null) | None => "".into(),
                    };
                    found(name.as_str().into(), value)?;
                }
                Ok(())
            }),
            Self::Logfmt { strict, picks, .. } => parse(record, wanted, "LogfmtParserErr", |text, found| {
                extract::logfmt(text, *strict, &mut |(key, value)| {
                    if picks.is_empty() {
                        return found(extract::label_name(key), value);
                    }
                    picks.iter().filter(|(_, wanted)| *wanted == key).try_for_each(|(name, _)| found(name.as_str().into(), value.clone()))
                })
            }),
            Self::Pattern(pattern, _) => parse(record, wanted, "PatternParserErr", |text, found| {
                pattern.extract(text, &mut |(name, value)| drop(found(name, value)));
                Ok(())
            }),
            Self::Regexp(regex) => parse(record, wanted, "RegexpParserErr", |text, found| {
                extract::regexp(regex, text, &mut |(name, value)| drop(found(name, value)));
                Ok(())
            }),
            Self::Unpack => unpack(record),
            Self::LineFormat(template) => match template.render(record) {
                Ok(text) => record.text = text.into(),
                Err(error) => record.fail("TemplateFormatErr", error),
            },
            Self::LabelFormat(formats) => formats.iter().for_each(|(name, value)| format(record, name, value)),
            Self::Drop(picks) => {
                let dropped: Vec<String> = record
                    .fields
                    .iter()
                    .filter(|field| is_picked(picks, &field.name, &field.value))
                    .map(|field| field.name.to_string())
                    .collect();
                for name in dropped {
                    record.remove(&name);
                    // The words of an error do not stay without it.
                    if name == ERROR {
                        record.remove(ERROR_DETAILS);
                    }
                }
            }
            Self::Keep(picks) => record
                .fields
                .retain(|field| field.name == ERROR || field.name == ERROR_DETAILS || is_picked(picks, &field.name, &field.value)),
            Self::Decolorize => {
                if let Cow::Owned(text) = extract::decolorize(&record.text) {
                    record.text = text.into();
                }
            }
        }
        true
    }
}

type Found<'f> = dyn FnMut(Cow<'_, str>, Cow<'_, str>) -> Result<(), String> + 'f;

/// Runs a parser over the text and adds what it found. A text that a formatter made is the record's own and may change, so its
/// pairs are copied.
fn parse(
    record: &mut Record<'_>,
    wanted: Option<&Wanted<'_>>,
    error: &'static str,
    work: impl Fn(&str, &mut Found<'_>) -> Result<(), String>,
) {
    let bound = |count: usize| if count < FIELDS_MAX { Ok(()) } else { Err(format!("the line has more than {FIELDS_MAX} fields")) };
    let mut pairs: Vec<(String, String)> = Vec::new();
    let text = record.text.clone();
    let mut count = 0;
    let outcome = work(&text, &mut |name, value| {
        count += 1;
        if wanted.is_none_or(|wanted| wanted.contains(&*name)) {
            pairs.push((name.into_owned(), value.into_owned()));
        }
        bound(count)
    });
    for (name, value) in pairs {
        add(record, name.into(), value.into());
    }
    if let Err(details) = outcome {
        record.fail(error, details);
    }
}

/// Adds what a parser found: beside a label of the stream under another name; of two with one name the first stays.
fn add<'l>(record: &mut Record<'l>, name: Cow<'l, str>, value: Cow<'l, str>) {
    if name.is_empty() {
        return;
    }
    let name = if record.has_kind(&name, Kind::Stream) { format!("{name}{BESIDE}").into() } else { name };
    if !record.has_kind(&name, Kind::Parsed) {
        record.set(name, value, Kind::Parsed);
    }
}

/// A JSON object whose texts become labels, and whose `_entry` becomes the line.
fn unpack(record: &mut Record<'_>) {
    let text = record.text.clone();
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut entry = None;
    let outcome = json::fields(&text, &mut |name, value| {
        if let json::Value::Text(value) = value {
            match &*name {
                "_entry" => entry = Some(value.into_owned()),
                _ if pairs.len() < FIELDS_MAX => pairs.push((extract::label_name(name).into_owned(), value.into_owned())),
                _ => return Err(format!("the line has more than {FIELDS_MAX} fields")),
            }
        }
        Ok(())
    });
    match outcome {
        Err(details) => record.fail("JSONParserErr", details),
        Ok(()) => {
            for (name, value) in pairs {
                add(record, name.into(), value.into());
            }
            if let Some(entry) = entry {
                record.text = entry.into();
            }
        }
    }
}

fn format<'l>(record: &mut Record<'l>, name: &'l str, value: &'l Value) {
    match value {
        Value::Label(other) => {
            let Some(value) = record.get(other).map(str::to_owned) else { return };
            record.remove(other);
            record.set(name.into(), value.into(), Kind::Parsed);
        }
        Value::Template(template) => match template.render(record) {
            Ok(text) => record.set(name.into(), text.into(), Kind::Parsed),
            Err(error) => record.fail("TemplateFormatErr", error),
        },
    }
}

fn is_picked(picks: &[Pick], name: &str, value: &str) -> bool {
    picks.iter().any(|pick| match pick {
        Pick::Name(picked) => picked == name,
        Pick::Matching(matcher) => matcher.name() == name && matcher.matches_value(value),
    })
}

/// Whether a condition holds. Both sides of `and` and `or` are looked at only as far as needed.
pub(crate) fn holds(condition: &LabelCondition, record: &mut Record<'_>) -> bool {
    match condition {
        LabelCondition::Text(matcher) => matcher.matches_value(record.get(matcher.name()).unwrap_or_default()),
        LabelCondition::Number(number) => compare(number, record),
        LabelCondition::And(left, right) => holds(left, record) && holds(right, record),
        LabelCondition::Or(left, right) => holds(left, record) || holds(right, record),
    }
}

/// A line that has an error passes: it is for a condition on `__error__` to drop it.
fn compare(number: &NumberCondition, record: &mut Record<'_>) -> bool {
    if record.has_error() {
        return true;
    }
    let Some(text) = record.get(&number.name) else { return false };
    let value = match number.unit {
        Unit::Number => units::number(text),
        Unit::Duration => units::duration(text),
        Unit::Bytes => units::size(text),
    };
    match value {
        Some(value) => number.op.holds(value, number.value),
        None => {
            let kind = match number.unit {
                Unit::Number => "number",
                Unit::Duration => "duration",
                Unit::Bytes => "size",
            };
            let details = format!("label {}: {:?} is not a {kind}", number.name, text.chars().take(80).collect::<String>());
            record.fail("LabelFilterErr", details);
            true
        }
    }
}
