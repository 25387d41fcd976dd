//! Search by `grep` and `find` inside the sandbox, where the server has none of its own.
//!
//! Names end with a NUL on the way back, so that no name can be taken for something else.

mod found;

use bytes::Bytes;

use self::found::{Filter, content, names, split};
use super::{Files, SearchMode, SearchQuery, SearchResult, under_home};
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

/// For the fuzzer: reads what the scripts printed.
#[cfg(fuzzing)]
pub(crate) fn found_by_command(printed: &[u8], cut: bool, query: &SearchQuery) -> Result<Option<SearchResult>, Error> {
    let filter = Filter::new(query)?;
    let Some((base, found)) = split(printed, 0) else {
        return Ok(None);
    };
    let base = String::from_utf8_lossy(base);
    Ok(Some(match query.mode {
        SearchMode::Content => content(&base, found, cut, query, &filter),
        SearchMode::Name => names(&base, found, query, &filter)?,
    }))
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
