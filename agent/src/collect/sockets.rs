//! TCP connections by state and queued bytes of UDP, by way of the kernel's `inet_diag` over netlink.
//!
//! `/proc/net/tcp` is read only where the kernel has no `inet_diag`. Nothing here grows with the number of sockets: both ways
//! count while they read.
//!
//! # Invariants
//! - An answer that stops for [`SILENCE`], or more sockets than [`MAX_SOCKETS`], is an error and no series: a part of the
//!   sockets would look like all of them.
//! - Where counting TCP takes long, the last figures are told again instead: it costs one part in [`SHARE`] of a processor, as
//!   long as none is older than [`OLDEST`].

use super::{Batch, Collector};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sendto,
    sockopt::{Timeout, set_socket_timeout},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const SILENCE: Duration = Duration::from_millis(500);
const SHARE: u32 = 2_000;
const OLDEST: Duration = Duration::from_secs(60);
/// About a second of the kernel's work, on hosts that have other worries.
const MAX_SOCKETS: u32 = 1_000_000;

/// States by the kernel's number, from 1 (`include/net/tcp_states.h`); 12 is a request that is not a connection yet.
const STATES: [&str; 11] =
    ["established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close", "close_wait", "last_ack", "listen", "closing"];

const TCP: u8 = 6;
const UDP: u8 = 17;
const INET: u8 = 2;
const INET6: u8 = 10;

/// Sockets of one protocol and family.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    by_state: [u32; 12],
    rx_bytes: f64,
    tx_bytes: f64,
    sockets: u32,
}

impl Counts {
    fn add(&mut self, state: u8, rx: u32, tx: u32) -> io::Result<()> {
        self.sockets += 1;
        if self.sockets > MAX_SOCKETS {
            return Err(io::Error::other(format!("more than {MAX_SOCKETS} sockets; disable this collector on such hosts")));
        }
        // NEW_SYN_RECV is how `inet_diag` may call what `/proc/net/tcp` calls SYN_RECV.
        let state = if state == 12 { 3 } else { state };
        if let Some(count) = self.by_state.get_mut(usize::from(state)) {
            *count += 1;
        }
        self.rx_bytes += f64::from(rx);
        self.tx_bytes += f64::from(tx);
        Ok(())
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: all sockets in every state, no extensions.
fn request(family: u8, protocol: u8) -> [u8; 72] {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut bytes = [0; 72];
    bytes[..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = protocol;
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Takes one datagram of the answer; true if it was the last.
fn take(mut bytes: &[u8], counts: &mut Counts) -> io::Result<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "netlink answers in an unexpected form");
    while !bytes.is_empty() {
        let length = word(bytes, 0).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
        let message = bytes.get(16..length).ok_or_else(broken)?;
        match u16::from_ne_bytes([bytes[4], bytes[5]]) {
            DONE => return Ok(true),
            ERROR => {
                let code = word(message, 0).ok_or_else(broken)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            // `struct inet_diag_msg`: family, state, timer, retransmits, id (48), expires, rqueue, wqueue, uid, inode.
            _ => {
                let (Some(state), Some(rx), Some(tx)) = (message.get(1), word(message, 56), word(message, 60)) else {
                    return Err(broken());
                };
                // The queues of a listening socket are its backlog, which is not bytes; /proc/net/tcp shows 0 and the queue.
                counts.add(*state, rx, if *state == 10 { 0 } else { tx })?;
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn open() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE))?;
    Ok(socket)
}

fn dump(family: u8, protocol: u8) -> io::Result<Counts> {
    let socket = open()?;
    sendto(&socket, &request(family, protocol), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut counts = Counts::default();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (length, _) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if length == 0 || take(&buffer[..length], &mut counts)? {
            return Ok(counts);
        }
    }
}

/// The fourth and fifth column of `/proc/net/tcp` and `udp`: `0A 00000000:00000000` is state, `tx:rx`.
fn parse_line(line: &str) -> Option<(u8, u32, u32)> {
    let mut words = line.split_ascii_whitespace().skip(3);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let (tx, rx) = words.next()?.split_once(':')?;
    Some((state, u32::from_str_radix(rx, 16).ok()?, u32::from_str_radix(tx, 16).ok()?))
}

fn read_text(path: &Path) -> io::Result<Option<Counts>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut counts = Counts::default();
    for line in BufReader::with_capacity(32 << 10, file).lines().skip(1) {
        if let Some((state, rx, tx)) = parse_line(&line?) {
            counts.add(state, rx, tx)?;
        }
    }
    Ok(Some(counts))
}

/// How sockets are counted; netlink is given up for good once the kernel says that it has no such thing.
struct Source {
    proc: PathBuf,
    netlink: bool,
}

impl Source {
    fn new(proc: &Path) -> Self {
        // A /proc of somewhere else is not the kernel's that would answer.
        Self { proc: proc.to_owned(), netlink: proc == Path::new("/proc") }
    }

    fn count(&mut self, family: u8, protocol: u8) -> io::Result<Option<Counts>> {
        if self.netlink {
            match dump(family, protocol) {
                Err(error) if is_missing(&error) => self.netlink = false,
                counts => return counts.map(Some),
            }
        }
        let file = match (protocol, family) {
            (TCP, INET) => "net/tcp",
            (TCP, _) => "net/tcp6",
            (_, INET) => "net/udp",
            _ => "net/udp6",
        };
        read_text(&self.proc.join(file))
    }
}

/// The module is not there, or a sandbox forbids the address family.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
        || matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP))
}

/// Connections by state.
pub(crate) struct TcpStat {
    source: Source,
    /// What was counted last, and until when it will do.
    last: Option<([Option<Counts>; 2], Instant)>,
}

impl TcpStat {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { source: Source::new(proc), last: None }
    }

    fn counts(&mut self, now: Instant) -> io::Result<[Option<Counts>; 2]> {
        if let Some((counts, until)) = &self.last
            && now < *until
        {
            return Ok(*counts);
        }
        self.last = None;
        let counts = [self.source.count(INET, TCP)?, self.source.count(INET6, TCP)?];
        self.last = Some((counts, now + pause(now.elapsed())));
        Ok(counts)
    }
}

/// How long figures do that took `cost` to count. Cheap ones are counted in every tick.
fn pause(cost: Duration) -> Duration {
    cost.saturating_mul(SHARE).min(OLDEST)
}

impl Collector for TcpStat {
    fn name(&self) -> &'static str {
        "tcpstat"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let both = self.counts(Instant::now())?;
        if both == [None, None] {
            return Ok(());
        }
        let sum = |of: fn(&Counts) -> f64| both.iter().flatten().map(of).sum::<f64>();
        for (number, state) in (1..).zip(STATES) {
            let count: u32 = both.iter().flatten().map(|counts| counts.by_state[number]).sum();
            out.push("node_tcp_connection_states", &[("state", state)], f64::from(count));
        }
        out.push("node_tcp_connection_states", &[("state", "rx_queued_bytes")], sum(|counts| counts.rx_bytes));
        out.push("node_tcp_connection_states", &[("state", "tx_queued_bytes")], sum(|counts| counts.tx_bytes));
        Ok(())
    }
}

/// Bytes that wait in UDP sockets.
pub(crate) struct UdpQueues(Source);

impl UdpQueues {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(Source::new(proc))
    }
}

impl Collector for UdpQueues {
    fn name(&self) -> &'static str {
        "udp_queues"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for (family, ip) in [(INET, "v4"), (INET6, "v6")] {
            let Some(counts) = self.0.count(family, UDP)? else { continue };
            out.push("node_udp_queues", &[("ip", ip), ("queue", "rx")], counts.rx_bytes);
            out.push("node_udp_queues", &[("ip", ip), ("queue", "tx")], counts.tx_bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn netlink_and_text_see_our_sockets() {
        // Sockets of other tests come and go, so both must hold ours at least.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        io::Write::write_all(&mut &server, b"12345").unwrap();
        let _udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let counts = dump(INET, TCP).unwrap();
        assert!(counts.by_state[1] >= 2 && counts.by_state[10] >= 1 && counts.rx_bytes >= 5.0, "{counts:?}");
        let text = read_text(Path::new("/proc/net/tcp")).unwrap().unwrap();
        assert!(text.by_state[1] >= 2 && text.by_state[10] >= 1 && text.rx_bytes >= 5.0, "{text:?}");
        assert!(dump(INET, UDP).is_err() || dump(INET, UDP).unwrap().sockets >= 1);
        drop(client);
    }

    #[test]
    fn lines_of_proc_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 08 0000000A:00000010 00:00000000 00000000  0 0 1 1 0 100 0 0 10 0";
        assert_eq!(parse_line(line), Some((8, 16, 10)));
        assert_eq!(parse_line("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tcp"), format!("header\n{line}\n{line}\nbroken\n")).unwrap();
        let counts = read_text(&dir.path().join("tcp")).unwrap().unwrap();
        assert_eq!((counts.by_state[8], counts.rx_bytes, counts.tx_bytes), (2, 32.0, 20.0));
        assert_eq!(read_text(&dir.path().join("none")).unwrap(), None);
    }

    #[test]
    fn figures_that_cost_much_are_told_again() {
        assert_eq!(pause(Duration::from_millis(5)), Duration::from_secs(10));
        assert_eq!(pause(Duration::from_secs(1)), OLDEST);
        let dir = tempfile::tempdir().unwrap();
        let mut stat = TcpStat::new(dir.path());
        let (now, old) = (Instant::now(), [Some(Counts { sockets: 7, ..Counts::default() }), None]);
        stat.last = Some((old, now + Duration::from_secs(9)));
        assert_eq!(stat.counts(now).unwrap(), old);
        assert_eq!(stat.counts(now + Duration::from_secs(9)).unwrap(), [None, None]);
    }

    #[test]
    fn a_refusal_of_the_kernel_is_an_error() {
        let mut bytes = Vec::from(20_u32.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((-2_i32).to_ne_bytes());
        let error = take(&bytes, &mut Counts::default()).unwrap_err();
        assert!(is_missing(&error), "{error}");
    }

    proptest! {
        #[test]
        fn random_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = take(&bytes, &mut Counts::default());
        }
    }
}
