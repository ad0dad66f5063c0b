//! Sockets of syslog. Connections and datagrams of one source share its limit and its streams.

use super::{
    Config,
    framing::{Frame, Framer},
    message,
};
use crate::tail::{
    lines::Told,
    stream::{Feed, Item, Stopped, longest},
    streams::keep,
};
use rustix::net::sockopt;
use shipwatch_common::time::now_ns;
use std::{
    fs, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::Instant,
};
use tracing::debug;

/// Bytes that are read of a connection at once.
const READ_BYTES: usize = 16 << 10;
/// The largest datagram.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Datagrams that are taken together.
const DATAGRAMS: usize = 256;
/// How often the kernel is asked what it dropped.
const LOOK_AT_DROPS: Duration = Duration::from_secs(5);

/// Listens until the agent stops.
pub(in crate::tail) async fn run(config: Config, feed: Feed) {
    // Each may work without the other.
    let other = Feed { is_failing: Arc::default(), ..feed.clone() };
    let udp = async {
        if !config.udp.is_empty() {
            keep(&format!("syslog over UDP at {}", config.udp), &feed, || udp(&config, &feed)).await;
        }
    };
    let tcp = async {
        if !config.tcp.is_empty() {
            keep(&format!("syslog over TCP at {}", config.tcp), &other, || tcp(&config, &other)).await;
        }
    };
    tokio::join!(udp, tcp);
}

fn cannot_listen(address: &str) -> impl Fn(io::Error) -> String {
    move |error| {
        format!("cannot listen at {address}: {error}; give tail.sources another address (ports below 1024 need CAP_NET_BIND_SERVICE)")
    }
}

async fn udp(config: &Config, feed: &Feed) -> Result<Stopped, String> {
    let cannot = cannot_listen(&config.udp);
    let socket = UdpSocket::bind(&config.udp).await.map_err(&cannot)?;
    // As much as the kernel allows; less is no reason not to listen.
    let _less = sockopt::set_socket_recv_buffer_size(&socket, config.receive_buffer_bytes);
    let mut drops = Drops::of(&socket).map_err(&cannot)?;
    bound(feed, "udp", socket.local_addr());
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let first = tokio::select! {
            read = socket.recv(&mut buffer) => read,
            () = feed.stop.cancelled() => return Ok(Stopped),
            () = tokio::time::sleep(LOOK_AT_DROPS) => {
                drops.count(feed);
                continue;
            }
        };
        let mut items = Vec::new();
        let mut read = first;
        while let Ok(length) = read {
            if length > 0 {
                items.push(item(feed, &buffer[..length], false));
            }
            if items.len() >= DATAGRAMS {
                break;
            }
            read = socket.try_recv(&mut buffer);
        }
        if feed.deliver(&items).await.is_err() {
            return Ok(Stopped);
        }
        drops.count(feed);
    }
}

/// What the kernel says that it dropped of one socket.
#[derive(Debug)]
struct Drops {
    inode: u64,
    seen: u64,
    looked_at: Option<Instant>,
}

impl Drops {
    fn of(socket: &UdpSocket) -> io::Result<Self> {
        Ok(Self { inode: rustix::fs::fstat(socket)?.st_ino, seen: 0, looked_at: None })
    }

    /// Counts what was dropped since the last time; at most once a second.
    fn count(&mut self, feed: &Feed) {
        if self.looked_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let told = dropped(&read("/proc/net/udp"), self.inode).or_else(|| dropped(&read("/proc/net/udp6"), self.inode));
        if let Some(told) = told {
            feed.counters.syslog_dropped_total.fetch_add(told.saturating_sub(self.seen), Ordering::Relaxed);
            self.seen = told;
        }
    }
}

/// The last column of a socket's line.
fn dropped(table: &str, inode: u64) -> Option<u64> {
    let mut sockets = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let columns = sockets.find(|columns| columns.get(9).and_then(|column| column.parse().ok()) == Some(inode))?;
    columns.get(12)?.parse().ok()
}

async fn tcp(config: &Config, feed: &Feed) -> Result<Stopped, String> {
    let cannot = cannot_listen(&config.tcp);
    let listener = TcpListener::bind(&config.tcp).await.map_err(&cannot)?;
    bound(feed, "tcp", listener.local_addr());
    let places = Arc::new(Semaphore::new(config.max_connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = feed.stop.cancelled() => return Ok(Stopped),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of descriptors: those that are open go on.
            Err(error) => {
                debug!(%error, "a connection of syslog was not accepted");
                if feed.rest(Duration::from_millis(100)).await.is_err() {
                    return Ok(Stopped);
                }
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            feed.counters.syslog_refused_total.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (config, feed) = (config.clone(), feed.clone());
        connections.spawn(async move {
            let gauge = &feed.counters.syslog_connections;
            gauge.fetch_add(1, Ordering::Relaxed);
            connection(stream, &config, &feed).await;
            gauge.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
}

/// Reads one connection to its end.
async fn connection(mut stream: TcpStream, config: &Config, feed: &Feed) {
    let mut framer = Framer::new(longest(&feed.source));
    let mut buffer = vec![0; READ_BYTES];
    let mut begun: Option<Instant> = None;
    loop {
        let until = begun.map_or_else(|| Instant::now() + config.idle, |begun| begun + config.message_wait);
        let read = tokio::select! {
            read = tokio::time::timeout_at(until, stream.read(&mut buffer)) => read,
            () = feed.stop.cancelled() => return,
        };
        let read = match read {
            Ok(Ok(read)) if read > 0 => read,
            outcome => {
                if outcome.is_err() {
                    feed.counters.syslog_refused_total.fetch_add(1, Ordering::Relaxed);
                }
                // It was cut off by its sender, or by its own slowness; what there is of it counts.
                let last: Vec<Item> = framer.end().map(|frame| framed(feed, &frame)).into_iter().collect();
                let _stopped = feed.deliver(&last).await;
                return;
            }
        };
        let frames = framer.push(&buffer[..read]);
        begun = match (framer.is_inside(), begun, frames.is_empty()) {
            (false, _, _) => None,
            (true, Some(begun), true) => Some(begun),
            (true, _, _) => Some(Instant::now()),
        };
        let items: Vec<Item> = frames.iter().map(|frame| framed(feed, frame)).collect();
        if feed.deliver(&items).await.is_err() {
            return;
        }
    }
}

fn framed(feed: &Feed, frame: &Frame) -> Item {
    item(feed, &frame.bytes, frame.cut)
}

fn item(feed: &Feed, bytes: &[u8], cut: bool) -> Item {
    let most = longest(&feed.source);
    let (bytes, cut) = if bytes.len() > most { (&bytes[..most], true) } else { (bytes, cut) };
    let text = feed.source.encoding.text(bytes);
    let message = message::parse(&text, &feed.source.parser, now_ns());
    let labels = [("app", message.app), ("facility", message.facility.map(ToOwned::to_owned)), ("hostname", message.host)];
    Item {
        told: Told { ts_ns: message.ts_ns, severity: message.severity },
        labels: labels.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        text: message.text,
        cut,
        ..Item::default()
    }
}

/// The source works. Tests learn the port here.
fn bound(feed: &Feed, protocol: &'static str, address: io::Result<std::net::SocketAddr>) {
    feed.set_failing(false);
    if let Ok(address) = address {
        tracing::info!(%address, protocol, "listens for syslog");
        #[cfg(test)]
        super::super::tests::streams::BOUND.with_borrow_mut(|bound| bound.push((protocol, address)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_socket() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             6: 0100007F:158A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0\n\
             7: 0100007F:158B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1235 2 0000000000000000 77\n";
        assert_eq!((dropped(table, 1235), dropped(table, 1234), dropped(table, 7)), (Some(77), Some(0), None));
    }
}
