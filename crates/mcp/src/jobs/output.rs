//! What a stream of a job printed, in bounded memory: all of it while it is short, later its beginning and its newest part.

use std::collections::VecDeque;

use crate::{budget, limits};

/// One stream of output.
#[derive(Default)]
pub(crate) struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    /// What comes does not follow what stands in the head.
    parted: bool,
}

/// A part of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) text: String,
    /// Where the next page starts.
    pub(crate) next: u64,
    /// Bytes before this page that are no longer in memory.
    pub(crate) skipped: u64,
    /// Whether there is more already.
    pub(crate) more: bool,
}

/// A stream as one answer shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) text: String,
    /// Bytes left out in the middle.
    pub(crate) cut: u64,
}

impl Output {
    /// Adds what was printed.
    pub(crate) fn push(&mut self, mut data: &[u8]) {
        self.total += data.len() as u64;
        if self.tail.is_empty() && !self.parted {
            let room = limits::JOB_STREAM_HEAD.saturating_sub(self.head.len()).min(data.len());
            self.head.extend_from_slice(&data[..room]);
            data = &data[room..];
        }
        let kept = limits::JOB_STREAM - limits::JOB_STREAM_HEAD;
        if data.len() > kept {
            data = &data[data.len() - kept..];
        }
        let excess = (self.tail.len() + data.len()).saturating_sub(kept);
        self.tail.drain(..excess);
        self.tail.extend(data);
    }

    /// Notes bytes that were printed and missed. Only one gap is kept: what stood between an earlier one and this is gone.
    pub(crate) fn skip(&mut self, bytes: u64) {
        if bytes > 0 {
            self.total += bytes;
            self.tail.clear();
            self.parted = true;
        }
    }

    /// Bytes printed so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// At most the newest `max` bytes, as text.
    pub(crate) fn end(&self, max: usize) -> String {
        let skipped = self.held().saturating_sub(max);
        let bytes: Vec<u8> = self.head.iter().chain(&self.tail).skip(skipped).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes in memory.
    pub(crate) fn held(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Bytes printed that are no longer in memory.
    pub(crate) fn lost(&self) -> u64 {
        self.total - self.held() as u64
    }

    /// Where the newest part begins.
    fn tail_start(&self) -> u64 {
        self.total - self.tail.len() as u64
    }

    /// At most `max` bytes from `start` on that lie in one piece; `start` is in memory.
    fn piece(&self, start: u64, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head_from = usize::try_from(start).unwrap_or(usize::MAX).min(self.head.len());
        bytes.extend(self.head[head_from..].iter().take(max));
        if !bytes.is_empty() && self.lost() > 0 {
            return bytes;
        }
        let reached = start + bytes.len() as u64;
        let tail_from = usize::try_from(reached.saturating_sub(self.tail_start())).unwrap_or(usize::MAX);
        bytes.extend(self.tail.iter().skip(tail_from).take(max - bytes.len()));
        bytes
    }

    /// Everything in memory from `start` on, for writing it down.
    pub(crate) fn since(&self, start: u64) -> Vec<u8> {
        self.piece(start, usize::MAX)
    }

    /// Reads on from `from`. `ended`: nothing will follow, so a character that has only begun is shown as it is.
    pub(crate) fn page(&self, from: u64, max: usize, ended: bool) -> Page {
        let from = from.min(self.total);
        let in_gap = from >= self.head.len() as u64 && from < self.tail_start();
        let start = if in_gap { self.tail_start() } else { from };
        let mut bytes = self.piece(start, max);
        let last = start + bytes.len() as u64 == self.total;
        if !(ended && last) {
            let whole = budget::whole_chars(&bytes);
            // A page that is too small for one character must still come forward.
            if whole > 0 || last {
                bytes.truncate(whole);
            }
        }
        let next = start + bytes.len() as u64;
        Page {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            next,
            skipped: start - from,
            more: if ended {
                next < self.total
            } else {
                next + 3 < self.total
            },
        }
    }

    /// The whole stream in at most `max` bytes: its beginning and its end.
    pub(crate) fn view(&self, max: usize) -> View {
        if self.total <= max as u64 && self.lost() == 0 {
            let text = String::from_utf8_lossy(&self.piece(0, max)).into_owned();
            return View { text, cut: 0 };
        }
        let first = &self.head[..self.head.len().min(max / 2)];
        let first = &first[..budget::whole_chars(first)];
        // What is in memory after `first`, of which the end is shown.
        let rest = self.head[first.len()..].iter().chain(&self.tail).copied();
        let left = self.held() - first.len();
        let last: Vec<u8> = rest.skip(left.saturating_sub(max / 2)).collect();
        let begin = last
            .iter()
            .take(3)
            .take_while(|b| **b & 0b1100_0000 == 0b1000_0000)
            .count();
        let last = &last[begin..];
        let cut = self.total - (first.len() + last.len()) as u64;
        let text = format!(
            "{}\n[… {cut} bytes cut …]\n{}",
            String::from_utf8_lossy(first),
            String::from_utf8_lossy(last)
        );
        View { text, cut }
    }

    /// The last line that is not empty.
    pub(crate) fn last_line(&self) -> String {
        let newest = self
            .total
            .saturating_sub(budget::LINE as u64 * 4)
            .max(if self.lost() > 0 { self.tail_start() } else { 0 });
        let text = String::from_utf8_lossy(&self.piece(newest, usize::MAX)).into_owned();
        text.lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[u8], chunk: usize) -> Output {
        let mut output = Output::default();
        bytes.chunks(chunk).for_each(|c| output.push(c));
        output
    }

    fn all_pages(output: &Output, max: usize) -> (String, u64) {
        let (mut text, mut at, mut skipped) = (String::new(), 0, 0);
        loop {
            let page = output.page(at, max, true);
            assert_eq!(output.page(at, max, true), page, "the same cursor reads the same");
            text.push_str(&page.text);
            skipped += page.skipped;
            at = page.next;
            if !page.more {
                return (text, skipped);
            }
        }
    }

    #[test]
    fn short_output_is_whole() {
        let text = "zeile 1 äöü\n".repeat(100);
        for chunk in [1, 7, 4096] {
            let output = filled(text.as_bytes(), chunk);
            for max in [5, 64, 1 << 20] {
                assert_eq!(all_pages(&output, max), (text.clone(), 0), "chunk {chunk}, page {max}");
            }
            assert_eq!(
                output.view(1 << 20),
                View {
                    text: text.clone(),
                    cut: 0
                }
            );
            assert_eq!(output.last_line(), "zeile 1 äöü");
        }
    }

    #[test]
    fn memory_is_bounded_and_both_ends_stay() {
        let total = limits::JOB_STREAM * 3;
        let bytes: Vec<u8> = (0..total).map(|i| b'a' + u8::try_from(i * 31 % 26).unwrap()).collect();
        for chunk in [1000, 32 << 10, total] {
            let output = filled(&bytes, chunk);
            assert_eq!(output.held(), limits::JOB_STREAM);
            assert_eq!(output.total(), total as u64);
            let (text, skipped) = all_pages(&output, 10_000);
            assert_eq!(skipped, (total - limits::JOB_STREAM) as u64);
            assert_eq!(text.len(), limits::JOB_STREAM);
            assert_eq!(
                &text.as_bytes()[..limits::JOB_STREAM_HEAD],
                &bytes[..limits::JOB_STREAM_HEAD]
            );
            let tail = limits::JOB_STREAM - limits::JOB_STREAM_HEAD;
            assert_eq!(&text.as_bytes()[limits::JOB_STREAM_HEAD..], &bytes[total - tail..]);
            let view = output.view(1000);
            assert!(
                view.text.as_bytes().starts_with(&bytes[..500])
                    && view.text.as_bytes().ends_with(&bytes[total - 500..])
            );
            assert_eq!(view.cut, total as u64 - 1000);
        }
    }

    #[test]
    fn views_of_middle_sizes_join_both_parts() {
        let total = limits::JOB_STREAM_HEAD + 100;
        let bytes: Vec<u8> = (0..total).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect();
        let view = filled(&bytes, 999).view(1000);
        assert!(view.text.as_bytes().ends_with(&bytes[total - 500..]));
        assert_eq!(view.cut, total as u64 - 1000);
    }

    #[test]
    fn views_of_what_has_a_gap_show_both_sides_of_it() {
        for (before, gap, after) in [(500, 1 << 20, 3), (500, 500, 1000), (0, 10, 5), (3, 10, 0)] {
            let mut output = Output::default();
            output.push(&vec![b'a'; before]);
            output.skip(gap);
            output.push(&vec![b'z'; after]);
            let view = output.view(3000);
            let count = |c: char| view.text.chars().take_while(|k| *k == c).count();
            assert_eq!((count('a'), view.cut), (before, gap), "{before} {gap} {after}");
            assert!(view.text.ends_with(&"z".repeat(after)), "{before} {gap} {after}");
        }
    }

    #[test]
    fn a_character_is_never_torn() {
        let mut output = Output::default();
        output.push(&"€".as_bytes()[..2]);
        let page = output.page(0, 100, false);
        assert_eq!((page.text.as_str(), page.next, page.more), ("", 0, false));
        output.push(&"€".as_bytes()[2..]);
        assert_eq!(output.page(0, 100, false).text, "€");
        output.push(&[0xE2]);
        assert_eq!(output.page(3, 100, true).text, "\u{FFFD}");
        let view = filled("€".repeat(1000).as_bytes(), 10).view(100);
        assert!(!view.text.contains('\u{FFFD}'), "{}", view.text);
    }

    #[test]
    fn what_was_missed_is_a_gap() {
        let mut output = filled(b"abc", 3);
        output.skip(0);
        output.push(b"d");
        output.skip(10);
        output.push(b"xyz");
        assert_eq!((output.total(), output.lost(), output.held()), (17, 10, 7));
        assert_eq!(all_pages(&output, 100), ("abcdxyz".to_owned(), 10));
        output.skip(1);
        output.push(b"!");
        assert_eq!(all_pages(&output, 100), ("abcd!".to_owned(), 14));
        let mut late = Output::default();
        late.skip(5);
        late.push(b"end");
        assert_eq!(all_pages(&late, 2), ("end".to_owned(), 5));
    }

    #[test]
    fn a_cursor_past_the_end_reads_nothing() {
        let output = filled(b"abc", 3);
        assert_eq!(
            output.page(99, 10, true),
            Page {
                text: String::new(),
                next: 3,
                skipped: 0,
                more: false
            }
        );
    }
}
