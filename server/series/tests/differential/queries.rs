//! What is asked of both sides: a random query, each side's own spelling of it, and times.

use crate::{
    grammar::{CLOSE, CLOSE_DEVIATION, Grammar, OPEN, OPEN_DEVIATION, moment},
    random::Random,
};
use std::fmt;

/// What is asked of both sides.
#[derive(Debug)]
pub(crate) struct Question {
    /// The query with the names of 3.x.
    pub(crate) ours: String,
    /// The query with the names of 2.42.
    pub(crate) theirs: String,
    /// Ranges are no longer those that keep borders free of samples: numbers say nothing.
    pub(crate) only_status: bool,
    start: i64,
    /// End and step of a range query.
    range: Option<(i64, i64)>,
}

impl Question {
    pub(crate) const fn is_range(&self) -> bool {
        self.range.is_some()
    }

    /// Whether this function, operator or aggregation is anywhere in it.
    pub(crate) fn has(&self, words: &[&str]) -> bool {
        let is_word = |word: &str| self.ours.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| part == word);
        words
            .iter()
            .any(|word| if word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') { is_word(word) } else { self.ours.contains(word) })
    }

    /// The same with `delta` in the place of what knows the zero point of a counter.
    pub(crate) fn without_zero_point(&self) -> Self {
        let plain = |text: &str| text.replace("irate(", "idelta(").replace("rate(", "delta(").replace("increase(", "delta(");
        let (ours, theirs) = (plain(&self.ours), plain(&self.theirs));
        Self { ours, theirs, ..*self }
    }

    pub(crate) fn pairs(&self, query: &str) -> Vec<(String, String)> {
        let mut all = vec![("query", query.to_owned())];
        match self.range {
            None => all.push(("time", self.start.to_string())),
            Some((end, step)) => {
                all.extend([("start", self.start.to_string()), ("end", end.to_string()), ("step", step.to_string())]);
            }
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.ours, self.start)?;
        self.range.map_or(Ok(()), |(end, step)| write!(f, " to {end} step {step}"))
    }
}

pub(crate) fn question(random: &mut Random, set: &str) -> Question {
    let start = moment(random);
    let range = random.one_in(3).then(|| {
        let step = 10 * (1 + random.below(12) as i64);
        (start + step * random.below(25) as i64 + 10 * random.below(step as u64 / 10) as i64, step)
    });
    let mut grammar = Grammar { random, set, in_subquery: false, fixed: false };
    let ours = match grammar.random.below(40) {
        0 => grammar.scalar(3),
        1 if range.is_none() => grammar.range(1),
        _ => {
            let depth = 1 + grammar.random.below(4);
            grammar.vector(depth)
        }
    };
    let is_plain = !ours.contains([OPEN, OPEN_DEVIATION]);
    let intact = durations(&ours);
    let ours = if is_plain && grammar.random.one_in(12) { mutilated(grammar.random, &ours) } else { ours };
    let only_status = durations(&ours) != intact;
    let theirs = expanded(&ours, true).replace("double_exponential_smoothing", "holt_winters").replace("[150]", "[150s]");
    Question { ours: expanded(&ours, false), theirs, only_status, start, range }
}

/// What is said about times: in brackets, after `offset` and `@`.
fn durations(text: &str) -> Vec<String> {
    let bracketed = text.split('[').skip(1).map(|part| part.split(']').next().unwrap().to_owned());
    let moved = text.split("offset").chain(text.split('@')).skip(1).map(|part| part.chars().take(14).collect());
    bracketed.chain(moved).collect()
}

/// The marks as what they stand for on each side.
fn expanded(text: &str, theirs: bool) -> String {
    let (before, after) = if theirs { ("((", ") * 1)") } else { ("(", ")") };
    let text = text.replace(OPEN, before).replace(CLOSE, after);
    let Some(start) = text.find(OPEN_DEVIATION) else { return text };
    let mut depth = 0;
    let end = text.char_indices().skip_while(|(at, _)| *at < start).find_map(|(at, c)| {
        depth += i32::from(c == OPEN_DEVIATION) - i32::from(c == CLOSE_DEVIATION);
        (depth == 0).then_some(at)
    });
    let inside = &text[start + OPEN_DEVIATION.len_utf8()..end.unwrap()];
    let [name, grouping, arg] = inside.splitn(3, '|').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let plain = format!("{name} {grouping} ({arg})");
    let all = if theirs { format!("({plain} + 0 * sum {grouping} ({arg}))") } else { plain };
    let rest = &text[end.unwrap() + CLOSE_DEVIATION.len_utf8()..];
    expanded(&format!("{}{all}{rest}", &text[..start]), theirs)
}

/// With a part lost or doubled: mostly not a query any more, on both sides.
fn mutilated(random: &mut Random, text: &str) -> String {
    let plain = expanded(text, false);
    let chars: Vec<char> = plain.chars().collect();
    let from = random.below(chars.len() as u64) as usize;
    let to = (from + 1 + random.below(4) as usize).min(chars.len());
    let (head, part, tail) = (&chars[..from], &chars[from..to], &chars[to..]);
    let other =
        random.pick(&["(", ")", "{", "}", "[", "]", ",", "-", "by", "on", "bool", "offset", "@", "5m", "\"", "=", "x", "1", " ", ":"]);
    let middle: String = match random.below(3) {
        0 => String::new(),
        1 => part.iter().chain(part).collect(),
        _ => other.to_owned(),
    };
    head.iter().chain(middle.chars().collect::<Vec<char>>().iter()).chain(tail).collect()
}
