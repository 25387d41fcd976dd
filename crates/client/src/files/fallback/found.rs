//! What `grep` and `find` printed, turned into matches.

use std::collections::HashSet;

use globset::{GlobBuilder, GlobMatcher};
use regex::RegexBuilder;

use crate::{Error, SearchMatch, SearchQuery, SearchResult, limits};

/// Which files count.
pub(super) struct Filter {
    glob: Option<GlobMatcher>,
    /// The glob is for whole paths, not for the last part.
    whole: bool,
    hidden: bool,
}

impl Filter {
    pub(super) fn new(query: &SearchQuery) -> Result<Self, Error> {
        let glob = query.glob.as_deref().filter(|glob| !glob.is_empty());
        let matcher = glob.map(|glob| {
            GlobBuilder::new(glob.trim_start_matches('/'))
                .literal_separator(true)
                .build()
        });
        let matcher = matcher
            .transpose()
            .map_err(|error| Error::InvalidArgument(format!("glob: {error}")))?;
        Ok(Self {
            glob: matcher.map(|glob| glob.compile_matcher()),
            whole: glob.is_some_and(|glob| glob.contains('/')),
            hidden: !query.respect_ignore,
        })
    }

    /// `path` is relative to the folder searched, or the file searched.
    fn admits(&self, path: &str) -> bool {
        if !self.hidden && !path.starts_with('/') && path.split('/').any(|part| part.starts_with('.')) {
            return false;
        }
        let candidate = if self.whole {
            path
        } else {
            path.rsplit('/').next().unwrap_or(path)
        };
        self.glob.as_ref().is_none_or(|glob| glob.is_match(candidate))
    }
}

/// One line that `grep` printed.
struct Line {
    number: u64,
    matches: bool,
    text: String,
}

pub(super) fn content(base: &str, mut rest: &[u8], cut: bool, query: &SearchQuery, filter: &Filter) -> SearchResult {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut result = SearchResult {
        matches: Vec::new(),
        truncated: false,
        files_searched: 0,
    };
    let mut file: Option<(&[u8], Vec<Line>)> = None;
    while let Some((name, after)) = split(rest, 0) {
        let Some((line, after)) = read_line(after, cut) else {
            break;
        };
        rest = after;
        match &mut file {
            Some((open, lines)) if *open == name => lines.push(line),
            _ => {
                if let Some((name, lines)) = file.replace((name, vec![line])) {
                    collect(base, name, &lines, query, filter, &mut result.matches);
                    if result.matches.len() > limit {
                        file = None;
                        break;
                    }
                }
            }
        }
    }
    if let Some((name, lines)) = file {
        collect(base, name, &lines, query, filter, &mut result.matches);
    }
    result.truncated = result.matches.len() > limit;
    result.matches.truncate(limit);
    result
}

/// Reads `12:text` or `12-text` up to the end of the line; `None` when it is not whole.
fn read_line(bytes: &[u8], cut: bool) -> Option<(Line, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    let matches = match bytes.get(digits)? {
        b':' => true,
        b'-' => false,
        _ => return None,
    };
    let text = &bytes[digits + 1..];
    let (text, rest) = match split(text, b'\n') {
        Some(parts) => parts,
        None if cut => return None,
        None => (text, &text[text.len()..]),
    };
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Some((
        Line {
            number,
            matches,
            text: String::from_utf8_lossy(text).into_owned(),
        },
        rest,
    ))
}

/// Turns the lines of one file into matches with what stands around them.
fn collect(
    base: &str,
    name: &[u8],
    lines: &[Line],
    query: &SearchQuery,
    filter: &Filter,
    matches: &mut Vec<SearchMatch>,
) {
    let name = String::from_utf8_lossy(name);
    let relative = name.strip_prefix("./").unwrap_or(&name);
    if !filter.admits(relative) {
        return;
    }
    let context = usize::try_from(query.context_lines).unwrap_or(usize::MAX);
    let path = absolute(base, relative);
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.matches) {
        let near = |other: &Line| other.number.abs_diff(line.number) <= u64::from(query.context_lines);
        let before = lines[at.saturating_sub(context)..at].iter().filter(|other| near(other));
        let after = lines[at + 1..].iter().take(context).filter(|other| near(other));
        matches.push(SearchMatch {
            path: path.clone(),
            line: line.number,
            text: line.text.clone(),
            before: before.map(|line| line.text.clone()).collect(),
            after: after.map(|line| line.text.clone()).collect(),
        });
    }
}

pub(super) fn names(base: &str, mut rest: &[u8], query: &SearchQuery, filter: &Filter) -> Result<SearchResult, Error> {
    let pattern = RegexBuilder::new(&query.pattern)
        .case_insensitive(!query.case_sensitive)
        .build()
        .map_err(|error| Error::InvalidArgument(format!("pattern: {error}")))?;
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut result = SearchResult {
        matches: Vec::new(),
        truncated: false,
        files_searched: 0,
    };
    // A pattern with a slash is for the whole path below the folder, as with Sandhold's own search.
    let whole = query.pattern.contains('/');
    let mut seen = HashSet::new();
    'names: while let Some((name, after)) = split(rest, 0) {
        rest = after;
        // Each part of a path is looked at by itself, so one without an end would take time without an end.
        if name.len() > limits::SEARCH_PATH {
            continue;
        }
        let name = String::from_utf8_lossy(name);
        let relative = name.strip_prefix("./").unwrap_or(&name);
        // git tells files only; the folders above them are names too.
        let folders = relative
            .match_indices('/')
            .map(|(at, _)| at)
            .filter(|_| !relative.starts_with('/'));
        for end in folders.chain([relative.len()]) {
            let path = &relative[..end];
            let subject = if whole {
                path
            } else {
                path.rsplit('/').next().unwrap_or(path)
            };
            if !filter.admits(path) || !pattern.is_match(subject) || !seen.insert(path.to_owned()) {
                continue;
            }
            if result.matches.len() == limit {
                result.truncated = true;
                break 'names;
            }
            let (before, after) = (Vec::new(), Vec::new());
            result.matches.push(SearchMatch {
                path: absolute(base, path),
                line: 0,
                text: String::new(),
                before,
                after,
            });
        }
    }
    Ok(result)
}

fn absolute(base: &str, name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("{}/{name}", base.trim_end_matches('/'))
    }
}

/// What is before and after the first `at`.
pub(super) fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SearchMode;

    fn query(mode: SearchMode, pattern: &str) -> SearchQuery {
        SearchQuery {
            pattern: pattern.into(),
            path: "p".into(),
            glob: None,
            mode,
            case_sensitive: true,
            context_lines: 0,
            limit: 10,
            respect_ignore: true,
            user: None,
        }
    }

    fn lines(printed: &[u8], cut: bool, query: &SearchQuery) -> SearchResult {
        content("/base", printed, cut, query, &Filter::new(query).unwrap())
    }

    #[test]
    fn names_with_newlines_and_colons() {
        let found = lines(
            b"./a:1-b\nc\x005:text: 7-x\nd\x001:y\n",
            false,
            &query(SearchMode::Content, "."),
        );
        let told: Vec<_> = found
            .matches
            .iter()
            .map(|m| (m.path.as_str(), m.line, m.text.as_str()))
            .collect();
        assert_eq!(told, [("/base/a:1-b\nc", 5, "text: 7-x"), ("/base/d", 1, "y")]);
        assert!(!found.truncated);
    }

    #[test]
    fn context_stays_beside_its_match() {
        let query = SearchQuery {
            context_lines: 1,
            ..query(SearchMode::Content, "m")
        };
        let found = lines(b"f\x001-a\nf\x002:m\nf\x003-b\nf\x008-c\nf\x009:m\n", false, &query);
        assert_eq!(
            (&found.matches[0].before[..], &found.matches[0].after[..]),
            (&["a".into()][..], &["b".into()][..])
        );
        assert_eq!(
            (&found.matches[1].before[..], found.matches[1].after.len()),
            (&["c".into()][..], 0)
        );
    }

    #[test]
    fn a_line_that_was_cut_off_is_no_match() {
        let query = query(SearchMode::Content, "m");
        assert_eq!(lines(b"f\x001:m\nf\x002:half", true, &query).matches.len(), 1);
        assert_eq!(lines(b"f\x001:m\nf\x002:whole", false, &query).matches.len(), 2);
    }

    #[test]
    fn limits() {
        let query = SearchQuery {
            limit: 2,
            ..query(SearchMode::Content, "m")
        };
        let found = lines(b"f\x001:m\nf\x002:m\nf\x003:m\n", false, &query);
        assert!(found.truncated && found.matches.len() == 2);
        let two = lines(b"f\x001:m\nf\x002:m\n", false, &query);
        assert!(!two.truncated && two.matches.len() == 2);
    }

    #[test]
    fn globs_and_hidden_files() {
        let admits = |glob: Option<&str>, respect_ignore, path: &str| {
            let query = SearchQuery {
                glob: glob.map(Into::into),
                respect_ignore,
                ..query(SearchMode::Name, "")
            };
            Filter::new(&query).unwrap().admits(path)
        };
        assert!(admits(Some("*.rs"), true, "a/b.rs") && !admits(Some("*.rs"), true, "a/b.py"));
        assert!(
            admits(Some("src/**/*.{rs,toml}"), true, "src/x/y.toml") && !admits(Some("src/*.rs"), true, "src/x/y.rs")
        );
        assert!(!admits(None, true, ".git/config") && admits(None, false, ".git/config"));
        assert!(
            Filter::new(&SearchQuery {
                glob: Some("[".into()),
                ..query(SearchMode::Name, "")
            })
            .is_err()
        );
    }

    #[test]
    fn names_of_files_and_folders() {
        let query = query(SearchMode::Name, "^s");
        let found = names(
            "/base",
            b"src/sub/main.rs\0src/x.rs\0.s\0",
            &query,
            &Filter::new(&query).unwrap(),
        )
        .unwrap();
        let paths: Vec<_> = found.matches.iter().map(|m| m.path.as_str()).collect();
        assert_eq!(paths, ["/base/src", "/base/src/sub"]);
        // Longer than any path that the kernel takes.
        let endless = ["s/".repeat(limits::SEARCH_PATH).as_bytes(), b"\0s\0"].concat();
        let found = names("/base", &endless, &query, &Filter::new(&query).unwrap()).unwrap();
        assert_eq!(found.matches.len(), 1, "{:?}", found.matches);
        let whole = SearchQuery {
            pattern: "^src/.*\\.rs$".into(),
            ..query
        };
        let found = names("/", b"./src\0./src/x.rs\0", &whole, &Filter::new(&whole).unwrap()).unwrap();
        assert_eq!(found.matches[0].path, "/src/x.rs");
    }
}
