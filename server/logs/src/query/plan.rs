//! What a query needs of the store, worked out once.

use super::{Query, matcher::LineFilter};
use crate::store::{
    block::{Lines, Origin},
    bloom,
};
use shipwatch_common::{
    model::{Labels, Severity},
    time::UnixNs,
};

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
    query: Query,
    /// Which of the filters finds its lines by one walk over all text.
    lead: Option<usize>,
}

impl Plan {
    /// `end_ns` is not included.
    pub(crate) fn new(query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Self {
        let wanted = query.filters.iter().filter(|filter| !filter.negated).filter_map(|filter| filter.literal.as_ref());
        let mut tokens: Vec<u64> =
            wanted.flat_map(|literal| bloom::necessary(&literal.text, literal.any_case, literal.whole_words)).collect();
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
    fn filters_give_the_tokens_that_blocks_need() {
        let tokens = |text: &str| Plan::new(&Query::parse(text).unwrap(), 0, 1).tokens.len();
        assert_eq!(tokens(r#"{a="b"} |= "one-two-three""#), 1);
        assert_eq!(tokens(r#"{a="b"} != "one-two-three""#), 0);
        assert_eq!(tokens(r#"{a="b"} |~ `\bone two\b`"#), 2);
        assert_eq!(tokens("支付"), 3);
    }
}
