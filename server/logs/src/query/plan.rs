//! What a query needs of the store, worked out once.

use super::{
    Query,
    matcher::{LineFilter, Literal},
};
use crate::store::{
    block::{Lines, Origin},
    bloom,
    fields::Gate,
};
use shipwatch_common::{
    model::{Labels, Severity},
    time::UnixNs,
};
use std::{iter::Peekable, str::Chars};

/// Conditions in the order in which they are cheap: time and severity of a block, stream, filter, columns, text.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) start_ns: UnixNs,
    /// Inclusive.
    pub(crate) last_ns: UnixNs,
    pub(crate) severities: u8,
    /// Hashes that a block's filter must have, all of them.
    pub(crate) tokens: Vec<u64>,
    /// Only lines of this file.
    pub(crate) origin: Option<Origin>,
    /// Only this stream.
    pub(crate) stream: Option<Labels>,
    /// Only the streams of a day are asked for, no blocks.
    pub(crate) streams_only: bool,
    /// Texts that wanted lines have.
    pub(crate) gates: Vec<Gate>,
    query: Query,
    /// Which of the filters finds its lines by one walk over all text.
    lead: Option<usize>,
}

impl Plan {
    /// `end_ns` is not included.
    pub(crate) fn new(query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Self {
        let needed: Vec<Literal> = query.filters.iter().filter(|filter| !filter.negated).flat_map(needed).collect();
        let mut tokens: Vec<u64> =
            needed.iter().flat_map(|literal| bloom::necessary(&literal.text, literal.any_case, literal.whole_words)).collect();
        tokens.sort_unstable();
        tokens.dedup();
        // The longest text is the rarest, as far as one can tell.
        let length = |filter: &LineFilter| filter.literal.as_ref().map_or(0, |literal| literal.text.len());
        let lead = (0..query.filters.len())
            .filter(|at| query.filters.get(*at).is_some_and(LineFilter::can_lead))
            .max_by_key(|at| query.filters.get(*at).map_or(0, length));
        Self {
            start_ns,
            last_ns: end_ns.saturating_sub(1),
            severities: query.severities,
            tokens,
            origin: None,
            stream: None,
            streams_only: false,
            gates: needed.iter().filter_map(|literal| Gate::new(&literal.text, literal.any_case)).collect(),
            query: query.clone(),
            lead,
        }
    }

    /// Asks a day for its streams only.
    pub(crate) fn without_blocks(query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Self {
        let mut plan = Self::new(query, start_ns, end_ns);
        plan.streams_only = true;
        plan
    }

    /// Whether a stream may have matching lines.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream == labels) && self.query.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    pub(crate) fn wants(&self, ts_ns: UnixNs, severity: Severity) -> bool {
        (self.start_ns..=self.last_ns).contains(&ts_ns) && self.severities & super::severity_bit(severity) != 0
    }

    /// Whether the text of lines matters at all.
    pub(crate) const fn reads_text(&self) -> bool {
        !self.query.filters.is_empty()
    }

    /// Keeps those of the lines whose text matches.
    pub(crate) fn keep_matching(&self, lines: &Lines, selected: &mut Vec<usize>) {
        if let Some(lead) = self.lead.and_then(|lead| self.query.filters.get(lead)) {
            let hits = hits(lead, lines);
            selected.retain(|at| hits.get(*at).copied().unwrap_or(false));
        }
        let rest: Vec<_> =
            self.query.filters.iter().enumerate().filter(|(at, _)| Some(*at) != self.lead).map(|(_, filter)| filter).collect();
        if !rest.is_empty() {
            selected.retain(|at| rest.iter().all(|filter| filter.keeps(lines.text(*at))));
        }
    }
}

/// The fixed texts that a line has which passes.
fn needed(filter: &LineFilter) -> Vec<Literal> {
    if let Some(literal) = &filter.literal {
        return vec![literal.clone()];
    }
    let parts = fixed_parts(filter.regex.as_str()).unwrap_or_default();
    parts.into_iter().map(|text| Literal { text, any_case: false, whole_words: false }).collect()
}

/// Texts that every match of a pattern has. `None` where the pattern is not of the simple kind: flags, alternatives, rare escapes.
fn fixed_parts(pattern: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '|' | ')' => return None,
            '\\' => match rest.next()? {
                c if c.is_ascii_punctuation() => part.push(c),
                'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'B' | 'A' | 'z' | 'n' | 'r' | 't' => parts.push(String::new()),
                'b' if rest.peek() != Some(&'{') => parts.push(String::new()),
                _ => return None,
            },
            '*' | '?' => {
                part.pop();
                parts.push(String::new());
            }
            '{' => {
                part.pop();
                rest.by_ref().find(|c| *c == '}')?;
                parts.push(String::new());
            }
            '[' => {
                skip_class(&mut rest)?;
                parts.push(String::new());
            }
            '(' => {
                skip_group(&mut rest)?;
                parts.push(String::new());
            }
            '+' | '.' | '^' | '$' => parts.push(String::new()),
            c => part.push(c),
        }
    }
    parts.retain(|part| !part.is_empty());
    Some(parts)
}

/// Behind the end of a class that was begun.
fn skip_class(rest: &mut Peekable<Chars<'_>>) -> Option<()> {
    rest.next_if_eq(&'^');
    rest.next_if_eq(&']');
    loop {
        match rest.next()? {
            '\\' => drop(rest.next()?),
            '[' => skip_class(rest)?,
            ']' => return Some(()),
            _ => {}
        }
    }
}

/// Behind the end of a group that was begun. One that sets flags is not of the simple kind.
fn skip_group(rest: &mut Peekable<Chars<'_>>) -> Option<()> {
    if rest.next_if_eq(&'?').is_some() && !matches!(rest.next()?, ':' | 'P' | '<') {
        return None;
    }
    loop {
        match rest.next()? {
            '\\' => drop(rest.next()?),
            '[' => skip_class(rest)?,
            '(' => skip_group(rest)?,
            ')' => return Some(()),
            _ => {}
        }
    }
}

/// Which lines have the text, found in one walk over all of them. A find across the end of a line is none.
fn hits(lead: &LineFilter, lines: &Lines) -> Vec<bool> {
    let mut hits = vec![false; lines.columns.len()];
    let mut from = 0;
    while let Some(found) = lead.regex.find_at(&lines.body, from) {
        let at = lines.columns.line_at(found.start());
        let end = lines.columns.span(at).end;
        if found.end() <= end {
            if let Some(hit) = hits.get_mut(at) {
                *hit = true;
            }
            from = end;
        } else {
            from = found.start() + found.as_str().chars().next().map_or(1, char::len_utf8);
        }
        if from >= lines.body.len() {
            break;
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EntryId,
        store::block::{self, Columns, Line},
    };
    use shipwatch_common::model::FileId;

    fn lines(texts: &[&str]) -> Lines {
        let origin = Origin { agent: "a".into(), file: FileId(1) };
        let line = |index| Line {
            id: EntryId { ts_ns: 0, batch: 1, index },
            origin: 0,
            end_offset: 0,
            severity: Severity::Info,
            truncated: false,
        };
        let all: Vec<_> = (0..texts.len() as u32).map(line).collect();
        let encoded = block::encode(&[origin], &all, texts.iter().copied(), 1).unwrap();
        Lines::decode(Columns::decode(&encoded.cols, None).unwrap(), &encoded.body).unwrap()
    }

    #[test]
    fn one_walk_finds_what_each_line_has() {
        let texts = ["ab", "", "abab", "ba", "b支", "付b", "支付", "a", "bab"];
        for word in ["ab", "a", "ba", "支付", "支", "abab", "x"] {
            let query = Query { filters: vec![LineFilter::contains(word, false).unwrap()], ..Query::default() };
            let mut found: Vec<usize> = (0..texts.len()).collect();
            Plan::new(&query, 0, 1).keep_matching(&lines(&texts), &mut found);
            let expected: Vec<usize> = (0..texts.len()).filter(|at| texts[*at].contains(word)).collect();
            assert_eq!(found, expected, "{word}");
        }
    }

    #[test]
    fn patterns_have_fixed_parts() {
        for (pattern, expected) in [
            ("GET /api/v[0-9]+/orders/[0-9]+ HTTP", Some(vec!["GET /api/v", "/orders/", " HTTP"])),
            (r"took \d+\.\d{3}ms?", Some(vec!["took ", ".", "m"])),
            ("ab*c+d?e{2}f", Some(vec!["a", "c", "f"])),
            ("a(b|c)d(?:e)f(?P<x>g[)])h", Some(vec!["a", "d", "f", "h"])),
            ("支付+失*", Some(vec!["支付"])),
            ("[]a]b[^]a]c[[:alpha:]&&[^x]]d", Some(vec!["b", "c", "d"])),
            ("a|b", None),
            ("(?i)abc", None),
            ("a(?i:b)c", None),
            (r"\x41bc", None),
            (r"\pLbc", None),
            (r"\b{start}abc", None),
            (".*", Some(vec![])),
        ] {
            let found = fixed_parts(pattern);
            assert_eq!(found, expected.map(|parts| parts.into_iter().map(str::to_owned).collect()), "{pattern}");
            assert!(regex::Regex::new(pattern).is_ok());
        }
    }

    #[test]
    fn filters_give_the_tokens_that_blocks_need() {
        let tokens = |text: &str| Plan::new(&Query::parse(text).unwrap(), 0, 1).tokens.len();
        assert_eq!(tokens(r#"{a="b"} |= "one-two-three""#), 1);
        assert_eq!(tokens(r#"{a="b"} != "one-two-three""#), 0);
        assert_eq!(tokens(r#"{a="b"} |~ `\bone two\b`"#), 2);
        assert_eq!(tokens("支付"), 3);
    }
}
