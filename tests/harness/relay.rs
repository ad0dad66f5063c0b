//! A relay for UDP between an agent and its server that can be cut: what a broken network does to both.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays to this address.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address");
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let address = front.local_addr().expect("its address");
        let cut = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(forward(front, to, Arc::clone(&cut)));
        Self { address, cut, task }
    }

    /// Where the agent connects.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Drops every packet from now on, or no longer.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(front: Arc<UdpSocket>, to: SocketAddr, cut: Arc<AtomicBool>) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut returns = tokio::task::JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((size, from)) = front.recv_from(&mut buffer).await else { continue };
        if cut.load(Ordering::SeqCst) {
            continue;
        }
        let back = match backs.entry(from) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                back.connect(to).await.expect("the server's address");
                returns.spawn(bring_back(Arc::clone(&back), Arc::clone(&front), from, Arc::clone(&cut)));
                Arc::clone(new.insert(back))
            }
        };
        let _lost = back.send(&buffer[..size]).await;
    }
}

/// The other direction of one client.
async fn bring_back(back: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, cut: Arc<AtomicBool>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error only tells that the server is not there just now.
        if let Ok(size) = back.recv(&mut buffer).await
            && !cut.load(Ordering::SeqCst)
        {
            let _lost = front.send_to(&buffer[..size], to).await;
        }
    }
}
