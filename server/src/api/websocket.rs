//! The server's end of WebSocket (RFC 6455), as far as sending texts needs it: handshake, frames, ping, close.
//!
//! # Invariants
//! - Frames of clients are masked and short, or the connection ends; what they say is not kept.
//! - A request that a browser sends for another site is refused: cookies would speak for it.
//!
//! # Left out
//! Extensions, subprotocols, messages in parts from us; texts from clients are skipped.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::upgrade::OnUpgrade;
use sha1::{Digest as _, Sha1};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::{interval, timeout},
};

/// What RFC 6455 appends to the client's key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest frame of a client.
const FRAME_BYTES: usize = 64 << 10;
/// A client that takes nothing for this long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tells proxies that the connection is alive.
const PING_EVERY: Duration = Duration::from_secs(15);

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Answers a handshake. The connection comes once the answer is sent.
///
/// # Errors
/// Why this is none, and how it is answered.
pub fn upgrade(request: &mut Request) -> Result<(Response, OnUpgrade), (StatusCode, &'static str)> {
    let headers = request.headers();
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err((StatusCode::BAD_REQUEST, "connect by WebSocket here"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is known"));
    }
    if is_foreign(headers) {
        return Err((StatusCode::FORBIDDEN, "this request came from another site"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().to_vec());
    let Some(key) = key else { return Err((StatusCode::BAD_REQUEST, "the handshake has no key")) };
    let Some(connection) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err((StatusCode::BAD_REQUEST, "this connection cannot become a WebSocket"));
    };
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept(&key))
        .body(Body::empty())
        .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be made"))?;
    Ok((response, connection))
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return false };
    origin.split_once("://").map(|(_, host)| host) != text(header::HOST)
}

fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(MAGIC);
    BASE64_STANDARD.encode(hash.finalize())
}

/// Sends what comes until either side ends it.
pub async fn send_all<S: AsyncRead + AsyncWrite + Send>(stream: S, mut texts: mpsc::Receiver<String>) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut buffer = Vec::new();
    let mut pings = interval(PING_EVERY);
    loop {
        let (frame, last) = tokio::select! {
            text = texts.recv() => match text {
                Some(text) => (frame(TEXT, text.as_bytes()), false),
                None => (frame(CLOSE, &1000u16.to_be_bytes()), true),
            },
            _ = pings.tick() => (frame(PING, b""), false),
            read = from.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => match answer(&mut buffer) {
                    Ok(None) => continue,
                    Ok(Some(answer)) => answer,
                    Err(code) => (frame(CLOSE, &code.to_be_bytes()), true),
                },
            },
        };
        let sent = timeout(PATIENCE, async {
            to.write_all(&frame).await?;
            to.flush().await
        })
        .await;
        if last || !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    let _gone_anyway = timeout(PATIENCE, to.shutdown()).await;
}

/// One frame from us: whole and not masked.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | kind];
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(payload);
    out
}

/// Takes whole frames off the front. Gives what is to be sent for them, and whether that is the last; several pings are
/// answered once.
fn answer(buffer: &mut Vec<u8>) -> Result<Option<(Vec<u8>, bool)>, u16> {
    let mut pong = None;
    while let Some((kind, payload, length)) = next(buffer)? {
        buffer.drain(..length);
        match kind {
            CLOSE => return Ok(Some((frame(CLOSE, payload.get(..2).unwrap_or(&1000u16.to_be_bytes())), true))),
            PING => pong = Some((frame(PONG, &payload), false)),
            _ => {}
        }
    }
    Ok(pong)
}

type Frame = (u8, Vec<u8>, usize);

/// The first frame, when it is whole: kind, payload, length of all. An error is the code to close with.
fn next(buffer: &[u8]) -> Result<Option<Frame>, u16> {
    const PROTOCOL: u16 = 1002;
    const TOO_BIG: u16 = 1009;
    let [first, second, ..] = buffer else { return Ok(None) };
    let kind = first & 0x0f;
    let is_control = matches!(kind, CLOSE | PING | PONG);
    if first & 0x70 != 0 || second & 0x80 == 0 || !(is_control || matches!(kind, CONTINUATION | TEXT | BINARY)) {
        return Err(PROTOCOL);
    }
    let (length, header) = match second & 0x7f {
        126 => match buffer.get(2..4) {
            Some(&[a, b]) => (usize::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => return Err(TOO_BIG),
        length => (usize::from(length), 2),
    };
    if is_control && (length > 125 || first & 0x80 == 0) {
        return Err(PROTOCOL);
    }
    if length > FRAME_BYTES {
        return Err(TOO_BIG);
    }
    let (Some(mask), Some(payload)) = (buffer.get(header..header + 4), buffer.get(header + 4..header + 4 + length)) else {
        return Ok(None);
    };
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some((kind, payload, header + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = frame(kind, payload);
        out[1] |= 0x80;
        let at = out.len() - payload.len();
        out.splice(at..at, [1, 2, 3, 4]);
        out.iter_mut().skip(at + 4).zip([1u8, 2, 3, 4].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        out
    }

    #[test]
    fn the_key_of_the_standard_is_accepted() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_of_clients_are_answered() {
        let mut buffer = masked(TEXT, b"ignored");
        buffer.extend(masked(PING, b"one"));
        buffer.extend(masked(PING, b"two"));
        buffer.extend([0x89]);
        assert_eq!(answer(&mut buffer), Ok(Some((frame(PONG, b"two"), false))));
        assert_eq!(buffer, [0x89], "what is not whole waits");
        let mut buffer = masked(CLOSE, &1001u16.to_be_bytes());
        assert_eq!(answer(&mut buffer), Ok(Some((frame(CLOSE, &1001u16.to_be_bytes()), true))));
        let unmasked = frame(PING, b"");
        let reserved = [0xc1, 0x80, 0, 0, 0, 0];
        let huge = [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1];
        let long_ping = masked(PING, &[0; 126]);
        for (bytes, code) in [(unmasked.as_slice(), 1002), (&reserved, 1002), (&huge, 1009), (&long_ping, 1002)] {
            assert_eq!(answer(&mut bytes.to_vec()), Err(code));
        }
    }

    #[test]
    fn frames_of_all_lengths_are_made() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let made = frame(TEXT, &vec![7; length]);
            assert_eq!((made[0], made.len()), (0x81, length + header));
        }
    }

    #[tokio::test]
    async fn texts_are_sent_until_the_sender_ends() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (texts, inbox) = mpsc::channel(4);
        let task = tokio::spawn(send_all(ours, inbox));
        texts.send("hello".to_owned()).await.unwrap();
        drop(texts);
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        task.await.unwrap();
        let text = frame(TEXT, b"hello");
        assert!(all.windows(text.len()).any(|window| window == text));
        assert!(all.ends_with(&frame(CLOSE, &1000u16.to_be_bytes())), "{all:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let before = bytes.len();
            let _ = answer(&mut bytes);
            prop_assert!(bytes.len() <= before);
        }

        #[test]
        fn frames_come_back(payload in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
            let whole = masked(BINARY, &payload);
            prop_assert_eq!(next(&whole), Ok(Some((BINARY, payload, whole.len()))));
            prop_assert_eq!(next(&whole[..cut.index(whole.len())]), Ok(None));
        }
    }
}
