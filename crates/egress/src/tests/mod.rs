//! Doors on the loopback, and a small internet of 127.0.0.2 and up around them.

mod dns;
mod proxy;
mod secret;
mod transparent;
mod udp;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType, rdata::TXT},
};
use sandhold_runtime::Doors;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    Attached, Blocked, Egress, Policy,
    resolve::{Resolve, Unfound},
    world::{Reserved, World},
};

const WAIT: Duration = Duration::from_secs(20);

/// Names and their addresses; every name has a TXT record.
struct Names {
    known: HashMap<&'static str, Vec<IpAddr>>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Resolve for Names {
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, Unfound> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let addresses = self.known.get(name).ok_or(Unfound {
            code: ResponseCode::NXDomain,
            soa: None,
        })?;
        let data: Vec<RData> = match kind {
            RecordType::A => addresses
                .iter()
                .filter(|ip| ip.is_ipv4())
                .map(|ip| RData::from(*ip))
                .collect(),
            RecordType::TXT => vec![RData::TXT(TXT::new(vec!["text".into()]))],
            _ => Vec::new(),
        };
        let owner = Name::from_ascii(format!("{name}.")).unwrap();
        Ok(data
            .into_iter()
            .map(|data| Record::from_rdata(owner.clone(), 60, data))
            .collect())
    }
}

/// A sandbox, its doors, and sites at one port.
struct Net {
    attached: Attached,
    tcp: SocketAddr,
    proxy: SocketAddr,
    dns: SocketAddr,
    /// Where the next connection was meant to go.
    original: Arc<Mutex<SocketAddr>>,
    /// The port of all sites.
    port: u16,
    /// How many questions went outside.
    asked: Arc<AtomicUsize>,
}

/// What a site does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// Answers each request of HTTP with its own address; anything else, too, once.
    Answers,
    /// Greets with its own address before anything was said.
    Greets,
}

impl Net {
    /// `a.test` is at 127.0.0.2, `b.test` at .3, and `greets.test` at .4 greets. `inside.test` is at a private address,
    /// 127.0.1.1, `own.test` at 127.0.0.1, which is the server; something answers at both. `both.test` has one of each.
    async fn new(internet: Option<bool>, allow: &[&str], deny: &[&str]) -> Self {
        Self::opened(internet, allow, deny, &[]).await
    }

    async fn opened(internet: Option<bool>, allow: &[&str], deny: &[&str], private: &[&str]) -> Self {
        let ip = |d: [u8; 4]| IpAddr::from(d);
        let (a, b, greets) = (ip([127, 0, 0, 2]), ip([127, 0, 0, 3]), ip([127, 0, 0, 4]));
        let (inside, own) = (ip([127, 0, 1, 1]), ip([127, 0, 0, 1]));
        let port = loop {
            let first = TcpListener::bind((a, 0)).await.unwrap();
            let port = first.local_addr().unwrap().port();
            let mut sites = vec![(a, Site::Answers, first)];
            for (at, kind) in [
                (b, Site::Answers),
                (greets, Site::Greets),
                (inside, Site::Answers),
                (own, Site::Answers),
            ] {
                if let Ok(listener) = TcpListener::bind((at, port)).await {
                    sites.push((at, kind, listener));
                }
            }
            if sites.len() == 5 {
                for (at, kind, listener) in sites {
                    tokio::spawn(serve(at, kind, listener));
                }
                break port;
            }
        };
        let known = HashMap::from([
            ("a.test", vec![a]),
            ("b.test", vec![b]),
            ("greets.test", vec![greets]),
            ("inside.test", vec![inside]),
            ("own.test", vec![own]),
            ("both.test", vec![a, inside]),
        ]);
        let asked = Arc::<AtomicUsize>::default();
        let resolver = Names {
            known,
            asked: Arc::clone(&asked),
        };
        let original = Arc::new(Mutex::new(SocketAddr::new(a, port)));
        let meant = Arc::clone(&original);
        let private = private.iter().map(|net| net.parse().unwrap()).collect();
        let mut world = World::new(Box::new(resolver), private, crate::authority::Authority::new().unwrap());
        world.original = Box::new(move |_| Ok(*meant.lock().unwrap()));
        world.guard = Box::new(|ip| match ip {
            IpAddr::V4(v4) if v4.octets()[2] == 1 => Some(Reserved::Range("127.0.1.0/24".parse().unwrap())),
            IpAddr::V4(v4) if v4.octets() != [127, 0, 0, 1] => None,
            _ => Some(Reserved::Own),
        });
        let egress = Egress::within(world);
        let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp, proxy, dns, udp) = (listener(), listener(), datagrams(), datagrams());
        let (at_tcp, at_proxy, at_dns) = (
            tcp.local_addr().unwrap(),
            proxy.local_addr().unwrap(),
            dns.local_addr().unwrap(),
        );
        let doors = Doors {
            firewall: None,
            tcp: OwnedFd::from(tcp),
            udp: udp.into(),
            dns: dns.into(),
            proxy: proxy.into(),
            conntrack: None,
            transparent: true,
        };
        let policy = policy(internet, allow, deny);
        let attached = egress.attach(doors, policy);
        Self {
            attached,
            tcp: at_tcp,
            proxy: at_proxy,
            dns: at_dns,
            original,
            port,
            asked,
        }
    }

    /// A connection that was meant for this address, at the port of the sites.
    async fn connect(&self, last: [u8; 4]) -> TcpStream {
        *self.original.lock().unwrap() = SocketAddr::new(last.into(), self.port);
        TcpStream::connect(self.tcp).await.unwrap()
    }

    /// What comes back for these bytes, up to the end or a pause after the first of it.
    async fn exchange(&self, to: [u8; 4], bytes: &[u8]) -> String {
        say(&mut self.connect(to).await, bytes).await
    }

    fn blocked(&self) -> Vec<Blocked> {
        self.attached.blocked(0).0
    }

    /// The hosts and rules that were refused.
    fn refused(&self) -> Vec<(String, String)> {
        self.blocked()
            .into_iter()
            .map(|entry| (entry.host, entry.rule))
            .collect()
    }
}

/// Rules that may name the sites, which are no internet to anything but the guard of these tests.
fn policy(internet: Option<bool>, allow: &[&str], deny: &[&str]) -> Policy {
    let list = |entries: &[&str]| entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
    Policy::new(internet, &list(allow), &list(deny), &["127.0.0.0/8".parse().unwrap()]).unwrap()
}

/// Sends bytes and reads one piece of answer; empty if there is none.
async fn say(stream: &mut TcpStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    let mut buffer = vec![0; 64 << 10];
    let count = timeout(WAIT, stream.read(&mut buffer)).await.unwrap().unwrap_or(0);
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn get(host: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

async fn serve(at: IpAddr, kind: Site, listener: TcpListener) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let name = format!("site {at}");
            if kind == Site::Greets {
                client.write_all(name.as_bytes()).await?;
            }
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = client.read(&mut buffer).await?;
                if count == 0 {
                    return std::io::Result::Ok(());
                }
                let upgrade = buffer[..count].windows(9).any(|w| w.eq_ignore_ascii_case(b"websocket"));
                let text = if upgrade {
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into()
                } else if buffer[..count].windows(5).any(|w| w == b"HTTP/") {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
                } else {
                    name.clone()
                };
                client.write_all(text.as_bytes()).await?;
            }
        });
    }
}
