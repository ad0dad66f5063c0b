//! Interned series: the same `Arc<Labels>` for a series in every tick.

use shipwatch_common::{
    mask::Masker,
    model::{Labels, metric::STALE_NAN_BITS},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Known series with the tick that last had them.
#[derive(Debug)]
pub(crate) struct Interner {
    known: HashMap<Box<str>, Known>,
    common: BTreeMap<String, String>,
    masker: Arc<Masker>,
    max_series: usize,
    tick: u64,
    dropped_total: u64,
}

#[derive(Debug)]
struct Known {
    labels: Arc<Labels>,
    tick: u64,
}

impl Interner {
    pub(crate) fn new(mut common: BTreeMap<String, String>, max_series: usize, masker: Arc<Masker>) -> Self {
        common.entry("job".to_owned()).or_insert_with(|| "node".to_owned());
        Self { known: HashMap::new(), common, masker, max_series, tick: 0, dropped_total: 0 }
    }

    pub(crate) fn begin(&mut self) -> Batch<'_> {
        self.tick += 1;
        let samples = Vec::with_capacity(self.known.len() + 8);
        Batch { interner: self, samples, key: String::new() }
    }

    fn intern(&mut self, key: &str, name: &str, labels: &[(&str, &str)]) -> Option<Arc<Labels>> {
        if let Some(known) = self.known.get_mut(key) {
            // The same series twice in a tick would be two values at one time; the first stays.
            let first = known.tick != self.tick;
            known.tick = self.tick;
            return first.then(|| Arc::clone(&known.labels));
        }
        if self.known.len() >= self.max_series {
            self.dropped_total += 1;
            return None;
        }
        let masked: Vec<(&str, String)> = labels.iter().map(|(name, value)| (*name, self.masker.mask(value).text.into_owned())).collect();
        let mut all: BTreeMap<&str, &str> = self.common.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        all.extend(masked.iter().map(|(name, value)| (*name, value.as_str())));
        all.insert(Labels::NAME, name);
        match Labels::new(all) {
            Ok(labels) => {
                let labels = Arc::new(labels);
                self.known.insert(key.into(), Known { labels: Arc::clone(&labels), tick: self.tick });
                Some(labels)
            }
            Err(_) => {
                self.dropped_total += 1;
                None
            }
        }
    }
}

/// The samples of one tick.
#[derive(Debug)]
pub struct Batch<'a> {
    interner: &'a mut Interner,
    samples: Vec<(Arc<Labels>, f64)>,
    key: String,
}

impl Batch<'_> {
    /// Adds a sample.
    pub fn push(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.key.clear();
        self.key.push_str(name);
        for (name, value) in labels {
            self.key.push('\0');
            self.key.push_str(name);
            self.key.push('\0');
            self.key.push_str(value);
        }
        if let Some(labels) = self.interner.intern(&self.key, name, labels) {
            self.samples.push((labels, value));
        }
    }

    /// Adds stale markers for series that ended, forgets them, and gives the tick.
    pub(crate) fn finish(mut self) -> Vec<(Arc<Labels>, f64)> {
        let dropped = self.interner.dropped_total;
        #[expect(clippy::cast_precision_loss, reason = "a counter")]
        self.push("shipwatch_agent_series_dropped_total", &[], dropped as f64);
        let tick = self.interner.tick;
        let ended = self.interner.known.extract_if(|_, known| known.tick != tick);
        self.samples.extend(ended.map(|(_, known)| (known.labels, f64::from_bits(STALE_NAN_BITS))));
        self.samples
    }
}
