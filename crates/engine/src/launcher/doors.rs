//! The way out of a sandbox: its loopback leads everything to sockets that the server serves.
//!
//! The network namespace has no interface but `lo`. That gets one address of each family and the default routes, so that
//! programs find a way to every address; rules of the namespace's own firewall turn what would leave to the sockets made
//! here. The sandbox has no right over its network, so it cannot change them, and if it could, there is nothing behind
//! them: the server holds the rules.
//!
//! What passes between programs of the sandbox is not tracked: a server under load would fill the kernel's table.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, netlink, socket_with, sockopt};
use sandhold_runtime::{DNS_PORT, PROXY_PORT, TCP_PORT, UDP_PORT};

use super::netlink::{APPEND, Attributes, Batch, CREATE, open};
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

/// Opens the doors and hands them over; without doors the message says so.
pub(super) fn open_and_send(control: &OwnedFd) -> Result<(), Errno> {
    match make() {
        Ok((flag, fds)) => packet::send_bytes(control, &[flag], &fds.iter().collect::<Vec<_>>()),
        Err(error) => {
            let code = u8::try_from(error.raw_os_error()).unwrap_or(u8::MAX);
            packet::send_bytes(control, &[FAILED, code], &[])
        }
    }
}

/// First byte of the message: everything is led to the doors; programs must be told of the proxy; there are no doors.
pub(crate) const TRANSPARENT: u8 = b't';
pub(crate) const PROXY: u8 = b'p';
pub(crate) const FAILED: u8 = b'-';

fn make() -> Result<(u8, Vec<OwnedFd>), Errno> {
    let turned = lead_out().and_then(|()| turn());
    let mut fds = vec![listener(TCP_PORT)?, listener(PROXY_PORT)?];
    // Without the firewall (a kernel that lacks nf_tables or a part of it) the name server has to be at its address.
    let (flag, names) = match turned {
        Ok(conntrack) => {
            fds.push(conntrack);
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
    batch.send(open(None)?, 1)
}

/// Addresses and default routes. Where IPv6 is switched off, IPv4 alone has to do.
fn lead_out() -> Result<(), Errno> {
    const WITHOUT_DUPLICATE_DETECTION: u8 = 2;
    const SCOPE_LINK: u8 = 253;
    add_address(ADDRESS)?;
    let socket = open(None)?;
    // struct rtmsg: family, lengths, tos, table main, protocol boot, scope, unicast, flags.
    let route = |family: u8, scope: u8| vec![family, 0, 0, 0, 254, 3, scope, 1, 0, 0, 0, 0];
    let out = |source: &[u8]| Attributes::default().with(4, &LOOPBACK.to_ne_bytes()).with(7, source);
    let mut batch = Batch::default();
    batch.push_reported(NEW_ROUTE, CREATE, &route(IPV4, SCOPE_LINK), &out(&ADDRESS.octets()));
    batch.send(&socket, 1)?;

    let own = ADDRESS_V6.octets();
    let mut batch = Batch::default();
    let header = address(IPV6, 128, WITHOUT_DUPLICATE_DETECTION);
    batch.push_reported(NEW_ADDRESS, CREATE, &header, &Attributes::default().with(1, &own));
    batch.push_reported(NEW_ROUTE, CREATE, &route(IPV6, 0), &out(&own));
    batch.send(&socket, 2).ok();
    Ok(())
}

/// The firewall's rules, and a socket to ask it where a datagram was meant to go.
fn turn() -> Result<OwnedFd, Errno> {
    let socket = open(Some(netlink::NETFILTER))?;
    let (batch, reports) = rules();
    batch.send(&socket, reports)?;
    Ok(socket)
}

const TABLE: &str = "sandhold";
/// `NFPROTO_INET`: both families.
const INET: u8 = 1;

/// What `nft` would write as
///
/// ```text
/// table inet sandhold {
///   chain local { type filter hook output priority raw;
///     th sport 65001-65080 accept
///     fib daddr type local notrack }
///   chain out { type nat hook output priority dstnat;
///     fib daddr type local accept
///     meta l4proto tcp redirect to :65001
///     th dport 53 redirect to :65053
///     meta l4proto udp redirect to :65002 }
/// }
/// ```
fn rules() -> (Batch, usize) {
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    const NEW_TABLE: u16 = 10 << 8;
    const NEW_CHAIN: u16 = 10 << 8 | 3;
    const NEW_RULE: u16 = 10 << 8 | 6;
    const PRIORITY_RAW: i32 = -300;
    const PRIORITY_DSTNAT: i32 = -100;
    let begin = [0, 0, 0, 10];
    let inet = [INET, 0, 0, 0];
    let none = Attributes::default();

    let mut batch = Batch::default();
    batch.push(BEGIN, 0, &begin, &none);
    batch.push(
        NEW_TABLE,
        CREATE,
        &inet,
        &Attributes::default().name(1, TABLE).number(2, 0),
    );
    for (name, kind, priority) in [("local", "filter", PRIORITY_RAW), ("out", "nat", PRIORITY_DSTNAT)] {
        const OUTPUT: u32 = 3;
        let hook = Attributes::default()
            .number(1, OUTPUT)
            .number(2, priority.cast_unsigned());
        let chain = Attributes::default()
            .name(1, TABLE)
            .name(3, name)
            .name(7, kind)
            .nest(4, hook);
        batch.push(NEW_CHAIN, CREATE, &inet, &chain);
    }
    let doors = [
        expression("payload", source_port()),
        compare(GREATER_OR_EQUAL, &TCP_PORT.to_be_bytes()),
        compare(LESS_OR_EQUAL, &PROXY_PORT.to_be_bytes()),
        accept(),
    ];
    let local = |last| [to_local(), compare(EQUAL, &RTN_LOCAL.to_ne_bytes()), last];
    let [l1, l2, l3] = local(expression("notrack", Attributes::default()));
    let [o1, o2, o3] = local(accept());
    let [t1, t2, t3, t4] = redirect(protocol(), &[TCP], TCP_PORT);
    let [n1, n2, n3, n4] = redirect(
        expression("payload", destination_port()),
        &53u16.to_be_bytes(),
        DNS_PORT,
    );
    let [u1, u2, u3, u4] = redirect(protocol(), &[UDP], UDP_PORT);
    let rules: [(&str, Vec<Attributes>); 6] = [
        ("local", doors.into()),
        ("local", vec![l1, l2, l3]),
        ("out", vec![o1, o2, o3]),
        ("out", vec![t1, t2, t3, t4]),
        ("out", vec![n1, n2, n3, n4]),
        ("out", vec![u1, u2, u3, u4]),
    ];
    let last = rules.len() - 1;
    for (index, (chain, expressions)) in rules.into_iter().enumerate() {
        let list = expressions
            .into_iter()
            .fold(Attributes::default(), |list, expression| list.nest(1, expression));
        let rule = Attributes::default().name(1, TABLE).name(2, chain).nest(4, list);
        if index == last {
            // Errors are always reported, success only where asked for: the first report is the answer for all.
            batch.push_reported(NEW_RULE, CREATE | APPEND, &inet, &rule);
        } else {
            batch.push(NEW_RULE, CREATE | APPEND, &inet, &rule);
        }
    }
    batch.push(END, 0, &begin, &none);
    (batch, 1)
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const RTN_LOCAL: u32 = 2;
const EQUAL: u32 = 0;
const LESS_OR_EQUAL: u32 = 3;
const GREATER_OR_EQUAL: u32 = 5;
/// The first register of nf_tables that holds a value; 0 is the verdict.
const REGISTER: u32 = 1;

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().name(1, name).nest(2, data)
}

/// Whether the destination is an address of this namespace.
fn to_local() -> Attributes {
    const BY_DESTINATION: u32 = 2;
    const ADDRESS_TYPE: u32 = 3;
    let data = Attributes::default()
        .number(3, BY_DESTINATION)
        .number(2, ADDRESS_TYPE)
        .number(1, REGISTER);
    expression("fib", data)
}

fn protocol() -> Attributes {
    const L4PROTO: u32 = 16;
    expression("meta", Attributes::default().number(2, L4PROTO).number(1, REGISTER))
}

fn source_port() -> Attributes {
    transport(0)
}

fn destination_port() -> Attributes {
    transport(2)
}

/// Two bytes of the transport header.
fn transport(offset: u32) -> Attributes {
    const TRANSPORT: u32 = 2;
    Attributes::default()
        .number(1, REGISTER)
        .number(2, TRANSPORT)
        .number(3, offset)
        .number(4, 2)
}

fn compare(how: u32, value: &[u8]) -> Attributes {
    let data = Attributes::default()
        .number(1, REGISTER)
        .number(2, how)
        .nest(3, Attributes::default().with(1, value));
    expression("cmp", data)
}

fn accept() -> Attributes {
    const VERDICT: u32 = 0;
    const ACCEPT: u32 = 1;
    let verdict = Attributes::default().nest(2, Attributes::default().number(1, ACCEPT));
    expression("immediate", Attributes::default().number(1, VERDICT).nest(2, verdict))
}

/// Turns what has `value` in what `load` loads to a port of the loopback.
fn redirect(load: Attributes, value: &[u8], port: u16) -> [Attributes; 4] {
    const PORT_GIVEN: u32 = 2;
    let port = Attributes::default().with(1, &port.to_be_bytes());
    [
        load,
        compare(EQUAL, value),
        expression("immediate", Attributes::default().number(1, REGISTER).nest(2, port)),
        expression("redir", Attributes::default().number(1, REGISTER).number(3, PORT_GIVEN)),
    ]
}
