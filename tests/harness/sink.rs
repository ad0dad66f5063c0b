//! Receivers of messages: an HTTP server and a mail server that keep what they are sent.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Something that was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers, or the mail's envelope commands.
    pub head: String,
    /// The body, or the mail.
    pub body: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
}

/// A receiver on the loopback address; ends when dropped.
#[derive(Debug)]
pub struct Sink {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Sink {
    /// Answers every request with 200 and this body.
    pub async fn http(answer: &str) -> Self {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len());
        Self::start(move |stream, received| {
            let answer = answer.clone();
            async move { http(stream, &answer, &received).await }
        })
        .await
    }

    /// Takes every mail.
    pub async fn mail() -> Self {
        Self::start(|stream, received| async move { mail(stream, &received).await }).await
    }

    async fn start<F: Future<Output = Option<()>> + Send + 'static>(
        serve: impl Fn(TcpStream, Arc<Mutex<Vec<Received>>>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { port, received, task }
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it was sent so far.
    ///
    /// # Panics
    /// If a connection's task panicked.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("what was received").clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(received: &Mutex<Vec<Received>>, head: String, body: String) {
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    received.lock().expect("what was received").push(Received { head, body, at_ms });
}

async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    (from.read_line(&mut line).await.ok()? > 0).then(|| line.trim_end().to_owned())
}

async fn http(stream: TcpStream, answer: &str, received: &Mutex<Vec<Received>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let line = line(&mut stream).await?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
        head.push('\n');
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    note(received, head, String::from_utf8_lossy(&body).into_owned());
    stream.get_mut().write_all(answer.as_bytes()).await.ok()
}

async fn mail(stream: TcpStream, received: &Mutex<Vec<Received>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut body, mut in_mail) = (String::new(), String::new(), false);
    stream.get_mut().write_all(b"220 sink ESMTP\r\n").await.ok()?;
    while let Some(line) = line(&mut stream).await {
        let answer = match line.as_str() {
            "." if in_mail => {
                in_mail = false;
                note(received, std::mem::take(&mut head), std::mem::take(&mut body));
                "250 taken\r\n"
            }
            text if in_mail => {
                body.push_str(text);
                body.push('\n');
                continue;
            }
            "DATA" => {
                in_mail = true;
                "354 go on\r\n"
            }
            "QUIT" => "221 bye\r\n",
            command => {
                head.push_str(command);
                head.push('\n');
                "250 ok\r\n"
            }
        };
        stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
    }
    Some(())
}
