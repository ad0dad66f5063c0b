//! A client of WebSocket for tests: the handshake, and the texts that come.

use crate::server::PASSWORD;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long one text may take.
const LIMIT: Duration = Duration::from_secs(20);

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl WebSocket {
    /// Connects to a path as the admin. Otherwise gives the status line and the rest of the answer.
    ///
    /// # Errors
    /// The server refuses.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn open(url: &str, path: &str) -> Result<Self, String> {
        let host = url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await.expect("a connection");
        let authorization = basic(&format!("admin:{PASSWORD}"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Basic {authorization}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the handshake is sent");
        let mut socket = Self { stream, buffer: Vec::new() };
        let end = loop {
            if let Some(end) = socket.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            socket.read().await.expect("an answer");
        };
        let head = String::from_utf8_lossy(&socket.buffer[..end]).into_owned();
        socket.buffer.drain(..end);
        if !head.starts_with("HTTP/1.1 101 ") {
            while !head.to_ascii_lowercase().contains("content-length: 0") && socket.buffer.is_empty() && socket.read().await.is_some() {}
            return Err(format!("{head}{}", String::from_utf8_lossy(&socket.buffer)));
        }
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the key is not answered: {head}");
        Ok(socket)
    }

    async fn read(&mut self) -> Option<()> {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.buffer)).await.expect("bytes in time").expect("an open connection");
        (read > 0).then_some(())
    }

    /// The next text; pings are answered. Nothing when the server closes.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            while let Some((kind, payload)) = self.frame() {
                match kind {
                    1 => return Some(String::from_utf8(payload).expect("UTF-8")),
                    8 => return None,
                    9 => self.send(10, &payload).await,
                    _ => {}
                }
            }
            self.read().await?;
        }
    }

    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let byte = |at: usize| self.buffer.get(at).copied();
        let (kind, short) = (byte(0)? & 15, byte(1)?);
        let (length, header) = match short {
            126 => (u64::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let end = header + usize::try_from(length).ok()?;
        let payload = self.buffer.get(header..end)?.to_vec();
        self.buffer.drain(..end);
        Some((kind, payload))
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) {
        // A mask of zeros is one too.
        let mut out = vec![0x80 | kind, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        out.extend(payload);
        self.stream.write_all(&out).await.expect("an open connection");
    }

    /// Says that no more is wanted, and waits for the answer.
    pub async fn close(mut self) {
        self.send(8, &1000u16.to_be_bytes()).await;
        while self.text().await.is_some() {}
    }
}

fn basic(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let signs = (0..4).map(|at| if at <= chunk.len() { char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]) } else { '=' });
        out.extend(signs);
    }
    out
}
