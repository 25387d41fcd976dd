//! Asking the kernel where a datagram was meant to go, over netfilter's netlink socket of the sandbox's namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};
use sandhold_netlink::{Attributes, Batch, attribute};

const NETLINK_HEAD: usize = 16;
const ERROR: u16 = 2;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET: u16 = 0x101;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`
const NEW: u16 = 0x100;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;

/// The socket, and the number of the last question.
#[derive(Debug)]
pub(crate) struct Conntrack {
    socket: OwnedFd,
    sequence: u32,
}

impl Conntrack {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, sequence: 0 }
    }

    /// Where a datagram was meant to go that `client` sent and that the kernel led to `door`. The kernel has its answer
    /// ready when the question was sent, so this does not wait.
    pub(crate) fn original(&mut self, client: SocketAddr, door: SocketAddr) -> io::Result<SocketAddr> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(self.sequence, door, client);
        let flags = MsgFlags::MSG_DONTWAIT;
        sendto(self.socket.as_raw_fd(), &question, &NetlinkAddr::new(0, 0), flags)?;
        let mut buffer = [0; 8192];
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut buffer, flags)?;
            match answer(&buffer[..count], self.sequence) {
                // An answer to an earlier question that was given up.
                Ok(None) => {}
                Ok(Some(to)) => return Ok(to),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks for the flow whose answers go from `from` to `to`.
fn question(sequence: u32, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let list = Attributes::default();
    let (family, ip) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (2, list.with(IP_V4_SRC, &from.octets()).with(IP_V4_DST, &to.octets())),
        (from, to) => {
            let v6 = |ip| match ip {
                IpAddr::V4(v4) => std::net::Ipv4Addr::to_ipv6_mapped(&v4).octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            (10, list.with(IP_V6_SRC, &v6(from)).with(IP_V6_DST, &v6(to)))
        }
    };
    let proto = Attributes::default()
        .with(PROTO_NUM, &[UDP])
        .with(PROTO_SRC_PORT, &from.port().to_be_bytes())
        .with(PROTO_DST_PORT, &to.port().to_be_bytes());
    let tuple = Attributes::default().nest(TUPLE_IP, &ip).nest(TUPLE_PROTO, &proto);
    let mut batch = Batch::from_number(sequence);
    let header = [family, 0, 0, 0];
    batch.push(GET, 0, &header, &Attributes::default().nest(TUPLE_REPLY, &tuple));
    batch.bytes().to_vec()
}

/// Reads an answer; `None` if it is one to another question.
fn answer(bytes: &[u8], sequence: u32) -> io::Result<Option<SocketAddr>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let number = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_ne_bytes)
    };
    let length = number(0)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(malformed)?;
    let kind = bytes
        .get(4..6)
        .and_then(|b| b.try_into().ok())
        .map(u16::from_ne_bytes)
        .ok_or_else(malformed)?;
    if number(8) != Some(sequence) {
        return Ok(None);
    }
    match kind {
        ERROR => {
            let code = number(NETLINK_HEAD).ok_or_else(malformed)?.cast_signed();
            Err(io::Error::from_raw_os_error(code.wrapping_neg()))
        }
        NEW => {
            let body = bytes
                .get(NETLINK_HEAD + 4..length.min(bytes.len()))
                .ok_or_else(malformed)?;
            target(body).map(Some).ok_or_else(malformed)
        }
        _ => Err(malformed()),
    }
}

fn target(bytes: &[u8]) -> Option<SocketAddr> {
    let tuple = attribute(bytes, TUPLE_ORIG)?;
    let ip = attribute(tuple, TUPLE_IP)?;
    let ip = match attribute(ip, IP_V4_DST) {
        Some(v4) => IpAddr::from(<[u8; 4]>::try_from(v4).ok()?),
        None => IpAddr::from(<[u8; 16]>::try_from(attribute(ip, IP_V6_DST)?).ok()?),
    };
    let port = attribute(attribute(tuple, TUPLE_PROTO)?, PROTO_DST_PORT)?;
    Some(SocketAddr::new(
        crate::name::canonical(ip),
        u16::from_be_bytes(port.try_into().ok()?),
    ))
}

/// For fuzzing.
#[cfg(fuzzing)]
pub(crate) fn read(bytes: &[u8]) {
    let _ = answer(bytes, 1);
    let _ = target(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel answers: the flow in both directions, and then its state.
    fn answered(sequence: u32, client: &str, meant: &str) -> Vec<u8> {
        let mut out = question(sequence, meant.parse().unwrap(), client.parse().unwrap());
        out[4..6].copy_from_slice(&NEW.to_ne_bytes());
        let mut orig = question(1, client.parse().unwrap(), meant.parse().unwrap())[20..].to_vec();
        // What is asked for in one direction stands in the other in the answer.
        orig[2..4].copy_from_slice(&(TUPLE_ORIG | 0x8000).to_ne_bytes());
        out.splice(20..20, orig);
        let length = u32::try_from(out.len()).unwrap();
        out[..4].copy_from_slice(&length.to_ne_bytes());
        out
    }

    #[test]
    fn answers_are_read() {
        for (client, meant) in [("10.200.0.2:5000", "9.9.9.9:123"), ("[fd12::2]:5000", "[2606::9]:443")] {
            let bytes = answered(7, client, meant);
            assert_eq!(answer(&bytes, 7).unwrap(), Some(meant.parse().unwrap()));
            assert_eq!(answer(&bytes, 8).unwrap(), None, "it is for another question");
            for end in 0..bytes.len() {
                let _ = answer(&bytes[..end], 7);
            }
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut garbage = bytes.clone();
                    garbage[at] = value;
                    let _ = answer(&garbage, 7);
                }
            }
        }
    }

    #[test]
    fn errors_are_the_kernels() {
        let mut bytes = question(7, "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        bytes[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert_eq!(answer(&bytes, 7).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
