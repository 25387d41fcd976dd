//! The proxy for programs that know of one: HTTP and SOCKS5 at one port.

use std::{io, net::IpAddr, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    dial::dial,
    inspect::{Goal, Inspect, Look, ordered},
    limits,
    name::Host,
    policy::{Basis, Mode},
    relay::splice,
    sandbox::{Nowhere, Permit, Sandbox},
    socks::{self, Reply},
    stream::{Io, Prefixed, Stream},
    tcp,
    web::{self, Answer, Body, Web},
};

/// A connection that was made for a client, which may now speak.
struct Tunnel {
    sandbox: Arc<Sandbox>,
    host: Host,
    port: u16,
    basis: Basis,
    goal: Goal,
    made: TcpStream,
    permit: Permit,
}

/// Why there is no tunnel.
enum NoTunnel {
    Nowhere(Nowhere),
    Failed(io::Error),
}

/// Serves a connection to the proxy.
pub(crate) async fn serve(sandbox: Arc<Sandbox>, mut client: TcpStream, permit: Permit) {
    let mut first = [0];
    match timeout(limits::HEAD_WAIT, client.read_exact(&mut first)).await {
        Ok(Ok(_)) if first[0] == socks::VERSION => serve_socks(sandbox, client, permit).await,
        Ok(Ok(_)) => {
            let client = Prefixed {
                head: Bytes::copy_from_slice(&first),
                inner: Box::new(client),
            };
            web::serve(sandbox, Box::new(client), web::Route::Proxy, permit).await;
        }
        _ => {}
    }
}

/// Answers `CONNECT`.
pub(crate) async fn connect(web: &Arc<Web>, mut request: Request<Incoming>) -> Result<Response<Body>, Answer> {
    let bad = |why: &str| Answer(StatusCode::BAD_REQUEST, format!("CONNECT {why}\n"));
    let authority = request.uri().authority().ok_or_else(|| bad("names no host"))?;
    let (host, port) = web::authority(authority.as_str()).map_err(bad)?;
    let port = port.ok_or_else(|| bad("names no port"))?;
    let shown = authority.to_string();
    let tunnel = match Tunnel::open(&web.sandbox, host, port, &web.permit).await {
        Ok(tunnel) => tunnel,
        Err(NoTunnel::Nowhere(nowhere)) => return Err(web.nowhere(&shown, nowhere)),
        Err(NoTunnel::Failed(error)) => {
            let status = match error.kind() {
                io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            return Err(Answer(status, format!("cannot connect to {shown}: {error}\n")));
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    // Boxed, as a tunnel may hold HTTP again: its type would hold itself.
    let carried: BoxFuture<'static, ()> = Box::pin(async move {
        if let Ok(client) = upgraded.await {
            tunnel.carry(Box::new(TokioIo::new(client))).await;
        }
    });
    web.sandbox.spawn(carried);
    Ok(Response::new(Either::Right(Full::default())))
}

impl Tunnel {
    /// Holds a target against the rules and connects to it.
    async fn open(sandbox: &Arc<Sandbox>, host: Host, port: u16, permit: &Permit) -> Result<Self, NoTunnel> {
        let refused = |refusal| NoTunnel::Nowhere(Nowhere::Refused(refusal));
        let (basis, name, addresses): (Basis, Option<String>, Vec<IpAddr>) = match &host {
            Host::Ip(ip) => {
                let by_address = sandbox.judge(None, Some(*ip), Some(port), "tcp");
                match by_address {
                    Ok(basis) => (basis, None, vec![*ip]),
                    // A client may ask for the name itself and give the proxy the address.
                    Err(refusal) => match sandbox.handed(*ip, port, "tcp") {
                        Some(name) => (Basis::Named, Some(name.to_string()), vec![*ip]),
                        None => return Err(refused(refusal)),
                    },
                }
            }
            Host::Name(name) => {
                let basis = sandbox.judge(Some(name), None, Some(port), "tcp").map_err(refused)?;
                let addresses = sandbox.addresses(name, port).await.map_err(NoTunnel::Nowhere)?;
                (basis, Some(name.clone()), addresses)
            }
        };
        let goal = Goal {
            name,
            addresses: ordered(&addresses, port, None),
        };
        let made = dial(&sandbox.world, &goal.addresses).await.map_err(NoTunnel::Failed)?;
        let (sandbox, permit) = (Arc::clone(sandbox), Arc::clone(permit));
        Ok(Self {
            sandbox,
            host,
            port,
            basis,
            goal,
            made,
            permit,
        })
    }

    /// Carries the client's bytes. Where a name decided, what they name themselves is held against the rules too.
    fn carry(self, client: Stream) -> BoxFuture<'static, ()> {
        Box::pin(self.carry_on(client))
    }

    async fn carry_on(self, mut client: Stream) {
        let policy = self.sandbox.policy();
        let by_name = self.goal.name.is_some() && self.basis == Basis::Named;
        let strict = by_name && policy.mode() == Mode::Allowlist;
        let look = if strict {
            Some(Look::Allowed)
        } else if self.basis == Basis::Public && policy.denies_names() {
            Some(Look::Denied)
        } else {
            policy.has_secrets().then_some(Look::Secrets)
        };
        let Some(look) = look else {
            match self.goal.grant(&self.made) {
                Ok(grant) => splice(&self.sandbox, client, self.made, &[], &grant).await,
                Err(error) => {
                    tcp::failed("the target", &error);
                    client.reset();
                }
            }
            return;
        };
        let (shown, original) = match self.host {
            Host::Ip(ip) => (ip.to_string(), Some(ip)),
            Host::Name(name) => (name, None),
        };
        let fallback = Some(self.goal);
        let inspect = Inspect {
            sandbox: self.sandbox,
            shown,
            port: self.port,
            original,
            fallback,
            look,
        };
        inspect.serve(client, Some(self.made), self.permit).await;
    }
}

async fn serve_socks(sandbox: Arc<Sandbox>, mut client: TcpStream, permit: Permit) {
    let request = match timeout(limits::HEAD_WAIT, socks::greet(&mut client)).await {
        Ok(Ok(request)) => request,
        _ => return client.reset(),
    };
    let opened = match request {
        Ok((host, port)) => Tunnel::open(&sandbox, host, port, &permit).await,
        Err(reply) => {
            let _ = client.write_all(&reply.bytes()).await;
            return;
        }
    };
    let (reply, tunnel) = match opened {
        Ok(tunnel) => (Reply::Done, Some(tunnel)),
        Err(NoTunnel::Nowhere(Nowhere::Refused(refusal))) => {
            sandbox.block(refusal);
            (Reply::NotAllowed, None)
        }
        Err(NoTunnel::Nowhere(Nowhere::Unresolved(_))) => (Reply::HostUnreachable, None),
        Err(NoTunnel::Failed(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused => (Reply::ConnectionRefused, None),
            io::ErrorKind::NetworkUnreachable => (Reply::NetworkUnreachable, None),
            _ => (Reply::HostUnreachable, None),
        },
    };
    if client.write_all(&reply.bytes()).await.is_ok()
        && let Some(tunnel) = tunnel
    {
        tunnel.carry(Box::new(client)).await;
    }
}
