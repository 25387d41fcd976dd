//! Hosts over TLS whose requests get a secret. All have certificates of the world's own authority, but for `bad.test`.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use super::*;
use crate::{Secret, secure::Outside};

const A: [u8; 4] = [127, 0, 0, 2];
const B: [u8; 4] = [127, 0, 0, 3];
const BAD: [u8; 4] = [127, 0, 0, 4];

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Signer {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn host(&self, names: &[&str]) -> TlsAcceptor {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn roots(certificate: &CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    roots
}

/// A sandbox, and TLS hosts at one port that answer each request with what they got of it.
struct Secure {
    attached: Attached,
    egress: Arc<Egress>,
    tcp: SocketAddr,
    proxy: SocketAddr,
    original: Arc<Mutex<SocketAddr>>,
    port: u16,
    /// The heads of all requests that arrived, and where.
    arrived: Arc<Mutex<Vec<(IpAddr, String)>>>,
    world: CertificateDer<'static>,
}

type Tls = TlsStream<TcpStream>;

impl Secure {
    async fn new(internet: Option<bool>, allow: &[&str], secrets: &[(&str, &str, &str)]) -> Self {
        let (signer, nobody) = (Signer::new(), Signer::new());
        let arrived = Arc::<Mutex<Vec<_>>>::default();
        let port = loop {
            let first = TcpListener::bind((IpAddr::from(A), 0)).await.unwrap();
            let port = first.local_addr().unwrap().port();
            let others = (
                TcpListener::bind((IpAddr::from(B), port)).await,
                TcpListener::bind((IpAddr::from(BAD), port)).await,
            );
            let (Ok(second), Ok(third)) = others else { continue };
            for (listener, acceptor) in [
                (first, signer.host(&["a.test", "x.a.test", "y.x.a.test"])),
                (second, signer.host(&["b.test"])),
                (third, nobody.host(&["bad.test"])),
            ] {
                tokio::spawn(serve(listener, acceptor, Arc::clone(&arrived)));
            }
            break port;
        };
        let known = [
            ("a.test", A),
            ("x.a.test", A),
            ("y.x.a.test", A),
            ("b.test", B),
            ("bad.test", BAD),
        ];
        let resolver = Names {
            known: known
                .iter()
                .map(|(name, ip)| (*name, vec![IpAddr::from(*ip)]))
                .collect(),
            asked: Arc::default(),
        };
        let original = Arc::new(Mutex::new(SocketAddr::new(A.into(), port)));
        let meant = Arc::clone(&original);
        let authority = crate::authority::Authority::new().unwrap();
        let mut world = World::new(Box::new(resolver), Vec::new(), authority);
        world.original = Box::new(move |_| Ok(*meant.lock().unwrap()));
        world.guard = Box::new(|_| None);
        let trusted = signer.certificate.clone();
        world.outside = Outside::new(Box::new(move || Ok(roots(&trusted))));
        let egress = Egress::within(world);
        let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp, proxy) = (listener(), listener());
        let (at_tcp, at_proxy) = (tcp.local_addr().unwrap(), proxy.local_addr().unwrap());
        let doors = Doors {
            tcp: OwnedFd::from(tcp),
            udp: datagrams().into(),
            dns: datagrams().into(),
            proxy: proxy.into(),
            conntrack: None,
            firewall: None,
            transparent: true,
        };
        let attached = egress.attach(doors, with(policy(internet, allow, &[]), secrets));
        Self {
            attached,
            egress,
            tcp: at_tcp,
            proxy: at_proxy,
            original,
            port,
            arrived,
            world: signer.certificate,
        }
    }

    /// TLS to `name`, by who trusts the sandbox's authority alone (`inside`) or the world's alone.
    async fn tls(&self, to: [u8; 4], name: &str, inside: bool) -> std::io::Result<Tls> {
        *self.original.lock().unwrap() = SocketAddr::new(to.into(), self.port);
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        self.over(stream, name, inside).await
    }

    async fn over(&self, stream: TcpStream, name: &str, inside: bool) -> std::io::Result<Tls> {
        let own = CertificateDer::from_pem_slice(self.egress.ca_pem().as_bytes()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(if inside { &own } else { &self.world }))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(WAIT, connecting).await.unwrap()
    }

    /// The answer to one request at a secret's host.
    async fn exchange(&self, to: [u8; 4], name: &str, bytes: &[u8]) -> String {
        let mut tls = self.tls(to, name, true).await.unwrap();
        ask(&mut tls, bytes).await
    }

    fn arrived(&self) -> Vec<(IpAddr, String)> {
        self.arrived.lock().unwrap().clone()
    }
}

fn with(policy: Policy, secrets: &[(&str, &str, &str)]) -> Policy {
    let secrets = secrets
        .iter()
        .map(|(host, header, value)| Secret::new(host, header, value).unwrap());
    policy.with_secrets(secrets.collect()).unwrap()
}

/// One answer, whole: up to as many bytes of body as its head says.
async fn ask(tls: &mut Tls, bytes: &[u8]) -> String {
    let _ = tls.write_all(bytes).await;
    let mut all = Vec::new();
    loop {
        let mut buffer = vec![0; 64 << 10];
        let count = timeout(WAIT, tls.read(&mut buffer)).await.unwrap().unwrap_or(0);
        all.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return text;
            }
            continue;
        };
        let length = head.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length:")
                .and_then(|n| n.trim().parse::<usize>().ok())
        });
        if count == 0 || body.len() >= length.unwrap_or(0) {
            return text;
        }
    }
}

/// Answers each request with its head and body; asked for an upgrade it echoes from then on.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor, arrived: Arc<Mutex<Vec<(IpAddr, String)>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let (acceptor, arrived) = (acceptor.clone(), Arc::clone(&arrived));
        tokio::spawn(async move {
            let at = client.local_addr()?.ip();
            let mut client = acceptor.accept(client).await?;
            let mut bytes = Vec::new();
            loop {
                let head = loop {
                    if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                        break String::from_utf8_lossy(&bytes.drain(..end + 4).collect::<Vec<_>>()).into_owned();
                    }
                    if client.read_buf(&mut bytes).await? == 0 {
                        return std::io::Result::Ok(());
                    }
                };
                arrived.lock().unwrap().push((at, head.clone()));
                if head.to_lowercase().contains("upgrade: websocket") {
                    let answer =
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                    client.write_all(answer.as_bytes()).await?;
                    loop {
                        if client.read_buf(&mut bytes).await? == 0 {
                            return Ok(());
                        }
                        client.write_all(&std::mem::take(&mut bytes)).await?;
                    }
                }
                let length = head.to_lowercase().lines().find_map(|line| {
                    line.strip_prefix("content-length:")
                        .and_then(|n| n.trim().parse::<usize>().ok())
                });
                while bytes.len() < length.unwrap_or(0) {
                    client.read_buf(&mut bytes).await?;
                }
                if head.to_lowercase().contains("transfer-encoding: chunked") {
                    let end = b"0\r\n\r\n";
                    while !bytes.windows(5).any(|w| w == end) {
                        client.read_buf(&mut bytes).await?;
                    }
                    let at = bytes.windows(5).position(|w| w == end).unwrap();
                    bytes.drain(..at + 5);
                }
                let body: Vec<u8> = bytes.drain(..length.unwrap_or(0)).collect();
                let length = head.len() + body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nAlt-Svc: h3\r\nContent-Length: {length}\r\n\r\n{head}");
                client.write_all(answer.as_bytes()).await?;
                client.write_all(&body).await?;
            }
        });
    }
}

const KEY: (&str, &str, &str) = ("a.test", "Authorization", "Bearer hidden");

#[tokio::test]
async fn requests_get_it_and_the_clients_own_is_replaced() {
    let net = Secure::new(None, &[], &[KEY]).await;
    let mut tls = net.tls(A, "a.test", true).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let request = "POST /x HTTP/1.1\r\nHost: A.test\r\nauthorization: mine\r\nAUTHORIZATION: mine too\r\nX-More: kept\r\n\
                   Content-Length: 4\r\n\r\nbody";
    // Every request of the connection.
    for _ in 0..2 {
        let answer = ask(&mut tls, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, got) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(got.to_lowercase().matches("authorization:").count(), 1, "{got}");
        assert!(got.contains("Bearer hidden") && !got.contains("mine"), "{got}");
        assert!(got.contains("X-More: kept") && got.ends_with("body"), "{got}");
        assert!(!answer.to_lowercase().contains("alt-svc"), "{answer}");
    }
    assert!(!format!("{net:?}", net = net.attached).contains("hidden"));
}

#[tokio::test]
async fn other_hosts_stay_end_to_end() {
    let net = Secure::new(None, &[], &[KEY]).await;
    let mut tls = net.tls(B, "b.test", false).await.expect("its own certificate");
    assert!(!ask(&mut tls, &get("b.test")).await.contains("hidden"));
    assert!(net.tls(B, "b.test", true).await.is_err());
    // The control: the other way round where there is a secret.
    assert!(net.tls(A, "a.test", false).await.is_err());
    assert!(net.exchange(A, "a.test", &get("a.test")).await.contains("hidden"));
    // What is no TLS is left alone, too.
    *net.original.lock().unwrap() = SocketAddr::new(A.into(), net.port);
    let mut plain = TcpStream::connect(net.tcp).await.unwrap();
    assert!(!say(&mut plain, &get("a.test")).await.contains("hidden"));
    assert!(net.arrived().iter().filter(|(_, head)| head.contains("hidden")).count() == 1);
}

#[tokio::test]
async fn another_host_within_is_refused() {
    let net = Secure::new(None, &[], &[KEY]).await;
    for (request, status) in [
        (get("b.test"), "421"),
        (get("x.a.test"), "421"),
        (get("127.0.0.2"), "421"),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "421"),
        (b"GET https://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(), "400"),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n".to_vec(),
            "400",
        ),
        (b"TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(), "405"),
        (b"CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(), "405"),
    ] {
        let answer = net.exchange(A, "a.test", &request).await;
        assert!(
            answer.starts_with("HTTP/1.") && answer[8..].starts_with(&format!(" {status} ")),
            "{answer}"
        );
        assert!(!answer.contains("hidden"), "{answer}");
    }
    assert_eq!(net.arrived(), []);
    assert!(net.exchange(A, "a.test", &get("a.test")).await.contains("hidden"));
}

#[tokio::test]
async fn no_request_hides_in_another() {
    let net = Secure::new(None, &[], &[KEY]).await;
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: b.test\r\n\r\n";
    for request in [
        format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nContent-Length: 51\r\n\r\n{hidden}"),
        format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: x, chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: y\n\n{hidden}"),
        format!("GET / HTTP/1.1\r\nHost: a.test\r\n X-Folded: {hidden}"),
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Authorization, Content-Length\r\n\r\n{hidden}"),
    ] {
        net.exchange(A, "a.test", request.as_bytes()).await;
        for (_, head) in net.arrived() {
            assert!(!head.contains("/smuggled"), "{request}: {head}");
            assert!(head.contains("Bearer hidden"), "{request}: {head}");
            let lengths = head.to_lowercase();
            let both = lengths.contains("content-length:") && lengths.contains("transfer-encoding:");
            assert!(!both, "{request}: {head}");
        }
    }
    // The control: what is a second request of its own arrives.
    let mut tls = net.tls(A, "a.test", true).await.unwrap();
    let two = [get("a.test"), b"GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec()].concat();
    ask(&mut tls, &two).await;
    if !net.arrived().iter().any(|(_, head)| head.contains("/second")) {
        ask(&mut tls, b"").await;
    }
    assert!(net.arrived().iter().any(|(_, head)| head.contains("/second")));
}

#[tokio::test]
async fn a_host_that_cannot_be_verified_gets_nothing() {
    let net = Secure::new(
        None,
        &[],
        &[("bad.test", "X-Key", "hidden"), ("b.test", "X-Key", "hidden")],
    )
    .await;
    let answer = net.exchange(BAD, "bad.test", &get("bad.test")).await;
    assert!(
        answer.starts_with("HTTP/1.1 502")
            && answer.contains("cannot be verified")
            && answer.contains("no request was sent"),
        "{answer}"
    );
    // Another host's certificate is none for it, wherever the program says that it is.
    let answer = net.exchange(A, "b.test", &get("b.test")).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(net.arrived(), []);
    assert!(net.exchange(B, "b.test", &get("b.test")).await.contains("hidden"));
}

#[tokio::test]
async fn the_closest_rule_holds_and_rules_allow_nothing() {
    let secrets = [
        ("*.a.test", "X-Key", "wide"),
        ("*.x.a.test", "X-Key", "narrow"),
        ("b.test", "X-Key", "b"),
    ];
    let net = Secure::new(Some(false), &["x.a.test", "y.x.a.test", "a.test"], &secrets).await;
    for (name, value) in [("x.a.test", "wide"), ("y.x.a.test", "narrow")] {
        let answer = net.exchange(A, name, &get(name)).await;
        assert!(answer.to_lowercase().contains(&format!("x-key: {value}")), "{answer}");
    }
    let mut tls = net.tls(A, "a.test", false).await.expect("no rule names it: end-to-end");
    assert!(!ask(&mut tls, &get("a.test")).await.to_lowercase().contains("x-key"));
    assert!(net.tls(B, "b.test", true).await.is_err() && net.tls(B, "b.test", false).await.is_err());
    let blocked = net.attached.blocked(0).0;
    assert!(blocked.iter().any(|one| one.host == "b.test"), "{blocked:?}");
}

#[tokio::test]
async fn through_the_proxy() {
    for internet in [None, Some(false)] {
        let net = Secure::new(internet, &["a.test"], &[KEY]).await;
        for target in ["a.test", "127.0.0.2"] {
            let mut client = TcpStream::connect(net.proxy).await.unwrap();
            let request = format!("CONNECT {target}:{0} HTTP/1.1\r\nHost: {target}:{0}\r\n\r\n", net.port);
            let answer = say(&mut client, request.as_bytes()).await;
            if internet.is_some() && target != "a.test" {
                assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
                continue;
            }
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let mut tls = net.over(client, "a.test", true).await.unwrap();
            assert!(ask(&mut tls, &get("a.test")).await.contains("hidden"));
        }
    }
}

#[tokio::test]
async fn new_rules_end_connections_with_an_old_secret() {
    let net = Secure::new(None, &[], &[KEY]).await;
    let websocket = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut idle, mut used, mut upgraded, mut other) = (
        net.tls(A, "a.test", true).await.unwrap(),
        net.tls(A, "a.test", true).await.unwrap(),
        net.tls(A, "a.test", true).await.unwrap(),
        net.tls(B, "b.test", false).await.unwrap(),
    );
    assert!(ask(&mut used, &get("a.test")).await.contains("hidden"));
    assert!(ask(&mut upgraded, websocket).await.starts_with("HTTP/1.1 101"));
    assert!(
        net.arrived()
            .iter()
            .any(|(_, head)| head.contains("/ws") && head.contains("hidden"))
    );
    upgraded.write_all(b"echo").await.unwrap();
    let mut echo = [0; 4];
    timeout(WAIT, upgraded.read_exact(&mut echo)).await.unwrap().unwrap();
    assert_eq!(&echo, b"echo");

    // The same rules end nothing.
    net.attached.set_policy(with(policy(None, &[], &[]), &[KEY]));
    assert!(ask(&mut used, &get("a.test")).await.contains("hidden"));
    net.attached.set_policy(policy(None, &[], &[]));
    let before = net.arrived().len();
    for ended in [&mut idle, &mut used, &mut upgraded] {
        let answer = ask(ended, &get("a.test")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 421"), "{answer}");
        assert_eq!(ask(ended, b"").await, "");
    }
    assert_eq!(net.arrived().len(), before);
    assert!(ask(&mut other, &get("b.test")).await.starts_with("HTTP/1.1 200"));
    let mut plain = net.tls(A, "a.test", false).await.expect("end-to-end again");
    assert!(!ask(&mut plain, &get("a.test")).await.contains("hidden"));
}

#[tokio::test]
async fn a_server_that_speaks_first_still_does() {
    let net = Net::new(None, &[], &[]).await;
    net.attached.set_policy(with(policy(None, &[], &[]), &[KEY]));
    let mut client = net.connect([127, 0, 0, 4]).await;
    assert_eq!(say(&mut client, b"").await, "site 127.0.0.4");
    let mut silent = net.connect([127, 0, 0, 4]).await;
    silent.shutdown().await.unwrap();
    assert_eq!(say(&mut silent, b"").await, "site 127.0.0.4");
}

#[tokio::test]
async fn bodies_of_any_size_pass() {
    let net = Secure::new(None, &[], &[KEY]).await;
    let body = "0123456789abcdef".repeat(256 << 10);
    let head = format!(
        "PUT /x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut tls = net.tls(A, "a.test", true).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(&mut tls);
    let request = [head.as_bytes(), body.as_bytes()].concat();
    let wanted = format!("\r\n\r\n{body}");
    let mut all = Vec::new();
    let read = async {
        while !all.ends_with(&wanted.as_bytes()[wanted.len() - 64..]) || all.len() < body.len() {
            let count = timeout(WAIT, reader.read_buf(&mut all)).await.unwrap().unwrap();
            assert!(count > 0, "it ended after {} bytes", all.len());
        }
    };
    let (written, ()) = tokio::join!(writer.write_all(&request), read);
    written.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(all.contains("Bearer hidden") && all.ends_with(&wanted));
}
