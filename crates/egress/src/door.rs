//! A socket of datagrams inside a sandbox.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc::{in6_addr, in6_pktinfo},
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, sendmsg},
};
use tokio::{io::Interest, net::UdpSocket};

use crate::name::canonical;

/// The door. Its answers come from the loopback, to where the kernel led the question: from any other address the kernel
/// would not lead them back.
#[derive(Debug)]
pub(crate) struct Door {
    socket: UdpSocket,
    /// It listens at every address, so that each answer has to say where it comes from.
    anywhere: bool,
}

impl Door {
    pub(crate) fn new(door: OwnedFd) -> io::Result<Self> {
        let socket = std::net::UdpSocket::from(door);
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let own = socket.local_addr()?;
        Ok(Self {
            anywhere: own.is_ipv6() && own.ip().is_unspecified(),
            socket,
        })
    }

    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }

    /// The port it listens at.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    pub(crate) async fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        if !self.anywhere {
            return self.socket.send_to(bytes, to).await.map(drop);
        }
        let from = match canonical(to.ip()) {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST,
        };
        let to = match to {
            SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
            SocketAddr::V6(v6) => v6,
        };
        let source = in6_pktinfo {
            ipi6_addr: in6_addr { s6_addr: from.octets() },
            ipi6_ifindex: 0,
        };
        let to = SockaddrIn6::from(to);
        let send = || {
            let control = [ControlMessage::Ipv6PacketInfo(&source)];
            let bytes = [IoSlice::new(bytes)];
            sendmsg(self.socket.as_raw_fd(), &bytes, &control, MsgFlags::empty(), Some(&to)).map_err(io::Error::from)
        };
        self.socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_from_the_loopback() {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let door = Door::new(socket.into()).unwrap();
        let port = door.port().unwrap();
        for (own, seen) in [("127.0.0.9:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let client = UdpSocket::bind(own).await.unwrap();
            let seen: IpAddr = seen.parse().unwrap();
            client.send_to(b"q", (seen, port)).await.unwrap();
            let mut buffer = [0; 10];
            let (count, from) = door.receive(&mut buffer).await.unwrap();
            door.send(&buffer[..count], from).await.unwrap();
            assert_eq!(
                client.recv_from(&mut buffer).await.unwrap(),
                (1, SocketAddr::new(seen, port))
            );
        }
    }
}
