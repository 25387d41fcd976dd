//! Addresses that are not the internet: they are reached only where the operator opened them.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Mutex,
    time::Instant,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{limits, name::canonical};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, c: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

/// The documentation ranges are not among them: they lead nowhere on the internet, and test networks use them.
const V4: [Ipv4Net; 12] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    v4(255, 255, 255, 255, 32),
];

/// `::/96` holds the unspecified address, the loopback and the old IPv4-compatible form; `64:ff9b:1::/48` is NAT64 of a
/// local network, with IPv4 at a place that only this network knows.
const V6: [Ipv6Net; 8] = [
    v6(0, 0, 0, 96),
    v6(0x64, 0xff9b, 1, 48),
    v6(0x100, 0, 0, 64),
    v6(0x2001, 0, 0, 32),
    v6(0xfc00, 0, 0, 7),
    v6(0xfe80, 0, 0, 10),
    v6(0xfec0, 0, 0, 10),
    v6(0xff00, 0, 0, 8),
];

/// The IPv4 address that a router on the way would read from an IPv6 address.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(of(high, low))
        }
        _ => None,
    }
}

/// All ranges that are no part of the internet.
pub(crate) fn all_reserved() -> impl Iterator<Item = IpNet> {
    V4.into_iter().map(IpNet::V4).chain(V6.into_iter().map(IpNet::V6))
}

/// The range that makes an address no part of the internet, if there is one.
pub(crate) fn reserved(ip: IpAddr) -> Option<IpNet> {
    match ip {
        IpAddr::V4(ip) => V4.iter().rev().find(|net| net.contains(&ip)).map(|net| IpNet::V4(*net)),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inner) => reserved(inner.into()),
            None => V6.iter().find(|net| net.contains(&ip)).map(|net| IpNet::V6(*net)),
        },
    }
}

/// The reserved range that holds all of a range.
pub(crate) fn reserved_net(net: &IpNet) -> Option<IpNet> {
    match net {
        IpNet::V4(net) => V4.iter().find(|known| known.contains(net)).map(|net| IpNet::V4(*net)),
        IpNet::V6(net) => match V6.iter().find(|known| known.contains(net)) {
            Some(known) => Some(IpNet::V6(*known)),
            None => reserved(net.network().into()).filter(|_| net.prefix_len() == 128),
        },
    }
}

/// The addresses of this host, asked anew when they are a second old.
#[derive(Debug, Default)]
pub(crate) struct Own {
    known: Mutex<Option<(Instant, HashSet<IpAddr>)>>,
}

impl Own {
    /// Whether an address is one of this host.
    pub(crate) fn holds(&self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        let inner = match ip {
            IpAddr::V6(v6) => embedded(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        self.look(|own| own.contains(&ip) || inner.is_some_and(|inner| own.contains(&inner)))
    }

    /// All of them; none where they cannot be read: the peer of each connection is still compared with its own end.
    pub(crate) fn all(&self) -> HashSet<IpAddr> {
        self.look(HashSet::clone)
    }

    fn look<T>(&self, look: impl FnOnce(&HashSet<IpAddr>) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let fresh = known.take().filter(|(at, _)| at.elapsed() < limits::OWN);
        look(&known.insert(fresh.unwrap_or_else(|| (Instant::now(), read()))).1)
    }
}

fn read() -> HashSet<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return HashSet::new();
    };
    let ip = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    interfaces
        .filter_map(|interface| interface.address.as_ref().and_then(ip))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_internet() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.1.1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::5",
            "2001::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(reserved(text.parse().unwrap()).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_internet() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.0.1",
            "100.128.0.1",
            "126.1.1.1",
            "128.0.0.1",
            "169.253.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.2.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(reserved(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn this_host_is_known() {
        let own = Own::default();
        assert!(own.holds("127.0.0.1".parse().unwrap()));
        assert!(own.holds("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!own.holds("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn ranges_within_reserved_ones() {
        let within = |text: &str| reserved_net(&text.parse().unwrap()).map(|net| net.to_string());
        assert_eq!(within("10.1.0.0/16").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(within("fd00::/64").as_deref(), Some("fc00::/7"));
        assert_eq!(within("0.0.0.0/1"), None);
        assert_eq!(within("8.8.8.0/24"), None);
        assert_eq!(within("2002:a00:1::/128").as_deref(), Some("10.0.0.0/8"));
    }
}
