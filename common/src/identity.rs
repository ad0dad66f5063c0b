//! Who is who: the server's own certificate authority, agents' certificates, enrolment tokens.
//!
//! - The CA is the server's own, made at its first start. Its SHA-256 fingerprint is part of every enrolment token, so an
//!   agent knows its server before it says its secret.
//! - The server's certificate is for the fixed name [`SERVER_NAME`]: with a private CA the address tells nothing.
//! - An agent's identity is the URI `shipwatch://agent/<uuid>` in its certificate. Of a signing request only the public
//!   key is used.
//!
//! Times are arguments. Randomness comes from the operating system.

use crate::model::AgentId;
use crate::time::UnixMs;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Name in the server's certificate, the same for every server.
pub const SERVER_NAME: &str = "shipwatch-server";
/// Before the name of an agent in its certificate's URI.
const AGENT_URI: &str = "shipwatch://agent/";
/// Certificates begin this long before they are made, since hosts' clocks differ.
const CLOCK_TOLERANCE_MS: i64 = 3_600_000;

/// What can go wrong with certificates and tokens.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Making or signing failed.
    #[error("could not make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A certificate that is none, or not an agent's.
    #[error("certificate is not usable: {0}")]
    Certificate(String),
    /// A token that was mistyped or cut.
    #[error("enrolment token is not usable: {0}; copy it again as `shipwatch-server token create` printed it")]
    Token(&'static str),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(#[from] getrandom::Error),
}

/// A certificate and its private key.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key, PKCS #8.
    pub key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// A copy; private keys are not `Clone` by mistake.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// SHA-256 of a certificate.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate.as_ref()).into()
}

/// The server's certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn validity(params: &mut CertificateParams, now_ms: UnixMs, life: Duration) {
    let at = |ms: i64| {
        let date = rcgen::date_time_ymd(1970, 1, 1);
        date + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    };
    params.not_before = at(now_ms - CLOCK_TOLERANCE_MS);
    params.not_after = at(now_ms.saturating_add(crate::time::duration_ms(life)).min(253_402_300_799_000));
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

impl Authority {
    /// Makes a new authority, valid for twenty years. Returns it with its PKCS #8 key for storing.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn create(now_ms: UnixMs) -> Result<(Self, Vec<u8>), IdentityError> {
        let key = KeyPair::generate()?;
        let key_der = key.serialize_der();
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Shipwatch private CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now_ms, Duration::from_secs(20 * 365 * 86_400));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok((Self { issuer: Issuer::new(params, key), certificate }, key_der))
    }

    /// Takes a stored authority up again.
    ///
    /// # Errors
    /// A certificate or key that cannot be read or do not belong together.
    pub fn restore(certificate_der: &[u8], key_der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = CertificateDer::from(certificate_der.to_vec());
        let key = KeyPair::try_from(&PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key_der.to_vec())))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate_der).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(IdentityError::Certificate("the CA's key does not belong to its certificate".to_owned()));
        }
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate })
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for the server itself.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn issue_server(&self, now_ms: UnixMs, life: Duration) -> Result<Credentials, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        params.distinguished_name = named(SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, now_ms, life);
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            chain: vec![leaf.der().clone(), self.certificate.clone()],
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// A certificate for an agent, leaf first. Of the request only its public key is used; its signature is checked.
    ///
    /// # Errors
    /// A request that is none.
    pub fn issue_agent(
        &self,
        agent: AgentId,
        csr_der: &[u8],
        now_ms: UnixMs,
        life: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der.to_vec()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&agent.to_string());
        let uri = format!("{AGENT_URI}{agent}").try_into().map_err(IdentityError::Make)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        validity(&mut params, now_ms, life);
        let leaf = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }
}

/// An agent's new key with the request for its certificate.
///
/// # Errors
/// See [`IdentityError`].
pub fn new_request() -> Result<(PrivateKeyDer<'static>, Vec<u8>), IdentityError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())), request.der().to_vec()))
}

/// What a certificate says of its holder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AgentCertificate {
    /// The agent.
    pub agent: AgentId,
    /// Begin of validity.
    pub not_before_ms: UnixMs,
    /// End of validity.
    pub not_after_ms: UnixMs,
}

impl AgentCertificate {
    /// When to ask for a new one: after two thirds of its life.
    #[must_use]
    pub const fn renew_at_ms(&self) -> UnixMs {
        let begin = self.not_before_ms + CLOCK_TOLERANCE_MS;
        begin + (self.not_after_ms - begin) / 3 * 2
    }
}

/// Reads an agent's certificate. The chain must have been verified by TLS before.
///
/// # Errors
/// A certificate without an agent's URI.
pub fn read_agent_certificate(certificate: &CertificateDer<'_>) -> Result<AgentCertificate, IdentityError> {
    let wrong = |text: &str| IdentityError::Certificate(text.to_owned());
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| IdentityError::Certificate(error.to_string()))?;
    let names = parsed.subject_alternative_name().ok().flatten().ok_or_else(|| wrong("it names no agent"))?;
    let agent = names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix(AGENT_URI),
            _ => None,
        })
        .ok_or_else(|| wrong("it names no agent"))?
        .parse()
        .map_err(|text: String| IdentityError::Certificate(text))?;
    let ms = |time: x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1000);
    Ok(AgentCertificate { agent, not_before_ms: ms(parsed.validity().not_before), not_after_ms: ms(parsed.validity().not_after) })
}

/// Length of an enrolment token's secret.
const SECRET_BYTES: usize = 24;
const TOKEN_PREFIX: &str = "swe_";

/// What an enrolment token carries: a secret for the server, and the fingerprint by which the agent knows the server.
#[derive(Clone, Eq, PartialEq)]
pub struct EnrolmentToken {
    /// Shown to the server only after its CA was recognised.
    pub secret: Vec<u8>,
    /// SHA-256 of the CA's certificate.
    pub ca_fingerprint: [u8; 32],
}

impl std::fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnrolmentToken(..)")
    }
}

impl EnrolmentToken {
    /// A new random token.
    ///
    /// # Errors
    /// No randomness.
    pub fn create(ca_fingerprint: [u8; 32]) -> Result<Self, IdentityError> {
        let mut secret = vec![0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self { secret, ca_fingerprint })
    }

    /// The text that people copy: ends with a checksum, so that a cut or mistyped token is told at once.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = self.secret.clone();
        bytes.extend_from_slice(&self.ca_fingerprint);
        let check = Sha256::digest(&bytes);
        bytes.extend_from_slice(&check[..4]);
        format!("{TOKEN_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads the text.
    ///
    /// # Errors
    /// Text that is not a whole token.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let body = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(IdentityError::Token("it does not begin with swe_"))?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(body).map_err(|_| IdentityError::Token("it is cut or mistyped"))?;
        if bytes.len() != SECRET_BYTES + 32 + 4 {
            return Err(IdentityError::Token("it is cut or mistyped"));
        }
        let (content, check) = bytes.split_at(SECRET_BYTES + 32);
        if Sha256::digest(content)[..4] != *check {
            return Err(IdentityError::Token("it is cut or mistyped"));
        }
        let (secret, ca) = content.split_at(SECRET_BYTES);
        let mut ca_fingerprint = [0; 32];
        ca_fingerprint.copy_from_slice(ca);
        Ok(Self { secret: secret.to_vec(), ca_fingerprint })
    }

    /// What the server stores instead of the secret. A secret of 192 random bits needs no slow hash.
    #[must_use]
    pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
        Sha256::digest(secret).into()
    }
}

/// Lower-case hex, for fingerprints and hashes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = 1_763_884_800_000;

    #[test]
    fn an_agent_gets_a_certificate_that_names_it_and_no_more() {
        let (authority, key) = Authority::create(NOW).unwrap();
        let authority = Authority::restore(authority.certificate(), &key).unwrap();
        let agent: AgentId = "0189f7ea-ae2c-7dd8-b1a5-6f0000000001".parse().unwrap();
        let (_, csr) = new_request().unwrap();
        let chain = authority.issue_agent(agent, &csr, NOW, Duration::from_secs(90 * 86_400)).unwrap();
        let read = read_agent_certificate(&chain[0]).unwrap();
        assert_eq!(read.agent, agent);
        assert_eq!(read.renew_at_ms(), NOW + 60 * 86_400_000);
        assert!(read_agent_certificate(authority.certificate()).is_err());
        assert!(authority.issue_agent(agent, b"junk", NOW, Duration::from_secs(1)).is_err());
        let (other, _) = Authority::create(NOW).unwrap();
        assert!(Authority::restore(other.certificate(), &key).is_err(), "a foreign key was taken");
    }

    #[test]
    fn tokens_survive_copying_and_tell_when_they_did_not() {
        let token = EnrolmentToken::create([7; 32]).unwrap();
        let text = token.to_text();
        assert_eq!(EnrolmentToken::parse(&format!(" {text}\n")).unwrap(), token);
        for bad in [&text[..text.len() - 1], &text.replace("swe_", ""), &format!("{text}A"), ""] {
            assert!(EnrolmentToken::parse(bad).is_err(), "{bad}");
        }
        assert!(!format!("{token:?}").contains(&hex(&token.secret)[..8]));
    }
}
