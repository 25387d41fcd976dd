//! Connections into which this server looks, because their requests get a secret: TLS towards the program inside, as the
//! host that it asked for, and TLS towards that host, whose certificate must be good.

use std::{io, sync::Arc};

use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::{
    inspect::Goal,
    limits,
    sandbox::{Permit, Sandbox},
    secret::Headers,
    stream::{Io, Prefixed, Stream},
    tcp, web,
    world::World,
};

/// A host whose requests get a secret.
#[derive(Debug)]
pub(crate) struct Secured {
    /// The host as TLS named it.
    pub(crate) name: String,
    pub(crate) headers: Headers,
    pub(crate) goal: Goal,
    /// A connection to it that was made already.
    pub(crate) ready: tokio::sync::Mutex<Option<TcpStream>>,
}

impl Io for server::TlsStream<Prefixed> {
    fn reset(&mut self) {
        self.get_mut().0.reset();
    }
}

impl Io for client::TlsStream<TcpStream> {
    fn reset(&mut self) {
        self.get_mut().0.reset();
    }
}

/// Serves a client that greeted with `bytes` as the host it asked for.
pub(crate) async fn serve(sandbox: Arc<Sandbox>, client: Stream, bytes: Bytes, host: Secured, permit: Permit) {
    let config = match sandbox.world.authority.host(&host.name) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "a host cannot be stood in for");
            return;
        }
    };
    let client = Prefixed {
        head: bytes,
        inner: client,
    };
    match timeout(limits::HEAD_WAIT, TlsAcceptor::from(config).accept(client)).await {
        Ok(Ok(client)) => web::serve(sandbox, Box::new(client), web::Route::Secured(Arc::new(host)), permit).await,
        // Mostly a program that does not trust the authority.
        Ok(Err(error)) => tcp::failed(&host.name, &error),
        Err(_) => tcp::failed(&host.name, &io::ErrorKind::TimedOut.into()),
    }
}

/// TLS to the host itself.
pub(crate) async fn connect(world: &World, name: &str, made: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
    let config = world.outside.config().await?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connecting = TlsConnector::from(config).connect(name, made);
    match timeout(limits::CONNECT, connecting).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            let text = format!("its identity cannot be verified, so no request was sent to it: {error}");
            Err(io::Error::new(error.kind(), text))
        }
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

type Roots = Box<dyn Fn() -> io::Result<RootCertStore> + Send + Sync>;

/// Whom this server trusts: what this host does, read when it is first needed.
pub(crate) struct Outside {
    roots: Arc<Roots>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Default for Outside {
    fn default() -> Self {
        Self::new(Box::new(of_this_host))
    }
}

impl Outside {
    pub(crate) fn new(roots: Roots) -> Self {
        Self {
            roots: Arc::new(roots),
            config: OnceCell::new(),
        }
    }

    async fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let config = self.config.get_or_try_init(async || {
            let read = Arc::clone(&self.roots);
            let roots = tokio::task::spawn_blocking(move || read()).await??;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok::<_, io::Error>(Arc::new(config))
        });
        config.await.cloned()
    }
}

fn of_this_host() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(io::Error::other(format!(
            "the server's machine has no certificates to verify hosts by {why}"
        )));
    }
    Ok(roots)
}
