//! How samples that wait become requests. Pure: the same samples give the same requests, in this process and the next one.
//!
//! # Invariants
//! - All samples of a series are in one lane; in a lane they keep their order, across requests as well.
//! - A request has at most as many samples as is asked for, each series once, its samples by time, one for each time.
//! - Series stand in the order in which they came: those of one host stay neighbours, so that halving a refused request finds the
//!   culprit soon.

use shipwatch_common::time::UnixMs;
use std::collections::HashMap;

/// A sample of a series by its number.
pub(super) type Point = (u32, UnixMs, f64);

/// What is sent at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Request {
    /// Numbers of series, with their samples.
    pub(super) series: Vec<(u32, Vec<(UnixMs, f64)>)>,
}

impl Request {
    fn of(points: &[Point]) -> Self {
        let mut places = HashMap::new();
        let mut series: Vec<(u32, Vec<(UnixMs, f64)>)> = Vec::new();
        for (number, ts, value) in points {
            let at = *places.entry(*number).or_insert_with(|| {
                series.push((*number, Vec::with_capacity(1)));
                series.len() - 1
            });
            series[at].1.push((*ts, *value));
        }
        for (_, samples) in series.iter_mut().filter(|(_, samples)| samples.len() > 1) {
            samples.sort_by_key(|(ts, _)| *ts);
            // Of several with one time, the one that came last stays.
            samples.reverse();
            samples.dedup_by_key(|(ts, _)| *ts);
            samples.reverse();
        }
        Self { series }
    }

    /// Number of samples.
    pub(super) fn samples(&self) -> usize {
        self.series.iter().map(|(_, samples)| samples.len()).sum()
    }

    /// The newest time.
    pub(super) fn newest(&self) -> Option<UnixMs> {
        self.series.iter().filter_map(|(_, samples)| samples.last()).map(|(ts, _)| *ts).max()
    }

    /// Removes what is older than this, and tells how many samples that were.
    pub(super) fn forget_before(&mut self, oldest: UnixMs) -> usize {
        let before = self.samples();
        for (_, samples) in &mut self.series {
            samples.retain(|(ts, _)| *ts >= oldest);
        }
        self.series.retain(|(_, samples)| !samples.is_empty());
        before - self.samples()
    }

    /// Two parts that can be sent one after the other: by series, or, of one series, by time.
    pub(super) fn halves(mut self) -> Result<(Self, Self), Self> {
        match self.series.as_mut_slice() {
            [] => Err(self),
            [(number, samples)] if samples.len() > 1 => {
                let (number, later) = (*number, samples.split_off(samples.len() / 2));
                Ok((self, Self { series: vec![(number, later)] }))
            }
            [_] => Err(self),
            _ => {
                let later = self.series.split_off(self.series.len() / 2);
                Ok((self, Self { series: later }))
            }
        }
    }
}

/// Requests of each lane, in order.
pub(super) fn requests(points: &[Point], lane_of: impl Fn(u32) -> usize, lanes: usize, max_samples: usize) -> Vec<Vec<Request>> {
    let mut by_lane = vec![Vec::new(); lanes.max(1)];
    for point in points {
        let lane = lane_of(point.0) % by_lane.len();
        by_lane[lane].push(*point);
    }
    by_lane.iter().map(|points| points.chunks(max_samples.max(1)).map(Request::of).collect()).collect()
}

/// How many requests may be spent on finding what a target refuses.
///
/// A target that refuses a whole request for one of its samples (as Prometheus before 3 does) still gets the others; one that
/// refuses everything is not asked the same thing many times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Splitting {
    allowed: u32,
}

impl Splitting {
    const MOST: u32 = 64;
    const LEAST: u32 = 2;

    pub(super) const fn new() -> Self {
        Self { allowed: Self::MOST }
    }

    /// Requests that may be spent on the next refusal.
    pub(super) const fn allowed(self) -> u32 {
        self.allowed
    }

    /// Learns whether the last one was worth it.
    pub(super) fn learn(&mut self, saved: usize) {
        self.allowed = if saved > 0 { Self::MOST } else { (self.allowed / 2).max(Self::LEAST) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_reordered(
            points in proptest::collection::vec((0u32..20, 0i64..50), 0..300),
            lanes in 1usize..6,
            max in 1usize..40,
        ) {
            let points: Vec<Point> = points.iter().enumerate().map(|(at, (series, ts))| (*series, *ts, at as f64)).collect();
            let planned = requests(&points, |series| series as usize * 7, lanes, max);
            prop_assert_eq!(&planned, &requests(&points, |series| series as usize * 7, lanes, max));
            prop_assert_eq!(planned.len(), lanes);
            // What a target that lets the last one win has in the end.
            let mut got = BTreeMap::new();
            for (lane, requests) in planned.iter().enumerate() {
                for request in requests {
                    prop_assert!(request.samples() <= max);
                    for (series, samples) in &request.series {
                        prop_assert_eq!(*series as usize * 7 % lanes, lane);
                        prop_assert!(samples.windows(2).all(|pair| pair[0].0 < pair[1].0));
                        got.extend(samples.iter().map(|(ts, value)| ((*series, *ts), *value as usize)));
                    }
                }
            }
            let expected: BTreeMap<_, _> = points.iter().map(|(series, ts, value)| ((*series, *ts), *value as usize)).collect();
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn halving_ends_at_single_samples(points in proptest::collection::vec((0u32..6, 0i64..50), 1..60)) {
            let points: Vec<Point> = points.into_iter().map(|(series, ts)| (series, ts, 1.0)).collect();
            let request = Request::of(&points);
            let (mut waiting, mut single, whole) = (vec![request.clone()], Vec::new(), request.samples());
            while let Some(next) = waiting.pop() {
                match next.halves() {
                    Ok((first, second)) => waiting.extend([second, first]),
                    Err(one) => single.push(one),
                }
            }
            prop_assert_eq!(single.len(), whole);
            let flat: Vec<_> = single.iter().flat_map(|one| one.series.iter().flat_map(|(id, all)| all.iter().map(|(ts, _)| (*id, *ts)))).collect();
            let expected: Vec<_> = request.series.iter().flat_map(|(id, all)| all.iter().map(|(ts, _)| (*id, *ts))).collect();
            prop_assert_eq!(flat, expected);
        }
    }

    #[test]
    fn old_samples_are_forgotten_and_series_without_any_go() {
        let mut request = Request::of(&[(1, 10, 1.0), (2, 30, 2.0), (1, 20, 3.0)]);
        assert_eq!((request.newest(), request.forget_before(20)), (Some(30), 1));
        assert_eq!(request.series, [(1, vec![(20, 3.0)]), (2, vec![(30, 2.0)])]);
        assert_eq!((request.forget_before(25), request.series.len()), (1, 1));
        assert_eq!((request.forget_before(99), request.newest()), (1, None));
    }

    #[test]
    fn a_target_that_refuses_everything_is_not_asked_again_and_again() {
        let mut splitting = Splitting::new();
        let allowed: Vec<u32> = (0..7)
            .map(|_| {
                splitting.learn(0);
                splitting.allowed()
            })
            .collect();
        assert_eq!(allowed, [32, 16, 8, 4, 2, 2, 2]);
        splitting.learn(1);
        assert_eq!(splitting.allowed(), Splitting::MOST);
    }
}
