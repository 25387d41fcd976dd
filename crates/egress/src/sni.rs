//! The name that a TLS client asks for, from the first bytes of its connection.

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// More bytes are needed.
    More,
    /// It is no TLS.
    No,
    /// It begins as TLS and cannot be understood.
    Bad,
    /// The whole greeting: the name it holds, as it was sent.
    Name(Option<String>),
}

/// Reads a ClientHello, over as many records as it takes. A name that stands there twice, or in a form of which a server
/// might read another one, makes it bad.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> Hello {
    match bytes {
        [] | [0x16] => return Hello::More,
        [0x16, 3, ..] => {}
        _ => return Hello::No,
    }
    let mut message = Vec::new();
    let mut rest = bytes;
    while let [kind, major, minor, high, low, body @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != 0x16 || *major != 3 || *minor > 4 || length == 0 || length > 16_384 {
            return Hello::Bad;
        }
        message.extend_from_slice(&body[..length.min(body.len())]);
        if body.len() < length {
            break;
        }
        rest = &body[length..];
        if whole(&message) {
            break;
        }
    }
    if message.first().is_some_and(|kind| *kind != 1) {
        return Hello::Bad;
    }
    if !whole(&message) {
        return Hello::More;
    }
    let length = length24(&message);
    match hello(&message[4..4 + length]) {
        Some(name) => Hello::Name(name),
        None => Hello::Bad,
    }
}

fn length24(message: &[u8]) -> usize {
    usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3])
}

fn whole(message: &[u8]) -> bool {
    message.len() >= 4 && message.len() - 4 >= length24(message)
}

/// The body of the message; `None` if it is malformed.
fn hello(bytes: &[u8]) -> Option<Option<String>> {
    let mut at = Reader(bytes);
    at.take(2 + 32)?;
    at.short()?;
    at.long()?;
    at.short()?;
    if at.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(at.long()?);
    if !at.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let body = extensions.long()?;
        if kind != 0 {
            continue;
        }
        let mut body = Reader(body);
        let mut list = Reader(body.long()?);
        let one = list.take(1)? == [0];
        let text = list.long()?;
        if name.is_some() || !one || !list.0.is_empty() || !body.0.is_empty() || text.is_empty() {
            return None;
        }
        name = Some(
            std::str::from_utf8(text)
                .ok()
                .filter(|text| text.is_ascii())?
                .to_owned(),
        );
    }
    Some(name)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// What a length of one byte stands before.
    fn short(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.take(1)?[0]);
        self.take(count)
    }

    /// What a length of two bytes stands before.
    fn long(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.number()?);
        self.take(count)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A greeting with these names, each in an extension of its own.
    pub(crate) fn greeting(names: &[&str]) -> Vec<u8> {
        let long = |bytes: &[u8]| {
            let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            out.extend(bytes);
            out
        };
        let mut extensions = vec![0, 43, 0, 3, 2, 3, 4];
        for name in names {
            let mut entry = vec![0];
            entry.extend(long(name.as_bytes()));
            extensions.extend([0, 0]);
            extensions.extend(long(&long(&entry)));
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(long(&[0x13, 1]));
        body.extend([1, 0]);
        body.extend(long(&extensions));
        let mut message = vec![1, 0];
        message.extend(long(&body));
        let mut record = vec![0x16, 3, 1];
        record.extend(long(&message));
        record
    }

    #[test]
    fn finds_the_name() {
        assert_eq!(parse(&greeting(&["a.example"])), Hello::Name(Some("a.example".into())));
        assert_eq!(parse(&greeting(&[])), Hello::Name(None));
    }

    #[test]
    fn each_shorter_piece_asks_for_more() {
        let whole = greeting(&["a.example"]);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Hello::More, "{end}");
        }
    }

    #[test]
    fn over_several_records() {
        let whole = greeting(&["a.example"]);
        let mut split = Vec::new();
        for piece in whole[5..].chunks(7) {
            split.extend([0x16, 3, 1, 0, u8::try_from(piece.len()).unwrap()]);
            split.extend(piece);
        }
        assert_eq!(parse(&split), Hello::Name(Some("a.example".into())));
    }

    #[test]
    fn what_is_none() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Hello::No);
        assert_eq!(parse(b"SSH-2.0"), Hello::No);
        assert_eq!(parse(&[0x16, 9, 9]), Hello::No);
    }

    #[test]
    fn what_is_bad() {
        assert_eq!(parse(&greeting(&["a.example", "b.example"])), Hello::Bad);
        assert_eq!(parse(&[0x16, 3, 1, 0, 0]), Hello::Bad, "an empty record");
        assert_eq!(
            parse(&[0x16, 3, 1, 0xff, 0xff]),
            Hello::Bad,
            "a record that is too long"
        );
        assert_eq!(parse(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0]), Hello::Bad, "another message");
        let mut garbage = greeting(&["a.example"]);
        for at in 9..garbage.len() {
            let before = garbage[at];
            for value in [0, 0x7f, 0xff] {
                garbage[at] = value;
                // Whatever it is, it is read without a panic.
                let _ = parse(&garbage);
            }
            garbage[at] = before;
        }
        garbage[9 + 34] = 0xff;
        assert_eq!(parse(&garbage), Hello::Bad, "a session id beyond the end");
    }
}
