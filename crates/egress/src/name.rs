//! Names and addresses as programs and rules write them, brought to one form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::AsciiDenyList;

use crate::limits;

/// What a target is written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// An address. IPv4 that is mapped into IPv6 is IPv4.
    Ip(IpAddr),
    /// A name: lower case, ASCII, without a dot at its end.
    Name(String),
}

/// Reads a host strictly: addresses in their one usual form only, so that nothing else reads another address from it.
pub(crate) fn host(text: &str) -> Result<Host, &'static str> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("has no closing ]")?;
        return match inner.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Host::Ip(canonical(ip.into()))),
            Err(_) => Err("is no IPv6 address within the brackets"),
        };
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(Host::Ip(canonical(ip))),
        Err(_) => name(text).map(Host::Name),
    }
}

/// Brings a name to its one form.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > 4 * limits::NAME {
        return Err("is too long for a name");
    }
    if text.contains('@') {
        return Err("holds a user name; write the host alone");
    }
    if text.contains('/') || text.contains('\\') {
        return Err("holds a path; write the host alone");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("holds a space");
    }
    let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::EMPTY).map_err(|_| "is no valid name")?;
    if ascii.len() > limits::NAME {
        return Err("is too long for a name");
    }
    for label in ascii.split('.') {
        if label.is_empty() {
            return Err("has an empty part between dots");
        }
        if label.len() > 63 {
            return Err("has a part of more than 63 characters");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        {
            return Err("holds a character that no name has");
        }
    }
    let last = ascii.rsplit('.').next().unwrap_or_default();
    // Some programs read these as addresses: 2130706433, 0x7f.1, 127.1.
    let hex = last
        .strip_prefix("0x")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("is neither a name nor an address in its usual form, such as 192.0.2.7");
    }
    Ok(ascii.into_owned())
}

/// `host` and `host:port`, `[v6]:port` apart. An IPv6 address without brackets has no port.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = if let Some(end) = text.strip_prefix('[').and_then(|_| text.find(']')) {
        let (host, rest) = text.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (host, port),
            None if rest.is_empty() => return Ok((host, None)),
            None => return Err("has something other than a port after ]"),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, port),
            _ => return Ok((text, None)),
        }
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok((host, Some(port))),
        _ => Err("has no port of 1 to 65535 after the colon"),
    }
}

/// IPv4 that is mapped into IPv6 as IPv4.
pub(crate) fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, |v4: Ipv4Addr| v4.into()),
        IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_for_each_name() {
        for (given, form) in [
            ("Example.COM.", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("ｅｘａｍｐｌｅ.com", "example.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host(given), Ok(Host::Name(form.into())), "{given}");
        }
    }

    #[test]
    fn addresses_in_their_usual_form_only() {
        let v4 = |a, b, c, d| Ok(Host::Ip(Ipv4Addr::new(a, b, c, d).into()));
        assert_eq!(host("127.0.0.1"), v4(127, 0, 0, 1));
        assert_eq!(host("[::ffff:127.0.0.1]"), v4(127, 0, 0, 1));
        assert_eq!(host("::ffff:10.0.0.1"), v4(10, 0, 0, 1));
        assert_eq!(host("[::1]"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
        for bad in [
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "127.1",
            "127.0.0.1.",
            "1.2.3.4.5",
            "[127.0.0.1]",
            "[::1",
            "fe80::1%eth0",
            "0x",
            "a.0x7",
            "１２７.1",
        ] {
            assert!(!matches!(host(bad), Ok(Host::Name(_))), "{bad}: {:?}", host(bad));
        }
    }

    #[test]
    fn what_is_no_name() {
        let long = format!("{}.com", "a.".repeat(130));
        let label = format!("{}.com", "a".repeat(64));
        for bad in [
            "", ".", "a..b", ".a", "a b", "u@h", "u:p@h", "a/b", "a\\b", "a\n", "a%2eb", "*.a", "a*", &long, &label,
            "xn--a",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports() {
        assert_eq!(split_port("a:80"), Ok(("a", Some(80))));
        assert_eq!(split_port("[::1]:443"), Ok(("[::1]", Some(443))));
        assert_eq!(split_port("[::1]"), Ok(("[::1]", None)));
        assert_eq!(split_port("2001:db8::1"), Ok(("2001:db8::1", None)));
        assert_eq!(split_port("10.0.0.0/8:22"), Ok(("10.0.0.0/8", Some(22))));
        for bad in ["a:", "a:0", "a:65536", "a:+80", "a:x", "[::1]x", "[::1]:"] {
            assert!(split_port(bad).is_err(), "{bad}");
        }
    }
}
