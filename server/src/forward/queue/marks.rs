//! How far each sender with a sequence has come.

use std::collections::HashMap;

/// Senders that are remembered; an agent is another one after each of its starts. One that was forgotten and sends an old batch
/// again is taken twice.
const MAX_SOURCES: usize = 20_000;

/// The last sequence of each source.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: HashMap<String, (u64, u64)>,
    turn: u64,
}

impl Marks {
    pub(super) fn of(marks: Vec<(String, u64)>) -> Self {
        let mut all = Self::default();
        marks.into_iter().for_each(|(source, seq)| all.set(&source, seq));
        all
    }

    pub(super) fn get(&self, source: &str) -> Option<u64> {
        self.marks.get(source).map(|(seq, _)| *seq)
    }

    pub(super) fn set(&mut self, source: &str, seq: u64) {
        self.turn += 1;
        let turn = self.turn;
        match self.marks.get_mut(source) {
            Some(mark) => *mark = (seq.max(mark.0), turn),
            None => {
                self.marks.insert(source.to_owned(), (seq, turn));
            }
        }
        if self.marks.len() > 2 * MAX_SOURCES {
            self.forget();
        }
    }

    /// Keeps those that were heard of last.
    fn forget(&mut self) {
        let mut turns: Vec<u64> = self.marks.values().map(|(_, turn)| *turn).collect();
        let at = turns.len().saturating_sub(MAX_SOURCES);
        if at > 0 {
            let (_, oldest, _) = turns.select_nth_unstable(at);
            let oldest = *oldest;
            self.marks.retain(|_, (_, turn)| *turn >= oldest);
        }
    }

    /// All of them, in the order in which they were heard of.
    pub(super) fn snapshot(&self) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.marks.iter().map(|(source, (seq, turn))| (*turn, source.clone(), *seq)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, source, seq)| (source, seq)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_grow_and_the_oldest_sources_are_forgotten() {
        let mut marks = Marks::default();
        for source in 0..=2 * MAX_SOURCES {
            marks.set(&format!("s{source}"), 5);
            marks.set("always", source as u64);
        }
        marks.set("always", 1);
        assert_eq!(marks.get("always"), Some(2 * MAX_SOURCES as u64));
        assert_eq!((marks.get("s0"), marks.get(&format!("s{}", 2 * MAX_SOURCES))), (None, Some(5)));
        let snapshot = marks.snapshot();
        assert!(snapshot.len() >= MAX_SOURCES && snapshot.len() <= 2 * MAX_SOURCES, "{}", snapshot.len());
        assert_eq!(Marks::of(snapshot.clone()).snapshot(), snapshot);
    }
}
