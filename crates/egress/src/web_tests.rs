use super::*;

fn request(uri: &str, hosts: &[&str]) -> Request<()> {
    let mut builder = Request::builder().uri(uri);
    for host in hosts {
        builder = builder.header("host", *host);
    }
    builder.body(()).unwrap()
}

#[test]
fn the_host_of_a_request() {
    let name = |text: &str| Some(Host::Name(text.to_owned()));
    assert_eq!(target(&request("/", &["A.example"])), Ok((name("a.example"), None)));
    assert_eq!(
        target(&request("/", &["a.example:8080"])),
        Ok((name("a.example"), Some(8080)))
    );
    assert_eq!(
        target(&request("http://a.example:81/x", &["a.example"])),
        Ok((name("a.example"), Some(81)))
    );
    assert_eq!(target(&request("/", &[])), Ok((None, None)));
    assert_eq!(
        target(&request("/", &["[::ffff:127.0.0.1]:80"])),
        Ok((Some(Host::Ip([127, 0, 0, 1].into())), Some(80)))
    );
}

#[test]
fn hosts_that_two_readers_might_read_differently() {
    assert!(target(&request("/", &["a.example", "b.example"])).is_err());
    assert!(target(&request("http://a.example/", &["b.example"])).is_err());
    for host in [
        "a.example@b.example",
        "a b",
        "2130706433",
        "a.example/x",
        "0x7f.1",
        "a.example:",
        "a.example,b.example",
    ] {
        assert!(target(&request("/", &[host])).is_err(), "{host}");
    }
    assert!(target(&request("http://user:pw@a.example/", &[])).is_err());
}

#[test]
fn what_is_for_the_proxy_alone_stays_here() {
    let mut request = request("http://a.example/x?y=1", &["a.example"]);
    for (name, value) in [
        ("connection", "keep-alive, X-Hop, Host, content-length"),
        ("x-hop", "1"),
        ("x-end", "2"),
        ("proxy-authorization", "Basic eA=="),
        ("content-length", "3"),
    ] {
        request.headers_mut().append(name, HeaderValue::from_static(value));
    }
    strip(&mut request);
    origin_form(&mut request);
    assert_eq!(request.uri(), "/x?y=1");
    let left: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    for name in ["host", "x-end", "content-length"] {
        assert!(left.contains(&name), "{name}");
    }
}
