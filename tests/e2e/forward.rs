//! What this server acknowledged arrives at other systems, whoever dies or is down in between.

use shipwatch_tests::{Agent, Api, Server, peers::Peer, server::PASSWORD, wait_for};
use std::{collections::BTreeMap, fs, time::Duration};

const LIMIT: Duration = Duration::from_secs(90);

/// How often somebody is killed or stopped.
const INTERRUPTIONS: usize = 7;

type Samples = BTreeMap<String, Vec<(i64, f64)>>;

/// Raw samples of a selector over the last hour, by the series' labels without `via`.
async fn samples(api: &Api, selector: &str) -> Samples {
    let (status, answer) = api.get("/api/v1/query", &[("query", &format!("{selector}[1h]"))]).await;
    assert_eq!(status, 200, "{answer}");
    let mut all = Samples::new();
    for one in answer["data"]["result"].as_array().unwrap() {
        let mut labels: BTreeMap<String, String> = serde_json::from_value(one["metric"].clone()).unwrap();
        labels.remove("via");
        let point = |pair: &serde_json::Value| {
            ((pair[0].as_f64().unwrap() * 1_000.0).round() as i64, pair[1].as_str().unwrap().parse::<f64>().unwrap())
        };
        // The end of a series is told by some and not by others.
        let mut points: Vec<_> = one["values"].as_array().unwrap().iter().map(point).filter(|(_, value)| !value.is_nan()).collect();
        // At least once: what was on its way when somebody was killed comes again, and VictoriaMetrics keeps both.
        let came = points.len();
        points.dedup();
        assert!(came - points.len() <= INTERRUPTIONS, "{came} samples for {} times of {labels:?}", points.len());
        let before = all.insert(format!("{labels:?}"), points);
        assert!(before.is_none(), "{labels:?} is there twice");
    }
    all
}

async fn metrics(api: &Api) -> Option<String> {
    let client = reqwest::Client::new();
    client.get(format!("{}/metrics", api.url())).basic_auth("admin", Some(PASSWORD)).send().await.ok()?.text().await.ok()
}

fn number(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

async fn pending(api: &Api, target: &str) -> Option<f64> {
    Some(number(&metrics(api).await?, &format!("shipwatch_forward_pending_samples{{target=\"{target}\"}}")))
}

/// What of ours the target lacks, has twice, or has with another value. `precision` is relative; 0 asks for the same value.
fn differences(ours: &Samples, theirs: &Samples, precision: f64) -> Vec<String> {
    let same = |a: &(i64, f64), b: &(i64, f64)| a.0 == b.0 && (a.1 == b.1 || (a.1 - b.1).abs() <= precision * a.1.abs());
    let mut found = Vec::new();
    for (series, expected) in ours {
        let none = Vec::new();
        let got = theirs.get(series).unwrap_or(&none);
        if got.len() != expected.len() || !got.iter().zip(expected).all(|(a, b)| same(a, b)) {
            let without = |all: &[(i64, f64)], others: &[(i64, f64)]| -> Vec<(i64, f64)> {
                all.iter().filter(|point| !others.iter().any(|other| same(point, other))).copied().collect()
            };
            let (missing, strange) = (without(expected, got), without(got, expected));
            found.push(format!("{series}: {} of {}, missing {missing:?}, strange {strange:?}", got.len(), expected.len()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_and_victoria_metrics_have_what_we_have_although_all_of_them_die() {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let mut prometheus = Peer::prometheus(&sub("target"), "").await;
    let mut victoria = Peer::victoria(&sub("victoria")).await;
    let targets = [("prometheus", prometheus.url()), ("victoria", victoria.url())].map(|(name, url)| {
        format!(
            "[[forward.targets]]\nname = \"{name}\"\nurl = \"{url}/api/v1/write\"\nsend_interval = \"200ms\"\nexternal_labels = {{ via = \"shipwatch\" }}\nmatch = ['{{instance=\"web-1\"}}', '{{job=\"itself\"}}']\n"
        )
    });
    let mut server = Server::start(dir.path(), &targets.concat()).await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let ours = server.api();
    let file = dir.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let push = format!(
        "scrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: [\"127.0.0.1:{{port}}\"]\nremote_write:\n- url: {}/api/v1/write\n  basic_auth:\n    username: admin\n    password_file: {}\n  queue_config:\n    batch_send_deadline: 200ms\n    max_backoff: 500ms\n",
        ours.url(),
        file.display()
    );
    let mut source = Peer::prometheus(&sub("source"), &push).await;
    let scraped = async |count: usize| {
        let already = ours.samples("up{job=\"itself\"}").await.map_or(0, |all| all.len());
        wait_for("more samples", LIMIT, || async { ours.samples("up{job=\"itself\"}").await.filter(|all| all.len() >= already + count) })
            .await;
    };
    scraped(3).await;

    prometheus.stop();
    scraped(4).await;
    server.process().kill();
    server.run().await;
    scraped(3).await;
    assert!(pending(&ours, "prometheus").await.unwrap() > 1_000.0, "it waits for a target that is down");
    wait_for("the other target is not held up", LIMIT, || async { (pending(&ours, "victoria").await? < 3_000.0).then_some(()) }).await;
    prometheus.run().await;

    for _ in 0..3 {
        scraped(1).await;
        server.process().kill();
        server.run().await;
    }
    victoria.stop();
    scraped(3).await;
    server.process().kill();
    victoria.run().await;
    server.run().await;
    scraped(3).await;

    source.stop();
    assert_eq!(agent.process().stop().code(), Some(0));
    for target in ["prometheus", "victoria"] {
        wait_for("nothing waits", LIMIT, || async { (pending(&ours, target).await? == 0.0).then_some(()) }).await;
    }
    for selector in ["{job=\"itself\"}", "{instance=\"web-1\",job=\"node\"}"] {
        let expected = samples(&ours, selector).await;
        assert!(expected.len() > 100, "{}", expected.len());
        // VictoriaMetrics keeps about 15 decimal digits of a value.
        for (peer, precision) in [(&prometheus, 0.0), (&victoria, 1e-14)] {
            let found = differences(&expected, &samples(&peer.api(), selector).await, precision);
            assert!(found.is_empty(), "{} series differ at {}, such as {:#?}", found.len(), peer.url(), &found[..found.len().min(5)]);
        }
    }
    // What came twice from a sender that was cut off may be refused a second time; nothing else may be lost.
    let text = metrics(&ours).await.unwrap();
    for reason in ["too_old", "queue_full", "not_queued", "damaged", "not_written"] {
        for target in ["prometheus", "victoria"] {
            let series = format!("shipwatch_forward_dropped_samples_total{{target=\"{target}\",reason=\"{reason}\"}}");
            assert_eq!(number(&text, &series), 0.0, "{series}");
        }
    }
}

/// We write to ourselves: 2.0, with what metrics are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_of_ours_takes_version_2() {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let central = Server::start(&sub("central"), "").await;
    let file = dir.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let config = format!(
        "[[forward.targets]]\nname = \"central\"\nurl = \"{}/api/v1/write\"\nprotocol = \"2.0\"\nusername = \"admin\"\npassword_file = \"{}\"\nsend_interval = \"200ms\"\n",
        central.api().url(),
        file.display()
    );
    let edge = Server::start(&sub("edge"), &config).await;
    let (theirs, ours) = (central.api(), edge.api());
    let push = format!(
        "scrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: [\"127.0.0.1:{{port}}\"]\nremote_write:\n- url: {}/api/v1/write\n  basic_auth:\n    username: admin\n    password_file: {}\n  queue_config:\n    batch_send_deadline: 200ms\n  metadata_config:\n    send_interval: 1s\n",
        ours.url(),
        file.display()
    );
    let mut source = Peer::prometheus(dir.path(), &push).await;
    wait_for("metadata at the other end", LIMIT, || async {
        let told = theirs.try_get("/api/v1/metadata", &[("metric", "go_goroutines")]).await?;
        (told["data"]["go_goroutines"][0]["type"] == "gauge").then_some(())
    })
    .await;
    source.stop();
    wait_for("nothing waits", LIMIT, || async { (pending(&ours, "central").await? == 0.0).then_some(()) }).await;
    let expected = samples(&ours, "{job=\"itself\"}").await;
    assert!(expected.len() > 300, "{}", expected.len());
    let found = differences(&expected, &samples(&theirs, "{job=\"itself\"}").await, 0.0);
    assert!(found.is_empty(), "{found:#?}");
    let text = metrics(&ours).await.unwrap();
    assert_eq!(number(&text, "shipwatch_forward_fallbacks_total{target=\"central\"}"), 0.0);
    assert_eq!(number(&text, "shipwatch_forward_dropped_samples_total{target=\"central\",reason=\"refused\"}"), 0.0);
    let log = fs::read_to_string(edge.log()).unwrap();
    assert!(!log.contains(PASSWORD) && !text.contains(PASSWORD));
}
