//! Names and images of running containers, from Docker's socket (Podman's answers the same). Asked only where
//! `collect.docker_socket` names it.
//!
//! # Invariants
//! - One request in [`TIMEOUT`] at most, [`MAX_ANSWER`] bytes at most, whatever is at the other end.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_ANSWER: usize = 8 << 20;

/// What people call a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) image: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Vec<String>,
    #[serde(rename = "Image", default)]
    image: String,
}

/// Running containers by their id.
pub(crate) fn names(socket: &Path) -> io::Result<HashMap<String, Named>> {
    let place = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", socket.display()));
    let answer = ask(socket, Instant::now() + TIMEOUT).map_err(place)?;
    parse(&answer).map_err(place)
}

/// HTTP 1.0, so that the answer ends with the connection and has no chunks.
fn ask(socket: &Path, deadline: Instant) -> io::Result<Vec<u8>> {
    // Without blocking: a daemon that accepts nobody would hold a plain connect for ever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
    let mut stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /containers/json HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => return Ok(answer),
            length => answer.extend_from_slice(&part[..length]),
        }
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::other(format!("answers with more than {MAX_ANSWER} bytes")));
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<HashMap<String, Named>> {
    let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("answers in an unexpected form: {what}"));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| broken("no end of headers".to_owned()))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(broken(status.chars().take(80).collect()));
    }
    let listed: Vec<Listed> = serde_json::from_slice(&answer[end + 4..]).map_err(|error| broken(error.to_string()))?;
    let name = |names: &[String]| names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default();
    Ok(listed.into_iter().map(|one| (one.id, Named { name: name(&one.names), image: one.image })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn serve(answer: &'static [u8]) -> (tempfile::TempDir, std::thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (dir, thread)
    }

    #[test]
    fn containers_get_their_names() {
        let (dir, server) = serve(
            b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[{\"Id\":\"ab\",\"Names\":[\"/web\"],\"Image\":\"nginx:1\",\"State\":\"running\"},{\"Id\":\"cd\"}]",
        );
        let names = names(&dir.path().join("s")).unwrap();
        assert!(server.join().unwrap().starts_with("GET /containers/json HTTP/1.0\r\n"));
        assert_eq!(names["ab"], Named { name: "web".into(), image: "nginx:1".into() });
        assert_eq!(names["cd"], Named { name: String::new(), image: String::new() });
    }

    #[test]
    fn refusals_and_silence_are_errors() {
        let (dir, server) = serve(b"HTTP/1.0 403 Forbidden\r\n\r\n");
        let error = names(&dir.path().join("s")).unwrap_err().to_string();
        server.join().unwrap();
        assert!(error.contains("403 Forbidden"), "{error}");
        assert_eq!(names(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Nobody accepts, nobody answers.
        let silent = dir.path().join("silent");
        let _listener = UnixListener::bind(&silent).unwrap();
        let error = ask(&silent, Instant::now() + Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }
}
