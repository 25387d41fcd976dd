//! What protocol the first bytes of a connection are.

use crate::sni::{self, Hello};

/// What the first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// More bytes are needed.
    More,
    /// TLS, and the name it asks for.
    Tls(Option<String>),
    /// TLS that cannot be understood.
    BadTls,
    /// HTTP/1.
    Http,
    /// HTTP/2 without TLS: the name is within its frames.
    Http2,
    /// Anything else.
    Other,
}

/// The longest first line that may be one of HTTP.
const LINE: usize = 8 << 10;

/// Tells the protocol. What any server might take for HTTP counts as it: the strict reader after this refuses what is none.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> Head {
    match sni::parse(bytes) {
        Hello::Name(name) => return Head::Tls(name),
        Hello::Bad => return Head::BadTls,
        Hello::More => return Head::More,
        Hello::No => {}
    }
    // Servers skip empty lines before a request.
    let start = bytes
        .iter()
        .position(|b| !b.is_ascii_whitespace())
        .unwrap_or(bytes.len());
    let text = &bytes[start..];
    let end = text.iter().position(|b| *b == b'\n');
    let line = &text[..end.unwrap_or(text.len()).min(LINE)];
    const PREFACE: &[u8] = b"PRI * HTTP/2";
    if end.is_none() && line.len() < PREFACE.len() && PREFACE.starts_with(line) {
        return Head::More;
    }
    if line.starts_with(PREFACE) {
        return Head::Http2;
    }
    // The first word of a request is its method: letters and what else RFC 9110 lets a token have, and then a blank. SSH
    // greets with one word. What is told must not depend on how many bytes came at once: the sender chooses that.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let method = line.iter().position(|b| !token(*b)).map(|at| (at, line[at]));
    let may_be = method.is_none_or(|(at, byte)| at > 0 && matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r'));
    if may_be && line.windows(5).any(|w| w.eq_ignore_ascii_case(b"HTTP/")) {
        return Head::Http;
    }
    if end.is_none() && may_be && text.len() < LINE {
        Head::More
    } else {
        Head::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        for (bytes, head) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Head::Http),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", Head::Http),
            (b"get / http/1.1\n", Head::Http),
            (b"GET /\r\n", Head::Other),
            (b"GE", Head::More),
            (b"GET /very/lo", Head::More),
            (b"\r\n", Head::More),
            (b"", Head::More),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Head::Http2),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Head::Other),
            (b"SSH-2.0", Head::More),
            (b"PRI * HTTP/", Head::More),
            (b"M-", Head::More),
            (b"GET /\x01", Head::More),
            (b"GET /\x01 HTTP/1.1\r\n", Head::Http),
            (b"M-SEARCH * HTTP/1.1\r\n", Head::Http),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Head::Other),
            (b"PING\r\n", Head::Other),
            (b"\x16\x03\x01\0\0", Head::BadTls),
            (b"\x16", Head::More),
        ] {
            assert_eq!(parse(bytes), head, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        assert_eq!(parse(&[b'a'; LINE - 1]), Head::More);
        assert_eq!(parse(&[b'a'; LINE]), Head::Other);
        assert_eq!(
            parse(&[b' '; 2 * LINE]),
            Head::More,
            "bounded by the buffer of the reader"
        );
    }

    #[test]
    fn tls_has_its_name() {
        let greeting = sni::tests::greeting(&["a.example"]);
        assert_eq!(parse(&greeting), Head::Tls(Some("a.example".into())));
    }
}
