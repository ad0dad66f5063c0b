//! A target over real sockets that answers as a test wants.

use shipwatch_common::model::Sample;
use shipwatch_series::remote::{Description, ReceiveConfig, Receiver, Version};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};

/// What to answer.
pub(super) enum Reply {
    Status {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// The connection ends without an answer.
    Cut,
    /// 200, and the connection ends within the body.
    Truncated,
    /// Never.
    Hang,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self::Status { status, headers: Vec::new(), body: String::new() }
    }

    const fn is_good(&self) -> bool {
        matches!(self, Self::Status { status: 200..=299, .. } | Self::Truncated)
    }
}

/// What came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) at: Instant,
    pub(super) headers: HashMap<String, String>,
    pub(super) version: Version,
    pub(super) body: Vec<u8>,
    pub(super) samples: Vec<Sample>,
    pub(super) metadata: Vec<(String, Description)>,
    good: bool,
}

type Script = Arc<dyn Fn(usize, &Request) -> Reply + Send + Sync>;

#[derive(Clone)]
pub(super) struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    script: Arc<Mutex<Script>>,
}

impl Peer {
    /// `script` is told the number of the request, from 0.
    pub(super) async fn start(script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script: Script = Arc::new(script);
        let peer = Self { address: listener.local_addr().unwrap(), seen: Arc::default(), script: Arc::new(Mutex::new(script)) };
        let serving = peer.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let peer = serving.clone();
                tokio::spawn(async move { while peer.serve(&stream).await.is_some() {} });
            }
        });
        peer
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn answer(&self, script: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Every request.
    pub(super) fn all(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Those that were answered well.
    pub(super) fn taken(&self) -> Vec<Request> {
        self.all().into_iter().filter(|request| request.good).collect()
    }

    pub(super) async fn seen(&self, count: usize) {
        let wait = async {
            while self.seen.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    }

    /// One request on a connection; nothing when it is over.
    async fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut stream = Half(stream);
        let mut request = stream.request().await?;
        let reply = {
            let mut seen = self.seen.lock().unwrap();
            let reply = (self.script.lock().unwrap())(seen.len(), &request);
            request.good = reply.is_good();
            seen.push(request);
            reply
        };
        let text = match reply {
            Reply::Hang => std::future::pending().await,
            Reply::Cut => return None,
            Reply::Truncated => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".to_owned(),
            Reply::Status { status, headers, body } => {
                let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                format!("HTTP/1.1 {status} Said\r\n{headers}{length}\r\n{body}")
            }
        };
        stream.write(text.as_bytes()).await?;
        (!text.contains("Content-Length: 100")).then_some(())
    }
}

struct Half<'a>(&'a TcpStream);

impl Half<'_> {
    async fn request(&mut self) -> Option<Request> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.more(&mut bytes).await?;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let headers: HashMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        while bytes.len() < end + 4 + length {
            self.more(&mut bytes).await?;
        }
        let body = bytes[end + 4..].to_vec();
        let version = if headers["content-type"].contains("v2") { Version::V2 } else { Version::V1 };
        let written = Receiver::new(ReceiveConfig::default()).read(version, &body, 0).unwrap();
        let (samples, metadata) = (written.samples, written.metadata);
        Some(Request { at: Instant::now(), headers, version, body, samples, metadata, good: false })
    }

    async fn more(&mut self, bytes: &mut Vec<u8>) -> Option<()> {
        self.0.readable().await.ok()?;
        let mut chunk = [0; 16 << 10];
        match self.0.try_read(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                bytes.extend_from_slice(&chunk[..read]);
                Some(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(()),
            Err(_) => None,
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            self.0.writable().await.ok()?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
        Some(())
    }
}
