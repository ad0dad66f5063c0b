use super::*;
use crate::{
    notify::{
        config::{self, Kind, Language, MailTls},
        http::Http,
        render::samples::{message, renderer},
        secret::Secret,
    },
    store::alerts::AlertChanges,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

const NOW: UnixMs = 1_795_501_861_000;
const TIMEOUT: Duration = Duration::from_millis(700);

/// An HTTP server that gives these answers in turn (the last one again and again) and keeps what it was sent. `HANG` never answers.
struct Sink {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Sink {
    async fn http(answers: &[&str]) -> Self {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            for at in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !whole(&request) {
                    let mut piece = [0; 4096];
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => break,
                        Ok(read) => request.extend_from_slice(&piece[..read]),
                    }
                }
                noted.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let answer = &answers[at.min(answers.len() - 1)];
                if answer == "HANG" {
                    open.push(stream);
                    continue;
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { port, seen, _task: task }
    }

    /// A mail server that takes one mail after the other.
    async fn smtp(greeting: &'static str, after_data: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (from, mut to) = stream.into_split();
                let mut lines = BufReader::new(from).lines();
                to.write_all(greeting.as_bytes()).await.unwrap();
                let (mut all, mut in_data) = (String::new(), false);
                while let Ok(Some(line)) = lines.next_line().await {
                    all.push_str(&format!("{line}\n"));
                    let answer = match line.split(' ').next().unwrap_or("") {
                        "." if in_data => {
                            in_data = false;
                            after_data
                        }
                        _ if in_data => continue,
                        "DATA" => {
                            in_data = true;
                            "354 go on\r\n"
                        }
                        "EHLO" => "250-sink\r\n250 8BITMIME\r\n",
                        "QUIT" => "221 bye\r\n",
                        _ => "250 ok\r\n",
                    };
                    to.write_all(answer.as_bytes()).await.unwrap();
                }
                noted.lock().unwrap().push(all);
            }
        });
        Self { port, seen, _task: task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

fn answer(status: &str, more: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n{body}", body.len())
}

struct World {
    store: Arc<Store>,
    worker: Worker,
    _dir: tempfile::TempDir,
}

impl World {
    fn with(config: &config::Channel) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let http = Http::new(TIMEOUT).unwrap();
        let channel = Channel::open(config, &Arc::new(renderer(Language::Both)), Some(&http), TIMEOUT).unwrap();
        let worker = Worker::new(Arc::new(channel), Arc::clone(&store), Duration::from_secs(3_600), vec![]);
        Self { store, worker, _dir: dir }
    }

    fn http(kind: Kind, port: u16) -> Self {
        let url = Secret::new(format!("http://127.0.0.1:{port}/robot/send?access_token=very-secret-token"));
        Self::with(&config::Channel { kind, url, secret: Secret::new("SEC-signing-secret".into()), ..config::tests_channel() })
    }

    async fn put(&self, id: &str, created_at_ms: UnixMs) {
        let notification = Notification { id: id.into(), created_at_ms, ..message("x") };
        let deliveries = vec![Delivery::new(notification, "webhook", "title".into()).row().unwrap()];
        self.store.save_alerts(AlertChanges { deliveries, ..AlertChanges::default() }).await.unwrap();
    }

    async fn turn(&self, now_ms: UnixMs) -> Next {
        self.worker.turn(&move || now_ms).await.unwrap()
    }

    /// One attempt: its state, error and next time.
    async fn tried(&self, now_ms: UnixMs) -> (DeliveryState, String, Option<i64>) {
        match self.turn(now_ms).await {
            Next::Tried(delivery) => {
                (delivery.state, delivery.last_error.clone().unwrap_or_default(), delivery.next_attempt_ms.map(|at| at - now_ms))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_failure_is_tried_again_under_the_same_id_and_in_order() {
    let sink = Sink::http(&[&answer("500 Oops", "", "down"), &answer("200 OK", "", "")]).await;
    let world = World::http(Kind::Webhook, sink.port);
    world.put("first", NOW).await;
    world.put("second", NOW).await;
    let (state, error, next) = world.tried(NOW).await;
    assert_eq!((state, error.as_str()), (DeliveryState::Queued, "HTTP 500: down"));
    assert!((1_000..=2_000).contains(&next.unwrap()), "{next:?}");
    assert!(matches!(world.turn(NOW + 500).await, Next::Wait(_)), "nothing overtakes");
    assert_eq!(world.tried(NOW + 2_000).await.0, DeliveryState::Accepted);
    assert_eq!(world.tried(NOW + 2_000).await.0, DeliveryState::Accepted);
    assert_eq!(world.turn(NOW + 2_000).await, Next::Idle);
    let keys: Vec<String> = sink
        .seen()
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["first", "first", "second"]);
    assert!(sink.seen()[0].contains("x-shipwatch-signature: t=1795501861,v1="));
}

#[tokio::test]
async fn what_was_committed_but_not_sent_is_sent_after_a_crash_and_what_was_sent_but_not_noted_goes_under_the_same_id() {
    let sink = Sink::http(&[&answer("200 OK", "", "")]).await;
    let world = World::http(Kind::Webhook, sink.port);
    world.put("one", NOW).await;
    // Between commit and send: nothing was done. Between send and note: the channel has it, the store does not know.
    let outcome = world.worker.attempt(&Notification { id: "one".into(), ..message("x") }, NOW).await;
    assert_eq!(outcome, Outcome::Accepted("HTTP 200".into()));
    let again = Worker::new(Arc::clone(world.worker.channel()), Arc::clone(&world.store), Duration::from_secs(60), vec![]);
    assert!(matches!(again.turn(&|| NOW).await.unwrap(), Next::Tried(delivery) if delivery.id == "one"));
    assert_eq!(sink.seen().iter().filter(|request| request.contains("idempotency-key: one")).count(), 2);
    assert_eq!(world.turn(NOW).await, Next::Idle);
}

#[tokio::test]
async fn a_refusal_inside_of_http_200_is_a_refusal_and_no_secret_is_told() {
    let refused = r#"{"errcode":310000,"errmsg":"sign not match for very-secret-token, SEC-signing-secret"}"#;
    let sink = Sink::http(&[&answer("200 OK", "", refused), &answer("200 OK", "", r#"{"errcode":0,"errmsg":"ok"}"#)]).await;
    let world = World::http(Kind::Dingtalk, sink.port);
    world.put("one", NOW).await;
    world.put("two", NOW).await;
    let (state, error, _) = world.tried(NOW).await;
    assert_eq!(state, DeliveryState::Dead);
    assert!(error.contains("errcode 310000") && error.contains("security settings"), "{error}");
    assert!(!error.contains("very-secret-token") && !error.contains("SEC-signing"), "{error}");
    assert_eq!(world.tried(NOW).await.0, DeliveryState::Accepted, "a message that can never go blocks nothing");
    assert_eq!(world.worker.counters.dead_total.load(Ordering::Relaxed), 1);
    let first = sink.seen()[0].lines().next().unwrap().to_owned();
    assert!(first.contains("access_token=very-secret-token&timestamp=1795501861000&sign="), "{first}");
    let shown = serde_json::to_string(&world.store.recent_deliveries(10).await.unwrap()).unwrap();
    assert!(!shown.contains("very-secret-token") && shown.contains("\"state\":\"dead\""), "{shown}");
    assert_eq!(world.worker.channel().target(), format!("http://127.0.0.1:{}/…", sink.port));
    assert!(!format!("{:?}", world.worker).contains("SEC-signing"), "debug output shows the secret");
}

#[tokio::test]
async fn too_many_messages_wait_as_throttled() {
    let deny = r#"{"errcode":130101,"errmsg":"send too fast"}"#;
    let ok = answer("200 OK", "", r#"{"errcode":0}"#);
    let mut answers = vec![ok.as_str(); 18];
    let denied = answer("200 OK", "", deny);
    answers.extend([denied.as_str(), ok.as_str()]);
    let sink = Sink::http(&answers).await;
    let world = World::http(Kind::Dingtalk, sink.port);
    for number in 0..20 {
        world.put(&format!("m{number}"), NOW).await;
    }
    for at in 0..18 {
        assert_eq!(world.tried(NOW + at).await.0, DeliveryState::Accepted);
    }
    assert_eq!(world.turn(NOW + 100).await, Next::Wait(Duration::from_millis(59_900)), "18 in a minute");
    let shown = world.store.recent_deliveries(1_000).await.unwrap();
    assert_eq!(shown.iter().filter(|one| one["state"] == "throttled").count(), 1);
    assert_eq!(sink.seen().len(), 18);
    // The robot counts otherwise (somebody else uses it too): ten minutes of silence.
    let (state, error, next) = world.tried(NOW + 60_000).await;
    assert_eq!((state, next), (DeliveryState::Throttled, Some(600_000)), "{error}");
    assert!(matches!(world.turn(NOW + 400_000).await, Next::Wait(_)));
    assert!(world.worker.send_now(&message("x"), NOW + 400_000).await.unwrap_err().contains("quota"));
    assert_eq!(world.tried(NOW + 660_000).await.0, DeliveryState::Accepted);
    // A restart remembers what was sent within the last minute.
    let again = Worker::new(Arc::clone(world.worker.channel()), Arc::clone(&world.store), Duration::from_secs(60), vec![NOW + 660_000; 18]);
    assert!(matches!(again.turn(&|| NOW + 661_000).await.unwrap(), Next::Wait(wait) if wait == Duration::from_secs(59)));
}

#[tokio::test]
async fn retry_after_is_honoured_a_hang_ends_and_age_ends_everything() {
    let busy = answer("429 Too Many Requests", "Retry-After: 90\r\n", "slow down");
    let sink = Sink::http(&[&busy, "HANG", &answer("503 No", "", "")]).await;
    let world = World::http(Kind::Webhook, sink.port);
    world.put("one", NOW).await;
    assert_eq!(world.tried(NOW).await.2, Some(90_000));
    let (state, error, _) = world.tried(NOW + 90_000).await;
    assert_eq!(state, DeliveryState::Queued);
    assert!(error.contains("no answer within 700ms") || error.contains("timed out"), "{error}");
    let (state, error, next) = world.tried(NOW + 3_600_000).await;
    assert_eq!((state, next), (DeliveryState::Dead, None));
    assert!(error.starts_with("given up after 1h and 3 attempts; the last one: HTTP 503"), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed_and_endless_answers_are_cut() {
    let endless = format!("HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n{}", "x".repeat(1 << 20));
    let sink = Sink::http(&[&answer("302 Found", "Location: http://127.0.0.1:1/\r\n", ""), &endless]).await;
    let world = World::http(Kind::Webhook, sink.port);
    world.put("one", NOW).await;
    world.put("two", NOW).await;
    let (state, error, _) = world.tried(NOW).await;
    assert_eq!((state, error.as_str()), (DeliveryState::Dead, "HTTP 302: it redirects; set `url` to where it leads"));
    let (state, error, _) = world.tried(NOW).await;
    assert_eq!(state, DeliveryState::Dead);
    assert!(error.len() < 700, "{}", error.len());
    assert_eq!(sink.seen().len(), 2);
}

#[tokio::test]
async fn nobody_listens() {
    let world = World::http(Kind::Webhook, 1);
    world.put("one", NOW).await;
    let (state, error, _) = world.tried(NOW).await;
    assert_eq!(state, DeliveryState::Queued);
    assert!(error.to_lowercase().contains("refused") && !error.contains("very-secret-token"), "{error}");
}

fn mail(port: u16) -> config::Channel {
    config::Channel {
        kind: Kind::Email,
        host: "127.0.0.1".into(),
        port,
        tls: MailTls::None,
        from: "Shipwatch <alerts@example.com>".into(),
        to: vec!["ops@example.com".into()],
        ..config::tests_channel()
    }
}

#[tokio::test]
async fn mail_goes_out_and_its_refusals_are_told_apart() {
    let sink = Sink::smtp("220 sink ESMTP\r\n", "250 queued as 7\r\n").await;
    let world = World::with(&mail(sink.port));
    world.put("one", NOW).await;
    assert_eq!(world.tried(NOW).await.0, DeliveryState::Accepted);
    let world = World::with(&mail(Sink::smtp("220 sink\r\n", "554 no spam\r\n").await.port));
    world.put("one", NOW).await;
    let (state, error, _) = world.tried(NOW).await;
    assert_eq!(state, DeliveryState::Dead);
    assert!(error.contains("no spam"), "{error}");
    let world = World::with(&mail(Sink::smtp("220 sink\r\n", "451 later\r\n").await.port));
    world.put("one", NOW).await;
    assert_eq!(world.tried(NOW).await.0, DeliveryState::Queued);
    // STARTTLS is not offered: no fallback to plain text.
    let world = World::with(&config::Channel { tls: MailTls::Starttls, ..mail(Sink::smtp("220 sink\r\n", "250 ok\r\n").await.port) });
    world.put("one", NOW).await;
    assert_ne!(world.tried(NOW).await.0, DeliveryState::Accepted);
}

#[test]
fn pauses_double_with_a_cap() {
    let mut delivery = Delivery::new(message("x"), "webhook", String::new());
    let pauses: Vec<i64> = (0..10)
        .map(|_| {
            delivery.apply(Outcome::Retry { reason: String::new(), after: None }, Duration::from_secs(86_400), 0.0, NOW);
            delivery.next_attempt_ms.unwrap() - NOW
        })
        .collect();
    assert_eq!(pauses, [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]);
}
