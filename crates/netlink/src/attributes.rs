/// The kernel answers this message, not only if it fails.
const ACK: u16 = 4;
const REQUEST: u16 = 1;
/// Make it if it is not there.
pub const CREATE: u16 = 0x400;
/// Put it last.
pub const APPEND: u16 = 0x800;
/// `NLMSG_ERROR`, which an acknowledgement is too.
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// A nested attribute.
const NESTED: u16 = 0x8000;
/// The bits of a kind that are the kind: the others say that it is nested, or of the network's byte order.
const KIND: u16 = 0x3fff;

/// A list of attributes.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds one of at most 65,531 bytes.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = value.len() as u16 + 4;
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number as netfilter wants it.
    #[must_use]
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_be_bytes())
    }

    /// A name, with the zero that ends it.
    #[must_use]
    pub fn name(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.with(kind, &bytes)
    }

    /// A list within.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }
}

/// Messages that go to the kernel in one packet.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// The number of the next message.
    next: u32,
}

impl Batch {
    /// One whose messages are numbered from here on; reports and answers name the number.
    #[must_use]
    pub fn from_number(first: u32) -> Self {
        Self {
            bytes: Vec::new(),
            next: first,
        }
    }

    /// Adds a message: its kind, its flags, the family's own header, its attributes.
    pub fn push(&mut self, kind: u16, flags: u16, header: &[u8], attributes: &Attributes) {
        let len = (HEADER + header.len() + attributes.0.len()) as u32;
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.next.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(header);
        self.bytes.extend(&attributes.0);
        self.next = self.next.wrapping_add(1);
    }

    /// As [`Batch::push`], for a message whose success the kernel reports.
    pub fn push_reported(&mut self, kind: u16, flags: u16, header: &[u8], attributes: &Attributes) {
        self.push(kind, flags | ACK, header, attributes);
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The kernel's error number in a report, 0 for success; `None` if it is no report.
#[must_use]
pub fn report(bytes: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(bytes.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == ERROR).then_some(code.wrapping_neg())
}

/// The first attribute of a kind in a list of them.
#[must_use]
pub fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *bytes {
        let (len, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = bytes.get(4..len)?;
        if kind & KIND == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_say_their_own_length() {
        let list = Attributes::default()
            .with(7, b"abc")
            .nest(2, &Attributes::default().number(1, 5));
        let number = [8, 0, 1, 0, 0, 0, 0, 5];
        let mut expected = vec![7, 0, 7, 0, b'a', b'b', b'c', 0, 12, 0, 2, 0x80];
        expected.extend(number);
        assert_eq!(list.0, expected);
        assert_eq!(attribute(&list.0, 7), Some(&b"abc"[..]));
        assert_eq!(attribute(&list.0, 2), Some(&number[..]));
        assert_eq!(attribute(&list.0, 1), None);
        for cut in 0..list.0.len() {
            assert!(attribute(&list.0[..cut], 2).is_none());
        }
    }

    #[test]
    fn messages_are_numbered_and_say_their_length() {
        let mut batch = Batch::default();
        batch.push(20, CREATE, &[1, 2, 3, 4], &Attributes::default().with(1, &[9; 4]));
        batch.push_reported(24, 0, &[0; 4], &Attributes::default());
        let bytes = batch.bytes();
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[6..8], (REQUEST | CREATE).to_ne_bytes());
        assert_eq!(bytes[28 + 6..28 + 12], [5, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn what_is_no_report_is_told_apart() {
        let mut bytes = [0; 36];
        bytes[4] = 2;
        assert_eq!(report(&bytes), Some(0));
        bytes[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(report(&bytes), Some(2));
        assert_eq!(report(&bytes[..10]), None);
        bytes[4] = 3;
        assert_eq!(report(&bytes), None);
    }
}
