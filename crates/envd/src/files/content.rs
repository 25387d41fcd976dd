//! What a download is called and what type it has.

use std::path::Path;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::filesystem::limits::SNIFF;

const BINARY: &str = "application/octet-stream";

/// The type by the extension; where that says nothing, by the first bytes, and for gzipped answers (`start` is none)
/// unknown.
pub(crate) fn content_type(path: &Path, start: Option<&[u8]>) -> HeaderValue {
    let value = match (mime_guess::from_path(path).first_raw(), start) {
        (Some(kind), _) if kind.starts_with("text/") => format!("{kind}; charset=utf-8"),
        (Some(kind), _) => kind.to_owned(),
        (None, Some(start)) if is_text(&start[..start.len().min(SNIFF)]) => "text/plain; charset=utf-8".to_owned(),
        (None, _) => BINARY.to_owned(),
    };
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(BINARY))
}

/// No bytes that text never has: the rule of browsers for `text/plain`.
fn is_text(start: &[u8]) -> bool {
    !start
        .iter()
        .any(|b| matches!(b, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f))
}

/// All but the characters that RFC 5987 lets stand.
const ATTRIBUTE: AsciiSet = NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// `inline; filename=…`: bare where the name is a token, quoted where it is not, percent-coded where it is not ASCII.
pub(crate) fn disposition(path: &Path) -> HeaderValue {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let value = if !name.is_empty() && name.bytes().all(token) {
        format!("inline; filename={name}")
    } else if name.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        format!("inline; filename=\"{escaped}\"")
    } else {
        format!("inline; filename*=utf-8''{}", utf8_percent_encode(&name, &ATTRIBUTE))
    };
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("inline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (path, start, wanted) in [
            ("/a.html", None, "text/html; charset=utf-8"),
            ("/a.png", Some(&b"x"[..]), "image/png"),
            ("/a", Some(b"hello\n"), "text/plain; charset=utf-8"),
            ("/a", Some(b"\x7fELF\x02\x01"), BINARY),
            ("/a", None, BINARY),
        ] {
            assert_eq!(content_type(Path::new(path), start), wanted, "{path}");
        }
    }

    #[test]
    fn names() {
        for (path, wanted) in [
            ("/x/a.txt", "inline; filename=a.txt"),
            ("/x/a b\".txt", "inline; filename=\"a b\\\".txt\""),
            ("/x/ä b.txt", "inline; filename*=utf-8''%C3%A4%20b.txt"),
            ("/x/a\nb", "inline; filename*=utf-8''a%0Ab"),
        ] {
            assert_eq!(disposition(Path::new(path)), wanted);
        }
    }
}
