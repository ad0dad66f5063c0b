//! The agent's key and certificates on disk, and how it gets them.
//!
//! One file, `identity/identity.bin` (0600): server address, name, key and chain together, replaced by rename, so that a
//! crash during a renewal leaves the old pair or the new one.

use serde::{Deserialize, Serialize};
use shipwatch_common::{
    identity::{self, AgentCertificate, Credentials, EnrolmentToken},
    model::HostFacts,
    protocol::{self, EnrolAnswer, EnrolRequest},
    transport::{self, Receiver, Trust},
};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// The server answers an enrolment within this time.
const ENROL_TIMEOUT: Duration = Duration::from_secs(20);
/// Format of the identity file.
const FILE_VERSION: u32 = 1;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Not enrolled yet.
    #[error(
        "this agent is not enrolled: run `shipwatch-agent enroll --server HOST:9701 --token TOKEN` with a token from `shipwatch-server token create`"
    )]
    NotEnrolled,
    /// Already enrolled.
    #[error("this agent is already enrolled as {name} with {server}; use --force to enrol it anew")]
    Already {
        /// Its name.
        name: String,
        /// Its server.
        server: String,
    },
    /// The files cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// The identity file is damaged.
    #[error("{path} cannot be read ({reason}): enrol again with --force")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Token or certificate.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The connection.
    #[error(transparent)]
    Transport(#[from] transport::TransportError),
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server said nothing.
    #[error("the server did not answer within {} s", ENROL_TIMEOUT.as_secs())]
    Silent,
}

/// Everything that makes this agent this agent.
#[derive(Debug)]
pub struct Identity {
    /// Key and chain (leaf, CA).
    pub credentials: Credentials,
    /// `host:port` that it was enrolled with.
    pub server: String,
    /// Name in the fleet at the time of enrolment.
    pub name: String,
    /// What the leaf says.
    pub certificate: AgentCertificate,
}

#[derive(Deserialize, Serialize)]
struct File {
    version: u32,
    server: String,
    name: String,
    key_der: Vec<u8>,
    chain_der: Vec<Vec<u8>>,
}

/// The directory of the identity.
#[derive(Clone, Debug)]
pub struct IdentityStore {
    dir: PathBuf,
}

impl IdentityStore {
    /// In the agent's state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("identity") }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("identity.bin")
    }

    /// Reads the identity.
    ///
    /// # Errors
    /// Not enrolled, or the file cannot be used.
    pub fn load(&self) -> Result<Identity, EnrolError> {
        let path = self.path();
        let damaged = |reason: String| EnrolError::Damaged { path: path.display().to_string(), reason };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(EnrolError::NotEnrolled),
            Err(source) => return Err(EnrolError::Io { path: path.display().to_string(), source }),
        };
        let file: File = protocol::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if file.version != FILE_VERSION {
            return Err(damaged(format!("its version is {}, this program knows {FILE_VERSION}", file.version)));
        }
        let chain: Vec<_> = file.chain_der.into_iter().map(Into::into).collect();
        let leaf = chain.first().ok_or_else(|| damaged("it has no certificate".to_owned()))?;
        let certificate = identity::read_agent_certificate(leaf)?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(file.key_der).into();
        Ok(Identity { credentials: Credentials { chain, key }, server: file.server, name: file.name, certificate })
    }

    /// Writes the identity durably, readable by its owner only.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&self, identity: &Identity) -> Result<(), EnrolError> {
        let file = File {
            version: FILE_VERSION,
            server: identity.server.clone(),
            name: identity.name.clone(),
            key_der: identity.credentials.key.secret_der().to_vec(),
            chain_der: identity.credentials.chain.iter().map(|certificate| certificate.to_vec()).collect(),
        };
        let bytes = protocol::encode(&file).map_err(transport::TransportError::from)?;
        let path = self.path();
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
            let temporary = path.with_extension("tmp");
            let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            out.write_all(&bytes)?;
            out.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| EnrolError::Io { path: path.display().to_string(), source })
    }

    /// Makes a key, asks the server for a certificate and stores both.
    ///
    /// # Errors
    /// Each with its remedy.
    pub async fn enrol(&self, server: &str, token: &str, name: &str, facts: HostFacts, force: bool) -> Result<Identity, EnrolError> {
        if !force {
            match self.load() {
                Ok(known) => return Err(EnrolError::Already { name: known.name, server: known.server }),
                Err(EnrolError::NotEnrolled) => {}
                Err(other) => return Err(other),
            }
        }
        let token = EnrolmentToken::parse(token)?;
        let (key, csr_der) = identity::new_request()?;
        let (endpoint, connection) = transport::connect(server, &Trust::Fingerprint(token.ca_fingerprint)).await?;
        let request = EnrolRequest { secret: token.secret, csr_der, name: name.to_owned(), facts };
        let lost = |error: quinn::ConnectionError| transport::TransportError::Lost(transport::explain(&error));
        let exchange = async {
            let (mut to, from) = connection.open_bi().await.map_err(lost)?;
            transport::send(&mut to, &request).await?;
            let mut from = Receiver::new(from);
            from.next::<EnrolAnswer>().await?.ok_or_else(|| transport::TransportError::Lost("the server ended the enrolment".to_owned()))
        };
        let answer = tokio::time::timeout(ENROL_TIMEOUT, exchange).await.map_err(|_| EnrolError::Silent)??;
        connection.close(0u32.into(), b"enrolled");
        endpoint.wait_idle().await;
        match answer {
            EnrolAnswer::Refused { reason } => Err(EnrolError::Refused(reason)),
            EnrolAnswer::Accepted { chain_der, name } => {
                let chain: Vec<_> = chain_der.into_iter().map(rustls::pki_types::CertificateDer::from).collect();
                let leaf = chain.first().ok_or_else(|| identity::IdentityError::Certificate("the server sent none".to_owned()))?;
                let certificate = identity::read_agent_certificate(leaf)?;
                let identity = Identity { credentials: Credentials { chain, key }, server: server.to_owned(), name, certificate };
                self.save(&identity)?;
                Ok(identity)
            }
        }
    }
}
