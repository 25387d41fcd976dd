//! A Dockerfile's text as instructions: comments, continued lines and heredocs, as BuildKit reads them.

use super::{DockerfileError, cut, expand, words};
use crate::limits;

/// The instructions that there are.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

#[derive(Debug, Clone)]
pub(super) struct Instruction {
    /// In capitals.
    pub(super) name: &'static str,
    /// `--name=value`, without quotes.
    pub(super) flags: Vec<String>,
    /// What follows, its lines joined.
    pub(super) rest: String,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) line: usize,
    pub(super) text: String,
}

/// A text that stands in the lines after an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heredoc {
    pub(super) name: String,
    /// With the newline of each line.
    pub(super) content: String,
    /// `<<-`: the tabs before its lines do not count.
    pub(super) chomp: bool,
    /// Whether variables are replaced in it.
    pub(super) expand: bool,
}

impl Instruction {
    pub(super) fn error(&self, why: impl Into<String>) -> DockerfileError {
        DockerfileError {
            line: self.line,
            text: self.text.clone(),
            why: why.into(),
        }
    }
}

impl Heredoc {
    /// Reads its begin: `<<EOF`, `<<-"EOF"`, `3<<EOF`.
    pub(super) fn begin(word: &str) -> Option<Self> {
        let rest = word
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        let none = |_: &str| expand::Value::Keep;
        let name = expand::word(rest, '\\', &none).ok()?;
        if name.is_empty() {
            return None;
        }
        Some(Self {
            name,
            content: String::new(),
            chomp,
            expand: !rest.contains(['\'', '"']),
        })
    }

    /// What it holds, without the tabs that do not count.
    pub(super) fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// The instructions, and the character that escapes.
pub(super) fn read(text: &str) -> Result<(Vec<Instruction>, char), DockerfileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directives(text)?;
    let mut lines = text.split_inclusive('\n').enumerate();
    let mut instructions = Vec::new();
    while let Some((index, raw)) = lines.next() {
        let first = trimmed(raw).trim_start();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let (mut line, mut goes_on) = continued(first, escape);
        let mut line_text = line.to_owned();
        while goes_on {
            let Some((_, raw)) = lines.next() else { break };
            let next = trimmed(raw);
            // Comments and empty lines within are not there.
            if next.trim_start().is_empty() || next.trim_start().starts_with('#') {
                continue;
            }
            (line, goes_on) = continued(next, escape);
            line_text.push_str(line);
        }
        let mut one = instruction(&line_text, escape, index + 1)?;
        if instructions.len() >= limits::INSTRUCTIONS {
            return Err(one.error(format!("there are more than {} instructions", limits::INSTRUCTIONS)));
        }
        if matches!(one.name, "RUN" | "COPY" | "ADD") && words::json(&one.rest).is_none() {
            for mut heredoc in heredocs(&one.rest) {
                loop {
                    let Some((_, raw)) = lines.next() else {
                        return Err(one.error(format!("the text after << is not ended by a line {:?}", heredoc.name)));
                    };
                    let end = trimmed(raw);
                    let end = if heredoc.chomp {
                        end.trim_start_matches('\t')
                    } else {
                        end
                    };
                    if end == heredoc.name {
                        break;
                    }
                    heredoc.content.push_str(raw);
                }
                one.heredocs.push(heredoc);
            }
        }
        instructions.push(one);
    }
    Ok((instructions, escape))
}

fn trimmed(raw: &str) -> &str {
    raw.trim_end_matches(['\r', '\n'])
}

/// The character that `# escape=` says. Such lines stand before anything else.
fn directives(text: &str) -> Result<char, DockerfileError> {
    let mut escape = None;
    let mut seen = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let Some((name, value)) = raw.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(name.as_str(), "syntax" | "escape" | "check") || value.is_empty() {
            break;
        }
        let bad = |why: &str| DockerfileError {
            line: index + 1,
            text: cut(raw),
            why: why.to_owned(),
        };
        if seen.contains(&name) {
            return Err(bad("it may stand there once only"));
        }
        if name == "escape" {
            escape = match value {
                "\\" => Some('\\'),
                "`" => Some('`'),
                _ => return Err(bad("escape is \\ or `")),
            };
        }
        seen.push(name);
    }
    Ok(escape.unwrap_or('\\'))
}

/// A line without the sign that it goes on, and whether it does.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let end = line.trim_end_matches([' ', '\t']);
    match end.strip_suffix(escape) {
        // Two of them are one that is meant.
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

fn instruction(line: &str, escape: char, number: usize) -> Result<Instruction, DockerfileError> {
    let line = line.trim();
    let (word, rest) = line
        .split_once(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
        .unwrap_or((line, ""));
    let Some(name) = NAMES.iter().find(|name| name.eq_ignore_ascii_case(word)) else {
        return Err(DockerfileError {
            line: number,
            text: cut(line),
            why: format!("there is no instruction {:?}", cut(word)),
        });
    };
    let (flags, rest) = match *name {
        // The command of a health check has its flags, too; nobody reads them here.
        "ADD" | "COPY" | "FROM" | "RUN" => words::flags(rest, escape),
        _ => (Vec::new(), rest),
    };
    Ok(Instruction {
        name,
        flags,
        rest: rest.trim().to_owned(),
        heredocs: Vec::new(),
        line: number,
        text: cut(line),
    })
}

/// The begins of heredocs in a line of a shell.
fn heredocs(rest: &str) -> Vec<Heredoc> {
    if !rest.contains("<<") {
        return Vec::new();
    }
    let mut parts = words::words(rest, '\\').into_iter().peekable();
    let mut found = Vec::new();
    while let Some(mut part) = parts.next() {
        // A blank may stand between << and the name.
        let marks = part.trim_start_matches(|c: char| c.is_ascii_digit());
        if matches!(marks, "<<" | "<<-")
            && let Some(next) = parts.next()
        {
            part.push_str(&next);
        }
        found.extend(Heredoc::begin(&part));
    }
    found
}
