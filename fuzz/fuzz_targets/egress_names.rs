//! Hosts and rules as text. The lines: a rule, a host of a request, a URI, and `Host` headers.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use http::{Request, header};
use libfuzzer_sys::fuzz_target;
use sandhold_egress::fuzz::{Named, authority, one_form, rule, target};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (own, host, uri) = (line(), line(), line());
    if let Some(name) = one_form(host) {
        valid(&name);
    }
    let found = authority(host);
    let (name, ip) = match &found {
        Some((Ok(ip), _)) => (String::new(), *ip),
        Some((Err(name), _)) => (name.clone(), IpAddr::V6(Ipv6Addr::LOCALHOST)),
        None => (String::new(), IpAddr::V6(Ipv6Addr::LOCALHOST)),
    };
    if let Some((named, port)) = found {
        assert_ne!(port, Some(0));
        let written = match &named {
            Ok(ip @ IpAddr::V6(_)) => format!("[{ip}]"),
            Ok(ip) => ip.to_string(),
            Err(name) => name.clone(),
        };
        sane(&named);
        assert_eq!(authority(&written), Some((named.clone(), None)));
        assert_eq!(authority(&format!("{written}:80")), Some((named.clone(), Some(80))));
        // A rule that is written as the target is for it, and one for another port's target is not.
        if let Some((_, names, holds)) = rule(&written, &name, ip) {
            assert_eq!((names, holds), (named.is_err(), named.is_ok()), "{written:?}");
        }
        if let Err(name) = &named
            && name.len() < 240
        {
            let below = rule(&format!("*.{name}"), &format!("x.{name}"), ip).expect("it is a rule");
            assert!(below.1 && !rule(&format!("*.{name}"), name, ip).expect("it is a rule").1);
        }
    }
    if let Some((again, names, holds)) = rule(own, &name, ip) {
        assert!(!(names && holds));
        assert_eq!(rule(&again, &name, ip), Some((again.clone(), names, holds)), "{own:?}");
    }
    let mut request = Request::builder().uri(uri);
    for host in lines {
        request = request.header(header::HOST, host);
    }
    let Ok(request) = request.body(()) else { return };
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if let Some((named, _)) = target(&request) {
        assert!(hosts < 2);
        assert_eq!(named.is_some(), hosts > 0 || request.uri().authority().is_some());
        named.iter().for_each(sane);
    }
});

fn sane(named: &Named) {
    match named {
        Ok(IpAddr::V6(ip)) => assert_eq!(ip.to_ipv4_mapped(), None, "IPv4 is IPv4"),
        Ok(IpAddr::V4(_)) => {}
        Err(name) => valid(name),
    }
}

/// Lower case, digits, dashes and underscores; nothing that a program might read as an address; its one form.
fn valid(name: &str) {
    assert!(!name.is_empty() && name.len() <= 253, "{name:?}");
    for label in name.split('.') {
        assert!((1..=63).contains(&label.len()), "{name:?}");
        assert!(
            label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)),
            "{name:?}"
        );
    }
    assert!(name.parse::<IpAddr>().is_err());
    assert!(
        !name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())),
        "{name:?}"
    );
    assert_eq!(one_form(name).as_deref(), Some(name));
    assert_eq!(one_form(&name.to_ascii_uppercase()).as_deref(), Some(name));
}
