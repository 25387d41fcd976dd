use super::*;

fn policy(internet: Option<bool>, allow: &[&str], deny: &[&str]) -> Result<Policy, PolicyError> {
    with(internet, allow, deny, &[])
}

fn with(internet: Option<bool>, allow: &[&str], deny: &[&str], private: &[&str]) -> Result<Policy, PolicyError> {
    let list = |entries: &[&str]| entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
    let private: Vec<IpNet> = private.iter().map(|net| net.parse().unwrap()).collect();
    Policy::new(internet, &list(allow), &list(deny), &private)
}

fn name(policy: &Policy, name: &str, port: u16) -> Result<Basis, Denial> {
    policy.decide(Some(name), None, Some(port))
}

fn ip(policy: &Policy, ip: &str, port: u16) -> Result<Basis, Denial> {
    policy.decide(None, Some(ip.parse().unwrap()), Some(port))
}

#[test]
fn modes() {
    let mode = |internet, allow: &[&str], deny: &[&str]| policy(internet, allow, deny).unwrap().mode();
    assert_eq!(mode(None, &[], &[]), Mode::Public);
    assert_eq!(mode(Some(true), &["a.com"], &["b.com"]), Mode::Public);
    assert_eq!(mode(Some(false), &[], &[]), Mode::None);
    assert_eq!(mode(Some(false), &["a.com"], &[]), Mode::Allowlist);
    assert_eq!(mode(None, &["a.com"], &["0.0.0.0/0"]), Mode::Allowlist);
    assert_eq!(mode(None, &[], &["0.0.0.0/0"]), Mode::None);
    assert_eq!(mode(None, &[], &["::/0"]), Mode::None);
    assert_eq!(mode(None, &["1.1.1.1"], &["*"]), Mode::Allowlist);
    assert_eq!(mode(None, &[], &["0.0.0.0/0:25"]), Mode::Public);
    assert_eq!(Policy::default().mode(), Mode::Public);
}

#[test]
fn an_allowlist_holds_names_and_ranges() {
    let p = policy(
        Some(false),
        &[
            "Example.com",
            "*.pypi.org",
            "192.0.2.0/24",
            "1.1.1.1:53",
            "[2001:db8::1]:443",
        ],
        &[],
    )
    .unwrap();
    for allowed in ["example.com", "a.pypi.org", "a.b.pypi.org"] {
        assert_eq!(name(&p, allowed, 443), Ok(Basis::Named), "{allowed}");
    }
    for denied in [
        "www.example.com",
        "pypi.org",
        "xpypi.org",
        "example.com.evil",
        "evilexample.com",
        ".pypi.org",
    ] {
        assert_eq!(name(&p, denied, 443), Err(Denial::Unnamed), "{denied}");
    }
    assert_eq!(ip(&p, "192.0.2.200", 1), Ok(Basis::Named));
    assert_eq!(ip(&p, "::ffff:192.0.2.200", 1), Ok(Basis::Named));
    assert_eq!(ip(&p, "192.0.3.1", 1), Err(Denial::Unnamed));
    assert_eq!(ip(&p, "1.1.1.1", 53), Ok(Basis::Named));
    assert_eq!(ip(&p, "1.1.1.1", 443), Err(Denial::Unnamed));
    assert_eq!(ip(&p, "2001:db8::1", 443), Ok(Basis::Named));
    assert_eq!(ip(&p, "2001:db8::1", 80), Err(Denial::Unnamed));
    assert!(p.allows_names(1) && !p.denies_names() && !p.open_names());
}

#[test]
fn allow_wins_over_deny() {
    let p = policy(
        None,
        &["good.evil.com", "10.0.0.0.nip.io", "9.9.9.9"],
        &["*.evil.com", "evil.com", "9.9.9.0/24"],
    )
    .unwrap();
    assert_eq!(name(&p, "good.evil.com", 443), Ok(Basis::Named));
    assert_eq!(name(&p, "bad.evil.com", 443), Err(Denial::Rule("*.evil.com".into())));
    assert_eq!(name(&p, "evil.com", 443), Err(Denial::Rule("evil.com".into())));
    assert_eq!(name(&p, "else.com", 443), Ok(Basis::Public));
    assert_eq!(ip(&p, "9.9.9.9", 443), Ok(Basis::Named));
    assert_eq!(ip(&p, "9.9.9.10", 443), Err(Denial::Rule("9.9.9.0/24".into())));
    assert!(p.denies_names() && p.open_names());
    // The name is allowed, so that its address is too; another name at that address is not.
    let at = Some("9.9.9.10".parse().unwrap());
    assert_eq!(p.decide(Some("good.evil.com"), at, Some(443)), Ok(Basis::Named));
    assert_eq!(
        p.decide(Some("else.com"), at, Some(443)),
        Err(Denial::Rule("9.9.9.0/24".into()))
    );
}

#[test]
fn everything_allowed_again() {
    let p = policy(Some(false), &["0.0.0.0/0"], &["0.0.0.0/0"]).unwrap();
    assert_eq!(p.mode(), Mode::Allowlist);
    assert_eq!(ip(&p, "9.9.9.9", 1), Ok(Basis::All));
    assert_eq!(ip(&p, "2606::1", 1), Ok(Basis::All));
    assert_eq!(name(&p, "a.com", 1), Ok(Basis::All));
    assert!(p.open_names());
}

#[test]
fn rules_of_one_port() {
    let p = policy(None, &[], &["0.0.0.0/0:25", "mail.com:587"]).unwrap();
    assert_eq!(ip(&p, "9.9.9.9", 25), Err(Denial::Rule("0.0.0.0/0:25".into())));
    assert_eq!(ip(&p, "9.9.9.9", 26), Ok(Basis::Public));
    assert_eq!(name(&p, "mail.com", 587), Err(Denial::Rule("mail.com:587".into())));
    assert_eq!(
        p.decide(Some("mail.com"), None, None),
        Ok(Basis::Public),
        "its name may be asked for"
    );
    let p = policy(Some(false), &["a.com:443"], &[]).unwrap();
    assert_eq!(p.decide(Some("a.com"), None, None), Ok(Basis::Named));
    assert_eq!(name(&p, "a.com", 80), Err(Denial::Unnamed));
    assert!(p.allows_names(443) && !p.allows_names(80));
}

#[test]
fn nothing_is_nothing() {
    let p = policy(Some(false), &[], &["a.com"]).unwrap();
    assert_eq!(name(&p, "a.com", 1), Err(Denial::None));
    assert_eq!(ip(&p, "1.1.1.1", 1), Err(Denial::None));
}

#[test]
fn private_ranges_are_the_operators() {
    let error = policy(None, &["a.com", "10.1.2.3"], &[]).unwrap_err();
    assert_eq!((error.list, error.rule.as_str()), ("allow_out", "10.1.2.3"));
    assert!(error.why.contains("--allow-private-network 10.1.2.3/32"), "{error}");
    assert!(policy(None, &["169.254.169.254"], &[]).is_err());
    assert!(policy(None, &["::ffff:127.0.0.1"], &[]).is_err());
    assert!(policy(None, &["[fd00:ec2::254]:80"], &[]).is_err());
    assert!(policy(None, &[], &["10.0.0.0/8"]).is_ok(), "denying is free");
    assert!(with(None, &["10.1.2.3", "10.1.0.0/16"], &[], &["10.1.0.0/16"]).is_ok());
    assert!(with(None, &["10.0.0.0/8"], &[], &["10.1.0.0/16"]).is_err());
}

#[test]
fn rules_that_are_none() {
    let long = "a".repeat(400);
    for bad in [
        "",
        "https://example.com/x",
        "user@example.com",
        "exa mple.com",
        "a..b",
        "example.com/path",
        "10.0.0.0/33",
        "*",
        "a.*.com",
        "*example.com",
        "**.com",
        "example.com:0",
        "example.com:http",
        "0x7f.1",
        "2130706433",
        "1.2.3",
        &long,
    ] {
        if bad == "*" {
            continue;
        }
        let error = policy(None, &[bad], &[]).unwrap_err();
        assert_eq!(error.list, "allow_out");
        assert!(!error.why.is_empty(), "{bad}");
        assert_eq!(policy(None, &[], &[bad]).unwrap_err().list, "deny_out");
    }
    let url = policy(None, &["https://example.com/x"], &[]).unwrap_err();
    assert!(url.why.contains("\"example.com\""), "{url}");
}

#[test]
fn lists_are_bounded() {
    let list = |n: usize| (0..n).map(|i| format!("h{i}.com")).collect::<Vec<_>>();
    assert!(Policy::new(None, &list(256), &[], &[]).is_ok());
    assert!(Policy::new(None, &[], &list(257), &[]).is_err());
}
