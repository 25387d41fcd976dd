//! `search_files`

use std::fmt::Write as _;

use sandhold_client::{SearchMatch, SearchMode, SearchQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    budget,
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

/// Matches when no limit is given.
const DEFAULT_LIMIT: u64 = 100;

pub(super) struct SearchFiles;

#[derive(Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Content,
    Name,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    pattern: String,
    /// Where; default: the home
    path: Option<String>,
    /// Only such files: *.py
    glob: Option<String>,
    /// Default: content
    mode: Option<Mode>,
    /// Case counts; default true
    case: Option<bool>,
    context_lines: Option<u64>,
    /// Default 100, at most 1000
    limit: Option<u64>,
    include_ignored: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Match {
    path: String,
    #[serde(skip_serializing_if = "is_zero")]
    line: u64,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(line: &u64) -> bool {
    *line == 0
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    matches: Vec<Match>,
    truncated: bool,
    files_searched: u64,
}

impl Tool for SearchFiles {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "search_files",
        title: "Search files",
        description: "Find lines by a regular expression, or files by name. Hidden and .gitignored ones only with include_ignored.",
        toolset: Toolset::Files,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        if p.pattern.is_empty() {
            return Err(ToolError::invalid("pattern is empty; a regular expression is needed"));
        }
        limits::at_most("pattern", p.pattern.len(), limits::PATTERN)?;
        limits::at_most("glob", p.glob.as_ref().map_or(0, String::len), limits::PATTERN)?;
        let path = p.path.unwrap_or_else(|| "~".into());
        limits::path("path", &path)?;
        let limit = limits::between("limit", p.limit.unwrap_or(DEFAULT_LIMIT), 1, limits::MATCHES)?;
        let context = limits::between("context_lines", p.context_lines.unwrap_or(0), 0, limits::CONTEXT_LINES)?;
        let by_name = p.mode == Some(Mode::Name);
        let query = SearchQuery {
            pattern: p.pattern,
            path,
            glob: p.glob,
            mode: if by_name { SearchMode::Name } else { SearchMode::Content },
            case_sensitive: p.case.unwrap_or(true),
            context_lines: u32::try_from(context).unwrap_or(0),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            respect_ignore: !p.include_ignored.unwrap_or(false),
            user: None,
        };
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let found = target.files().search(query).await.map_err(|e| target.error(&e))?;
        let (matches, cut) = budget::rows(found.matches.into_iter().map(short).collect());
        let truncated = cut || found.truncated;
        let mut text = render(&matches);
        text.push_str(&summary(matches.len(), found.files_searched, truncated));
        let output = Output {
            matches,
            truncated,
            files_searched: found.files_searched,
        };
        Ok(Reply::new(output, text.trim_end()).within(target.id()))
    }
}

/// The line below the matches. A search that was ended early may have found nothing yet.
fn summary(matches: usize, files: u64, truncated: bool) -> String {
    match (matches, truncated) {
        (0, false) => format!("no match in {files} files"),
        (0, true) => format!(
            "[no match in the {files} files looked at so far; the search was ended before it had seen all: give a \
             narrower path or glob]"
        ),
        (_, false) => String::new(),
        (_, true) => format!("[{matches} matches; there may be more: narrow the pattern, path or glob]"),
    }
}

fn short(found: SearchMatch) -> Match {
    let lines = |lines: Vec<String>| lines.iter().map(|l| budget::line(l, budget::LINE)).collect();
    Match {
        path: found.path,
        line: found.line,
        text: budget::line(found.text.trim_end(), budget::LINE),
        before: lines(found.before),
        after: lines(found.after),
    }
}

fn render(matches: &[Match]) -> String {
    let mut text = String::new();
    for m in matches {
        if m.line == 0 {
            let _ = writeln!(text, "{}", m.path);
            continue;
        }
        for (line, at) in m.before.iter().zip(m.line.saturating_sub(m.before.len() as u64)..) {
            let _ = writeln!(text, "{}-{at}-{line}", m.path);
        }
        let _ = writeln!(text, "{}:{}:{}", m.path, m.line, m.text);
        for (line, at) in m.after.iter().zip(m.line + 1..) {
            let _ = writeln!(text, "{}-{at}-{line}", m.path);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_ended_early_does_not_say_that_nothing_is_there() {
        assert_eq!(summary(0, 3, false), "no match in 3 files");
        assert!(summary(0, 3, true).contains("ended before it had seen all"));
        assert!(summary(2, 3, true).starts_with("[2 matches; there may be more"));
        assert_eq!(summary(2, 3, false), "");
    }

    #[test]
    fn context_is_numbered() {
        let m = Match {
            path: "a.py".into(),
            line: 5,
            text: "x".into(),
            before: vec!["v".into(), "w".into()],
            after: vec!["y".into()],
        };
        assert_eq!(render(&[m]), "a.py-3-v\na.py-4-w\na.py:5:x\na.py-6-y\n");
    }
}
