//! Group 10: the network. A way counts when the host's listener is heard: a sandbox's own network may accept every
//! connection and lead it to a proxy that refuses it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use super::{Control, Kind, Listed, Tried};
use crate::attempt::{Attempt, by_errno, done, error_name, refused, unknown};
use crate::sys;

const TIME: Duration = Duration::from_secs(2);
const UNHEARD: &str = "refused, or nothing is heard";

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Where clouds keep their machines' credentials.
const METADATA: &[(&str, &str)] = &[
    ("metadata-v4", "169.254.169.254:80"),
    ("metadata-v6", "[fd00:ec2::254]:80"),
    ("metadata-ecs", "169.254.170.2:80"),
    ("metadata-alibaba", "100.100.100.200:80"),
];

/// How a program may ask the sandbox's own proxy.
#[derive(Clone, Copy)]
enum Asked {
    Connect,
    Socks,
}

pub(super) fn vectors() -> Vec<Listed> {
    let mut all = vec![
        tcp("host-loopback-v4", "the host's loopback", |_| Some(V4)),
        tcp("host-loopback-v6", "the host's loopback by IPv6", |_| Some(V6)),
        tcp(
            "host-loopback-mapped",
            "the host's loopback as ::ffff:127.0.0.1",
            |_| Some(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped())),
        ),
        tcp("host-loopback-any", "the host's loopback as 0.0.0.0", |_| {
            Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }),
        tcp("host-loopback-other", "the host's loopback as 127.0.0.2", |_| {
            Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))
        }),
        tcp("host-address-v4", "the host by its own address", |tried| {
            own(tried, true)
        }),
        tcp("host-address-v6", "the host by its own IPv6 address", |tried| {
            own(tried, false)
        }),
        Listed::new(
            10,
            "host-link-local",
            "TCP to the host by its link-local address",
            UNHEARD,
            |tried| match (tried.facts.link_local, tried.facts.tcp) {
                (Some((IpAddr::V6(address), scope)), Some(port)) => {
                    heard(tried, SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope)))
                }
                _ => unknown("the host has none"),
            },
        ),
        udp("host-udp-v4", "the host's loopback", |_| Some(V4)),
        udp("host-udp-v6", "the host's loopback by IPv6", |_| Some(V6)),
        udp("host-udp-address", "the host by its own address", |tried| {
            own(tried, true)
        }),
        Listed::new(
            10,
            "host-ping",
            "ping the host by its own address",
            UNHEARD,
            |tried| match own(tried, true) {
                Some(IpAddr::V4(address)) => match sys::icmp_echo(address) {
                    Ok(_) => done("it answers"),
                    Err(code) => refused(crate::attempt::errno_name(code)),
                },
                _ => unknown("the host has none"),
            },
        ),
        by_proxy("proxy-loopback", "127.0.0.1", Asked::Connect, |_| {
            Some("127.0.0.1".to_owned())
        }),
        by_proxy("proxy-localhost", "localhost", Asked::Connect, |_| {
            Some("localhost".to_owned())
        }),
        by_proxy("proxy-localhost-dot", "localhost.", Asked::Connect, |_| {
            Some("localhost.".to_owned())
        }),
        by_proxy("proxy-mapped", "[::ffff:127.0.0.1]", Asked::Connect, |_| {
            Some("[::ffff:127.0.0.1]".to_owned())
        }),
        by_proxy(
            "proxy-decimal",
            "2130706433, which is 127.0.0.1",
            Asked::Connect,
            |_| Some("2130706433".to_owned()),
        ),
        by_proxy("proxy-address", "the host's own address", Asked::Connect, |tried| {
            own(tried, true).map(|address| address.to_string())
        }),
        by_proxy("socks-loopback", "127.0.0.1 by SOCKS5", Asked::Socks, |_| {
            Some("127.0.0.1".to_owned())
        }),
        by_proxy(
            "socks-address",
            "the host's own address by SOCKS5",
            Asked::Socks,
            |tried| own(tried, true).map(|address| address.to_string()),
        ),
        Listed::new(
            10,
            "vsock-connect",
            "ask the hypervisor for a connection",
            "EAFNOSUPPORT",
            |_| by_errno(sys::vsock_host()),
        ),
        Listed::new(10, "interface-change", "change a network interface", "EPERM", |_| {
            by_errno(sys::flags_of_loopback())
        }),
        Listed::new(10, "interfaces", "see an interface that leads out", "lo alone", |_| {
            interfaces()
        }),
        Listed::new(
            10,
            "neighbour-tcp",
            "TCP to the other sandbox's loopback",
            UNHEARD,
            |tried| match tried.facts.neighbour_tcp {
                Some(port) => heard(tried, SocketAddr::new(V4, port)),
                None => unknown("there is no other sandbox"),
            },
        )
        .of(Kind::Neighbour)
        .with(Control::Neighbour),
    ];
    for (id, address) in METADATA {
        let title = format!("the metadata service at {address}");
        all.push(Listed::new(10, *id, title, UNHEARD, |_| metadata(address)));
    }
    all
}

/// An address of the host that is not its loopback.
fn own(tried: &Tried, v4: bool) -> Option<IpAddr> {
    tried
        .facts
        .addresses
        .iter()
        .copied()
        .find(|address| address.is_ipv4() == v4)
}

fn tcp(id: &'static str, title: &str, to: fn(&Tried) -> Option<IpAddr>) -> Listed {
    Listed::new(10, id, format!("TCP to {title}"), UNHEARD, move |tried| {
        match (to(tried), tried.facts.tcp) {
            (Some(address), Some(port)) => heard(tried, SocketAddr::new(address, port)),
            _ => unknown("the host has none"),
        }
    })
}

fn udp(id: &'static str, title: &str, to: fn(&Tried) -> Option<IpAddr>) -> Listed {
    Listed::new(10, id, format!("UDP to {title}"), UNHEARD, move |tried| {
        match (to(tried), tried.facts.udp) {
            (Some(address), Some(port)) => answered(tried, SocketAddr::new(address, port)),
            _ => unknown("the host has none"),
        }
    })
}

/// Whether the host's listener is heard.
fn heard(tried: &Tried, address: SocketAddr) -> Attempt {
    match TcpStream::connect_timeout(&address, TIME) {
        Ok(stream) => greets(tried, stream, &[]),
        Err(error) => refused(error_name(&error)),
    }
}

fn greets(tried: &Tried, mut stream: TcpStream, already: &[u8]) -> Attempt {
    let Some(greeting) = &tried.facts.greeting else {
        return unknown("no greeting is known");
    };
    let _ = stream.set_read_timeout(Some(TIME));
    let mut said = already.to_vec();
    let mut piece = [0; 512];
    while said.len() < 4096 {
        if said.windows(greeting.len()).any(|part| part == greeting.as_bytes()) {
            return done("the host is heard");
        }
        match stream.read(&mut piece) {
            Ok(count @ 1..) => said.extend_from_slice(&piece[..count]),
            Ok(_) => break,
            Err(error) => return refused(format!("connected, but {}", error_name(&error))),
        }
    }
    refused("connected, but the host is not heard")
}

fn answered(tried: &Tried, address: SocketAddr) -> Attempt {
    let Some(greeting) = &tried.facts.greeting else {
        return unknown("no greeting is known");
    };
    let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let asked = || -> std::io::Result<_> {
        let socket = UdpSocket::bind(local)?;
        socket.set_read_timeout(Some(TIME))?;
        socket.connect(address)?;
        socket.send(b"hello")?;
        let mut said = [0; 512];
        let count = socket.recv(&mut said)?;
        Ok(said[..count].to_vec())
    };
    match asked() {
        Ok(said) if said == greeting.as_bytes() => done("the host is heard"),
        Ok(_) => refused("something else answers"),
        Err(error) => refused(error_name(&error)),
    }
}

/// Asks the sandbox's own proxy for the host. On the host there is no proxy to ask: the control goes straight there.
fn by_proxy(id: &'static str, title: &str, asked: Asked, to: fn(&Tried) -> Option<String>) -> Listed {
    Listed::new(
        10,
        id,
        format!("ask the sandbox's proxy for {title}"),
        UNHEARD,
        move |tried| {
            let (Some(host), Some(port)) = (to(tried), tried.facts.tcp) else {
                return unknown("the host has none");
            };
            if !tried.facts.inside() {
                let address = host.parse().unwrap_or(V4);
                return heard(tried, SocketAddr::new(address, port));
            }
            let Some(proxy) = tried.facts.proxy else {
                return unknown("no proxy is known");
            };
            let mut stream = match TcpStream::connect_timeout(&proxy, TIME) {
                Ok(stream) => stream,
                Err(error) => return refused(format!("there is no proxy: {}", error_name(&error))),
            };
            let _ = stream.set_read_timeout(Some(TIME));
            let question = match asked {
                Asked::Connect => format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").into_bytes(),
                Asked::Socks => {
                    let mut bytes = vec![5, 1, 0, 5, 1, 0, 1];
                    let address: Ipv4Addr = host.parse().unwrap_or(Ipv4Addr::LOCALHOST);
                    bytes.extend_from_slice(&address.octets());
                    bytes.extend_from_slice(&port.to_be_bytes());
                    bytes
                }
            };
            match stream.write_all(&question) {
                Ok(()) => greets(tried, stream, &[]),
                Err(error) => refused(error_name(&error)),
            }
        },
    )
}

/// Whether anybody but Sandhold itself, which says what it blocks, answers there.
fn metadata(address: &str) -> Attempt {
    let Ok(address) = address.parse() else {
        return unknown("no such address");
    };
    let asked = || -> std::io::Result<_> {
        let mut stream = TcpStream::connect_timeout(&address, TIME)?;
        stream.set_read_timeout(Some(TIME))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut said = [0; 1024];
        let count = stream.read(&mut said)?;
        Ok(String::from_utf8_lossy(&said[..count]).to_lowercase())
    };
    match asked() {
        Ok(said) if said.is_empty() => refused("nothing is heard"),
        Ok(said) if said.contains("sandhold") => refused("blocked"),
        Ok(_) => done("it answers"),
        Err(error) => refused(error_name(&error)),
    }
}

fn interfaces() -> Attempt {
    let Ok(text) = std::fs::read_to_string("/proc/net/dev") else {
        return unknown("interfaces cannot be listed");
    };
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
    match names.map(str::trim).find(|name| *name != "lo") {
        Some(name) => done(format!("{name} is there")),
        None => refused("lo alone"),
    }
}
