use super::*;
use crate::sni::tests::greeting;

async fn connect(net: &Net, target: &str) -> (TcpStream, String) {
    let mut client = TcpStream::connect(net.proxy).await.unwrap();
    let answer = say(
        &mut client,
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes(),
    )
    .await;
    (client, answer)
}

#[tokio::test]
async fn tunnels() {
    let net = Net::new(Some(false), &["a.test", "127.0.0.3"], &[]).await;
    for (target, site) in [("A.test.", "site 127.0.0.2"), ("127.0.0.3", "site 127.0.0.3")] {
        let (mut client, answer) = connect(&net, &format!("{target}:{}", net.port)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(say(&mut client, b"hello\r\n").await, site);
    }
    let (_, answer) = connect(&net, &format!("b.test:{}", net.port)).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains(r#"allow_out ["b.test"]"#),
        "{answer}"
    );
    let (_, answer) = connect(&net, &format!("127.0.0.2:{}", net.port)).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_tunnel_to_one_name_carries_no_other() {
    let net = Net::new(Some(false), &["a.test", "127.0.0.3"], &[]).await;
    let target = format!("a.test:{}", net.port);
    let (mut client, _) = connect(&net, &target).await;
    assert_eq!(say(&mut client, &greeting(&["a.test"])).await, "site 127.0.0.2");
    for bytes in [greeting(&["b.test"]), greeting(&[]), get("b.test")] {
        let (mut client, answer) = connect(&net, &target).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = say(&mut client, &bytes).await;
        assert!(!answer.contains("site"), "{answer}");
    }
    let (mut client, _) = connect(&net, &target).await;
    assert!(say(&mut client, &get("a.test")).await.contains("site 127.0.0.2"));
}

#[tokio::test]
async fn no_form_of_an_address_slips_through() {
    let net = Net::new(None, &[], &["b.test"]).await;
    let (mut client, _) = connect(&net, &format!("127.0.0.2:{}", net.port)).await;
    assert_eq!(say(&mut client, b"hello\r\n").await, "site 127.0.0.2");
    for host in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "own.test",
        "OWN.test.",
        "inside.test",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "a.test@127.0.0.1",
        "[::1]",
        "[::ffff:7f00:101]",
        "b.test",
        "B.TEST.",
        "localhost",
        "0",
        "[::]",
    ] {
        let (_, answer) = connect(&net, &format!("{host}:{}", net.port)).await;
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 502"),
            "{host}: {answer}"
        );
        let mut client = TcpStream::connect(net.proxy).await.unwrap();
        let request = format!("GET http://{host}:{}/ HTTP/1.1\r\nHost: {host}:{0}\r\n\r\n", net.port);
        let answer = say(&mut client, request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 502"),
            "{host}: {answer}"
        );
    }
}

#[tokio::test]
async fn plain_requests() {
    let net = Net::new(Some(false), &["a.test"], &[]).await;
    let mut client = TcpStream::connect(net.proxy).await.unwrap();
    let request = |host: &str| format!("GET http://{host}:{}/ HTTP/1.1\r\nHost: {host}\r\n\r\n", net.port);
    assert!(
        say(&mut client, request("a.test").as_bytes())
            .await
            .contains("site 127.0.0.2")
    );
    assert!(
        say(&mut client, request("b.test").as_bytes())
            .await
            .starts_with("HTTP/1.1 403")
    );
    let mut client = TcpStream::connect(net.proxy).await.unwrap();
    assert!(
        say(&mut client, &get("a.test")).await.starts_with("HTTP/1.1 400"),
        "it is no proxy request"
    );
}

#[tokio::test]
async fn socks() {
    let net = Net::new(Some(false), &["a.test", "127.0.0.3"], &[]).await;
    let port = net.port.to_be_bytes();
    let named = |name: &str| [&[5, 1, 0, 3, u8::try_from(name.len()).unwrap()], name.as_bytes(), &port].concat();
    let address = |ip: [u8; 4]| [&[5, 1, 0, 1][..], &ip, &port].concat();
    for (request, code, site) in [
        (named("a.test"), 0, "site 127.0.0.2"),
        (address([127, 0, 0, 3]), 0, "site 127.0.0.3"),
        (named("b.test"), 2, ""),
        (address([127, 0, 0, 2]), 2, ""),
        (address([127, 0, 0, 1]), 2, ""),
        (named("127.0.0.1"), 2, ""),
        (named("2130706433"), 8, ""),
    ] {
        let mut client = TcpStream::connect(net.proxy).await.unwrap();
        client.write_all(&[5, 1, 0]).await.unwrap();
        let mut chosen = [0; 2];
        client.read_exact(&mut chosen).await.unwrap();
        assert_eq!(chosen, [5, 0]);
        client.write_all(&request).await.unwrap();
        let mut reply = [0; 10];
        timeout(WAIT, client.read_exact(&mut reply)).await.unwrap().unwrap();
        assert_eq!(reply[1], code, "{request:?}");
        if code == 0 {
            assert_eq!(say(&mut client, b"hello\r\n").await, site);
        }
    }
}
