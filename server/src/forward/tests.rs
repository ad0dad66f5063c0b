//! A worker against a peer that misbehaves on request.

mod peer;

use super::{config::Target, counters::Dropped, *};
use peer::{Peer, Reply};
use shipwatch_common::model::{Labels, Sample};
use shipwatch_series::remote::{Description, Version};
use std::{collections::BTreeMap, time::Duration};

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A server's part that forwards, with one target.
struct Side {
    dir: tempfile::TempDir,
    config: Config,
    running: Option<(Arc<Forwarding>, TaskTracker, CancellationToken)>,
    metadata: Arc<Metadata>,
}

impl Side {
    fn new(peer: &Peer, change: impl FnOnce(&mut Target)) -> Self {
        let mut target = Target {
            name: "peer".to_owned(),
            url: crate::notify::secret::Secret::new(format!("http://{}/api/v1/write?token=in-the-url", peer.address())),
            send_interval: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            ..Target::default()
        };
        change(&mut target);
        let config = Config { targets: vec![target] };
        let mut side = Self { dir: tempfile::tempdir().unwrap(), config, running: None, metadata: Arc::default() };
        side.start();
        side
    }

    fn start(&mut self) {
        let forward = Arc::new(Forwarding::open(self.dir.path(), &self.config, Duration::from_secs(600)).unwrap());
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        forward.spawn(&tasks, &cancel, &self.metadata);
        tasks.close();
        self.running = Some((forward, tasks, cancel));
    }

    fn forward(&self) -> &Forwarding {
        &self.running.as_ref().unwrap().0
    }

    fn counters(&self) -> &Counters {
        &self.forward().targets[0].counters
    }

    fn push(&self, samples: &[Sample]) {
        self.forward().take(&[Batch { source: "", seq: 0, samples }], now_ms());
    }

    async fn stop(&mut self) {
        let (forward, tasks, cancel) = self.running.take().unwrap();
        cancel.cancel();
        tasks.wait().await;
        drop(forward);
    }

    /// Waits until nothing is left to be sent.
    async fn sent(&self) {
        let queue = &self.forward().targets[0].queue;
        let done = async {
            while queue.pending().samples > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done).await.unwrap();
    }
}

fn sample(series: u32, ts_ms: i64, value: f64) -> Sample {
    let text = series.to_string();
    Sample { labels: Arc::new(Labels::new([("__name__", "m_total"), ("n", text.as_str())]).unwrap()), ts_ms, value }
}

/// `count` samples of each of `series` series, a second apart, ending now.
fn some(series: u32, count: i64) -> Vec<Sample> {
    let now = now_ms();
    (0..count).flat_map(|at| (0..series).map(move |n| sample(n, now - 1_000 * (count - at), f64::from(n)))).collect()
}

type Points = BTreeMap<(String, i64), u64>;

fn points(samples: &[Sample]) -> Points {
    samples.iter().map(|s| ((s.labels.to_string(), s.ts_ms), s.value.to_bits())).collect()
}

#[tokio::test]
async fn what_fails_is_sent_again_and_each_series_stays_in_order() {
    let peer = Peer::start(|at, _| match at {
        0 => Reply::Cut,
        1 => Reply::status(500),
        2 => Reply::Status { status: 429, headers: vec![("Retry-After", "1".to_owned())], body: "later".to_owned() },
        3 => Reply::Truncated,
        _ => Reply::status(204),
    })
    .await;
    let side = Side::new(&peer, |target| {
        target.max_samples_per_send = 100;
        target.lanes = 3;
    });
    let samples = some(40, 20);
    samples.chunks(130).for_each(|some| side.push(some));
    side.sent().await;
    let taken = peer.taken();
    let got: Vec<Sample> = taken.iter().flat_map(|request| request.samples.clone()).collect();
    assert_eq!(got.len(), samples.len(), "each once");
    assert_eq!(points(&got), points(&samples));
    let mut last = BTreeMap::new();
    for sample in &got {
        let before = last.insert(sample.labels.to_string(), sample.ts_ms);
        assert!(before.is_none_or(|before| before < sample.ts_ms), "{} is out of order", sample.labels);
    }
    assert!(taken.iter().all(|request| request.samples.len() <= 100));
    let counters = side.counters();
    assert_eq!((counters.retries.load(Relaxed), counters.failed_requests.load(Relaxed)), (3, 3));
    assert_eq!(counters.sent_samples.load(Relaxed), samples.len() as u64);
    let first = &taken[0].headers;
    assert_eq!(
        ["content-type", "content-encoding", "x-prometheus-remote-write-version"].map(|name| first[name].as_str()),
        ["application/x-protobuf", "snappy", "0.1.0"]
    );
    assert!(first["user-agent"].starts_with("Shipwatch/"));
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let peer = Peer::start(|at, _| match at {
        0 => Reply::Status { status: 503, headers: vec![("Retry-After", "2".to_owned())], body: String::new() },
        _ => Reply::status(200),
    })
    .await;
    let side = Side::new(&peer, |_| {});
    side.push(&some(1, 1));
    side.sent().await;
    assert!(side.forward().own_metrics().contains("shipwatch_forward_delay_seconds{target=\"peer\"} 0\n"), "nothing waits");
    let all = peer.all();
    assert_eq!(all.len(), 2);
    assert!(all[1].at - all[0].at >= Duration::from_secs(2), "{:?}", all[1].at - all[0].at);
}

#[tokio::test]
async fn a_slow_target_slows_nobody_and_is_asked_again_after_the_timeout() {
    let peer = Peer::start(|at, _| if at == 0 { Reply::Hang } else { Reply::status(204) }).await;
    let side = Side::new(&peer, |target| target.lanes = 1);
    side.push(&some(3, 1));
    peer.seen(1).await;
    // The only lane waits for its timeout; these are on disk before it has passed.
    let samples = some(50, 10);
    let began = std::time::Instant::now();
    samples.chunks(50).for_each(|some| side.push(some));
    assert_eq!(peer.all().len(), 1, "{:?}", began.elapsed());
    side.sent().await;
    assert_eq!(peer.taken().iter().map(|request| request.samples.len()).sum::<usize>(), 503);
}

#[tokio::test]
async fn one_refused_sample_does_not_take_others_with_it() {
    let bad = |samples: &[Sample]| samples.iter().any(|sample| sample.labels.get("n") == Some("7"));
    let peer = Peer::start(move |_, request| {
        if bad(&request.samples) {
            Reply::Status { status: 400, headers: Vec::new(), body: "out of order sample, token=in-the-url".to_owned() }
        } else {
            Reply::status(204)
        }
    })
    .await;
    let side = Side::new(&peer, |target| target.lanes = 1);
    let samples = some(100, 1);
    side.push(&samples);
    side.sent().await;
    let got: Vec<Sample> = peer.taken().into_iter().flat_map(|request| request.samples).collect();
    let expected: Vec<Sample> = samples.into_iter().filter(|sample| sample.labels.get("n") != Some("7")).collect();
    assert_eq!((got.len(), points(&got)), (99, points(&expected)));
    assert_eq!(side.counters().dropped(Dropped::Refused), 1);
    assert!(peer.all().len() <= 20, "{}", peer.all().len());
}

#[tokio::test]
async fn a_target_that_refuses_everything_gets_few_requests_and_what_is_dropped_is_counted() {
    let peer = Peer::start(|_, _| Reply::status(400)).await;
    let side = Side::new(&peer, |target| {
        target.lanes = 1;
        target.max_samples_per_send = 1_000;
    });
    side.push(&some(1_000, 5));
    side.sent().await;
    assert_eq!(side.counters().dropped(Dropped::Refused), 5_000);
    assert!(peer.all().len() <= 65 + 33 + 17 + 9 + 5, "{}", peer.all().len());
    let text = side.forward().own_metrics();
    assert!(text.contains("shipwatch_forward_dropped_samples_total{target=\"peer\",reason=\"refused\"} 5000\n"), "{text}");
    assert!(!text.contains("in-the-url"));
}

#[tokio::test]
async fn further_statuses_can_be_made_passing_ones() {
    let peer = Peer::start(|at, _| Reply::status(if at == 0 { 401 } else { 204 })).await;
    let side = Side::new(&peer, |target| target.retry_statuses = vec![401]);
    side.push(&some(1, 1));
    side.sent().await;
    assert_eq!((peer.taken().len(), side.counters().dropped(Dropped::Refused)), (1, 0));
}

#[tokio::test]
async fn version_2_is_checked_and_falls_back() {
    let written = |count: usize| Reply::Status {
        status: 204,
        headers: vec![("X-Prometheus-Remote-Write-Samples-Written", count.to_string())],
        body: String::new(),
    };
    let v2 = |target: &mut Target| target.protocol = config::Protocol::V2;
    let peer = Peer::start(move |_, request| written(request.samples.len() - 1)).await;
    let side = Side::new(&peer, v2);
    side.metadata.learn(vec![("m_total".to_owned(), Description { kind: "counter", help: "All.".to_owned(), unit: String::new() })]);
    side.push(&some(10, 1));
    side.sent().await;
    let (taken, counters) = (peer.taken(), side.counters());
    assert!(taken.iter().all(|request| request.version == Version::V2 && request.metadata[0].1.help == "All."));
    let short = taken.len() as u64;
    assert_eq!((counters.sent_samples.load(Relaxed), counters.dropped(Dropped::NotWritten)), (10 - short, short));

    for first in [415, 204] {
        let peer = Peer::start(move |_, request| Reply::status(if request.version == Version::V2 { first } else { 204 })).await;
        let side = Side::new(&peer, |target| {
            v2(target);
            target.lanes = 1;
        });
        let samples = some(10, 1);
        side.push(&samples);
        side.sent().await;
        let of_1: Vec<_> =
            peer.all().into_iter().filter(|request| request.version == Version::V1).flat_map(|request| request.samples).collect();
        assert_eq!((points(&of_1), side.counters().fallbacks.load(Relaxed)), (points(&samples), 1), "{first}");
    }
}

#[tokio::test]
async fn stale_markers_external_labels_selectors_and_metadata() {
    let peer = Peer::start(|_, _| Reply::status(204)).await;
    let side = Side::new(&peer, |target| {
        target.external_labels = BTreeMap::from([("zone".to_owned(), "z".to_owned()), ("n".to_owned(), "other".to_owned())]);
        target.selectors = vec!["{n=~\"1|2\"}".to_owned()];
        target.metadata_interval = Duration::from_millis(50);
    });
    side.metadata.learn(
        ["m_total", "other"]
            .map(|name| (name.to_owned(), Description { kind: "counter", help: "All.".to_owned(), unit: String::new() }))
            .to_vec(),
    );
    let now = now_ms();
    side.push(&[sample(1, now, f64::from_bits(STALE)), sample(2, now, -0.0), sample(3, now, 1.0), sample(1, now + 3_600_000, 1.0)]);
    side.sent().await;
    let got: Vec<Sample> = peer.taken().into_iter().flat_map(|request| request.samples).collect();
    let expected = |n: &str| Labels::new([("__name__", "m_total"), ("n", n), ("zone", "z")]).unwrap().to_string();
    assert_eq!(points(&got), BTreeMap::from([((expected("1"), now), STALE), ((expected("2"), now), (-0.0f64).to_bits())]));
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            side.push(&[sample(1, now_ms(), 1.0)]);
            if peer.taken().iter().any(|request| request.metadata.iter().map(|(name, _)| name.as_str()).eq(["m_total"])) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_too_old_is_dropped_and_counted() {
    let peer = Peer::start(|_, _| Reply::status(204)).await;
    let side = Side::new(&peer, |target| target.max_age = Duration::from_secs(60));
    side.push(&[sample(1, now_ms() - 120_000, 1.0), sample(1, now_ms(), 2.0)]);
    side.sent().await;
    assert_eq!(peer.taken().iter().map(|request| request.samples.len()).sum::<usize>(), 1);
    assert_eq!(side.counters().dropped(Dropped::TooOld), 1);
}

#[tokio::test]
async fn credentials_are_read_anew_and_a_missing_file_loses_nothing() {
    let peer = Peer::start(|_, _| Reply::status(204)).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    let side = Side::new(&peer, |target| target.bearer_token_file = file.display().to_string());
    side.push(&some(1, 1));
    tokio::time::timeout(Duration::from_secs(20), async {
        while side.counters().retries.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(peer.all().is_empty());
    fs::write(&file, "first\n").unwrap();
    side.sent().await;
    fs::write(&file, "second\n").unwrap();
    side.push(&[sample(1, now_ms() + 1, 1.0)]);
    side.sent().await;
    let tokens: Vec<String> = peer.taken().iter().map(|request| request.headers["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
}

/// The target took some requests of a window when the process died: the others are sent, cut exactly as before.
#[tokio::test]
async fn after_a_death_the_same_requests_are_sent_and_those_that_ended_are_not() {
    let peer = Peer::start(|at, _| if at < 5 { Reply::status(204) } else { Reply::Hang }).await;
    let mut side = Side::new(&peer, |target| {
        target.max_samples_per_send = 50;
        target.lanes = 2;
        target.timeout = Duration::from_secs(60);
    });
    let samples = some(30, 20);
    side.push(&samples);
    // Five were taken, and one of each lane hangs.
    peer.seen(7).await;
    side.stop().await;
    let hanging: Vec<Vec<u8>> = peer.all()[5..].iter().map(|request| request.body.clone()).collect();
    peer.answer(|_, _| Reply::status(204));
    side.start();
    // More has come: it is not mixed into requests that the target may have taken.
    side.push(&[sample(1, now_ms() + 1, 1.0)]);
    side.sent().await;
    let after = peer.all()[7..].to_vec();
    assert!(hanging.iter().all(|body| after.iter().any(|request| request.body == *body)));
    let taken: usize = peer.taken().iter().map(|request| request.samples.len()).sum();
    assert_eq!(taken, 601, "each once");
}

#[tokio::test]
async fn a_mark_is_what_every_queue_has() {
    let peer = Peer::start(|_, _| Reply::status(204)).await;
    let side = Side::new(&peer, |_| {});
    side.forward().take(&[Batch { source: "a", seq: 3, samples: &some(1, 1) }], now_ms());
    let forward = side.forward();
    assert_eq!(
        [forward.mark("a", Some(4)), forward.mark("a", Some(2)), forward.mark("b", Some(4)), forward.mark("a", None)],
        [Some(3), Some(2), None, None]
    );
    assert_eq!(Forwarding::none().mark("b", Some(4)), Some(4));
    side.sent().await;
}
