//! How much a tool may answer, and how text is cut to it. This is the only file that decides about sizes of answers.

use serde::Serialize;

/// Bytes of output of a sandbox in one answer: standard output and error together, a file's text, the rows of a list.
pub const ANSWER: usize = 30_000;
/// Characters of one line in a list of matches.
pub const LINE: usize = 500;
/// Characters of a command shown in a list of jobs.
pub const COMMAND: usize = 200;
/// Bytes of a diff.
pub const DIFF: usize = 8_000;
/// Rows of a list.
pub const ROWS: usize = 1_000;

/// Splits `max` bytes between two streams of these lengths: a short one leaves its part to the other.
pub(crate) fn share(first: u64, second: u64, max: usize) -> (usize, usize) {
    let half = max / 2;
    let fits = |len: u64| usize::try_from(len).ok().filter(|len| *len <= half);
    match (fits(first), fits(second)) {
        (Some(a), _) => (a, max - a),
        (None, Some(b)) => (max - b, b),
        (None, None) => (half, half),
    }
}

/// At most `max` characters, with a mark where the rest was.
pub(crate) fn line(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A command as part of one line: what would break the line or work on a terminal is a space.
pub(crate) fn command(text: &str) -> String {
    let plain: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(COMMAND + 1)
        .collect();
    line(&plain, COMMAND)
}

/// The longest prefix of `text` of at most `max` bytes that ends between characters.
pub(crate) fn prefix(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The first rows that fit an answer, and whether any was left out.
pub(crate) fn rows<T: Serialize>(rows: Vec<T>) -> (Vec<T>, bool) {
    let total = rows.len();
    let mut used = 0;
    let kept: Vec<T> = rows
        .into_iter()
        .take(ROWS)
        .take_while(|row| {
            used += serde_json::to_vec(row).map_or(0, |json| json.len() + 1);
            used <= ANSWER
        })
        .collect();
    let truncated = kept.len() < total;
    (kept, truncated)
}

/// Length without a character that has only begun: at most three bytes less than `bytes`.
pub(crate) fn whole_chars(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        if byte & 0b1100_0000 == 0b1000_0000 {
            continue;
        }
        let needed = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if needed > back { bytes.len() - back } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share(10, 20, ANSWER), (10, ANSWER - 10));
        assert_eq!(share(1 << 40, 20, ANSWER), (ANSWER - 20, 20));
        assert_eq!(share(1 << 40, 1 << 40, ANSWER), (ANSWER / 2, ANSWER / 2));
        assert_eq!(share(5, 1 << 40, ANSWER), (5, ANSWER - 5));
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(prefix("aü", 2), "a");
        assert_eq!(prefix("aü", 3), "aü");
        assert_eq!(line("äöü", 2), "äö…");
        assert_eq!(line("äö", 2), "äö");
        assert_eq!(command(" a\n\x1b[31mb "), "a  [31mb");
        let text = "a€😀".as_bytes();
        assert_eq!(
            (
                whole_chars(&text[..2]),
                whole_chars(&text[..3]),
                whole_chars(&text[..4])
            ),
            (1, 1, 4)
        );
        assert_eq!((whole_chars(&text[..7]), whole_chars(text)), (4, 8));
        assert_eq!(whole_chars(&[b'a', 0xFF]), 2);
        assert_eq!(whole_chars(&[0x80, 0x80, 0x80, 0x80]), 4);
    }

    #[test]
    fn rows_fit_the_answer() {
        let (kept, cut) = rows(vec!["x".repeat(997); 100]);
        assert_eq!((kept.len(), cut), (30, true));
        let (kept, cut) = rows(vec![1; ROWS + 1]);
        assert_eq!((kept.len(), cut), (ROWS, true));
        assert_eq!(rows(vec![1, 2]), (vec![1, 2], false));
    }
}
