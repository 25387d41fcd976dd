//! TLS for `sandhold serve`: certificates from files or made here, and a listener that hands out finished connections.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a certificate made here is used: browsers refuse ones that are valid for longer than 825 days.
const VALID: Duration = Duration::from_secs(800 * 86_400);
/// A certificate is made anew when it is this old.
const RENEWED: Duration = Duration::from_secs(700 * 86_400);
/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes that are done or under way and not yet taken.
const WAITING: usize = 256;

/// Where a server's certificate is.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// What clients must trust, where the certificate was made here.
    pub(crate) authority: Option<PathBuf>,
}

/// Makes a certificate for `domain`, all names one level below it and this machine, with an authority of its own, in
/// `folder`; or finds the one that was made before. The authority's key is thrown away: it can sign nothing else.
pub(crate) fn self_signed(folder: &Path, domain: &str) -> Result<Files> {
    let files = Files {
        certificate: folder.join(format!("{domain}.cert.pem")),
        key: folder.join(format!("{domain}.key.pem")),
        authority: Some(folder.join(format!("{domain}.ca.pem"))),
    };
    let age = |path: &Path| {
        path.metadata()
            .and_then(|m| m.modified())
            .ok()
            .and_then(|t| t.elapsed().ok())
    };
    if age(&files.key).is_some_and(|age| age < RENEWED) && files.certificate.exists() {
        return Ok(files);
    }
    let (authority, certificate, key) = make(domain).context("cannot make a certificate")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let paths = [files.authority.as_deref(), Some(&files.certificate)];
    for (path, text) in paths.into_iter().flatten().zip([&authority, &certificate]) {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    write_secret(&files.key, &key).with_context(|| format!("cannot write {}", files.key.display()))?;
    Ok(files)
}

fn make(domain: &str) -> Result<(String, String, String), rcgen::Error> {
    let now = SystemTime::now();
    let valid = |params: &mut CertificateParams| {
        // Clocks differ by some minutes.
        params.not_before = (now - Duration::from_secs(3600)).into();
        params.not_after = (now + VALID).into();
    };
    let mut root = CertificateParams::default();
    valid(&mut root);
    root.distinguished_name
        .push(DnType::CommonName, format!("Sandhold, for {domain} only"));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate()?;
    let root_certificate = root.self_signed(&root_key)?;

    let names = [domain, &format!("*.{domain}"), "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    valid(&mut leaf);
    leaf.distinguished_name.push(DnType::CommonName, domain);
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(root, root_key))?;
    Ok((root_certificate.pem(), leaf.pem(), leaf_key.serialize_pem()))
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, text.as_bytes())
}

/// Reads a certificate chain and its key.
pub(crate) fn config(files: &Files) -> Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read the certificate {}", files.certificate.display()))?;
    if chain.is_empty() {
        bail!("{} holds no certificate", files.certificate.display());
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read the private key {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts connections whose handshake is done. A client that dawdles holds up nobody else.
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    pub(crate) fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (sender, ready) = mpsc::channel(WAITING);
        tokio::spawn(accept(listener, acceptor, sender));
        Ok(Self { address, ready })
    }
}

async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    // Ends when nobody takes connections any more.
    while let Ok(place) = ready.clone().reserve_owned().await {
        let (stream, address) = axum::serve::Listener::accept(&mut listener).await;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was refused");
            }
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(place.send((stream, address))),
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
            }
        });
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task ends only with this listener.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = self_signed(folder.path(), "sandhold.localhost").unwrap();
        let first = std::fs::read(&files.certificate).unwrap();
        config(&files).unwrap();
        self_signed(folder.path(), "sandhold.localhost").unwrap();
        assert_eq!(std::fs::read(&files.certificate).unwrap(), first);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(files.key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&files.key, "nothing").unwrap();
        assert!(config(&files).unwrap_err().to_string().contains("private key"));
    }
}
