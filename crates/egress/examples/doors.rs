//! Serves the network namespace of a process, to try rules by hand with any program and the real internet.
//!
//! ```text
//! unshare -n sleep infinity &
//! nsenter -t $! -n sh -e <<'EOF'
//! ip link set lo up
//! ip addr add 10.200.0.2/32 dev lo; ip route add default dev lo src 10.200.0.2
//! ip -6 addr add fd12::2/128 dev lo nodad; ip -6 route add default dev lo src fd12::2
//! nft 'add table inet s; add chain inet s o { type nat hook output priority -100; }'
//! nft 'add rule inet s o fib daddr type local accept'
//! nft 'add rule inet s o meta l4proto udp udp dport 53 redirect to :65053'
//! nft 'add rule inet s o meta l4proto tcp redirect to :65001'
//! nft 'add rule inet s o meta l4proto udp redirect to :65002'
//! EOF
//! cargo run -p sandhold-egress --example doors -- PID allow example.com deny 0.0.0.0/0
//! nsenter -t PID -n curl https://example.com
//! ```
//!
//! What is refused is shown on standard error. It ends with its standard input.
use std::{fs::File, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sandhold_egress::{Egress, EgressConfig};
use sandhold_runtime::{DNS_PORT, Doors, PROXY_PORT, TCP_PORT, UDP_PORT};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let pid: u32 = arguments
        .next()
        .context("usage: doors PID [allow RULE | deny RULE | private CIDR]...")?
        .parse()?;
    let (mut allow, mut deny, mut private) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(list) = arguments.next() {
        let rule = arguments.next().context("each allow, deny and private has a value")?;
        match list.as_str() {
            "allow" => allow.push(rule),
            "deny" => deny.push(rule),
            "private" => private.push(rule),
            other => bail!("{other:?} is none of allow, deny and private"),
        }
    }
    // A namespace is one of a thread: this one is left when it ends.
    let doors = std::thread::spawn(move || doors(pid))
        .join()
        .map_err(|_| anyhow::anyhow!("the thread failed"))??;
    tokio::runtime::Runtime::new()?.block_on(serve(doors, &EgressConfig { private }, &allow, &deny))
}

fn doors(pid: u32) -> Result<Doors> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    move_into_link_name_space(namespace.try_clone()?.into(), Some(LinkNameSpaceType::Network))?;
    let door = |kind: Type, port: u16| -> Result<OwnedFd> {
        let socket = Socket::new(Domain::IPV6, kind, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from(([0; 8], port)).into())?;
        if kind == Type::STREAM {
            socket.listen(1024)?;
        }
        Ok(socket.into())
    };
    let flags = SocketFlags::CLOEXEC;
    let conntrack = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
    Ok(Doors {
        tcp: door(Type::STREAM, TCP_PORT)?,
        udp: door(Type::DGRAM, UDP_PORT)?,
        dns: door(Type::DGRAM, DNS_PORT)?,
        proxy: door(Type::STREAM, PROXY_PORT)?,
        conntrack: Some(conntrack),
        transparent: true,
    })
}

#[expect(clippy::print_stderr, reason = "it is a tool for a terminal")]
async fn serve(doors: Doors, config: &EgressConfig, allow: &[String], deny: &[String]) -> Result<()> {
    let egress = Egress::new(config.clone())?;
    let policy = egress.policy(None, allow, deny)?;
    eprintln!("{:?}", policy.mode());
    let attached = egress.attach(doors, policy);
    let (mut seen, mut input) = (0, tokio::io::stdin());
    let mut byte = [0];
    loop {
        let (blocked, newest) = attached.blocked(seen);
        for entry in blocked {
            let (host, port, protocol) = (entry.host, entry.port, entry.protocol);
            eprintln!(
                "{protocol} {host}:{port}: {} ({}x). {}",
                entry.rule, entry.count, entry.remedy
            );
        }
        seen = newest;
        tokio::select! {
            read = input.read(&mut byte) => if read? == 0 { return Ok(()) },
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
