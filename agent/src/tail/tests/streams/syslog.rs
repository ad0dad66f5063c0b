//! Syslog, from real senders and from bad ones.

use super::*;
use crate::tail::syslog::Config as Syslog;
use shipwatch_common::model::Severity;
use std::io::Read as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

fn running(change: impl FnOnce(&mut Syslog)) -> Running {
    let mut syslog = Syslog { udp: "127.0.0.1:0".into(), tcp: "127.0.0.1:0".into(), ..Syslog::default() };
    change(&mut syslog);
    Running::new(|_| Source { syslog: Some(syslog), timezone: "UTC".into(), ..Source::default() })
}

#[tokio::test]
async fn logger_over_udp_and_tcp_in_both_forms() {
    let mut running = running(|_| {});
    running.start();
    let (udp, tcp) = (running.address("udp").await.port().to_string(), running.address("tcp").await.port().to_string());
    let send = ["--server", "127.0.0.1", "--priority", "mail.err", "--tag", "shop", "--port"];
    let sd: &[&str] = &["--rfc5424", "--sd-id", "order@1", "--sd-param", "id=\"7\""];
    for (at, more) in
        [(&udp, &["--udp", "--rfc3164"][..]), (&tcp, &["--tcp", "--rfc3164"]), (&tcp, &["--tcp", "--octet-count", "--rfc3164"])]
    {
        ran("logger", &[&send[..], &[at], more, &["plain for buyer.wang@example.com"]].concat(), b"").await;
    }
    ran("logger", &[&send[..], &[&udp, "--udp"], sd, &["with data"]].concat(), b"").await;
    ran("logger", &[&send[..], &[&tcp, "--tcp", "--octet-count"], sd, &["with data"]].concat(), b"").await;
    running.has(5).await;
    for line in running.lines() {
        assert_eq!((line.severity, line.text.contains("wang"), line.truncated), (Severity::Error, false, false), "{}", line.text);
        assert!((now() - line.ts_ns).abs() < 60 * SECOND, "{}", line.ts_ns);
        assert_eq!(running.label(&line.text, "app").as_deref(), Some("shop"));
        assert_eq!(running.label(&line.text, "facility").as_deref(), Some("mail"));
        assert!(running.label(&line.text, "hostname").is_some());
    }
    let texts = running.texts();
    assert_eq!(texts.iter().filter(|text| text.starts_with("plain for ")).count(), 3);
    assert_eq!(texts.iter().filter(|text| text.contains("with data") && text.contains("order.id=\"7\"")).count(), 2, "{texts:?}");
    running.stop().await;
}

fn now() -> i64 {
    shipwatch_common::time::now_ns()
}

/// Ends rsyslogd with the test.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

#[tokio::test]
async fn rsyslog_forwards_in_both_framings_and_over_udp() {
    let mut running = running(|_| {});
    running.start();
    let (udp, tcp) = (running.address("udp").await.port(), running.address("tcp").await.port());
    let dir = running.dir.path();
    let socket = dir.join("log").display().to_string();
    let config = format!(
        r#"global(workDirectory="{dir}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{socket}" RateLimit.Interval="0")
action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp" TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format")
action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp" TCP_Framing="traditional" template="RSYSLOG_TraditionalForwardFormat")
action(type="omfwd" target="127.0.0.1" port="{udp}" protocol="udp" template="RSYSLOG_ForwardFormat")
"#,
        dir = dir.display()
    );
    fs::write(dir.join("rsyslog.conf"), config).unwrap();
    let pid_file = dir.join("pid").display().to_string();
    let mut command = std::process::Command::new("/usr/sbin/rsyslogd");
    command.args(["-n", "-i", &pid_file, "-f", &dir.join("rsyslog.conf").display().to_string()]);
    let _daemon = Daemon(command.spawn().unwrap_or_else(|error| panic!("rsyslogd: {error}; packaging/tools.sh installs it")));
    until(|| matches!(Path::new(&socket).try_exists(), Ok(true)), || "rsyslogd".to_owned()).await;
    let lines: String = (0..200).map(|at| format!("line {at}\n")).collect();
    ran("logger", &["--socket", &socket, "--tag", "burst", "--priority", "local3.warning"], lines.as_bytes()).await;
    let of_burst = || running.texts().into_iter().filter(|text| text.starts_with("line ")).collect::<Vec<_>>();
    until(|| of_burst().len() == 600, || format!("all lines, there are {} of {:?}", of_burst().len(), running.texts())).await;
    let mut numbers: Vec<u32> = of_burst().iter().map(|text| text.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).flat_map(|at| [at; 3]).collect::<Vec<_>>());
    for text in of_burst() {
        assert_eq!((running.label(&text, "app").as_deref(), running.label(&text, "facility").as_deref()), (Some("burst"), Some("local3")));
    }
    assert!(running.lines().iter().filter(|line| line.text.starts_with("line ")).all(|line| line.severity == Severity::Warn));
    running.stop().await;
}

#[tokio::test]
async fn a_full_sink_makes_tcp_senders_wait_and_nothing_is_lost() {
    let mut running = running(|_| {});
    running.set_full(true);
    running.start();
    let mut stream = TcpStream::connect(running.address("tcp").await).await.unwrap();
    let message = format!("<14>{}\n", "x".repeat(1000));
    let mut sent = 0;
    // Until the buffers in between are full: nobody reads.
    let mut at = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(500), stream.write(&message.as_bytes()[at..])).await {
            Ok(written) => at += written.unwrap(),
            Err(_waits) => break,
        }
        if at == message.len() {
            (at, sent) = (0, sent + 1);
        }
        assert!(sent < 100_000, "somebody reads on");
    }
    running.set_full(false);
    stream.write_all(&message.as_bytes()[at..]).await.unwrap();
    running.has(sent + 1).await;
    running.stop().await;
}

#[tokio::test]
async fn what_the_kernel_drops_of_udp_is_counted() {
    let mut running = running(|syslog| syslog.receive_buffer_bytes = 4096);
    running.set_full(true);
    running.start();
    let to = running.address("udp").await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"<14>first", to).await.unwrap();
    until(|| running.count(|c| &c.blocked_streams) == 1, || "it to wait".to_owned()).await;
    for at in 0..500 {
        socket.send_to(format!("<14>{at} {}", "x".repeat(500)).as_bytes(), to).await.unwrap();
    }
    running.set_full(false);
    let sum = || running.lines().len() as u64 + running.count(|c| &c.syslog_dropped_total);
    until(|| sum() == 501, || format!("all of 501, there are {}", sum())).await;
    assert!(running.count(|c| &c.syslog_dropped_total) > 100);
    running.stop().await;
}

/// Whether the other side closed.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 8])).await.expect("it is closed");
    matches!(read, Ok(0) | Err(_))
}

#[tokio::test]
async fn too_many_idle_and_slow_senders_are_disconnected() {
    let mut running = running(|syslog| {
        syslog.max_connections = 2;
        syslog.idle = Duration::from_millis(300);
        syslog.message_wait = Duration::from_millis(100);
    });
    running.start();
    let to = running.address("tcp").await;
    let mut slow = TcpStream::connect(to).await.unwrap();
    slow.write_all(b"<14>never ends").await.unwrap();
    let mut idle = TcpStream::connect(to).await.unwrap();
    until(|| running.count(|c| &c.syslog_connections) == 2, || "both".to_owned()).await;
    let mut third = TcpStream::connect(to).await.unwrap();
    assert!(is_closed(&mut third).await && is_closed(&mut slow).await && is_closed(&mut idle).await);
    assert_eq!((running.texts(), running.count(|c| &c.syslog_refused_total)), (vec!["never ends".to_owned()], 3));
    // Their places are free again, and a sender that just ends gives its last message.
    until(|| running.count(|c| &c.syslog_connections) == 0, || "nobody".to_owned()).await;
    let mut good = TcpStream::connect(to).await.unwrap();
    good.write_all(b"<14>no line feed").await.unwrap();
    drop(good);
    running.has(2).await;
    running.stop().await;
}

#[tokio::test]
async fn texts_may_be_gbk_and_labels_from_outside_are_masked_and_few() {
    let mut running = running(|_| {});
    running.config.sources[0].encoding = "gbk".into();
    running.start();
    let mut stream = TcpStream::connect(running.address("tcp").await).await.unwrap();
    let head = b"<14>1 - buyer.wang@example.com shop - - - ";
    stream.write_all(&[&head[..], b"\xd6\xa7\xb8\xb6\n"].concat()).await.unwrap();
    for at in 0..700 {
        stream.write_all(format!("<14>1 - h app-{at} - - - {at}\n").as_bytes()).await.unwrap();
    }
    running.has(701).await;
    assert!(running.label("支付", "hostname").is_some_and(|host| !host.contains("wang")));
    assert_eq!(running.label("5", "app").as_deref(), Some("app-5"));
    assert_eq!(running.label("699", "app").as_deref(), Some("other"));
    running.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_costs_nothing_else_and_is_taken_later() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut running = running(|syslog| syslog.tcp = address.to_string());
    running.start();
    let udp = running.address("udp").await;
    until(|| running.count(|c| &c.failing_streams) == 1, || "it to fail".to_owned()).await;
    UdpSocket::bind("127.0.0.1:0").await.unwrap().send_to(b"<14>over the other", udp).await.unwrap();
    running.has(1).await;
    drop(taken);
    until(|| running.count(|c| &c.failing_streams) == 0, || "it to work".to_owned()).await;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"<14>now\n").unwrap();
    running.has(2).await;
    running.stop().await;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)), "stopping closes what is open");
}
