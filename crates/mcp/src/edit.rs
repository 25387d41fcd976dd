//! Replacing a piece of a text, without touching anything else of it.

use similar::TextDiff;

use crate::budget;

const BOM: &str = "\u{FEFF}";
/// Lines of a text that are compared when the nearest match is looked for.
const NEAREST_LINES: usize = 20_000;
/// Lines of the nearest match that are shown.
const NEAREST_SHOWN: usize = 12;

/// An edit that was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    pub(crate) text: String,
    pub(crate) replacements: usize,
    /// Unified diff, cut to [`budget::DIFF`].
    pub(crate) diff: String,
}

/// Why an edit was not made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// `old` is nowhere; the nearest lines with the number of the first, if any come near.
    Absent { nearest: Option<(usize, String)> },
    /// `old` is there several times, on these lines.
    Ambiguous { lines: Vec<usize> },
    /// Nothing would change.
    Same,
    /// There is nothing to look for.
    Empty,
}

/// Replaces `old` by `new` in `text`. Line ends of the file are kept, and its byte order mark.
pub(crate) fn replace(path: &str, text: &str, old: &str, new: &str, all: bool) -> Result<Edited, Refused> {
    if old.is_empty() {
        return Err(Refused::Empty);
    }
    let (mark, body) = match text.strip_prefix(BOM) {
        Some(body) => (BOM, body),
        None => ("", text),
    };
    let old = old.strip_prefix(BOM).unwrap_or(old);
    let (old, new) = if is_crlf(body) {
        (crlf(old), crlf(new))
    } else {
        (old.to_owned(), new.to_owned())
    };
    if old == new {
        return Err(Refused::Same);
    }
    let found: Vec<usize> = body.match_indices(&old).map(|(at, _)| at).collect();
    match found.len() {
        0 => {
            return Err(Refused::Absent {
                nearest: nearest(body, &old),
            });
        }
        1 => {}
        _ if all => {}
        _ => {
            let mut lines: Vec<usize> = found
                .iter()
                .take(20)
                .map(|at| body[..*at].matches('\n').count() + 1)
                .collect();
            lines.dedup();
            return Err(Refused::Ambiguous { lines });
        }
    }
    let edited = body.replace(&old, &new);
    let diff = diff(path, body, &edited);
    Ok(Edited {
        text: format!("{mark}{edited}"),
        replacements: found.len(),
        diff,
    })
}

/// Whether every line ends as on Windows.
fn is_crlf(text: &str) -> bool {
    let newlines = text.matches('\n').count();
    newlines > 0 && text.matches("\r\n").count() == newlines
}

fn crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

fn diff(path: &str, before: &str, after: &str) -> String {
    let diff = TextDiff::configure()
        .timeout(std::time::Duration::from_millis(300))
        .diff_lines(before, after);
    let text = diff.unified_diff().context_radius(2).header(path, path).to_string();
    if text.len() <= budget::DIFF {
        return text;
    }
    let shown = budget::prefix(&text, budget::DIFF);
    format!("{shown}\n[… {} bytes of the diff cut …]\n", text.len() - shown.len())
}

/// The lines of `text` that are most like `old`.
fn nearest(text: &str, old: &str) -> Option<(usize, String)> {
    let wanted: Vec<&str> = old.lines().map(str::trim).collect();
    let lines: Vec<&str> = text.lines().take(NEAREST_LINES).collect();
    let key = wanted
        .iter()
        .copied()
        .max_by_key(|l| l.len())
        .filter(|l| !l.is_empty())?;
    let offset = wanted.iter().position(|l| *l == key)?;
    let score = |line: &str| -> f32 {
        let line = line.trim();
        if line == key {
            return 1.0;
        }
        // A line of quite another length cannot come near, and comparing it would cost time.
        let (short, long) = (line.len().min(key.len()), line.len().max(key.len()));
        if long > 2_000 || short * 2 < long {
            return 0.0;
        }
        similar_letters(line, key)
    };
    let (best, value) = lines
        .iter()
        .enumerate()
        .map(|(at, line)| (at, score(line)))
        .fold((0, 0.0_f32), |best, next| if next.1 > best.1 { next } else { best });
    if value < 0.6 {
        return None;
    }
    let start = best.saturating_sub(offset);
    let shown: Vec<&str> = lines[start..]
        .iter()
        .copied()
        .take(wanted.len().clamp(1, NEAREST_SHOWN))
        .collect();
    Some((
        start + 1,
        shown
            .iter()
            .map(|l| budget::line(l, budget::LINE))
            .collect::<Vec<_>>()
            .join("\n"),
    ))
}

/// How alike two lines are, from 0 to 1, by the pairs of letters they share: cheap, and enough to point at a line.
fn similar_letters(a: &str, b: &str) -> f32 {
    let pairs = |text: &str| {
        let mut pairs: Vec<[u8; 2]> = text.as_bytes().windows(2).map(|w| [w[0], w[1]]).collect();
        pairs.sort_unstable();
        pairs
    };
    let (a, b) = (pairs(a), pairs(b));
    let (mut i, mut j, mut shared) = (0, 0, 0_u16);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Equal => {
                shared += 1;
                i += 1;
                j += 1;
            }
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
        }
    }
    let all = u16::try_from(a.len() + b.len()).unwrap_or(u16::MAX).max(1);
    2.0 * f32::from(shared) / f32::from(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_one_and_shows_a_diff() {
        let edited = replace("a.py", "x = 1\ny = 2\n", "y = 2", "y = 3", false).unwrap();
        assert_eq!((edited.text.as_str(), edited.replacements), ("x = 1\ny = 3\n", 1));
        assert!(edited.diff.contains("-y = 2\n+y = 3\n"), "{}", edited.diff);
    }

    #[test]
    fn several_matches_need_replace_all() {
        let text = "a\nb\na\n";
        assert_eq!(
            replace("f", text, "a", "c", false),
            Err(Refused::Ambiguous { lines: vec![1, 3] })
        );
        let edited = replace("f", text, "a", "c", true).unwrap();
        assert_eq!((edited.text.as_str(), edited.replacements), ("c\nb\nc\n", 2));
    }

    #[test]
    fn line_ends_and_byte_order_marks_stay() {
        let edited = replace("f", "\u{FEFF}one\r\ntwo\r\n", "one\ntwo", "1\n2\n3", false).unwrap();
        assert_eq!(edited.text, "\u{FEFF}1\r\n2\r\n3\r\n");
        let edited = replace("f", "one\r\ntwo\n", "two", "2\n3", false).unwrap();
        assert_eq!(edited.text, "one\r\n2\n3\n", "mixed line ends are left alone");
        let edited = replace("f", "no newline", "no", "a", false).unwrap();
        assert_eq!(edited.text, "a newline");
    }

    #[test]
    fn an_absent_text_shows_the_nearest() {
        let text = "def area(w, h):\n    return w * h\n\nprint(1)\n";
        let refused = replace("f", text, "def area(w,h):\n    return w*h", "x", false).unwrap_err();
        assert_eq!(
            refused,
            Refused::Absent {
                nearest: Some((1, "def area(w, h):\n    return w * h".into()))
            }
        );
        assert_eq!(
            replace("f", text, "quite another thing", "x", false),
            Err(Refused::Absent { nearest: None })
        );
    }

    #[test]
    fn nothing_to_do_is_said() {
        assert_eq!(replace("f", "a", "", "b", false), Err(Refused::Empty));
        assert_eq!(replace("f", "a", "a", "a", false), Err(Refused::Same));
    }

    #[test]
    fn a_huge_diff_is_cut() {
        let edited = replace("f", &"a\n".repeat(10_000), "a", "b", true).unwrap();
        assert!(
            edited.diff.len() < budget::DIFF + 100 && edited.diff.contains("cut"),
            "{}",
            edited.diff.len()
        );
        assert_eq!(edited.replacements, 10_000);
    }
}
