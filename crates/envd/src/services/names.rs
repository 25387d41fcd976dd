//! Host names without a resolver: a static program has none. Addresses, `localhost`, and what `/etc/hosts` says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::beginning::beginning;
use crate::limits::HOSTS_FILE;

/// The addresses of a host, in the order to try them; none where DNS would have to be asked.
pub(crate) fn addresses(host: &str) -> Vec<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return vec![address];
    }
    let name = bare.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    in_hosts(&beginning("/etc/hosts", HOSTS_FILE), &name)
}

fn in_hosts(table: &str, name: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let both = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(addresses("LOCALHOST"), both);
        assert_eq!(addresses("a.localhost."), both);
        assert_eq!(addresses("10.0.0.7"), [IpAddr::from([10, 0, 0, 7])]);
        assert_eq!(addresses("[::1]"), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert_eq!(addresses("nothing.invalid"), Vec::<IpAddr>::new());
        let table = "127.0.0.1 localhost\n# 1.2.3.4 db\n10.1.1.1 web Db # the database\n::2 db\n";
        assert_eq!(
            in_hosts(table, "db"),
            [IpAddr::from([10, 1, 1, 1]), "::2".parse().unwrap()]
        );
        assert_eq!(in_hosts(table, "d"), Vec::<IpAddr>::new());
    }
}
