//! What a shell printed, as text that a reader has not had yet, in bounded memory.

use crate::{budget, limits};

/// Text that was not read.
#[derive(Default)]
pub(super) struct Unread {
    text: String,
    /// Where the line begins that is being printed.
    line: usize,
    /// Where the picture begins that is being drawn, if one is.
    picture: Option<usize>,
    /// The next character is printed over that line.
    over: bool,
    /// Bytes that nobody read and that are gone.
    dropped: u64,
}

/// A part of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: String,
    /// Bytes before it that are gone.
    pub(crate) dropped: u64,
    /// Whether there is more already.
    pub(crate) more: bool,
}

impl Unread {
    /// Adds a character.
    pub(super) fn push(&mut self, c: char) {
        if std::mem::take(&mut self.over) {
            self.text.truncate(self.line);
        }
        self.text.push(c);
        if self.text.len() > limits::SHELL_UNREAD + limits::SHELL_UNREAD / 4 {
            self.shorten();
        }
    }

    /// Begins a new line.
    pub(super) fn newline(&mut self) {
        self.over = false;
        self.push('\n');
        self.line = self.text.len();
    }

    /// Begins a new line unless the last one is empty: the cursor went elsewhere.
    pub(super) fn elsewhere(&mut self) {
        if self.text.len() > self.line && !self.over {
            self.newline();
        }
    }

    /// Begins at the top of the screen: a picture, in the place of the one before.
    pub(super) fn home(&mut self) {
        self.elsewhere();
        if let Some(at) = self.picture {
            self.text.truncate(at);
        }
        self.over = false;
        self.line = self.text.len();
        self.picture = Some(self.line);
    }

    /// Goes back to the begin of the line: what is printed next stands in its place.
    pub(super) fn carriage_return(&mut self) {
        self.over = true;
    }

    /// Goes back by a character.
    pub(super) fn back(&mut self) {
        if self.text.len() > self.line && !self.over {
            self.text.pop();
        }
    }

    /// What there is.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the line that is being printed ends with this.
    pub(super) fn line_ends_with(&self, c: char) -> bool {
        self.text[self.line..].ends_with(c)
    }

    /// Takes at most `max` bytes.
    pub(super) fn take(&mut self, max: usize) -> Part {
        let cut = budget::prefix(&self.text, max).len();
        let rest = self.text.split_off(cut);
        let text = std::mem::replace(&mut self.text, rest);
        self.moved(cut);
        Part {
            text,
            dropped: std::mem::take(&mut self.dropped),
            more: !self.text.is_empty(),
        }
    }

    /// Forgets the oldest part, whole lines where there are any.
    fn shorten(&mut self) {
        let mut cut = self.text.len() - limits::SHELL_UNREAD;
        while !self.text.is_char_boundary(cut) {
            cut += 1;
        }
        if let Some(end) = self.text[cut..].find('\n').filter(|end| *end < budget::LINE * 4) {
            cut += end + 1;
        }
        self.text.drain(..cut);
        self.moved(cut);
        self.dropped += cut as u64;
    }

    /// As many bytes are gone at the beginning.
    fn moved(&mut self, cut: usize) {
        self.line = self.line.saturating_sub(cut);
        self.picture = self.picture.map(|at| at.saturating_sub(cut));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(parts: &[&str]) -> Unread {
        let mut unread = Unread::default();
        for c in parts.iter().flat_map(|p| p.chars()) {
            match c {
                '\n' => unread.newline(),
                '\r' => unread.carriage_return(),
                '\x08' => unread.back(),
                c => unread.push(c),
            }
        }
        unread
    }

    #[test]
    fn lines_are_printed_over() {
        assert_eq!(printed(&["10%\r20%\r\nx\r", "\r\ny"]).text(), "20%\nx\ny");
        assert_eq!(printed(&["ab\x08\x08\x08c\nd\x08\x08"]).text(), "c\n");
        let mut unread = printed(&["10%\r20"]);
        assert_eq!(unread.take(99).text, "20");
        "\r30%".chars().for_each(|c| {
            if c == '\r' {
                unread.carriage_return()
            } else {
                unread.push(c)
            }
        });
        assert_eq!(
            unread.take(99),
            Part {
                text: "30%".into(),
                ..Part::default()
            },
            "what was read stays read"
        );
    }

    #[test]
    fn of_a_picture_that_is_drawn_again_and_again_one_is_kept() {
        let mut unread = printed(&["$ top\n"]);
        for frame in ["a1\nb1", "a2\nb2", "a3"] {
            unread.home();
            frame
                .chars()
                .for_each(|c| if c == '\n' { unread.newline() } else { unread.push(c) });
        }
        assert_eq!(unread.text(), "$ top\na3");
        assert_eq!(unread.take(8).text, "$ top\na3");
        unread.home();
        assert_eq!(unread.text(), "");
    }

    #[test]
    fn parts_end_between_characters() {
        let mut unread = printed(&["aäb"]);
        assert_eq!(
            unread.take(2),
            Part {
                text: "a".into(),
                dropped: 0,
                more: true
            }
        );
        assert_eq!(
            unread.take(9),
            Part {
                text: "äb".into(),
                dropped: 0,
                more: false
            }
        );
    }

    #[test]
    fn memory_is_bounded_and_the_loss_is_told() {
        let mut unread = Unread::default();
        let line = "ü".repeat(40);
        let lines = limits::SHELL_UNREAD / 40;
        for _ in 0..lines {
            line.chars().for_each(|c| unread.push(c));
            unread.newline();
        }
        let total = lines * (line.len() + 1);
        assert!(unread.text().len() <= limits::SHELL_UNREAD * 5 / 4);
        let part = unread.take(usize::MAX);
        assert!(part.text.starts_with('ü') && part.dropped > 0);
        assert_eq!(part.text.len() as u64 + part.dropped, total as u64);
        assert_eq!(unread.take(9), Part::default());
    }
}
