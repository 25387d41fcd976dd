use super::*;
use crate::{policy::Mode, sni::tests::greeting};

const A: [u8; 4] = [127, 0, 0, 2];
const B: [u8; 4] = [127, 0, 0, 3];
const GREETS: [u8; 4] = [127, 0, 0, 4];
const INSIDE: [u8; 4] = [127, 0, 1, 1];
const OWN: [u8; 4] = [127, 0, 0, 1];
const NOWHERE: [u8; 4] = [127, 0, 0, 77];

#[tokio::test]
async fn an_allowlist_goes_by_the_name_within_tls() {
    let net = Net::new(Some(false), &["a.test"], &[]).await;
    // Wherever it was meant for: the name's own address is what it reaches.
    for meant in [A, B, NOWHERE, INSIDE] {
        assert_eq!(
            net.exchange(meant, &greeting(&["A.test"])).await,
            "site 127.0.0.2",
            "{meant:?}"
        );
    }
    assert_eq!(net.blocked(), []);
    for meant in [A, B] {
        let alert = net.exchange(meant, &greeting(&["b.test"])).await;
        assert!(alert.starts_with('\u{15}'), "{alert:?}");
    }
    let blocked = net.blocked();
    assert_eq!(blocked.len(), 1);
    assert_eq!(
        (blocked[0].host.as_str(), blocked[0].port, blocked[0].protocol),
        ("b.test", net.port, "tcp")
    );
    assert_eq!((blocked[0].rule.as_str(), blocked[0].count), ("not in allow_out", 2));
    assert_eq!(
        blocked[0].remedy,
        r#"update_network with allow_out ["b.test"] allows it"#
    );
}

#[tokio::test]
async fn tls_without_a_name_goes_by_its_address() {
    let net = Net::new(Some(false), &["a.test", "127.0.0.3"], &[]).await;
    assert_eq!(net.exchange(B, &greeting(&[])).await, "site 127.0.0.3");
    assert!(!net.exchange(A, &greeting(&[])).await.contains("site"));
    assert!(
        net.refused()[0].1.starts_with("TLS without a server name"),
        "{:?}",
        net.refused()
    );
}

#[tokio::test]
async fn each_request_of_http_is_held_against_the_rules() {
    let net = Net::new(Some(false), &["a.test"], &[]).await;
    let mut client = net.connect(NOWHERE).await;
    for _ in 0..2 {
        let answer = say(&mut client, &get("a.test")).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("site 127.0.0.2"),
            "{answer}"
        );
    }
    let answer = say(&mut client, &get("b.test")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains(r#"allow_out ["b.test"]"#),
        "{answer}"
    );
    // Two requests in one piece: the second is judged for itself.
    let both = [get("a.test"), get("b.test")].concat();
    let mut client = net.connect(A).await;
    client.write_all(&both).await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = String::new();
    timeout(WAIT, client.read_to_string(&mut all)).await.unwrap().unwrap();
    assert!(
        all.contains("site 127.0.0.2") && all.contains("403") && !all.contains("127.0.0.3"),
        "{all}"
    );
    for bad in ["a.test\r\nHost: b.test", "a.test@b.test", ""] {
        let answer = net.exchange(A, &get(bad)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad}: {answer}");
    }
}

#[tokio::test]
async fn web_sockets_leave_http() {
    let net = Net::new(Some(false), &["a.test"], &[]).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let request = |host: &str| format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{upgrade}");
    let mut client = net.connect(A).await;
    assert!(
        say(&mut client, request("a.test").as_bytes())
            .await
            .starts_with("HTTP/1.1 101")
    );
    assert_eq!(say(&mut client, b"\x81\x01x").await, "site 127.0.0.2");
    assert_eq!(say(&mut client, b"\x81\x01y").await, "site 127.0.0.2");
    assert!(
        net.exchange(A, request("b.test").as_bytes())
            .await
            .starts_with("HTTP/1.1 403")
    );
    net.attached.set_policy(policy(Some(false), &["b.test"], &[]));
    let mut rest = Vec::new();
    let _ = timeout(WAIT, client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"", "new rules end it");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_found_by_its_name_query() {
    let net = Net::new(Some(false), &["greets.test"], &[]).await;
    assert_eq!(net.exchange(A, b"SSH-2.0-x\r\n").await, "");
    assert_eq!(
        net.exchange(GREETS, b"SSH-2.0-x\r\n").await,
        "",
        "nobody asked for its name"
    );
    assert_eq!(net.refused().len(), 2, "{:?}", net.refused());
    super::dns::ask(&net, "greets.test.", RecordType::A).await;
    assert_eq!(net.exchange(GREETS, b"").await, "site 127.0.0.4");
    assert!(
        net.exchange(GREETS, b"SSH-2.0-x\r\n")
            .await
            .starts_with("site 127.0.0.4")
    );
    assert_eq!(net.exchange(A, b"SSH-2.0-x\r\n").await, "");
    // The name's address does not serve another name.
    assert!(!net.exchange(GREETS, &greeting(&["b.test"])).await.contains("site"));
}

#[tokio::test]
async fn public_is_the_internet_and_no_more() {
    let net = Net::new(None, &[], &["127.0.0.3"]).await;
    assert_eq!(net.exchange(A, b"hello").await, "site 127.0.0.2");
    assert_eq!(net.exchange(GREETS, b"").await, "site 127.0.0.4");
    assert_eq!(net.exchange(B, b"hello").await, "");
    assert_eq!(net.exchange(INSIDE, b"hello").await, "");
    assert_eq!(net.exchange(OWN, b"hello").await, "");
    let blocked = net.blocked();
    let seen: Vec<_> = blocked.iter().map(|e| (e.host.as_str(), e.rule.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("127.0.0.3", "deny_out 127.0.0.3"),
            ("127.0.1.1", "private address, 127.0.1.0/24"),
            ("127.0.0.1", "address of the server itself, 127.0.0.1"),
        ]
    );
    assert_eq!(
        blocked[1].remedy,
        "only the operator can: --allow-private-network 127.0.1.0/24"
    );
}

#[tokio::test]
async fn a_denied_name_is_denied_within_tls_and_http() {
    let net = Net::new(None, &[], &["b.test"]).await;
    assert_eq!(net.exchange(A, &greeting(&["a.test"])).await, "site 127.0.0.2");
    assert_eq!(
        net.exchange(B, &greeting(&["a.test"])).await,
        "site 127.0.0.3",
        "it goes where it was meant to"
    );
    assert!(!net.exchange(A, &greeting(&["b.test"])).await.contains("site"));
    assert!(net.exchange(A, &get("a.test")).await.contains("site 127.0.0.2"));
    assert!(net.exchange(A, &get("b.test")).await.starts_with("HTTP/1.1 403"));
    assert_eq!(net.exchange(GREETS, b"").await, "site 127.0.0.4");
    // Who waits until the server had its time to speak is looked at all the same.
    let mut slow = net.connect(A).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!say(&mut slow, &greeting(&["b.test"])).await.contains("site"));
    assert!(
        net.refused()
            .iter()
            .all(|(host, rule)| host == "b.test" && rule == "deny_out b.test")
    );
}

#[tokio::test]
async fn private_addresses_need_the_operator_and_a_rule() {
    let range = ["127.0.1.0/24"];
    let without = Net::opened(None, &[], &[], &range).await;
    assert_eq!(without.exchange(INSIDE, b"hello").await, "");
    let by_name = Net::opened(None, &["inside.test"], &[], &range).await;
    assert_eq!(
        by_name.exchange(INSIDE, &greeting(&["inside.test"])).await,
        "site 127.0.1.1"
    );
    super::dns::ask(&by_name, "inside.test.", RecordType::A).await;
    assert_eq!(by_name.exchange(INSIDE, b"hello\r\n").await, "site 127.0.1.1");
    let by_address = Net::opened(Some(false), &["127.0.1.1"], &[], &range).await;
    assert_eq!(by_address.exchange(INSIDE, b"hello").await, "site 127.0.1.1");
    let no_operator = Net::new(Some(false), &["inside.test"], &[]).await;
    assert!(
        !no_operator
            .exchange(A, &greeting(&["inside.test"]))
            .await
            .contains("site")
    );
    assert!(
        no_operator.refused()[0].1.starts_with("private address"),
        "{:?}",
        no_operator.refused()
    );
}

#[tokio::test]
async fn nothing_is_nothing() {
    let net = Net::new(Some(false), &[], &[]).await;
    assert_eq!(net.exchange(A, &greeting(&["a.test"])).await, "");
    assert_eq!(
        net.refused(),
        [("127.0.0.2".into(), "this sandbox has no network".into())]
    );
}

#[tokio::test]
async fn new_rules_end_what_they_forbid() {
    let net = Net::new(None, &[], &[]).await;
    let (mut a, mut b) = (open(&net, A).await, open(&net, B).await);
    let rules = policy(Some(false), &["127.0.0.2"], &[]);
    assert_eq!(rules.mode(), Mode::Allowlist);
    net.attached.set_policy(rules);
    let mut rest = Vec::new();
    let ended = timeout(WAIT, b.read_to_end(&mut rest)).await.unwrap();
    assert!(
        ended.is_err(),
        "it is reset, so that it cannot be taken for a whole answer"
    );
    assert_eq!(say(&mut a, b"more").await, "site 127.0.0.2");
    assert_eq!(net.exchange(B, b"hello").await, "");
}

async fn open(net: &Net, to: [u8; 4]) -> TcpStream {
    let mut stream = net.connect(to).await;
    assert_eq!(say(&mut stream, b"hello").await, format!("site {}", IpAddr::from(to)));
    stream
}

#[tokio::test]
async fn all_ends_with_it() {
    let net = Net::new(None, &[], &[]).await;
    let mut open = open(&net, A).await;
    let Net {
        attached, tcp, proxy, ..
    } = net;
    drop(attached);
    assert_eq!(say(&mut open, b"more").await, "");
    for door in [tcp, proxy] {
        let closed = async {
            while TcpStream::connect(door).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WAIT, closed).await.unwrap();
    }
}
