//! Slicing a text by lines.

use crate::budget;

/// Some lines of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) text: String,
    /// Number of the first line, from 1.
    pub(crate) first: usize,
    /// Lines that are shown, the last one perhaps in part.
    pub(crate) shown: usize,
    /// Lines of the whole text.
    pub(crate) total: usize,
    /// Whether lines follow, or the last one was cut.
    pub(crate) truncated: bool,
    /// Bytes missing of a line that is longer than an answer.
    pub(crate) cut: usize,
}

/// Lines from `offset` on: 1 is the first, −1 the last, 0 the same as 1. At most `limit` lines and `max` bytes.
pub(crate) fn slice(text: &str, offset: i64, limit: usize, max: usize) -> Slice {
    let total = count(text);
    let start = match usize::try_from(offset) {
        Ok(from) => from.saturating_sub(1),
        Err(_) => total.saturating_sub(usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let mut out = String::new();
    let (mut shown, mut cut) = (0, 0);
    for line in text.split_inclusive('\n').skip(start).take(limit) {
        if out.len() + line.len() > max {
            if shown == 0 {
                out.push_str(budget::prefix(line, max));
                cut = line.len() - out.len();
                shown = 1;
            }
            break;
        }
        out.push_str(line);
        shown += 1;
    }
    let first = start.min(total) + 1;
    Slice {
        text: out,
        first,
        shown,
        total,
        truncated: start + shown < total || cut > 0,
        cut,
    }
}

/// Lines of a text; one without a line end at its end counts.
pub(crate) fn count(text: &str) -> usize {
    text.split_inclusive('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(offset: i64, limit: usize) -> (String, usize, bool) {
        let slice = slice("a\nb\nc\nd", offset, limit, 100);
        assert_eq!(slice.total, 4);
        (slice.text, slice.first, slice.truncated)
    }

    #[test]
    fn by_lines() {
        assert_eq!(of(1, 100), ("a\nb\nc\nd".into(), 1, false));
        assert_eq!(of(0, 2), ("a\nb\n".into(), 1, true));
        assert_eq!(of(3, 100), ("c\nd".into(), 3, false));
        assert_eq!(of(-2, 100), ("c\nd".into(), 3, false));
        assert_eq!(of(-3, 1), ("b\n".into(), 2, true));
        assert_eq!(of(-99, 100), ("a\nb\nc\nd".into(), 1, false));
        assert_eq!(of(9, 100), (String::new(), 5, false));
        assert_eq!(of(i64::MIN, 1).1, 1);
        assert_eq!(
            slice("", 1, 10, 10),
            Slice {
                text: String::new(),
                first: 1,
                shown: 0,
                total: 0,
                truncated: false,
                cut: 0
            }
        );
    }

    #[test]
    fn by_bytes() {
        let two = slice("aaaa\nbbbb\ncccc\n", 1, 100, 10);
        assert_eq!(
            (two.text.as_str(), two.shown, two.truncated, two.cut),
            ("aaaa\nbbbb\n", 2, true, 0)
        );
        let long = slice("äääää\nb\n", 1, 100, 5);
        assert_eq!(
            (long.text.as_str(), long.shown, long.truncated, long.cut),
            ("ää", 1, true, 7)
        );
    }
}
