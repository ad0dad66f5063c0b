//! Samples for other programs: `/federate` and `/api/v1/export`.

use super::{ApiError, Params};
use crate::{
    exchange::{json, text},
    source::{SelectLimits, SeriesData, Source},
};
use shipwatch_common::{
    model::{Labels, metric::is_stale_marker},
    time::UnixMs,
};
use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

/// Length of the pieces in which samples are exported; bounds what is in memory.
const WINDOW_MS: i64 = 2 * 3_600_000;
/// Beyond this after now nothing was accepted, whatever is configured.
const AHEAD_MS: i64 = 2 * 86_400_000;
/// Most selectors of one request.
const MAX_SELECTORS: usize = 64;

/// Why an export ended early.
#[derive(Debug)]
pub enum ExportError {
    /// To be told.
    Api(ApiError),
    /// Nobody takes it any more.
    Gone(io::Error),
}

impl<E: Into<ApiError>> From<E> for ExportError {
    fn from(error: E) -> Self {
        Self::Api(error.into())
    }
}

fn selectors(params: Params<'_>) -> Result<Vec<Vec<crate::matcher::Matcher>>, ApiError> {
    let all = params.selectors()?;
    match all.len() {
        0 => Err(ApiError::bad_data("no match[] parameter: say which series, such as match[]={job=\"node\"}")),
        1..=MAX_SELECTORS => Ok(all),
        _ => Err(ApiError::bad_data(format!("more than {MAX_SELECTORS} match[] parameters"))),
    }
}

/// `/federate`: the newest sample of each series within `lookback`, in the text format, sorted by name. Series that went stale are
/// left out. As Prometheus does, series without `instance` get an empty one, so that who scrapes them does not add its own.
///
/// # Errors
/// Wrong parameters, or a bound of `limits`.
pub fn federate(
    source: &dyn Source,
    params: Params<'_>,
    now_ms: UnixMs,
    lookback: Duration,
    limits: &SelectLimits,
) -> Result<Vec<u8>, ApiError> {
    let start = now_ms.saturating_sub(shipwatch_common::time::duration_ms(lookback));
    let mut newest: BTreeMap<(String, Arc<Labels>), (UnixMs, f64)> = BTreeMap::new();
    for matchers in selectors(params)? {
        for series in source.select(&matchers, start, now_ms, limits)? {
            if let Some((ts, value)) = series.ts.last().copied().zip(series.values.last().copied())
                && !is_stale_marker(value)
            {
                newest.insert((series.labels.metric_name().to_owned(), series.labels), (ts, value));
            }
        }
    }
    let (mut out, mut family) = (Vec::new(), None);
    for ((name, labels), (ts, value)) in &newest {
        let failed = |error: io::Error| ApiError { status: 500, error_type: "internal", message: error.to_string() };
        if family != Some(name) {
            text::write_untyped(&mut out, name).map_err(failed)?;
            family = Some(name);
        }
        text::write_latest(&mut out, labels, *ts, *value).map_err(failed)?;
    }
    Ok(out)
}

/// `/api/v1/export`: `match[]`, `start`, `end`; JSON lines, a series in one line for every two hours. `oldest` is the first moment
/// of what was sealed; what is older lies in memory anyway and is taken at once. `limits` are those of one piece.
///
/// # Errors
/// Wrong parameters, a bound, or `out`.
pub fn export(
    source: &dyn Source,
    params: Params<'_>,
    now_ms: UnixMs,
    oldest: Option<UnixMs>,
    limits: &dyn Fn() -> SelectLimits,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let all = selectors(params)?;
    let (start, end) = (params.time("start", 0)?, params.time("end", now_ms)?);
    if end < start {
        return Err(ApiError::bad_data("end must not be before start").into());
    }
    for (t0, t1) in pieces(start, end.min(now_ms.saturating_add(AHEAD_MS)), oldest.unwrap_or(now_ms - AHEAD_MS)) {
        let mut written: HashSet<Arc<Labels>> = HashSet::new();
        for matchers in &all {
            for series in source.select(matchers, t0, t1, &limits())? {
                if all.len() == 1 || written.insert(Arc::clone(&series.labels)) {
                    write(out, &series)?;
                }
            }
        }
    }
    out.flush().map_err(ExportError::Gone)
}

fn write(out: &mut impl Write, series: &SeriesData) -> Result<(), ExportError> {
    json::write(out, series).map_err(ExportError::Gone)
}

/// What is before `oldest` at once, then two hours at a time.
fn pieces(start: UnixMs, end: UnixMs, oldest: UnixMs) -> impl Iterator<Item = (UnixMs, UnixMs)> {
    let before = (start < oldest && start <= end).then(|| (start, end.min(oldest - 1)));
    let from = start.max(oldest);
    let later = (from <= end).then(|| (from..=end).step_by(WINDOW_MS as usize).map(move |t0| (t0, end.min(t0 + WINDOW_MS - 1))));
    before.into_iter().chain(later.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemSource;
    use shipwatch_common::model::{Sample, metric::STALE_NAN_BITS};

    fn source(all: &[(&str, i64, f64)]) -> MemSource {
        let mut source = MemSource::new();
        for (text, ts_ms, value) in all {
            let line = format!("{text} {value} {ts_ms}\n");
            let push = |sample: Sample| {
                source.push(Sample { value: *value, ..sample });
                Ok::<_, std::convert::Infallible>(())
            };
            text::read(line.as_bytes(), text::Format::Prometheus, None, push).unwrap();
        }
        source
    }

    fn params(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn federation_gives_the_newest_that_is_not_stale_sorted_by_name() {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let source = source(&[
            ("zz{instance=\"a\"}", 900_000, 1.0),
            ("zz{instance=\"a\"}", 950_000, 2.0),
            ("zz{Zone=\"x\",q=\"}\\\"\"}", 990_000, f64::INFINITY),
            ("aa", 1_000_000, 0.5),
            ("gone", 990_000, 1.0),
            ("gone", 1_000_000, stale),
            ("old", 600_000, 1.0),
            ("future", 1_000_001, 1.0),
        ]);
        let ask =
            |all: &[(&str, &str)]| federate(&source, Params(&params(all)), 1_000_000, Duration::from_secs(300), &SelectLimits::none());
        let told = ask(&[("match[]", "{__name__=~\".+\"}"), ("match[]", "zz")]).unwrap();
        let expected = "# TYPE aa untyped\naa{instance=\"\"} 0.5 1000000\n# TYPE zz untyped\n\
            zz{Zone=\"x\",q=\"}\\\"\",instance=\"\"} +Inf 990000\nzz{instance=\"a\"} 2 950000\n";
        assert_eq!(String::from_utf8(told).unwrap(), expected);
        assert_eq!((ask(&[]).unwrap_err().status, ask(&[("match[]", "{")]).unwrap_err().status), (400, 400));
    }

    #[test]
    fn an_export_has_every_sample_once_whatever_the_pieces() {
        let hour = 3_600_000;
        let all: Vec<_> = (0..30).map(|at| ("up{job=\"x\"}", at * hour, at as f64)).collect();
        let source = source(&all);
        let ask = |all: &[(&str, &str)], oldest| {
            let mut out = Vec::new();
            let done = export(&source, Params(&params(all)), 29 * hour, oldest, &SelectLimits::none, &mut out);
            done.map(|()| {
                let mut times = Vec::new();
                let push = |sample: Sample| {
                    times.push(sample.ts_ms / hour);
                    Ok::<_, std::convert::Infallible>(())
                };
                json::read(&*out, push).unwrap();
                times
            })
        };
        for oldest in [None, Some(0), Some(5 * hour + 7), Some(100 * hour)] {
            assert_eq!(ask(&[("match[]", "up"), ("match[]", "{job=\"x\"}")], oldest).unwrap(), (0..30).collect::<Vec<_>>());
            assert_eq!(ask(&[("match[]", "up"), ("start", "7200"), ("end", "18000")], oldest).unwrap(), [2, 3, 4, 5]);
        }
        for bad in [&[][..], &[("match[]", "up"), ("start", "5"), ("end", "4")], &[("match[]", "up"), ("start", "x")]] {
            assert!(matches!(ask(bad, None), Err(ExportError::Api(ApiError { status: 400, .. }))), "{bad:?}");
        }
    }
}
