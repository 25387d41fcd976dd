//! Collects matches with the lines around them, within the limits of an answer.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use grep_searcher::{Searcher, Sink, SinkContext, SinkFinish, SinkMatch};

use super::Match;
use crate::filesystem::limits;

/// What a search found so far.
#[derive(Debug)]
pub(super) struct Collector {
    matches: Vec<Match>,
    limit: usize,
    context: usize,
    bytes: usize,
    /// Something was left out.
    full: bool,
    path: String,
    /// The last lines of the current file that belong together, with their numbers.
    recent: VecDeque<(u64, String)>,
    /// Where the matches of the current file begin, and what all before them take.
    first_here: usize,
    bytes_before: usize,
}

impl Collector {
    pub(super) fn new(limit: usize, context: usize) -> Self {
        Self {
            matches: Vec::new(),
            limit,
            context,
            bytes: 0,
            full: false,
            path: String::new(),
            recent: VecDeque::new(),
            first_here: 0,
            bytes_before: 0,
        }
    }

    /// The following lines are of the file at `path`.
    pub(super) fn enter(&mut self, path: &Path) {
        self.path = path.to_string_lossy().into_owned();
        self.recent.clear();
        self.first_here = self.matches.len();
        self.bytes_before = self.bytes;
    }

    pub(super) fn full(&self) -> bool {
        self.full
    }

    /// Matches so far.
    pub(super) fn len(&self) -> usize {
        self.matches.len()
    }

    pub(super) fn into_matches(self) -> Vec<Match> {
        self.matches
    }

    /// Adds a match if there is room for it.
    pub(super) fn add(&mut self, found: Match) -> bool {
        let around = found.before.iter().chain(&found.after).map(String::len).sum::<usize>();
        let size = found.path.len() + found.text.len() + around;
        if self.matches.len() == self.limit || !self.room(size) {
            self.full = true;
            return false;
        }
        self.matches.push(found);
        true
    }

    fn room(&mut self, size: usize) -> bool {
        // What JSON adds to each of them.
        let size = size + 64;
        if self.bytes + size > limits::SEARCH_ANSWER {
            return false;
        }
        self.bytes += size;
        true
    }

    /// Gives a line to the matches above it that still want it, and keeps it for those below.
    fn line(&mut self, number: u64, text: &str) -> bool {
        if self.recent.back().is_some_and(|(last, _)| last + 1 != number) {
            self.recent.clear();
        }
        let here = self.matches.len().saturating_sub(self.context).max(self.first_here);
        for index in here..self.matches.len() {
            let above = &self.matches[index];
            // One match a line: the distance says whether this line is near enough.
            if number > above.line && number - above.line <= self.context as u64 {
                if !self.room(text.len()) {
                    self.full = true;
                    return false;
                }
                self.matches[index].after.push(text.to_owned());
            }
        }
        self.recent.push_back((number, text.to_owned()));
        if self.recent.len() > self.context {
            self.recent.pop_front();
        }
        true
    }
}

impl Sink for Collector {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        let number = found.line_number().unwrap_or_default();
        let text = cut(found.bytes());
        if self.recent.back().is_some_and(|(last, _)| last + 1 != number) {
            self.recent.clear();
        }
        let before: Vec<String> = self.recent.iter().map(|(_, text)| text.clone()).collect();
        if !self.line(number, &text) {
            return Ok(false);
        }
        let path = self.path.clone();
        Ok(self.add(Match {
            path,
            line: number,
            text,
            before,
            after: Vec::new(),
        }))
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, io::Error> {
        Ok(self.line(context.line_number().unwrap_or_default(), &cut(context.bytes())))
    }

    fn binary_data(&mut self, _: &Searcher, _: u64) -> Result<bool, io::Error> {
        Ok(false)
    }

    fn finish(&mut self, _: &Searcher, finish: &SinkFinish) -> Result<(), io::Error> {
        if finish.binary_byte_offset().is_some() {
            // What looked like text before the first zero byte is none.
            self.matches.truncate(self.first_here);
            self.bytes = self.bytes_before;
        }
        Ok(())
    }
}

/// A line without its end, and not longer than an answer's lines may be.
fn cut(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let short = &line[..line.len().min(limits::SEARCH_LINE)];
    let mut text = String::from_utf8_lossy(short).into_owned();
    if short.len() < line.len() {
        // A character that was cut in two.
        while text.ends_with(char::REPLACEMENT_CHARACTER) {
            text.pop();
        }
        text.push('…');
    }
    text
}
