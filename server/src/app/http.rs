//! The API's listening end, plain or TLS.

use super::StartError;
use crate::api;
use axum::{Router, extract::ConnectInfo, http::Request};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;
use tracing::{debug, warn};

/// A client that takes longer for its handshake or its headers is let go.
const SLOW_CLIENT: Duration = Duration::from_secs(15);
/// Open connections; more wait in the kernel.
const MAX_CONNECTIONS: usize = 4096;
/// Time for running requests when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// The running API.
#[derive(Debug)]
pub(super) struct Http {
    address: SocketAddr,
    tasks: TaskTracker,
}

impl Http {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for running requests, for a short time. The token was cancelled before.
    pub(super) async fn stopped(self) {
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            debug!("some requests did not end in time");
        }
    }
}

pub(super) fn bind(config: &api::Config) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source: io::Error| {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => "; another program uses this port: stop it, or choose another port (SHIPWATCH_HTTP)",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need the capability CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        StartError::Http { address: config.listen.clone(), source, remedy }
    };
    let listener = TcpListener::bind(&config.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn tls(config: &api::Config) -> Result<Option<TlsAcceptor>, StartError> {
    if config.tls_certificate.is_empty() {
        return Ok(None);
    }
    let wrong = |error: &dyn std::fmt::Display| StartError::Tls(error.to_string());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&config.tls_certificate)
        .map_err(|error| wrong(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(StartError::Tls(format!("{} holds no certificate", config.tls_certificate)));
    }
    let key = PrivateKeyDer::from_pem_file(&config.tls_key).map_err(|error| wrong(&error))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(shipwatch_common::transport::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&error))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

pub(super) fn serve(
    config: &api::Config,
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    cancel: CancellationToken,
) -> Result<Http, StartError> {
    let acceptor = tls(config)?;
    let failed = |source| StartError::Http { address: config.listen.clone(), source, remedy: "" };
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let tasks = TaskTracker::new();
    let tracker = tasks.clone();
    tasks.spawn(async move {
        let limit = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
            let (stream, from) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, most likely: it gets better when connections end.
                        warn!(%error, "cannot accept connections");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                },
                () = cancel.cancelled() => return,
            };
            let (router, acceptor, cancel) = (router.clone(), acceptor.clone(), cancel.clone());
            tracker.spawn(async move {
                connection(stream, from, acceptor, router, cancel).await;
                drop(permit);
            });
        }
    });
    Ok(Http { address, tasks })
}

async fn connection(stream: TcpStream, from: SocketAddr, acceptor: Option<TlsAcceptor>, router: Router, cancel: CancellationToken) {
    let _unsupported = stream.set_nodelay(true);
    match acceptor {
        None => talk(TokioIo::new(stream), from, router, cancel).await,
        Some(acceptor) => match tokio::time::timeout(SLOW_CLIENT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => talk(TokioIo::new(stream), from, router, cancel).await,
            Ok(Err(error)) => debug!(%from, %error, "tls handshake failed"),
            Err(_) => debug!(%from, "tls handshake took too long"),
        },
    }
}

async fn talk<I>(io: I, from: SocketAddr, router: Router, cancel: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let connection = Builder::new().timer(TokioTimer::new()).header_read_timeout(SLOW_CLIENT).serve_connection(io, service).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%from, %error, "connection ended");
    }
}
