//! The firewall in a sandbox's own network namespace: it refuses at once, when a program connects, what would be refused here
//! in any case, and tells of it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex},
};

use ipnet::IpNet;
use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};
use sandhold_netlink::{
    Batch,
    firewall::{Set, give, replace},
    log::{self, Logged},
};
use tokio::{io::Interest, net::UnixDatagram};

use crate::{
    address, limits,
    policy::Policy,
    sandbox::{Sandbox, lock},
    world::World,
};

/// From a first to a last address.
type Range = (IpAddr, IpAddr);

#[derive(Debug)]
pub(crate) struct Wall {
    /// Netfilter's socket. The type is only there for its readiness: tokio has none for netlink.
    socket: UnixDatagram,
    /// What is refused unless an address is given.
    shut: Mutex<Vec<Range>>,
}

impl Wall {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        let wall = Self {
            socket: UnixDatagram::from_std(socket)?,
            shut: Mutex::default(),
        };
        wall.tell(&log::listen());
        Ok(wall)
    }

    /// Refuses what the rules refuse by address alone; `given` are addresses of names that they allow.
    pub(crate) fn follow(&self, world: &World, policy: &Policy, given: &[IpAddr]) {
        let (open, shut) = ranges(world, policy);
        let given: Vec<Range> = given.iter().map(|ip| (*ip, *ip)).collect();
        let mut held = lock(&self.shut);
        self.tell(&replace(&[
            (Set::Given, &given),
            (Set::Open, &open),
            (Set::Shut, &shut),
        ]));
        *held = shut;
    }

    /// Lets an address of an allowed name through.
    pub(crate) fn give(&self, ip: IpAddr) {
        let held = lock(&self.shut);
        if held.iter().any(|(first, last)| *first <= ip && ip <= *last) {
            self.tell(&give(ip));
        }
    }

    /// A failure leaves the wall as it was: what comes through is refused at the door.
    fn tell(&self, batch: &Batch) {
        let sent = sendto(
            self.socket.as_raw_fd(),
            batch.bytes(),
            &NetlinkAddr::new(0, 0),
            MsgFlags::MSG_DONTWAIT,
        );
        if let Err(error) = sent {
            tracing::debug!(%error, "a sandbox's firewall was not told its rules");
        }
    }

    /// What was refused since the last look.
    fn read(&self) -> Vec<Logged> {
        let mut found = Vec::new();
        let mut buffer = vec![0; limits::FIREWALL_LOG];
        while found.len() < limits::FIREWALL_READ {
            let read = || recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from);
            // By this way tokio learns that there is no more.
            match self.socket.try_io(Interest::READABLE, read) {
                Ok(count) => match sandhold_netlink::report(&buffer[..count]) {
                    Some(code) => {
                        tracing::debug!(error = %io::Error::from_raw_os_error(code), "a sandbox's firewall");
                    }
                    None => found.extend(log::read(&buffer[..count])),
                },
                // More was refused than fitted: what is left is told.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(_) => break,
            }
        }
        found
    }

    /// Notes what was refused since the last look.
    pub(crate) fn look(&self, sandbox: &Sandbox) {
        for Logged { to, port, protocol } in self.read() {
            let protocol = match protocol {
                6 => "tcp",
                17 => "udp",
                _ => continue,
            };
            if let Err(refusal) = sandbox.judge(None, Some(to), Some(port), protocol) {
                sandbox.block(refusal);
            }
        }
    }
}

/// Notes what the firewall refuses until the sandbox ends.
pub(crate) async fn watch(sandbox: Arc<Sandbox>) {
    let Some(wall) = sandbox.wall() else { return };
    while wall.socket.readable().await.is_ok() {
        wall.look(&sandbox);
        // A sandbox that is refused without end is not all that there is to do.
        tokio::task::yield_now().await;
    }
}

/// What is allowed and what is refused by address alone; the first wins.
fn ranges(world: &World, policy: &Policy) -> (Vec<Range>, Vec<Range>) {
    let allowed = |(net, port): &(IpNet, Option<u16>)| {
        let ip = net.network();
        let reserved = (world.guard)(ip).is_some();
        (!reserved || world.opened(ip)) && policy.decide(None, Some(ip), *port).is_ok()
    };
    let open = policy.allowed_nets().into_iter().filter(allowed).map(|(net, _)| net);
    let shut: Vec<IpNet> = if policy.open_names() {
        let own = world.own.all().into_iter().map(IpNet::from);
        address::all_reserved().chain(own).chain(policy.denied_nets()).collect()
    } else {
        let everything = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        everything.into_iter().filter_map(|ip| IpNet::new(ip, 0).ok()).collect()
    };
    (merge(open), merge(shut))
}

/// As ranges that neither touch nor overlap.
fn merge(nets: impl IntoIterator<Item = IpNet>) -> Vec<Range> {
    let mut all: Vec<Range> = nets.into_iter().map(|net| (net.network(), net.broadcast())).collect();
    all.sort();
    let mut merged: Vec<Range> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some((_, end)) if end.is_ipv4() == first.is_ipv4() && (first <= *end || follows(*end, first)) => {
                *end = (*end).max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Whether an address is the next one.
fn follows(end: IpAddr, first: IpAddr) -> bool {
    match (end, first) {
        (IpAddr::V4(end), IpAddr::V4(first)) => end.to_bits().checked_add(1) == Some(first.to_bits()),
        (IpAddr::V6(end), IpAddr::V6(first)) => end.to_bits().checked_add(1) == Some(first.to_bits()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ranges_are_merged() {
        let merged = merge(nets(&[
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.2.0/25",
            "10.0.0.7/32",
            "::/0",
            "192.0.2.1/32",
        ]));
        let shown: Vec<String> = merged.iter().map(|(a, b)| format!("{a}-{b}")).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.0-10.0.2.127",
                "192.0.2.1-192.0.2.1",
                "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
    }
}
