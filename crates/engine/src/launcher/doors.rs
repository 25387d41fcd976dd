//! The way out of a sandbox: its loopback leads everything to sockets that the server serves.
//!
//! The network namespace has no interface but `lo`. That gets one address of each family and the default routes, so that
//! programs find a way to every address; rules of the namespace's own firewall turn what would leave to the sockets made
//! here ([`sandhold_netlink::firewall`]). The sandbox has no right over its network, so it cannot change them, and if it
//! could, there is nothing behind them: the server holds the rules.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, netlink, socket_with, sockopt};
use sandhold_netlink::firewall::{Ports, table};
use sandhold_netlink::{Attributes, Batch, CREATE};
use sandhold_runtime::{DNS_PORT, PROXY_PORT, TCP_PORT, UDP_PORT};

use super::netlink::{open as netlink_socket, tell};
use crate::packet;

/// The address of a sandbox on its loopback; of the range of carriers (RFC 6598), which no program takes for a neighbour.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
/// The same of IPv6, a unique local one (RFC 4193).
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x4e44, 0, 0, 0, 0, 0, 2);
/// The name server in `resolv.conf`: it is nowhere, queries to it are turned to the door.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;
const LOOPBACK: u32 = 1;

/// What was opened: which kind of doors, or why there are none.
pub(super) type Opened = Result<(u8, Vec<OwnedFd>), Errno>;

/// Opens the doors.
pub(super) fn open() -> Opened {
    let turned = lead_out().and_then(|()| turn());
    let mut fds = vec![listener(TCP_PORT)?, listener(PROXY_PORT)?];
    // Without the firewall (a kernel that lacks nf_tables or a part of it) the name server has to be at its address.
    let (flag, names) = match turned {
        Ok(sockets) => {
            fds.extend(sockets);
            (TRANSPARENT, anywhere(SocketType::DGRAM, DNS_PORT)?)
        }
        Err(_) => {
            add_address(NAME_SERVER)?;
            (PROXY, at(SocketType::DGRAM, NAME_SERVER, 53)?)
        }
    };
    fds.push(anywhere(SocketType::DGRAM, UDP_PORT)?);
    fds.push(names);
    Ok((flag, fds))
}

/// Hands them over, and the border of the sandbox's root as the last descriptor, if there is one; without doors the message
/// says so.
pub(super) fn send(control: &OwnedFd, opened: Opened, border: Option<&OwnedFd>) -> Result<(), Errno> {
    match opened {
        Ok((flag, fds)) => packet::send_bytes(control, &[flag], &fds.iter().chain(border).collect::<Vec<_>>()),
        Err(error) => {
            let code = u8::try_from(error.raw_os_error()).unwrap_or(u8::MAX);
            packet::send_bytes(control, &[FAILED, code], &border.into_iter().collect::<Vec<_>>())
        }
    }
}

/// First byte of the message: everything is led to the doors; programs must be told of the proxy; there are no doors.
pub(crate) const TRANSPARENT: u8 = b't';
pub(crate) const PROXY: u8 = b'p';
pub(crate) const FAILED: u8 = b'-';

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn listener(port: u16) -> Result<OwnedFd, Errno> {
    let socket = anywhere(SocketType::STREAM, port)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A socket for both families, or for IPv4 where the kernel has no other.
fn anywhere(kind: SocketType, port: u16) -> Result<OwnedFd, Errno> {
    match socket_with(AddressFamily::INET6, kind, FLAGS, None) {
        Ok(socket) => {
            sockopt::set_ipv6_v6only(&socket, false)?;
            bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
            Ok(socket)
        }
        Err(Errno::AFNOSUPPORT) => at(kind, Ipv4Addr::LOCALHOST, port),
        Err(error) => Err(error),
    }
}

fn at(kind: SocketType, address: Ipv4Addr, port: u16) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::INET, kind, FLAGS, None)?;
    bind(&socket, &SocketAddr::from((address, port)))?;
    Ok(socket)
}

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const IPV4: u8 = AddressFamily::INET.as_raw() as u8;
const IPV6: u8 = AddressFamily::INET6.as_raw() as u8;

/// `struct ifaddrmsg` of the loopback: family, prefix, flags, scope, interface.
fn address(family: u8, prefix: u8, flags: u8) -> Vec<u8> {
    let mut header = vec![family, prefix, flags, 0];
    header.extend(LOOPBACK.to_ne_bytes());
    header
}

fn add_address(own: Ipv4Addr) -> Result<(), Errno> {
    let mut batch = Batch::default();
    let own = own.octets();
    let own = Attributes::default().with(2, &own).with(1, &own);
    batch.push_reported(NEW_ADDRESS, CREATE, &address(IPV4, 32, 0), &own);
    tell(netlink_socket(None)?, &batch, 1)
}

/// Addresses and default routes. Where IPv6 is switched off, IPv4 alone has to do.
fn lead_out() -> Result<(), Errno> {
    const WITHOUT_DUPLICATE_DETECTION: u8 = 2;
    const SCOPE_LINK: u8 = 253;
    add_address(ADDRESS)?;
    let socket = netlink_socket(None)?;
    // struct rtmsg: family, lengths, tos, table main, protocol boot, scope, unicast, flags.
    let route = |family: u8, scope: u8| vec![family, 0, 0, 0, 254, 3, scope, 1, 0, 0, 0, 0];
    let out = |source: &[u8]| Attributes::default().with(4, &LOOPBACK.to_ne_bytes()).with(7, source);
    let mut batch = Batch::default();
    batch.push_reported(NEW_ROUTE, CREATE, &route(IPV4, SCOPE_LINK), &out(&ADDRESS.octets()));
    tell(&socket, &batch, 1)?;

    let own = ADDRESS_V6.octets();
    let mut batch = Batch::default();
    let header = address(IPV6, 128, WITHOUT_DUPLICATE_DETECTION);
    batch.push_reported(NEW_ADDRESS, CREATE, &header, &Attributes::default().with(1, &own));
    batch.push_reported(NEW_ROUTE, CREATE, &route(IPV6, 0), &out(&own));
    tell(&socket, &batch, 2).ok();
    Ok(())
}

/// Puts up the firewall. The answer is two sockets: to ask it where a datagram was meant to go, and to fill its sets and hear
/// what it refused.
fn turn() -> Result<[OwnedFd; 2], Errno> {
    let ports = Ports {
        tcp: TCP_PORT,
        udp: UDP_PORT,
        dns: DNS_PORT,
        all: (TCP_PORT, PROXY_PORT),
    };
    let sockets = [
        netlink_socket(Some(netlink::NETFILTER))?,
        netlink_socket(Some(netlink::NETFILTER))?,
    ];
    if tell(&sockets[0], &table(ports, true), 1).is_err() {
        // What failed may have left reports behind.
        let fresh = netlink_socket(Some(netlink::NETFILTER))?;
        tell(&fresh, &table(ports, false), 1)?;
        let [_, log] = sockets;
        return Ok([fresh, log]);
    }
    Ok(sockets)
}
