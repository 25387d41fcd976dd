//! The terminal of a shell: what is on its screen, what it printed as text, and the answers to a program's questions.
//!
//! All of it is output of a sandbox: every part of it is bounded, and the answers, which a program reads as if they were
//! typed, are of fixed forms and hold numbers alone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use avt::parser::Function;
use sandhold_client::PtySize;
use unicode_width::UnicodeWidthChar;

use super::{
    seen::{Query, Seen},
    text::Unread,
};
use crate::{budget, limits};

/// Cells that output may fill at once by short sequences that stand for many of them. It is more than two of the largest
/// screens; what goes beyond it is left out of the picture.
const FILLED: usize = 1 << 16;

/// A terminal emulator.
pub(super) struct Emulator {
    screen: avt::Terminal,
    /// Reads for the screen. It is not inside of it, so that what costs too much can be left out.
    drawing: avt::Parser,
    parser: vte::Parser,
    seen: Seen,
    /// A character that has only begun.
    begun: Vec<u8>,
    size: PtySize,
    /// Answers given since then.
    answered: (Instant, usize),
}

/// What is on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Its rows, without the blanks at their ends and without empty rows at the bottom.
    pub(crate) text: String,
    /// Row and column of the cursor, the first is 1; `None` while it is hidden.
    pub(crate) cursor: Option<(usize, usize)>,
}

impl Emulator {
    pub(super) fn new(size: PtySize) -> Self {
        Self {
            screen: screen(size),
            drawing: avt::Parser::new(),
            parser: vte::Parser::new(),
            seen: Seen::new(columns(size)),
            begun: Vec::new(),
            size,
            answered: (Instant::now(), 0),
        }
    }

    /// Takes output. Returns what the terminal answers to it.
    pub(super) fn feed(&mut self, output: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(output);
        self.begun = bytes.split_off(budget::whole_chars(&bytes));
        let mut answers = Vec::new();
        let mut allowance = FILLED;
        let text = String::from_utf8_lossy(&bytes);
        let mut rest: &str = &text;
        while !rest.is_empty() {
            let end = self.parser.advance_until_terminated(&mut self.seen, rest.as_bytes());
            // A question ends with a plain letter, so this is between characters.
            let (done, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            self.draw(done, &mut allowance);
            if let Some(query) = self.seen.query.take() {
                self.answer(query, &mut answers);
            }
            rest = after;
        }
        answers
    }

    /// Puts text on the screen. What makes the emulator fail costs the picture, not the shell.
    fn draw(&mut self, text: &str, allowance: &mut usize) {
        // Characters without a width belong to the one before, which holds no more than itself.
        let visible = |c: &char| c.is_ascii() || c.width() != Some(0);
        let cells = columns(self.size) * rows(self.size);
        let (screen, drawing) = (&mut self.screen, &mut self.drawing);
        let drawn = catch_unwind(AssertUnwindSafe(|| {
            let functions = text.chars().filter(visible).filter_map(|c| drawing.feed(c));
            screen.execute(functions.filter_map(|f| affordable(f, cells, allowance)));
        }));
        if drawn.is_err() {
            tracing::warn!("the terminal emulator failed; its screen is empty now");
            self.screen = self::screen(self.size);
            self.drawing = avt::Parser::new();
        }
    }

    fn answer(&mut self, query: Query, answers: &mut Vec<u8>) {
        if self.answered.0.elapsed() > Duration::from_secs(1) {
            self.answered = (Instant::now(), 0);
        }
        if self.answered.1 >= limits::SHELL_ANSWERS {
            return;
        }
        self.answered.1 += 1;
        let cursor = self.screen.cursor();
        let (row, column) = (cursor.row + 1, (cursor.col + 1).min(columns(self.size)));
        let text = match query {
            Query::Status => "\x1b[0n".to_owned(),
            Query::Cursor(false) => format!("\x1b[{row};{column}R"),
            Query::Cursor(true) => format!("\x1b[?{row};{column}R"),
            // A VT102.
            Query::Device => "\x1b[?6c".to_owned(),
            Query::Version => "\x1b[>0;0;0c".to_owned(),
            Query::Mode(mode) => {
                // 1: set, 2: not set, 0: not known.
                let state = match mode {
                    1 if self.screen.cursor_key_app_mode() => 1,
                    25 if cursor.visible => 1,
                    1047 | 1049 if self.seen.alternate => 1,
                    1 | 25 | 1047 | 1049 => 2,
                    _ => 0,
                };
                format!("\x1b[?{mode};{state}$y")
            }
            Query::Size => format!("\x1b[8;{};{}t", self.size.rows, self.size.cols),
            Query::Colour(which) => {
                let colour = if which == 11 {
                    "0000/0000/0000"
                } else {
                    "ffff/ffff/ffff"
                };
                format!("\x1b]{which};rgb:{colour}\x1b\\")
            }
        };
        answers.extend_from_slice(text.as_bytes());
    }

    /// Changes its size.
    pub(super) fn resize(&mut self, size: PtySize) {
        self.size = size;
        self.seen.cols = columns(size);
        let screen = &mut self.screen;
        let (cols, rows) = (columns(size), rows(size));
        if catch_unwind(AssertUnwindSafe(|| screen.resize(cols, rows))).is_err() {
            self.screen = self::screen(size);
        }
    }

    /// The picture.
    pub(super) fn screen(&self) -> Screen {
        let mut lines: Vec<String> = self
            .screen
            .screen()
            .visible_lines()
            .map(|line| line.text().trim_end().to_owned())
            .collect();
        let cursor = self.screen.cursor();
        let cursor = cursor
            .visible
            .then_some((cursor.row + 1, (cursor.col + 1).min(columns(self.size))));
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Screen {
            text: lines.join("\n"),
            cursor,
        }
    }

    pub(super) fn size(&self) -> PtySize {
        self.size
    }

    /// What the program calls itself; empty when it does not.
    pub(super) fn title(&self) -> &str {
        &self.seen.title
    }

    /// Whether a full-screen program is on.
    pub(super) fn alternate(&self) -> bool {
        self.seen.alternate
    }

    /// Whether the arrow keys are to be sent as a program wants them.
    pub(super) fn application_keys(&self) -> bool {
        self.screen.cursor_key_app_mode()
    }

    pub(super) fn unread(&mut self) -> &mut Unread {
        &mut self.seen.unread
    }

    pub(super) fn unread_text(&self) -> &str {
        self.seen.unread.text()
    }
}

/// What is drawn of a function on a screen of so many cells. A few bytes can ask for 65535 characters, thousands of times in
/// a piece of output; no other function costs more than the screen has cells.
fn affordable(function: Function, cells: usize, allowance: &mut usize) -> Option<Function> {
    let wanted = match function {
        Function::Rep(count) => usize::from(count.max(1)).min(cells),
        // Prints every cell by itself.
        Function::Decaln => cells,
        other => return Some(other),
    };
    let granted = wanted.min(*allowance);
    match function {
        Function::Rep(_) if granted > 0 => {
            *allowance -= granted;
            u16::try_from(granted).ok().map(Function::Rep)
        }
        Function::Decaln if granted == wanted => {
            *allowance -= granted;
            Some(function)
        }
        _ => None,
    }
}

/// For the fuzzer: a terminal of so many columns and rows takes output piece by piece: its screen, its cursor, its title, its
/// text and its answers.
#[cfg(fuzzing)]
pub fn terminal<'a>(
    cols: u32,
    rows: u32,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (String, Option<(usize, usize)>, String, String, Vec<u8>) {
    let mut emulator = Emulator::new(PtySize { cols, rows });
    let answers = pieces.flat_map(|piece| emulator.feed(piece)).collect();
    let Screen { text, cursor } = emulator.screen();
    let (title, unread) = (emulator.title().to_owned(), emulator.unread_text().to_owned());
    (text, cursor, title, unread, answers)
}

fn columns(size: PtySize) -> usize {
    usize::try_from(size.cols).unwrap_or(1).max(1)
}

fn rows(size: PtySize) -> usize {
    usize::try_from(size.rows).unwrap_or(1).max(1)
}

fn screen(size: PtySize) -> avt::Terminal {
    match avt::Terminal::new(columns(size), rows(size)) {
        Ok(screen) => screen,
        Err(error) => unreachable!("neither is zero: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: PtySize = PtySize { cols: 20, rows: 4 };

    fn fed(parts: &[&[u8]]) -> (Emulator, String) {
        let mut emulator = Emulator::new(SIZE);
        let mut answers = Vec::new();
        parts.iter().for_each(|p| answers.extend(emulator.feed(p)));
        (emulator, String::from_utf8(answers).unwrap())
    }

    #[test]
    fn text_and_picture() {
        let (mut e, answers) = fed(&[
            b"\x1b]0;a;b\x07\x1b[1;32muser@x\x1b[0m:~$ ls\r\n",
            "größe 字\r\n".as_bytes(),
        ]);
        assert_eq!(e.unread().take(99).text, "user@x:~$ ls\ngröße 字\n");
        let screen = Screen {
            text: "user@x:~$ ls\ngröße 字".into(),
            cursor: Some((3, 1)),
        };
        assert_eq!((e.screen(), e.title(), answers.as_str()), (screen, "a;b", ""));
        e.feed(b"\x1b[?1049h\x1b[2;3Hin a program\x1b[?25l");
        assert!(e.alternate() && e.unread_text().is_empty());
        assert_eq!(
            e.screen(),
            Screen {
                text: "\n  in a program".into(),
                cursor: None
            }
        );
        e.feed(b"\x1b[?1049l\x1b[?25hback");
        assert_eq!((e.alternate(), e.unread_text()), (false, "back"));
        assert_eq!(e.screen().text, "user@x:~$ ls\ngröße 字\nback");
    }

    #[test]
    fn pieces_cut_anywhere_are_the_same() {
        let output = "\x1b[31mé字\x1b[0m\x1b[6n\x1b]2;ti→tle\x1b\\x\x1b[c".as_bytes();
        let (whole, answers) = fed(&[output]);
        assert_eq!(answers, "\x1b[1;4R\x1b[?6c");
        let pieces: Vec<&[u8]> = output.chunks(1).collect();
        let (cut, same) = fed(&pieces);
        assert_eq!(
            (cut.screen(), cut.title(), cut.unread_text()),
            (whole.screen(), "ti→tle", "é字x")
        );
        assert_eq!(answers, same);
    }

    #[test]
    fn questions_are_answered_where_they_stand() {
        let (_, answers) =
            fed(&[b"ab\x1b[6n\r\n\x1b[?6n\x1b[5n\x1b[>c\x1b[18t\x1b[?25$p\x1b[?2004$p\x1b[?1049$p\x1b]11;?\x07"]);
        let expected = "\x1b[1;3R\x1b[?2;1R\x1b[0n\x1b[>0;0;0c\x1b[8;4;20t\x1b[?25;1$y\x1b[?2004;0$y\x1b[?1049;2$y\x1b]11;rgb:0000/0000/0000\x1b\\";
        assert_eq!(answers, expected);
    }

    #[test]
    fn no_output_can_make_it_type_text() {
        let hostile: &[u8] = b"\x1b[21t\x1b]0;echo evil\x07\x1b[20t\x1bP$qm\x1b\\\x1bP+q544e\x1b\\\x05\x1b[>q\x1b]4;1;?\x07\x1b]52;c;?\x07\x1bZ";
        assert_eq!(fed(&[hostile]).1, "");
        let (_, answers) = fed(&[&b"\x1b[6n".repeat(10_000)]);
        assert!(answers.len() <= limits::SHELL_ANSWERS * 16, "{} bytes", answers.len());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut e, _) = fed(&[
            b"\x1b]2;",
            &b"x".repeat(1 << 20),
            b"\x07",
            b"\x1bP",
            &b"y".repeat(1 << 20),
            b"\x1b\\z",
        ]);
        assert!(e.title().len() <= limits::SHELL_TITLE + '…'.len_utf8());
        assert_eq!(e.screen().text, "z");
        // One cell does not collect what has no width.
        e.feed("a".as_bytes());
        for _ in 0..100 {
            e.feed("\u{301}".repeat(1000).as_bytes());
        }
        assert_eq!(e.screen().text, "za");
        e.feed(b"\x1b[65535C\x1b[65535b\x1b[65535;65535H\x1b[65535S\x1b[65535@");
        assert!(e.screen().text.len() <= 20 * 4 + 3);
    }

    /// How many cells output fills by few bytes on a screen of so many: in truth, and as they are counted.
    fn filled(output: &str, cells: usize) -> (usize, usize) {
        let (mut parser, mut allowance, mut prints) = (avt::Parser::new(), FILLED, 0);
        for c in output.chars() {
            match parser.feed(c).and_then(|f| affordable(f, cells, &mut allowance)) {
                Some(Function::Rep(count)) => prints += usize::from(count.max(1)),
                Some(Function::Decaln) => prints += cells,
                _ => {}
            }
        }
        (prints, FILLED - allowance)
    }

    #[test]
    fn a_few_bytes_do_not_fill_the_screen_without_end() {
        // The second begins a sequence with one character, which other parsers do not take for that.
        for hostile in ["x\x1b[65535b", "x\u{9b}65535b", "\x1b#8", "x\x1b[b"] {
            let (prints, counted) = filled(&hostile.repeat(2000), 30_000);
            assert_eq!(prints, counted, "{hostile:?}");
            assert!((2000..=FILLED).contains(&prints), "{hostile:?}: {prints}");
        }
        assert_eq!(filled("x\x1b[65535b", 80).0, 80);
        assert_eq!(filled("=\x1b[79b\r\n", 2400).0, 79);
        // What is beyond it is not drawn.
        let (e, _) = fed(&[("x\x1b[65535b".repeat(2000) + "\x1b[2J\x1b#8").as_bytes()]);
        assert_eq!(e.screen().text, "");
        // The next output may fill it again.
        let (mut e, _) = fed(&["x\x1b[65535b".repeat(2000).as_bytes(), b"\x1b[2J\x1b[Ha\x1b[3b"]);
        assert_eq!(e.screen().text, "aaaa");
        e.feed(b"\x1b#8");
        assert_eq!(e.screen().text, [["E"; 20].concat().as_str(); 4].join("\n"));
    }

    #[test]
    fn repeated_characters_are_text_too() {
        let (e, _) = fed(&["=\x1b[9b\r\n字\x1b[2b\x1b[1mb\x1b[b\r\n\x1b[5bend".as_bytes()]);
        let text = "==========\n字字字bb\nend";
        assert_eq!((e.unread_text(), e.screen().text.as_str()), (text, text));
        let (e, _) = fed(&[b"x\x1b[65535b"]);
        assert_eq!(e.unread_text().len(), 1 + 20);
        let (e, _) = fed(&[b"x\x1b[?1049h\x1b[1;5Hy\x1b[5b\x1b[?1049l"]);
        assert_eq!(e.unread_text(), "x");
    }

    #[test]
    fn lines_that_an_editor_breaks_stay_whole() {
        // As readline prints a line of 25 characters on 20 columns.
        let (e, _) = fed(&[b"$ 345678901234567890 \r12345\r\nnext"]);
        assert_eq!(e.unread_text(), "$ 34567890123456789012345\nnext");
        let (e, _) = fed(&[b"10%\r20%\r\n"]);
        assert_eq!(e.unread_text(), "20%\n");
    }

    #[test]
    fn line_drawing_and_resizing() {
        let (mut e, _) = fed(&[b"\x1b(0lqk\x1b(B\x1b[?1h"]);
        assert!(e.screen().text.starts_with("┌─┐") && e.application_keys());
        e.resize(PtySize { cols: 2, rows: 1 });
        e.feed("字字\r\n".as_bytes());
        e.resize(PtySize { cols: 300, rows: 100 });
        e.feed(b"\x1b[100;300Hx");
        assert_eq!(e.screen().cursor, Some((100, 300)));
        assert_eq!(e.size(), PtySize { cols: 300, rows: 100 });
    }

    #[test]
    fn any_bytes_at_all_do_no_harm() {
        let mut state = 1_u64;
        let mut e = Emulator::new(SIZE);
        for round in 0..2000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let byte = state.to_be_bytes()[0];
                    // More of what begins and ends sequences.
                    match byte % 8 {
                        0 => 0x1b,
                        1 => b'[',
                        2 => b"HJKLMPSTXbhlr@"[usize::from(byte) % 14],
                        3 => b"0123456789;?"[usize::from(byte) % 12],
                        _ => byte,
                    }
                })
                .collect();
            e.feed(&bytes);
            if round % 100 == 0 {
                let side = 1 + u32::from(bytes[0] % 40);
                e.resize(PtySize {
                    cols: side,
                    rows: 1 + side / 3,
                });
            }
            assert!(e.screen().text.chars().count() < 41 * 15);
        }
    }
}
