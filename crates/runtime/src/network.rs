use std::os::fd::OwnedFd;

/// The sockets that stand inside a sandbox's network and are served outside of it: all that leads out.
///
/// All listen inside the sandbox's own network namespace, one socket for both families, or for IPv4 where the kernel has no
/// other. A datagram that answers must come from the loopback's own address (`127.0.0.1`, `::1`), where the kernel led the
/// question.
/// Everything that connects or writes to them is untrusted. Whoever holds one keeps the namespace alive, so they are
/// dropped when the sandbox ends.
#[derive(Debug)]
pub struct Doors {
    /// TCP listener. Where [`Doors::transparent`], every connection to an address outside of the sandbox arrives here, and
    /// `SO_ORIGINAL_DST` tells where it was meant to go.
    pub tcp: OwnedFd,
    /// UDP socket. Where transparent, every datagram to an address outside arrives here, but for port 53. Its sender's
    /// translation is found through [`Doors::conntrack`].
    pub udp: OwnedFd,
    /// UDP socket for name queries. Where transparent, every datagram to port 53 outside of the sandbox arrives here.
    pub dns: OwnedFd,
    /// TCP listener for programs that know a proxy: HTTP (`CONNECT` and absolute URLs) and SOCKS5.
    pub proxy: OwnedFd,
    /// Netfilter's netlink socket of the namespace, to ask where a datagram was meant to go. Only where transparent.
    pub conntrack: Option<OwnedFd>,
    /// Another such socket: the namespace's firewall is told on it what to refuse at once, and tells what it refused. Only
    /// where transparent.
    pub firewall: Option<OwnedFd>,
    /// Whether the sandbox's kernel leads every connection here. If not, programs must be told of the proxy.
    pub transparent: bool,
}

/// How far an engine can lead a sandbox's connections to its doors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// There are no doors: a sandbox reaches its loopback only.
    #[default]
    Nothing,
    /// Only programs that use the proxy of their environment get out.
    Proxy,
    /// Every connection of every program arrives at the doors.
    Transparent,
}

/// Port of [`Doors::tcp`] on the loopback inside.
pub const TCP_PORT: u16 = 65001;
/// Port of [`Doors::udp`].
pub const UDP_PORT: u16 = 65002;
/// Port of [`Doors::dns`].
pub const DNS_PORT: u16 = 65053;
/// Port of [`Doors::proxy`].
pub const PROXY_PORT: u16 = 65080;
