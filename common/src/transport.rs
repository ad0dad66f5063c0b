//! QUIC endpoints with mutual TLS: the only shared code that knows quinn.
//!
//! # Invariants
//! - TLS 1.3 only. The server proves itself by its own CA under the fixed name [`SERVER_NAME`]; an agent proves itself by a
//!   certificate of the same CA. A connection without one is only good for enrolment (its ALPN says so, the gateway checks).
//! - A peer that is silent for [`IDLE_TIMEOUT`] is gone; agents keep quiet connections alive.

use crate::identity::{Credentials, SERVER_NAME, fingerprint};
use crate::protocol::{ALPN_AGENT, ALPN_ENROL, FrameError, FrameReader, frame::Message};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// A peer that says nothing for this long is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(12);
/// The agent's status every 5 s keeps a connection alive; this is for when it has none to send. Only the agent does it: each
/// ping is answered, so both ends hear of each other.
const KEEP_ALIVE: Duration = Duration::from_millis(5_500);
/// Time for one connection attempt to one address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Close code of a server that will not have this agent; the reason is text for people. Any other code means "later".
pub const CLOSE_REFUSED: u32 = 1;
/// Close code of an end that stops or was replaced.
pub const CLOSE_GOING_AWAY: u32 = 2;
/// Data that a peer may send ahead on one stream. Bounds the receiver's memory, and with the round trip the throughput.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// What can go wrong with endpoints and connections.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be bound.
    #[error("cannot listen on udp {address}: {source}{remedy}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The name has no address.
    #[error("cannot resolve {server}: {reason}")]
    Resolve {
        /// What was asked for.
        server: String,
        /// The system's words.
        reason: String,
    },
    /// TLS material that cannot be used.
    #[error("tls: {0}")]
    Tls(String),
    /// No connection to any address.
    #[error("cannot connect to {server}: {reason}")]
    Connect {
        /// What was asked for.
        server: String,
        /// What the last attempt said.
        reason: String,
    },
    /// The connection or stream ended.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer sent what it must not.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The cryptography that everything uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls(error: impl std::fmt::Display) -> TransportError {
    TransportError::Tls(error.to_string())
}

fn parameters(server: bool) -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config.max_idle_timeout(IDLE_TIMEOUT.try_into().ok());
    config.keep_alive_interval((!server).then_some(KEEP_ALIVE));
    config.stream_receive_window(STREAM_WINDOW_BYTES.into());
    config.receive_window((4 * STREAM_WINDOW_BYTES).into());
    config.max_concurrent_bidi_streams(if server { 1u32 } else { 0u32 }.into());
    config.max_concurrent_uni_streams(if server { 8u32 } else { 0u32 }.into());
    config.datagram_receive_buffer_size(None);
    config
}

fn bind(address: SocketAddr) -> Result<UdpSocket, TransportError> {
    UdpSocket::bind(address).map_err(|source| {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => "; another program uses this port: stop it, or choose another port",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need the capability CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        TransportError::Bind { address, source, remedy }
    })
}

fn endpoint(server: Option<quinn::ServerConfig>, address: SocketAddr) -> Result<quinn::Endpoint, TransportError> {
    let socket = bind(address)?;
    quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, Arc::new(quinn::TokioRuntime))
        .map_err(|source| TransportError::Bind { address, source, remedy: "" })
}

/// The server's endpoint. `ca` verifies agents; connections without a certificate pass TLS and must be checked by ALPN.
///
/// # Errors
/// A busy port, or certificates that cannot be used.
pub fn listen(address: SocketAddr, credentials: Credentials, ca: &CertificateDer<'static>) -> Result<quinn::Endpoint, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(tls)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).allow_unauthenticated().build().map_err(tls)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain, credentials.key)
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN_AGENT.to_vec(), ALPN_ENROL.to_vec()];
    let mut quic = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).map_err(tls)?));
    quic.transport_config(Arc::new(parameters(true)));
    endpoint(Some(quic), address)
}

/// How an agent recognises its server.
#[derive(Debug)]
pub enum Trust<'a> {
    /// By the CA it was enrolled with; `credentials` prove the agent.
    Enrolled {
        /// The CA's certificate.
        ca: &'a CertificateDer<'static>,
        /// The agent's own.
        credentials: &'a Credentials,
    },
    /// By the fingerprint in an enrolment token.
    Fingerprint([u8; 32]),
}

fn client_config(trust: &Trust<'_>) -> Result<quinn::ClientConfig, TransportError> {
    let builder =
        rustls::ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]).map_err(tls)?;
    let mut config = match trust {
        Trust::Enrolled { ca, credentials } => {
            let mut roots = RootCertStore::empty();
            roots.add((*ca).clone()).map_err(tls)?;
            let own = credentials.duplicate();
            let mut config = builder.with_root_certificates(roots).with_client_auth_cert(own.chain, own.key).map_err(tls)?;
            config.alpn_protocols = vec![ALPN_AGENT.to_vec()];
            config
        }
        Trust::Fingerprint(expected) => {
            let verifier = Arc::new(PinnedCa { expected: *expected, provider: provider() });
            let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
            config.alpn_protocols = vec![ALPN_ENROL.to_vec()];
            config
        }
    };
    config.resumption = rustls::client::Resumption::disabled();
    let mut quic = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).map_err(tls)?));
    quic.transport_config(Arc::new(parameters(false)));
    Ok(quic)
}

/// Connects to `server` (`host:port`), trying each of its addresses in turn. The endpoint must be kept as long as the connection.
///
/// # Errors
/// The name, the network, or the server's certificate; the text says which, and what to do.
pub async fn connect(server: &str, trust: &Trust<'_>) -> Result<(quinn::Endpoint, quinn::Connection), TransportError> {
    let config = client_config(trust)?;
    let resolve = |reason: String| TransportError::Resolve { server: server.to_owned(), reason };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(server).await.map_err(|error| resolve(error.to_string()))?.collect();
    let mut last = resolve("it has no address".to_owned());
    for address in addresses {
        let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let endpoint = endpoint(None, local)?;
        let failed = |reason: String| TransportError::Connect { server: format!("{server} ({address})"), reason };
        let connecting = endpoint.connect_with(config.clone(), address, SERVER_NAME).map_err(|error| failed(error.to_string()))?;
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => return Ok((endpoint, connection)),
            Ok(Err(error)) => last = failed(explain(&error)),
            Err(_) => {
                last = failed(format!(
                    "no answer within {} s; is the server running, and does a firewall let udp through?",
                    CONNECT_TIMEOUT.as_secs()
                ))
            }
        }
    }
    Err(last)
}

/// A connection error in words that say what to do.
#[must_use]
pub fn explain(error: &quinn::ConnectionError) -> String {
    let text = error.to_string();
    // Two servers' CAs have the same name and other keys, which shows as a bad signature.
    let foreign = ["UnknownIssuer", "BadSignature", "UnknownCA", "unknown ca"].iter().any(|word| text.contains(word));
    let hint = if foreign {
        "; this is not the server that the agent was enrolled with (its CA differs): enrol again, or check the address"
    } else if text.contains("Expired") || text.contains("expired") {
        "; a certificate is out of date: check the clocks of both machines, or enrol again"
    } else if text.contains("fingerprint") {
        "; the token is of another server: check the address, or make a new token there"
    } else if matches!(error, quinn::ConnectionError::TimedOut) {
        "; is the server running, and does a firewall let udp through?"
    } else {
        ""
    };
    format!("{text}{hint}")
}

/// Accepts a server whose chain ends in the CA with the expected fingerprint.
#[derive(Debug)]
struct PinnedCa {
    expected: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The fingerprint is public (it is in every token), so an ordinary comparison is right here.
        let ca = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.expected)
            .ok_or_else(|| rustls::Error::General("the server's CA has another fingerprint than the token".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// What TLS and ALPN told of a peer.
#[derive(Debug)]
pub struct Peer {
    /// The negotiated ALPN.
    pub alpn: Vec<u8>,
    /// The peer's leaf certificate, verified, if it gave one.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Reads what the handshake told.
#[must_use]
pub fn peer(connection: &quinn::Connection) -> Peer {
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .unwrap_or_default();
    let certificate = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .and_then(|chain| chain.into_iter().next());
    Peer { alpn, certificate }
}

/// Sends one message.
///
/// # Errors
/// The stream ended, or the message is larger than a frame may be.
pub async fn send<M: Message>(stream: &mut quinn::SendStream, message: &M) -> Result<usize, TransportError> {
    let frame = crate::protocol::encode_frame(message)?;
    stream.write_all(&frame).await.map_err(|error| TransportError::Lost(error.to_string()))?;
    Ok(frame.len())
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct Receiver {
    stream: quinn::RecvStream,
    reader: FrameReader,
}

impl Receiver {
    /// A message whose bytes are here already; never waits.
    ///
    /// # Errors
    /// The peer sent what it must not.
    pub fn buffered<M: Message>(&mut self) -> Result<Option<M>, TransportError> {
        Ok(self.reader.take()?)
    }

    /// Around a stream.
    #[must_use]
    pub fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, reader: FrameReader::default() }
    }

    /// The next message; `None` when the peer finished the stream between two messages. Safe to cancel: bytes that came stay.
    ///
    /// # Errors
    /// The stream broke, or the peer sent what it must not.
    pub async fn next<M: Message>(&mut self) -> Result<Option<M>, TransportError> {
        loop {
            if let Some(message) = self.reader.take()? {
                return Ok(Some(message));
            }
            match self.stream.read_chunk(64 << 10, true).await.map_err(|error| TransportError::Lost(error.to_string()))? {
                Some(chunk) => self.reader.push(&chunk.bytes),
                None if self.reader.is_mid_frame() => return Err(TransportError::Lost("the stream ended within a message".to_owned())),
                None => return Ok(None),
            }
        }
    }
}
