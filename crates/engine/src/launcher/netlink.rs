//! Messages to the kernel's netlink families ROUTE and NETFILTER, written by hand: a sandbox needs the same two packets
//! each time, and a program that writes them (`ip`, `nft`) takes longer than the whole sandbox.
//!
//! Numbers are those of `linux/{netlink,rtnetlink,if_addr}.h` and `linux/netfilter/{nfnetlink,nf_tables}.h`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// The kernel answers each message, not only those that fail.
const ACK: u16 = 4;
const REQUEST: u16 = 1;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
/// `NLMSG_ERROR`, which an acknowledgement is too.
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// A nested attribute.
const NESTED: u16 = 0x8000;

/// A list of attributes.
#[derive(Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = value.len() as u16 + 4;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number as netfilter wants it.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// A name, with the zero that ends it.
    pub(super) fn name(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    pub(super) fn nest(self, kind: u16, inner: Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }
}

/// Messages that go to the kernel in one packet.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    /// Adds a message: its kind, its flags, the family's own header, its attributes.
    pub(super) fn push(&mut self, kind: u16, flags: u16, header: &[u8], attributes: &Attributes) {
        let len = (HEADER + header.len() + attributes.0.len()) as u32;
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(header);
        self.bytes.extend(&attributes.0);
        self.messages += 1;
    }

    /// As [`Batch::push`], for a message whose success the kernel reports.
    pub(super) fn push_reported(&mut self, kind: u16, flags: u16, header: &[u8], attributes: &Attributes) {
        self.push(kind, flags | ACK, header, attributes);
    }

    /// Sends it, and waits for as many reports as were asked for. The first error is returned.
    pub(super) fn send(self, socket: impl AsFd, reports: usize) -> Result<(), Errno> {
        send(&socket, &self.bytes, SendFlags::empty())?;
        let mut buffer = [0; 8192];
        for _ in 0..reports {
            let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            check(&buffer[..len])?;
        }
        Ok(())
    }
}

/// The error in a report; 0 is none.
fn check(report: &[u8]) -> Result<(), Errno> {
    let kind = report.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = report
        .get(HEADER..HEADER + 4)
        .map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match (kind, code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::BADMSG),
    }
}

/// A netlink socket of this process's network namespace. The rights that the kernel looks at are those of whoever opened
/// it and of whoever sends on it. No protocol is ROUTE, which is number 0.
pub(super) fn open(protocol: Option<Protocol>) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_say_their_own_length() {
        let list = Attributes::default()
            .with(7, b"abc")
            .nest(2, Attributes::default().number(1, 5));
        let number = [8, 0, 1, 0, 0, 0, 0, 5];
        let mut expected = vec![7, 0, 7, 0, b'a', b'b', b'c', 0, 12, 0, 2, 0x80];
        expected.extend(number);
        assert_eq!(list.0, expected);
    }

    #[test]
    fn messages_are_numbered_and_say_their_length() {
        let mut batch = Batch::default();
        batch.push(20, CREATE, &[1, 2, 3, 4], &Attributes::default().with(1, &[9; 4]));
        batch.push_reported(24, 0, &[0; 4], &Attributes::default());
        assert_eq!(batch.bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(batch.bytes[6..8], (REQUEST | CREATE).to_ne_bytes());
        assert_eq!(batch.bytes[28 + 6..28 + 12], [5, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn reports_that_are_none_are_errors() {
        let mut report = [0; 36];
        report[4] = 2;
        assert_eq!(check(&report), Ok(()));
        report[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(check(&report), Err(Errno::NOENT));
        assert_eq!(check(&report[..10]), Err(Errno::BADMSG));
        assert_eq!(check(&[]), Err(Errno::BADMSG));
    }
}
