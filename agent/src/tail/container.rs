//! Logs of containers as their runtimes write them to files: Docker's json-file, and the text of CRI (containerd, CRI-O).
//!
//! Both hold two outputs in one file, and cut long lines into parts. Each output is read as a file of its own: its parts are joined
//! before anything else is done, then come events of several lines, masking and the rest as in [`super::lines`].
//!
//! # Invariants
//! - Pure: the same bytes at the same position give the same lines.
//! - The file's position lies before the first part of every line and event that is not over, of either output. How far the
//!   other output was read beyond it is part of the position ([`Output::ahead`]), so nothing is read twice after a crash.
//! - A line is cut at the source's bound with an overlap for the masker; the rest of its parts is skipped. What does not have the
//!   form is taken as it stands: it must not be lost.
//!
//! Leaves out: a rename of a container while its log is followed (labels are those at the first sight).

use super::{
    filter::Budget,
    lines::{BATCH_BYTES, BATCH_LINES, Batch, Event, Flush, Place, Raw, Told},
    position::Output,
    source::OVERLAP_BYTES,
};
use serde::Deserialize;
use shipwatch_common::time::UnixNs;
use std::{borrow::Cow, fs, io::Read as _, path::Path};

/// Names of a container's outputs, by their number.
pub(super) const OUTPUTS: [&str; 2] = ["stdout", "stderr"];
/// Docker's own description of a container; a larger one is not looked at.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// How a file holds lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Format {
    /// A line is a line.
    #[default]
    Plain,
    /// `{"log":"…\n","stream":"stdout","time":"…"}`.
    Docker,
    /// `2026-11-23T08:00:00.123456789Z stdout F …`.
    Cri,
}

impl Format {
    pub(super) fn named(name: &str) -> Result<Self, String> {
        match name {
            "" | "plain" => Ok(Self::Plain),
            "docker" => Ok(Self::Docker),
            "cri" => Ok(Self::Cri),
            other => Err(format!("must be plain, docker or cri, not {other:?}")),
        }
    }

    /// So many bytes of a file may stand for one byte of a line: `\u00e9`, or the frame around short lines.
    pub(super) const fn spread(self) -> usize {
        if matches!(self, Self::Docker) { 6 } else { 2 }
    }
}

/// One line of the file.
struct Record<'a> {
    output: usize,
    text: Cow<'a, str>,
    /// It goes on in the next record of its output.
    is_partial: bool,
    ts_ns: Option<UnixNs>,
}

#[derive(Deserialize)]
struct DockerLine<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

fn docker(line: &str) -> Option<Record<'_>> {
    let DockerLine { log, stream, time } = serde_json::from_str(line).ok()?;
    let is_partial = !log.ends_with('\n');
    let text = match log {
        Cow::Borrowed(log) => Cow::Borrowed(bare(log)),
        Cow::Owned(log) => Cow::Owned(bare(&log).to_owned()),
    };
    Some(Record { output: usize::from(stream == OUTPUTS[1]), text, is_partial, ts_ns: time_ns(&time) })
}

fn bare(log: &str) -> &str {
    log.strip_suffix('\n').map_or(log, |log| log.strip_suffix('\r').unwrap_or(log))
}

fn cri(line: &str) -> Option<Record<'_>> {
    let mut words = line.splitn(4, ' ');
    let (time, output, tags, text) = (words.next()?, words.next()?, words.next()?, words.next().unwrap_or(""));
    let output = OUTPUTS.iter().position(|name| *name == output)?;
    let ts_ns = Some(time_ns(time)?);
    let is_partial = match tags.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    Some(Record { output, text: Cow::Borrowed(text), is_partial, ts_ns })
}

fn time_ns(text: &str) -> Option<UnixNs> {
    i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
}

/// A line whose end has not come yet.
struct Open {
    start: usize,
    end: usize,
    text: String,
    ts_ns: Option<UnixNs>,
}

/// Bytes of a line that are kept: no character of them is cut where the line is.
const fn longest(place: &Place<'_>) -> usize {
    place.source.max_line_bytes + OVERLAP_BYTES + 3
}

/// One output while a batch is made.
struct Lane {
    /// Records before it are done with.
    done: usize,
    open: Option<Open>,
    event: Option<Event>,
    batch: Batch,
}

impl Lane {
    fn new(output: &Output, budget: Budget) -> Self {
        let done = usize::try_from(output.ahead).unwrap_or(usize::MAX);
        Self { done, open: None, event: None, batch: Batch::new(output.skipping, output.line.clone(), budget) }
    }

    /// Where what is not over begins.
    fn begun(&self) -> Option<usize> {
        self.event.as_ref().map(|event| event.start).or_else(|| self.open.as_ref().map(|open| open.start))
    }

    fn take(&mut self, place: &Place<'_>, record: Record<'_>, start: usize, end: usize) {
        if self.batch.skipping {
            self.batch.skipping = record.is_partial;
            return;
        }
        let text = match self.open.take() {
            Some(open) => Open { end, text: open.text + &record.text, ..open },
            None => Open { start, end, text: record.text.into_owned(), ts_ns: record.ts_ns },
        };
        let cut = text.text.len() > longest(place);
        if record.is_partial && !cut {
            self.open = Some(text);
            return;
        }
        self.line(place, text, cut);
        self.batch.skipping = cut && record.is_partial;
    }

    fn line(&mut self, place: &Place<'_>, line: Open, cut: bool) {
        let text = if cut { super::lines::head(&line.text, longest(place)) } else { &line.text };
        let raw = Raw { start: line.start, end: line.end, cut };
        self.batch.join(place, &mut self.event, raw, Cow::Borrowed(text), Told { ts_ns: line.ts_ns, ..Told::default() });
    }

    /// Ends what is open, though more of it may come.
    fn end(&mut self, place: &Place<'_>, lines_too: bool) {
        if let Some(open) = self.open.take_if(|_| lines_too) {
            self.line(place, open, false);
        }
        if self.open.is_none()
            && let Some(event) = self.event.take()
        {
            self.batch.finish(place, event, false);
        }
    }
}

/// Lines of both outputs, and how far each was read from the first byte.
pub(super) struct Made {
    pub(super) batches: [Batch; 2],
    pub(super) done: [usize; 2],
    /// In the middle of a record that is longer than everything that is looked at.
    pub(super) skipping: bool,
    pub(super) budget: Budget,
}

impl Made {
    /// The position's part of it, with `done` bytes read of each output: bytes that are done with, and the outputs.
    pub(super) fn outputs(&self, done: [usize; 2], before: &[Output; 2]) -> (usize, [Output; 2]) {
        let used = done[0].min(done[1]);
        let output = |at: usize| {
            let ahead = (done[at] - used) as u64;
            if done[at] == self.done[at] {
                let batch = &self.batches[at];
                Output { ahead, skipping: batch.skipping, line: batch.line_state.clone() }
            } else {
                Output { ahead, ..before[at].clone() }
            }
        };
        (used, [output(0), output(1)])
    }
}

/// Where reading stands.
pub(super) struct From<'a> {
    pub(super) outputs: &'a [Output; 2],
    pub(super) skipping: bool,
    pub(super) budget: Budget,
    pub(super) flush: Flush,
    /// No more bytes can be looked at together.
    pub(super) is_full: bool,
}

/// Makes one batch of `bytes`.
pub(super) fn batch(place: &Place<'_>, bytes: &[u8], from: &From<'_>) -> Made {
    let mut lanes = [0, 1].map(|at: usize| Lane::new(&from.outputs[at], from.budget));
    let (mut at, mut skipping, mut budget) = (0, from.skipping, from.budget);
    let most = lanes[0].done.max(lanes[1].done).saturating_add(BATCH_BYTES);
    while lanes.iter().map(|lane| lane.batch.finished).sum::<usize>() < BATCH_LINES && at < most {
        let start = at;
        let Some(end) = place.encoding.line_end(bytes, start).or_else(|| last(bytes, start, from)) else { break };
        at = end;
        if std::mem::take(&mut skipping) {
            continue;
        }
        let text = place.encoding.text(&bytes[start..end]);
        let record = match place.source.format {
            Format::Cri => cri(&text),
            Format::Docker | Format::Plain => docker(&text),
        };
        let record = record.unwrap_or(Record { output: 0, text: Cow::Borrowed(&*text), is_partial: false, ts_ns: None });
        let lane = &mut lanes[record.output];
        if start >= lane.done {
            lane.batch.budget = budget;
            lane.take(place, record, start, end);
            budget = lane.batch.budget;
        }
    }
    let is_stuck = from.is_full && lanes.iter().all(|lane| lane.batch.finished == 0);
    if skipping {
        at = bytes.len();
    } else if at == 0 && is_stuck {
        // A record that is longer than everything that is looked at is none.
        at = bytes.len();
        skipping = true;
        let text = place.encoding.text(&bytes[..at.min(longest(place))]);
        lanes[0].line(place, Open { start: 0, end: at, text: text.into_owned(), ts_ns: None }, true);
        lanes[0].batch.skipping = false;
    } else if from.flush != Flush::Nothing && place.encoding.line_end(bytes, at).is_none() {
        for lane in &mut lanes {
            lane.batch.budget = budget;
            lane.end(place, from.flush == Flush::All);
            budget = lane.batch.budget;
        }
    } else if is_stuck && let Some(lane) = lanes.iter_mut().find(|lane| lane.begun() == Some(0)) {
        // Its end cannot be seen from its beginning.
        let is_part = lane.open.is_some();
        lane.end(place, true);
        lane.batch.skipping = is_part;
    }
    let done = [0, 1].map(|number: usize| lanes[number].begun().unwrap_or_else(|| at.max(lanes[number].done)));
    Made { batches: lanes.map(|lane| lane.batch), done, skipping, budget }
}

/// The last line of a file that is over, without its end.
fn last(bytes: &[u8], start: usize, from: &From<'_>) -> Option<usize> {
    (from.flush == Flush::All && start < bytes.len()).then_some(bytes.len())
}

/// What is known of a container from beside its log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Described {
    /// Labels and values, as they stand there: not masked yet.
    pub(super) labels: Vec<(&'static str, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerDescription {
    #[serde(default)]
    name: String,
    config: Option<DockerConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerConfig {
    #[serde(default)]
    image: String,
}

/// Looks beside a log for what it is of; never fails, since a log without a name is better than none.
pub(super) fn describe(format: Format, log: &Path) -> Described {
    let labels = match format {
        Format::Plain => Vec::new(),
        Format::Docker => describe_docker(log),
        Format::Cri => describe_pod(log),
    };
    Described { labels }
}

fn describe_docker(log: &Path) -> Vec<(&'static str, String)> {
    let Some(dir) = log.parent() else { return Vec::new() };
    if let Some(told) = read_description(&dir.join("config.v2.json")) {
        let name = told.name.trim_start_matches('/').to_owned();
        let image = told.config.map(|config| config.image).unwrap_or_default();
        return [("container", name), ("image", image)].into_iter().filter(|(_, value)| !value.is_empty()).collect();
    }
    let id = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { vec![("container", id[..12].to_owned())] } else { Vec::new() }
}

fn read_description(path: &Path) -> Option<DockerDescription> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(MAX_DESCRIPTION_BYTES + 1).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/0.log`, or `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
fn describe_pod(log: &Path) -> Vec<(&'static str, String)> {
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let pod = |namespace: &str, pod: &str, container: &str| {
        vec![("namespace", namespace.to_owned()), ("pod", pod.to_owned()), ("container", container.to_owned())]
    };
    if let (Some(container), Some(dir)) = (name(log.parent()), name(log.parent().and_then(Path::parent)))
        && let [namespace, name, _uid] = dir.split('_').collect::<Vec<_>>()[..]
    {
        return pod(namespace, name, &container);
    }
    let file = log.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if let [name, namespace, container] = file.split('_').collect::<Vec<_>>()[..]
        && let Some((container, id)) = container.rsplit_once('-')
        && id.len() == 64
    {
        return pod(namespace, name, container);
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_forms_are_read() {
        let told = |record: Option<Record<'_>>| record.map(|r| (r.output, r.text.into_owned(), r.is_partial, r.ts_ns.is_some()));
        for (line, expected) in [
            (r#"{"log":"a\r\n","stream":"stdout","time":"2026-11-23T08:00:00.5Z"}"#, Some((0, "a", false, true))),
            (r#"{"log":"part","stream":"stderr","time":"x","attrs":{"tag":"t"}}"#, Some((1, "part", true, false))),
            (r#"{"log":"\u6536\n"}"#, Some((0, "收", false, false))),
            (r#"{"log":"#, None),
        ] {
            assert_eq!(told(docker(line)), expected.map(|(o, t, p, n)| (o, t.to_owned(), p, n)), "{line}");
        }
        for (line, expected) in [
            ("2026-11-23T08:00:00.5+08:00 stderr F a  b", Some((1, "a  b", false, true))),
            ("2026-11-23T08:00:00Z stdout P:x part", Some((0, "part", true, true))),
            ("2026-11-23T08:00:00Z stdout F", Some((0, "", false, true))),
            ("2026-11-23T08:00:00Z stdin F x", None),
            ("plain text of four words", None),
        ] {
            assert_eq!(told(cri(line)), expected.map(|(o, t, p, n)| (o, t.to_owned(), p, n)), "{line}");
        }
    }

    #[test]
    fn containers_are_told_by_what_is_beside_their_log() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef".repeat(4);
        let home = dir.path().join(&id);
        fs::create_dir(&home).unwrap();
        let log = home.join(format!("{id}-json.log"));
        assert_eq!(describe(Format::Docker, &log).labels, [("container", "0123456789ab".to_owned())]);
        fs::write(home.join("config.v2.json"), r#"{"ID":"x","Name":"/web","Config":{"Image":"shop:1.2","Env":["A=secret"]}}"#).unwrap();
        assert_eq!(describe(Format::Docker, &log).labels, [("container", "web".to_owned()), ("image", "shop:1.2".to_owned())]);
        let pod = [("namespace", "shop".to_owned()), ("pod", "web-1".to_owned()), ("container", "app".to_owned())];
        assert_eq!(describe(Format::Cri, Path::new("/var/log/pods/shop_web-1_uid/app/0.log")).labels, pod);
        let flat = format!("/var/log/containers/web-1_shop_app-{id}.log");
        assert_eq!(describe(Format::Cri, Path::new(&flat)).labels, pod);
        assert_eq!(describe(Format::Cri, Path::new("/srv/app.log")).labels, []);
    }
}
