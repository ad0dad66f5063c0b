//! A real Prometheus in a directory of its own, spoken to over remote write 1.0 and HTTP/1.0.

use crate::{data::Series, queries::Question};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

const REMEDY: &str = "this test needs the program `prometheus`: apt-get install --no-install-recommends prometheus";

/// How long it may take to start.
const START: Duration = Duration::from_secs(120);

/// A running server; it ends with the value.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        std::fs::write(&config, "global:\n  scrape_interval: 1m\n  evaluation_interval: 1m\n").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--enable-feature=promql-at-modifier,promql-negative-offset"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{REMEDY}: {error}"));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (ready, is_ready) = mpsc::channel();
        // Reads on to the end: a full pipe would stop the server.
        std::thread::spawn(move || {
            let mut told = String::new();
            for line in lines.map_while(Result::ok) {
                if line.contains("Server is ready to receive web requests") {
                    drop(ready.send(Ok(())));
                }
                told = line;
            }
            drop(ready.send(Err(told)));
        });
        let server = Self { child, address, _directory: directory };
        is_ready.recv_timeout(START).unwrap().unwrap_or_else(|last| panic!("prometheus ended: {last}"));
        server
    }

    /// Sends one request and returns status and body.
    fn request(&self, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    /// Remote write 1.0.
    pub(crate) fn write(&self, series: &[Series]) {
        let head = "POST /api/v1/write HTTP/1.0\r\nContent-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
                    X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        let (status, body) = self.request(head, &snappy(&write_request(series)));
        assert_eq!(status, 204, "{}", String::from_utf8_lossy(&body));
    }

    pub(crate) fn ask(&self, question: &Question) -> serde_json::Value {
        let path = if question.is_range() { "query_range" } else { "query" };
        let head = format!("POST /api/v1/{path} HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n");
        let pairs = question.pairs(&question.theirs);
        let form: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let (_, body) = self.request(&head, form.join("&").as_bytes());
        serde_json::from_slice(&body).unwrap()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| if byte.is_ascii_alphanumeric() { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// A `WriteRequest`: series (1) of labels (1: name 1, value 2) and samples (2: value 1, timestamp 2).
fn write_request(all: &[Series]) -> Vec<u8> {
    let mut out = Vec::new();
    for series in all {
        let mut message = Vec::new();
        for (name, value) in &series.labels {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut message, 1, &label);
        }
        for (ts, value) in &series.samples {
            let mut sample = vec![1 << 3 | 1];
            sample.extend(value.to_bits().to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, *ts as u64);
            bytes(&mut message, 2, &sample);
        }
        bytes(&mut out, 1, &message);
    }
    out
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Snappy's block format with literals only.
fn snappy(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, content.len() as u64);
    for part in content.chunks(1 << 16) {
        out.push(61 << 2);
        out.extend(((part.len() - 1) as u16).to_le_bytes());
        out.extend(part);
    }
    out
}
