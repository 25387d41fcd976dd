//! Datagrams that the sandbox's kernel led here. Each client and target pair is a flow with a socket of its own.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::UdpSocket, time::sleep};

use crate::{
    blocked::Refusal,
    conntrack::Conntrack,
    door::Door,
    limits,
    name::canonical,
    policy::Basis,
    sandbox::{Grant, Sandbox, lock},
    stream::Activity,
};

/// The port of HTTP/3.
const QUIC: u16 = 443;

/// The flows by client. A client is a socket inside; the kernel gives it a new flow, so a new target, when it has one.
type Flows = Arc<Mutex<HashMap<SocketAddr, Vec<Flow>>>>;

/// A flow.
#[derive(Debug, Clone)]
struct Flow {
    to: SocketAddr,
    socket: Arc<UdpSocket>,
    activity: Activity,
}

/// Serves the door.
pub(crate) async fn serve(sandbox: Arc<Sandbox>, door: Arc<Door>, conntrack: Option<OwnedFd>) {
    let mut conntrack = conntrack.map(Conntrack::new);
    let flows = Flows::default();
    let mut buffer = vec![0; limits::DATAGRAM];
    let port = door.port().unwrap_or_default();
    loop {
        let Ok((count, client)) = door.receive(&mut buffer).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Some(conntrack) = &mut conntrack else {
            sandbox.block(Refusal {
                host: "UDP".into(),
                port: 0,
                protocol: "udp",
                rule: "this server cannot tell where datagrams are meant to go".into(),
                remedy: "use TCP".into(),
            });
            continue;
        };
        let from = SocketAddr::new(canonical(client.ip()), client.port());
        let own = SocketAddr::new(loopback(from.ip()), port);
        let to = match conntrack.original(from, own) {
            Ok(to) if to.port() != 0 && to != own => to,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "a datagram tells no destination");
                continue;
            }
        };
        let known = lock(&flows)
            .get(&client)
            .and_then(|list| list.iter().find(|flow| flow.to == to).cloned());
        let flow = match known {
            Some(flow) => flow,
            None => match open(&sandbox, &door, &flows, client, to).await {
                Ok(Some(flow)) => flow,
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%error, "a flow of datagrams cannot be opened");
                    continue;
                }
            },
        };
        flow.activity.now();
        // A datagram that finds no room is lost, as anywhere on its way.
        let _ = flow.socket.try_send(&buffer[..count]);
    }
}

fn loopback(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    }
}

/// Holds a target against the rules; the name that allows it, if it is not its address.
pub(crate) fn allowed(sandbox: &Sandbox, to: SocketAddr) -> Result<Option<String>, Refusal> {
    let judged = sandbox.judge(None, Some(to.ip()), Some(to.port()), "udp");
    let (name, by_name) = match judged {
        Ok(basis) => (None, basis == Basis::Public && sandbox.policy().denies_names()),
        Err(refusal) => (
            Some(sandbox.handed(to.ip(), to.port(), "udp").ok_or(refusal)?.to_string()),
            true,
        ),
    };
    if by_name && to.port() == QUIC {
        // One address serves many names, and which of them is meant is encrypted. Clients go on over TCP.
        return Err(Refusal {
            host: name.unwrap_or_else(|| to.ip().to_string()),
            port: to.port(),
            protocol: "udp",
            rule: "QUIC, whose server name cannot be held against rules that name hosts".into(),
            remedy: "use HTTPS over TCP".into(),
        });
    }
    Ok(name)
}

/// Opens a flow, if the rules allow it.
async fn open(
    sandbox: &Arc<Sandbox>,
    door: &Arc<Door>,
    flows: &Flows,
    client: SocketAddr,
    to: SocketAddr,
) -> io::Result<Option<Flow>> {
    let name = match allowed(sandbox, to) {
        Ok(name) => name,
        Err(refusal) => {
            sandbox.block(refusal);
            return Ok(None);
        }
    };
    if lock(flows).values().map(Vec::len).sum::<usize>() >= limits::FLOWS {
        sandbox.block(Refusal {
            host: to.ip().to_string(),
            port: to.port(),
            protocol: "udp",
            rule: format!("more than {} flows of datagrams at once", limits::FLOWS),
            remedy: format!("wait {} seconds, or use TCP", limits::FLOW_IDLE.as_secs()),
        });
        return Ok(None);
    }
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected, it takes answers of its target only.
    socket.connect(to).await?;
    if canonical(socket.local_addr()?.ip()) == to.ip() && !sandbox.world.opened(to.ip()) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the address is one of the server itself",
        ));
    }
    // Known to be writable, it takes the first datagram too.
    socket.writable().await?;
    let flow = Flow {
        to,
        socket: Arc::new(socket),
        activity: Activity::new(),
    };
    lock(flows).entry(client).or_default().push(flow.clone());
    let grant = Grant {
        name,
        ip: to.ip(),
        port: to.port(),
        protocol: "udp",
        headers: None,
    };
    sandbox.spawn(back(
        Arc::clone(sandbox),
        Arc::clone(door),
        Arc::clone(flows),
        client,
        flow.clone(),
        grant,
    ));
    Ok(Some(flow))
}

/// Carries a flow's answers until nothing moved for long or the rules forbid it.
async fn back(sandbox: Arc<Sandbox>, door: Arc<Door>, flows: Flows, client: SocketAddr, flow: Flow, grant: Grant) {
    let carry = async {
        let mut buffer = vec![0; limits::DATAGRAM];
        loop {
            match flow.socket.recv(&mut buffer).await {
                Ok(count) => {
                    flow.activity.now();
                    let _ = door.send(&buffer[..count], client).await;
                }
                // Nobody listens there. The program inside finds out by its own deadline.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::select! {
        () = carry => {}
        () = flow.activity.idle(limits::FLOW_IDLE) => {}
        () = sandbox.revoked(&grant) => {}
    }
    let mut flows = lock(&flows);
    if let Some(list) = flows.get_mut(&client) {
        list.retain(|other| other.to != flow.to);
        if list.is_empty() {
            flows.remove(&client);
        }
    }
}
