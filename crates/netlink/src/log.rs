//! Netfilter's log: how a socket asks for it, and what is in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Attributes, Batch, attribute};

/// The group of the packets that were refused.
pub const GROUP: u16 = 1;
/// Bytes of a packet that are logged: the headers, up to the ports.
pub(crate) const SNAP: u32 = 64;
/// `NFNL_SUBSYS_ULOG << 8`
const PACKET: u16 = 4 << 8;

/// What a socket sends to be told of refused packets at once. No answer is asked for.
#[must_use]
pub fn listen() -> Batch {
    const CONFIG: u16 = PACKET | 1;
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    let [high, low] = GROUP.to_be_bytes();
    let header = [0, 0, high, low];
    let mode = [&SNAP.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
    let mut batch = Batch::default();
    let attributes = Attributes::default().with(1, &[BIND]).with(2, &mode).number(5, 1);
    batch.push(CONFIG, 0, &header, &attributes);
    batch
}

/// Where a packet was meant to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// Its destination.
    pub to: IpAddr,
    /// The port, 0 where its protocol has none.
    pub port: u16,
    /// The number of the protocol: 6 is TCP, 17 UDP.
    pub protocol: u8,
}

/// The packets in what was received.
#[must_use]
pub fn read(mut bytes: &[u8]) -> Vec<Logged> {
    let mut found = Vec::new();
    while let Some(Ok(len)) = bytes
        .get(..4)
        .map(|len| <[u8; 4]>::try_from(len).map(u32::from_ne_bytes))
    {
        let len = len as usize;
        let Some(message) = bytes.get(..len).filter(|_| len >= 20) else {
            break;
        };
        if message[4..6] == PACKET.to_ne_bytes()
            && let Some(packet) = attribute(&message[20..], 9)
        {
            found.extend(destination(packet));
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Where an IP packet goes.
fn destination(packet: &[u8]) -> Option<Logged> {
    let (to, protocol, header) = match packet.first()? >> 4 {
        4 => {
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let header = usize::from(packet[0] & 15) * 4;
            (IpAddr::V4(Ipv4Addr::from(to)), *packet.get(9)?, header)
        }
        6 => {
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (IpAddr::V6(Ipv6Addr::from(to)), *packet.get(6)?, 40)
        }
        _ => return None,
    };
    let port = match protocol {
        6 | 17 => packet
            .get(header + 2..header + 4)
            .map_or(0, |port| u16::from_be_bytes([port[0], port[1]])),
        _ => 0,
    };
    Some(Logged { to, port, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(packet: &[u8]) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.push(
            PACKET,
            0,
            &[2, 0, 0, 1],
            &Attributes::default().with(1, &[0; 4]).with(9, packet),
        );
        batch.bytes().to_vec()
    }

    #[test]
    fn the_destination_is_read() {
        let mut v4 = vec![0x45; 24];
        v4[9] = 6;
        v4[16..20].copy_from_slice(&[10, 0, 0, 7]);
        v4[22..24].copy_from_slice(&80u16.to_be_bytes());
        let mut v6 = vec![0x60; 48];
        v6[6] = 17;
        v6[24..40].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        v6[42..44].copy_from_slice(&9u16.to_be_bytes());
        let bytes = [message(&v4), message(&v6)].concat();
        let told = |to: &str, port, protocol| Logged {
            to: to.parse().unwrap(),
            port,
            protocol,
        };
        assert_eq!(read(&bytes), [told("10.0.0.7", 80, 6), told("::1", 9, 17)]);
        // Whatever is missing, nothing is made up.
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).len() < 2);
        }
        assert_eq!(read(&message(&[0x50; 60])), []);
        assert_eq!(read(&message(&[0x4f; 20])).first().map(|one| one.port), Some(0));
    }
}
