//! Connections whose name decides: their first bytes are looked at.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    dial::dial,
    head::{self, Head},
    limits,
    name::{self, Host},
    relay::splice,
    sandbox::{Grant, Nowhere, Permit, Sandbox},
    secure::{self, Secured},
    stream::{Prefixed, Stream},
    tcp, web,
};

/// TLS's way to say "access denied", before any encryption.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Where a connection goes.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// The name that allows these addresses, if it is not they themselves.
    pub(crate) name: Option<String>,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Goal {
    /// What the connection that was made is allowed for.
    pub(crate) fn grant(&self, made: &TcpStream) -> io::Result<Grant> {
        let to = made.peer_addr()?;
        Ok(Grant {
            name: self.name.clone(),
            ip: name::canonical(to.ip()),
            port: to.port(),
            protocol: "tcp",
            headers: None,
        })
    }
}

/// Why a connection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The name that TLS or HTTP tells must be allowed, and is where the connection goes.
    Allowed,
    /// It must not be denied, and the connection goes where it was meant to.
    Denied,
    /// The same, and requests to the name that TLS tells may get a secret. What cannot be read is let through.
    Secrets,
}

/// How a connection is looked at.
pub(crate) struct Inspect {
    pub(crate) sandbox: Arc<Sandbox>,
    /// Where it was meant to go, for a refusal.
    pub(crate) shown: String,
    pub(crate) port: u16,
    /// The address it was meant for: it is preferred if the name has it.
    pub(crate) original: Option<IpAddr>,
    /// Where it goes if its bytes tell no name.
    pub(crate) fallback: Option<Goal>,
    pub(crate) look: Look,
}

impl Inspect {
    /// Serves the connection. `ready` is a connection to the fallback that was made already.
    pub(crate) async fn serve(self, mut client: Stream, mut ready: Option<TcpStream>, permit: Permit) {
        let mut bytes = BytesMut::new();
        let head = match self.read(&mut client, &mut bytes, &mut ready).await {
            Ok(Some(head)) => head,
            // The server speaks first.
            Ok(None) => return self.fall_back(client, ready, &bytes).await,
            // The client has said all that it will, which is nothing yet.
            Err(error) if self.look == Look::Secrets && error.kind() == io::ErrorKind::UnexpectedEof => {
                return self.fall_back(client, ready, &bytes).await;
            }
            Err(error) => {
                tcp::failed(&self.shown, &error);
                return client.reset();
            }
        };
        let head_bytes = bytes.freeze();
        let strict = self.look == Look::Allowed;
        match head {
            Head::Tls(Some(asked)) => self.tls(client, ready, head_bytes, &asked, permit).await,
            // The proxy was told the name.
            Head::Tls(None) if !strict => {
                let goal = self.fallback.clone();
                match goal.as_ref().and_then(|goal| goal.name.clone()) {
                    Some(name) => self.carry(client, ready, head_bytes, name, permit).await,
                    None => self.fall_back(client, ready, &head_bytes).await,
                }
            }
            Head::Http | Head::BadTls | Head::More if self.look == Look::Secrets => {
                self.fall_back(client, ready, &head_bytes).await;
            }
            Head::Http => {
                let client = Prefixed {
                    head: head_bytes,
                    inner: client,
                };
                let route = if strict {
                    web::Route::ByName {
                        port: self.port,
                        original: self.original,
                    }
                } else {
                    match self.fallback {
                        Some(goal) => web::Route::Fixed(goal),
                        None => return,
                    }
                };
                web::serve(self.sandbox, Box::new(client), route, permit).await;
            }
            Head::Tls(None) => self.refuse_tls(client, "TLS without a server name").await,
            Head::BadTls => self.refuse_tls(client, "TLS that cannot be read").await,
            Head::Http2 if strict => self.refuse(client, "HTTP/2 without TLS, whose name cannot be read"),
            // Bytes that stay incomplete are sent by nobody who means to be understood.
            Head::More => self.refuse(client, "a greeting without an end"),
            Head::Http2 | Head::Other => self.fall_back(client, ready, &head_bytes).await,
        }
    }

    /// Reads until the protocol is clear. `None`: the client said nothing, and the server did or may.
    async fn read(
        &self,
        client: &mut Stream,
        bytes: &mut BytesMut,
        ready: &mut Option<TcpStream>,
    ) -> io::Result<Option<Head>> {
        let patience = if self.fallback.is_some() {
            limits::SPEAKS_FIRST
        } else {
            limits::HEAD_WAIT
        };
        if ready.is_some() || timeout(patience, self.more(client, bytes)).await.is_err() {
            let Some(goal) = &self.fallback else {
                return Ok(Some(Head::Other));
            };
            let upstream = match ready.take() {
                Some(upstream) => upstream,
                None => dial(&self.sandbox.world, &goal.addresses).await?,
            };
            let upstream = ready.insert(upstream);
            // Who speaks first? The client's bytes are looked at all the same if it does.
            tokio::select! {
                biased;
                read = timeout(limits::IDLE, self.more(client, bytes)) => read.map_err(|_| io::ErrorKind::TimedOut)??,
                spoken = upstream.readable() => {
                    spoken?;
                    return Ok(None);
                }
            }
        }
        let whole = async {
            loop {
                match head::parse(bytes) {
                    Head::More if bytes.len() < limits::HEAD => self.more(client, bytes).await?,
                    head => return io::Result::Ok(head),
                }
            }
        };
        match timeout(limits::HEAD_WAIT, whole).await {
            Ok(head) => head.map(Some),
            Err(_) => Ok(Some(Head::More)),
        }
    }

    async fn more(&self, client: &mut Stream, bytes: &mut BytesMut) -> io::Result<()> {
        bytes.reserve(4096);
        match client.read_buf(bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Goes where the connection was meant to go, if its address allows that.
    async fn fall_back(self, mut client: Stream, ready: Option<TcpStream>, bytes: &[u8]) {
        let Some(goal) = &self.fallback else {
            return self.refuse(client, "");
        };
        let made = match ready {
            Some(made) => Ok(made),
            None => dial(&self.sandbox.world, &goal.addresses).await,
        };
        match made.and_then(|made| Ok((goal.grant(&made)?, made))) {
            Ok((grant, made)) => splice(&self.sandbox, client, made, bytes, &grant).await,
            Err(error) => {
                tcp::failed(&self.shown, &error);
                client.reset();
            }
        }
    }

    /// Goes on to where the name leads, which was judged: as it is, or through hands that add what its requests get.
    async fn carry(self, client: Stream, ready: Option<TcpStream>, bytes: Bytes, name: String, permit: Permit) {
        let headers = self.sandbox.policy().headers(&name);
        let (Some(headers), Some(goal)) = (headers, &self.fallback) else {
            return self.fall_back(client, ready, &bytes).await;
        };
        let host = Secured {
            goal: Goal {
                name: Some(name.clone()),
                addresses: goal.addresses.clone(),
            },
            name,
            headers,
            ready: tokio::sync::Mutex::new(ready),
        };
        secure::serve(self.sandbox, client, bytes, host, permit).await;
    }

    async fn tls(self, mut client: Stream, ready: Option<TcpStream>, bytes: Bytes, asked: &str, permit: Permit) {
        let Ok(Host::Name(asked)) = name::host(asked) else {
            if self.look == Look::Secrets {
                return self.fall_back(client, ready, &bytes).await;
            }
            return self.refuse_tls(client, "TLS with a server name that is none").await;
        };
        if self.look != Look::Allowed {
            let ip = self
                .fallback
                .as_ref()
                .and_then(|goal| goal.addresses.first())
                .map(SocketAddr::ip);
            return match self.sandbox.judge(Some(&asked), ip, Some(self.port), "tcp") {
                Ok(_) => self.carry(client, ready, bytes, asked, permit).await,
                Err(refusal) => {
                    self.sandbox.block(refusal);
                    deny(client).await;
                }
            };
        }
        if ready.is_some()
            && self
                .fallback
                .as_ref()
                .is_some_and(|goal| goal.name.as_deref() == Some(&asked))
        {
            return self.carry(client, ready, bytes, asked, permit).await;
        }
        let addresses = match self.sandbox.addresses(&asked, self.port).await {
            Ok(addresses) => addresses,
            Err(Nowhere::Refused(refusal)) => {
                self.sandbox.block(refusal);
                return deny(client).await;
            }
            Err(Nowhere::Unresolved(why)) => {
                tcp::failed(&asked, &io::Error::other(why));
                return client.reset();
            }
        };
        let goal = Goal {
            name: Some(asked.clone()),
            addresses: ordered(&addresses, self.port, self.original),
        };
        Inspect {
            fallback: Some(goal),
            ..self
        }
        .carry(client, None, bytes, asked, permit)
        .await;
    }

    fn refuse(&self, mut client: Stream, what: &str) {
        self.block(what);
        client.reset();
    }

    async fn refuse_tls(&self, client: Stream, what: &str) {
        self.block(what);
        deny(client).await;
    }

    fn block(&self, what: &str) {
        let ip = self.original;
        let name = ip.is_none().then_some(self.shown.as_str());
        let judged = self.sandbox.judge(name, ip, Some(self.port), "tcp");
        let mut refusal = match judged {
            Err(refusal) => refusal,
            Ok(_) => crate::blocked::Refusal {
                host: self.shown.clone(),
                port: self.port,
                protocol: "tcp",
                rule: String::new(),
                remedy: "use a client that sends the name of the host".into(),
            },
        };
        refusal.rule = match (what, refusal.rule.as_str()) {
            ("", _) => refusal.rule,
            (what, "") => what.to_owned(),
            (what, rule) => format!("{what}, {rule}"),
        };
        self.sandbox.block(refusal);
    }
}

/// Tells a TLS client that it is refused.
async fn deny(mut client: Stream) {
    let _ = timeout(Duration::from_secs(1), client.write_all(&ALERT)).await;
    let _ = timeout(Duration::from_secs(1), client.shutdown()).await;
}

/// Socket addresses, with the one that the client chose first.
pub(crate) fn ordered(addresses: &[IpAddr], port: u16, first: Option<IpAddr>) -> Vec<SocketAddr> {
    let mut list: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    list.sort_by_key(|address| Some(address.ip()) != first);
    list
}
