//! Classic histograms at one step: cumulative counts by upper bound.

use super::values::is_absent;

/// Relative differences between counts below this are rounding.
const TOLERANCE: f64 = 1e-12;

/// A bucket at one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) bound: f64,
    pub(crate) count: f64,
}

/// What became of a quantile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantile {
    pub(crate) value: f64,
    /// Whether counts fell from one bucket to the next by more than rounding.
    pub(crate) forced_monotonic: bool,
}

impl Quantile {
    const fn of(value: f64) -> Self {
        Self { value, forced_monotonic: false }
    }
}

/// The φ-quantile, as if observations lay evenly in their bucket. `buckets` are sorted by bound and not empty.
pub(crate) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> Quantile {
    if q.is_nan() {
        return Quantile::of(f64::NAN);
    }
    if q < 0.0 {
        return Quantile::of(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Quantile::of(f64::INFINITY);
    }
    if buckets.last().is_none_or(|highest| highest.bound != f64::INFINITY) {
        return Quantile::of(f64::NAN);
    }
    join_equal_bounds(buckets);
    let forced_monotonic = make_monotonic(buckets);
    let [.., below_highest, highest] = &buckets[..] else { return Quantile::of(f64::NAN) };
    if highest.count == 0.0 {
        return Quantile::of(f64::NAN);
    }
    let rank = q * highest.count;
    // Counts that are NaN are never reached.
    let at = first_reaching(&buckets[..buckets.len() - 1], rank);
    if at == buckets.len() - 1 {
        return Quantile { value: below_highest.bound, forced_monotonic };
    }
    let bucket = buckets[at];
    if at == 0 && bucket.bound <= 0.0 {
        return Quantile { value: bucket.bound, forced_monotonic };
    }
    let (start, before) = if at == 0 { (0.0, 0.0) } else { (buckets[at - 1].bound, buckets[at - 1].count) };
    Quantile { value: start + (bucket.bound - start) * ((rank - before) / (bucket.count - before)), forced_monotonic }
}

/// Go's binary search, which is also defined where NaN makes the counts unordered.
fn first_reaching(buckets: &[Bucket], rank: f64) -> usize {
    let (mut from, mut to) = (0, buckets.len());
    while from < to {
        let middle = usize::midpoint(from, to);
        if buckets[middle].count >= rank {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

/// The part of the observations between two values. `buckets` are sorted by bound.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if buckets.last().is_none_or(|highest| highest.bound != f64::INFINITY) {
        return f64::NAN;
    }
    join_equal_bounds(buckets);
    let all = buckets.last().map_or(0.0, |bucket| bucket.count);
    if all == 0.0 || all.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets).min(all) - rank_of(lower, buckets).min(all)) / all
}

/// How many observations are below a value.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let mut rank = 0.0;
    let mut start = f64::NEG_INFINITY;
    for bucket in buckets {
        // Observations of a first bucket that reaches above zero are taken to be positive.
        if start == f64::NEG_INFINITY && bucket.bound > 0.0 {
            start = 0.0;
        }
        if start >= value {
            return rank;
        }
        if bucket.bound > value {
            let part = if start.is_infinite() { 0.0 } else { (value - start) / (bucket.bound - start) };
            return rank + (bucket.count - rank) * part;
        }
        (rank, start) = (bucket.count, bucket.bound);
    }
    rank
}

/// Different spellings of one bound (`1` and `1.0`) are one bucket.
fn join_equal_bounds(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Counts are cumulative; scrapes and rates can make them fall. Tells whether they fell by more than rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let Some((first, others)) = buckets.split_first_mut() else { return forced };
    let mut before = first.count;
    for bucket in others {
        if bucket.count == before || nearly_equal(before, bucket.count) {
            bucket.count = before;
        } else if bucket.count < before {
            bucket.count = before;
            forced = true;
        } else {
            before = bucket.count;
        }
    }
    forced
}

fn nearly_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() {
        return true;
    }
    let (sum, distance) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return distance < TOLERANCE * f64::MIN_POSITIVE;
    }
    distance / sum.min(f64::MAX) < TOLERANCE
}

/// The buckets that have a count at a step, in order of their bounds.
pub(crate) fn present(bounds: &[f64], counts: impl Iterator<Item = f64>, into: &mut Vec<Bucket>) {
    into.clear();
    let all = bounds.iter().zip(counts).filter(|(_, count)| !is_absent(*count));
    into.extend(all.map(|(bound, count)| Bucket { bound: *bound, count }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(all: &[(f64, f64)]) -> Vec<Bucket> {
        all.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect()
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let all = [(0.1, 10.0), (0.5, 20.0), (f64::INFINITY, 40.0)];
        for (q, expected) in [(0.25, 0.1), (0.375, 0.3), (0.9, 0.5), (-0.1, f64::NEG_INFINITY), (1.1, f64::INFINITY)] {
            let found = quantile(q, &mut buckets(&all)).value;
            assert!((found - expected).abs() < 1e-12 || found == expected, "{q}: {found}");
        }
        let falling = [(0.1, 10.0), (0.5, 5.0), (f64::INFINITY, 40.0)];
        assert!(quantile(0.5, &mut buckets(&falling)).forced_monotonic);
        assert!(quantile(0.5, &mut buckets(&[(1.0, 1.0)])).value.is_nan());
    }

    #[test]
    fn fractions_are_the_inverse_of_quantiles() {
        let all = [(-1.0, 4.0), (0.5, 20.0), (2.0, 30.0), (f64::INFINITY, 40.0)];
        for (lower, upper, expected) in [
            (f64::NEG_INFINITY, f64::INFINITY, 1.0),
            (f64::NEG_INFINITY, 0.5, 0.5),
            (0.5, 2.0, 0.25),
            (0.5, 1.25, 0.125),
            (-5.0, -1.0, 0.1),
            (2.0, 0.5, 0.0),
            (5.0, f64::INFINITY, 0.25),
        ] {
            let found = fraction(lower, upper, &mut buckets(&all));
            assert!((found - expected).abs() < 1e-12, "{lower}..{upper}: {found}");
        }
        assert!(fraction(f64::NAN, 1.0, &mut buckets(&all)).is_nan());
        assert!(fraction(0.0, 1.0, &mut buckets(&[(f64::INFINITY, 0.0)])).is_nan());
    }
}
