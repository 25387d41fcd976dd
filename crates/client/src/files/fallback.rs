//! Search by `grep` and `find` inside the sandbox, where the server has none of its own.
//!
//! Names end with a NUL on the way back, so that no name can be taken for something else.

use bytes::Bytes;
use globset::{GlobBuilder, GlobMatcher};
use regex::RegexBuilder;

use super::{Files, SearchMatch, SearchMode, SearchQuery, SearchResult, under_home};
use crate::{
    Commands, Error,
    commands::{Helper, Printed},
    limits,
};

/// Exit code of the scripts when the path is not there.
const ABSENT: i32 = 44;

/// Prints the absolute path searched and a NUL, then for every line `name`, NUL, the line's number, `:` or `-`, the line.
/// A hidden folder that is named itself is searched: the search starts inside it.
const CONTENT: &str = r#"pattern=$1 p=$2 ignore=$3 icase=$4 context=$5 most=$6 glob=$7
[ -e "$p" ] || exit 44
case $p in /*) ;; .) p=$PWD ;; *) p=$PWD/${p#./} ;; esac
printf '%s\0' "$p"
if echo x | grep -qP x 2>/dev/null; then set -- -P; else set -- -E; fi
set -- "$@" -HnIsZ -m "$most"
[ "$icase" = 1 ] && set -- "$@" -i
[ "$context" != 0 ] && set -- "$@" -C "$context" --no-group-separator
[ -n "$glob" ] && set -- "$@" --include="$glob"
[ -d "$p" ] || exec grep "$@" -e "$pattern" -- "$p"
cd -- "$p" || exit 43
if [ "$ignore" = 1 ]; then
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard | xargs -0 -r grep "$@" -e "$pattern" --
    exit
  fi
  set -- "$@" --exclude-dir='.?*' --exclude='.?*'
fi
exec grep -r "$@" -e "$pattern" ."#;

/// Prints the absolute path searched and the names below it, each with a NUL.
const NAMES: &str = r#"p=$1 ignore=$2
[ -e "$p" ] || exit 44
case $p in /*) ;; .) p=$PWD ;; *) p=$PWD/${p#./} ;; esac
printf '%s\0' "$p"
[ -d "$p" ] || { printf '%s\0' "$p"; exit; }
cd -- "$p" || exit 43
if [ "$ignore" = 1 ]; then
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    exec git ls-files -z --cached --others --exclude-standard
  fi
  exec find . ! -name . -name '.?*' -prune -o ! -name . -print0
fi
exec find . ! -name . -print0"#;

impl Files {
    pub(super) async fn search_by_command(&self, query: &SearchQuery) -> Result<SearchResult, Error> {
        let filter = Filter::new(query)?;
        let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
        let path = under_home(&query.path);
        let (script, args) = match query.mode {
            SearchMode::Content => (
                CONTENT,
                vec![
                    query.pattern.clone(),
                    path,
                    flag(query.respect_ignore),
                    flag(!query.case_sensitive),
                    query.context_lines.to_string(),
                    query.limit.saturating_add(1).to_string(),
                    query
                        .glob
                        .as_deref()
                        .filter(|glob| is_plain(glob))
                        .unwrap_or_default()
                        .to_owned(),
                ],
            ),
            SearchMode::Name => (NAMES, vec![path, flag(query.respect_ignore)]),
        };
        let helper = Helper {
            script,
            args,
            user: query.user.as_deref(),
            input: Bytes::new(),
            timeout: limits::SEARCH_TIMEOUT,
            max_stdout: limits::HELPER_STDOUT,
        };
        let Printed {
            stdout,
            stderr,
            cut,
            exit_code,
        } = Commands {
            envd: self.envd.clone(),
        }
        .help(helper)
        .await?;
        if exit_code == ABSENT {
            return Err(Error::NotFound(format!("path '{}' does not exist", query.path)));
        }
        let Some((base, found)) = split(&stdout, 0) else {
            return Err(Error::Unsupported(format!("the sandbox cannot search: {stderr}")));
        };
        if found.is_empty() && !stderr.is_empty() {
            return Err(complaint(&stderr));
        }
        let base = String::from_utf8_lossy(base).into_owned();
        let mut result = match query.mode {
            SearchMode::Content => content(&base, found, cut, query, &filter),
            SearchMode::Name => names(&base, found, query, &filter)?,
        };
        result.truncated |= cut;
        Ok(result)
    }
}

/// What the programs printed to standard error when they found nothing.
fn complaint(stderr: &str) -> Error {
    let lower = stderr.to_ascii_lowercase();
    if ["unrecognized option", "invalid option", "not found"]
        .iter()
        .any(|text| lower.contains(text))
    {
        return Error::Unsupported(format!("the sandbox's grep or find cannot do this search: {stderr}"));
    }
    if lower.contains("permission denied") {
        return Error::Server {
            status: 403,
            message: stderr.to_owned(),
        };
    }
    Error::InvalidArgument(stderr.to_owned())
}

/// Whether `grep --include` understands the glob as it is meant: a pattern for the last part of a path.
fn is_plain(glob: &str) -> bool {
    !glob.contains(['/', '{', '}', '!'])
}

/// Which files count.
struct Filter {
    glob: Option<GlobMatcher>,
    /// The glob is for whole paths, not for the last part.
    whole: bool,
    hidden: bool,
}

impl Filter {
    fn new(query: &SearchQuery) -> Result<Self, Error> {
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

fn content(base: &str, mut rest: &[u8], cut: bool, query: &SearchQuery, filter: &Filter) -> SearchResult {
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

fn names(base: &str, mut rest: &[u8], query: &SearchQuery, filter: &Filter) -> Result<SearchResult, Error> {
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
    while let Some((name, after)) = split(rest, 0) {
        rest = after;
        let name = String::from_utf8_lossy(name);
        let relative = name.strip_prefix("./").unwrap_or(&name);
        let last = relative.rsplit('/').next().unwrap_or(relative);
        if !filter.admits(relative) || !pattern.is_match(last) {
            continue;
        }
        if result.matches.len() == limit {
            result.truncated = true;
            break;
        }
        result.matches.push(SearchMatch {
            path: absolute(base, relative),
            line: 0,
            text: last.to_owned(),
            before: Vec::new(),
            after: Vec::new(),
        });
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
fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..position], &bytes[position + 1..]))
}
