//! What lies around all sandboxes of a server. Tests put a small one of their own in its place.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    Policy, Secret,
    address::{self, Own},
    authority::Authority,
    name::canonical,
    resolve::Resolve,
    secure::Outside,
};

/// Why an address is no part of the internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// It is within this range.
    Range(IpNet),
    /// It is this host.
    Own,
}

type Guard = Box<dyn Fn(IpAddr) -> Option<Reserved> + Send + Sync>;
type Original = Box<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

pub(crate) struct World {
    pub(crate) resolver: Box<dyn Resolve>,
    /// What the operator opened.
    pub(crate) private: Vec<IpNet>,
    /// What binds all sandboxes, if anything does beside the ranges.
    pub(crate) operator: Option<Arc<Policy>>,
    /// What requests of all sandboxes get.
    pub(crate) secrets: Arc<[Secret]>,
    /// Signs for the hosts that are stood in for.
    pub(crate) authority: Authority,
    /// Verifies them.
    pub(crate) outside: Outside,
    /// Tells of an address whether it is no part of the internet.
    pub(crate) guard: Guard,
    /// The addresses of this host.
    pub(crate) own: Arc<Own>,
    /// Tells where a redirected connection was meant to go.
    pub(crate) original: Original,
}

impl World {
    pub(crate) fn new(resolver: Box<dyn Resolve>, private: Vec<IpNet>, authority: Authority) -> Self {
        let own = Arc::new(Own::default());
        let known = Arc::clone(&own);
        let guard = move |ip| match address::reserved(ip) {
            Some(range) => Some(Reserved::Range(range)),
            None => known.holds(ip).then_some(Reserved::Own),
        };
        Self {
            resolver,
            private,
            operator: None,
            secrets: Arc::default(),
            authority,
            outside: Outside::default(),
            guard: Box::new(guard),
            own,
            original: Box::new(original),
        }
    }

    /// Whether the operator lets rules open an address.
    pub(crate) fn opened(&self, ip: IpAddr) -> bool {
        self.private.iter().any(|net| net.contains(&canonical(ip)))
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("private", &self.private)
            .finish_non_exhaustive()
    }
}

/// The listener is one of IPv6 that takes IPv4 too: such a connection's destination is asked for as IPv4.
fn original(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match canonical(stream.peer_addr()?.ip()) {
        IpAddr::V4(_) => socket.original_dst_v4()?,
        IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    let address = address
        .as_socket()
        .ok_or_else(|| io::Error::other("it is no internet address"))?;
    Ok(SocketAddr::new(canonical(address.ip()), address.port()))
}
