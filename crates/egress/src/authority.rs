//! The certificates that sandboxes see in place of those of hosts whose requests get a secret.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{limits, sandbox::lock};

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority's certificate is valid. It ends with the server.
const AUTHORITY: Duration = Duration::from_secs(3650 * 86_400);
/// How long a host's certificate is valid.
const VALID: Duration = Duration::from_secs(90 * 86_400);
/// It is made anew when it is this old.
const RENEWED: Duration = Duration::from_secs(30 * 86_400);
/// What a common name may hold.
const COMMON_NAME: usize = 64;

/// An authority whose key lives in this process alone. Only sandboxes are told to trust it.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// The key of all certificates.
    key: KeyPair,
    made: Mutex<HashMap<String, Made>>,
}

struct Made {
    at: SystemTime,
    config: Arc<ServerConfig>,
}

/// What failed while a certificate was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("a certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    #[error("a certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

impl Authority {
    pub(crate) fn new() -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        valid(&mut params, AUTHORITY);
        params
            .distinguished_name
            .push(DnType::CommonName, "Sandhold, inside its sandboxes only");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            key: KeyPair::generate()?,
            made: Mutex::default(),
        })
    }

    /// What sandboxes trust.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// How to be this host towards a sandbox. HTTP/1.1 is all that is spoken then.
    pub(crate) fn host(&self, name: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut made = lock(&self.made);
        let age = |one: &Made| one.at.elapsed().unwrap_or_default();
        if let Some(known) = made.get(name).filter(|one| age(one) < RENEWED) {
            return Ok(Arc::clone(&known.config));
        }
        let config = Arc::new(self.make(name)?);
        if made.len() >= limits::CERTIFICATES {
            let oldest = made
                .iter()
                .max_by_key(|(_, one)| age(one))
                .map(|(name, _)| name.clone());
            oldest.and_then(|name| made.remove(&name));
        }
        let one = Made {
            at: SystemTime::now(),
            config: Arc::clone(&config),
        };
        made.insert(name.to_owned(), one);
        Ok(config)
    }

    fn make(&self, name: &str) -> Result<ServerConfig, AuthorityError> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        valid(&mut params, VALID);
        let shown = if name.len() <= COMMON_NAME { name } else { "Sandhold" };
        params.distinguished_name.push(DnType::CommonName, shown);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate: CertificateDer<'static> = params.signed_by(&self.key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn valid(params: &mut CertificateParams, how_long: Duration) {
    let now = SystemTime::now();
    // Clocks differ.
    params.not_before = (now - DAY).into();
    params.not_after = (now + how_long).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_and_bounded() {
        let authority = Authority::new().unwrap();
        let first = authority.host("a.test").unwrap();
        assert!(Arc::ptr_eq(&first, &authority.host("a.test").unwrap()));
        let long = format!("{}.test", "a".repeat(63));
        authority.host(&format!("{long}.{long}")).unwrap();
        for number in 0..limits::CERTIFICATES + 5 {
            authority.host(&format!("n{number}.test")).unwrap();
        }
        assert_eq!(lock(&authority.made).len(), limits::CERTIFICATES);
        assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!format!("{authority:?}").contains("KEY"));
    }
}
