//! One pass over a terminal's output that finds what is not in the picture: its text, its title, a program's questions.

use unicode_width::UnicodeWidthChar;

use super::text::Unread;
use crate::{budget, limits};

/// What a program wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    /// DSR 5: is it well?
    Status,
    /// DSR 6: where is the cursor? True: asked with a question mark.
    Cursor(bool),
    /// DA1: what is it?
    Device,
    /// DA2: which version is it?
    Version,
    /// DECRQM: is this mode set?
    Mode(u16),
    /// How many rows and columns has it?
    Size,
    /// OSC 10 to 12: which colour is the text, the background, the cursor?
    Colour(u8),
}

/// What one pass over the output finds besides the picture.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) unread: Unread,
    pub(super) title: String,
    /// A full-screen program is on: what it prints is a picture and no text.
    pub(super) alternate: bool,
    /// Characters since the line began, to know where the terminal breaks it.
    column: usize,
    pub(super) cols: usize,
    /// The character that was printed last.
    last: Option<char>,
    pub(super) query: Option<Query>,
}

impl Seen {
    /// Of a terminal of so many columns.
    pub(super) fn new(cols: usize) -> Self {
        Self {
            cols,
            ..Self::default()
        }
    }

    fn set_mode(&mut self, params: &vte::Params, on: bool) {
        if params.iter().any(|p| matches!(p.first(), Some(1047 | 1049))) {
            self.alternate = on;
            self.column = 0;
        }
    }

    /// The cursor went to another line.
    fn elsewhere(&mut self) {
        self.column = 0;
        if !self.alternate {
            self.unread.elsewhere();
        }
    }
}

impl vte::Perform for Seen {
    fn print(&mut self, c: char) {
        if self.alternate || c.is_control() {
            return;
        }
        let width = c.width().unwrap_or(0);
        if width > 0 {
            self.last = Some(c);
        }
        self.column += width;
        self.unread.push(c);
    }

    fn execute(&mut self, byte: u8) {
        if self.alternate {
            return;
        }
        match byte {
            b'\n' => {
                self.column = 0;
                self.unread.newline();
            }
            b'\r' => {
                // An editor of lines breaks them by a blank at the margin, to go on in the next row.
                if self.column > self.cols && self.column % self.cols == 1 && self.unread.line_ends_with(' ') {
                    self.column -= 1;
                    self.unread.back();
                } else {
                    self.column = 0;
                    self.unread.carriage_return();
                }
            }
            b'\t' => {
                self.column = (self.column / 8 + 1) * 8;
                self.unread.push('\t');
            }
            b'\x08' => {
                self.column = self.column.saturating_sub(1);
                self.unread.back();
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &vte::Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        let first = params.iter().next().and_then(|p| p.first().copied()).unwrap_or(0);
        match (intermediates, action) {
            ([], 'n') if first == 5 => self.query = Some(Query::Status),
            ([], 'n') if first == 6 => self.query = Some(Query::Cursor(false)),
            ([b'?'], 'n') if first == 6 => self.query = Some(Query::Cursor(true)),
            ([], 'c') if first == 0 => self.query = Some(Query::Device),
            ([b'>'], 'c') if first == 0 => self.query = Some(Query::Version),
            ([b'?', b'$'], 'p') => self.query = Some(Query::Mode(first)),
            ([], 't') if first == 18 => self.query = Some(Query::Size),
            ([b'?'], 'h') => self.set_mode(params, true),
            ([b'?'], 'l') => self.set_mode(params, false),
            // Over to the right is how blanks are left out.
            ([], 'C') if !self.alternate => {
                for _ in 0..usize::from(first.max(1)).min(self.cols) {
                    self.column += 1;
                    self.unread.push(' ');
                }
            }
            // The last character again. At the begin of a line the picture has none to repeat either.
            ([], 'b') if !self.alternate && self.column > 0 => {
                for c in std::iter::repeat_n(self.last, usize::from(first.max(1)).min(self.cols)).flatten() {
                    self.print(c);
                }
            }
            ([], 'H' | 'f') if !self.alternate && params.iter().all(|p| matches!(p, [0 | 1])) => {
                self.column = 0;
                self.unread.home();
            }
            ([], 'A' | 'B' | 'E' | 'F' | 'H' | 'd' | 'f') => self.elsewhere(),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _ignore: bool, byte: u8) {
        match (intermediates, byte) {
            ([], b'c') => {
                self.alternate = false;
                self.elsewhere();
            }
            ([], b'D' | b'E' | b'M') => self.elsewhere(),
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        match params {
            [b"0" | b"2", title @ ..] => {
                let title = title.join(&b';');
                let title = String::from_utf8_lossy(&title);
                let title: String = title.chars().filter(|c| !c.is_control()).collect();
                self.title = budget::line(title.trim(), limits::SHELL_TITLE);
            }
            [which @ (b"10" | b"11" | b"12"), b"?"] => {
                let which = std::str::from_utf8(which).ok().and_then(|w| w.parse().ok());
                self.query = which.map(Query::Colour);
            }
            _ => {}
        }
    }

    fn terminated(&self) -> bool {
        self.query.is_some()
    }
}
