//! `POST /sandhold/search`: ripgrep's engine over the sandbox's files. Ours, not part of E2B's protocol.
//!
//! Files are visited in the order of their paths, and answers keep it: equal searches give equal answers, cut or not.

mod content;
mod sink;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use axum::routing::post;
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder};
use http::StatusCode;
use ignore::overrides::{Override, OverrideBuilder};
use ignore::{DirEntry, Walk, WalkBuilder};
use serde::{Deserialize, Serialize};

use crate::auth;
use crate::error::{HttpError, json};
use crate::files::json_body;
use crate::filesystem::error::{FsError, Kind, blocking};
use crate::filesystem::{limits, resolve};
use crate::state::State;
use sink::Collector;
use tokio::sync::Semaphore;

/// The routes of this module.
pub(crate) fn router(state: Arc<State>) -> Router {
    let permits = Semaphore::new(limits::SEARCHES);
    let searches = Arc::new(Searches { state, permits });
    Router::new()
        .route("/sandhold/search", post(search))
        .with_state(searches)
}

/// Searches take turns: each holds a thread, of which file work has few.
struct Searches {
    state: Arc<State>,
    permits: Semaphore,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Lines of files.
    #[default]
    Content,
    /// Names of files and folders; the whole path below `path` when the pattern has a slash.
    Name,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    pattern: String,
    #[serde(default)]
    path: String,
    glob: Option<String>,
    #[serde(default)]
    mode: Mode,
    #[serde(default = "yes")]
    case_sensitive: bool,
    #[serde(default)]
    context_lines: usize,
    limit: Option<usize>,
    #[serde(default = "yes")]
    respect_ignore: bool,
    username: Option<String>,
}

fn yes() -> bool {
    true
}

/// One hit. Of a name there is no line: `line` is 0 and `text` empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Match {
    path: String,
    line: u64,
    text: String,
    before: Vec<String>,
    after: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    matches: Vec<Match>,
    /// There may be more: the limit of matches or bytes was met, or the time was up.
    truncated: bool,
    files_searched: u64,
}

async fn search(Shared(searches): Shared<Arc<Searches>>, body: Body) -> Result<Response, HttpError> {
    let request: Request = json_body(body).await?;
    let user = auth::user_named(&searches.state, request.username.as_deref())?;
    let root = resolve(&searches.state, &request.path, &user)?;
    // Never closed.
    let _permit = searches.permits.acquire().await.ok();
    let stop = Stop::new();
    // Dropped with this request, also when the client goes away.
    let _guard = Cancel(Arc::clone(&stop.cancelled));
    let answer = blocking(move || run(&request, &root, &stop)).await?;
    Ok(json(StatusCode::OK, &answer))
}

struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When to give up.
struct Stop {
    cancelled: Arc<AtomicBool>,
    deadline: Instant,
}

impl Stop {
    fn new() -> Self {
        Self {
            cancelled: Arc::default(),
            deadline: Instant::now() + limits::SEARCH_TIME,
        }
    }

    fn now(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// Ends a search in the middle of a large file.
struct Stoppable<'a> {
    file: File,
    stop: &'a Stop,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.now() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match self.file.read(buffer) {
            // A file below /proc that waits for events has none for us.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }
}

fn run(request: &Request, root: &Path, stop: &Stop) -> Result<Answer, FsError> {
    std::fs::metadata(root).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            FsError::new(Kind::NotFound, format!("path '{}' does not exist", root.display()))
        }
        _ => FsError::io(format!("error looking at '{}'", root.display()), e),
    })?;
    let matcher = RegexMatcherBuilder::new()
        .case_insensitive(!request.case_sensitive)
        .line_terminator(Some(b'\n'))
        .size_limit(limits::SEARCH_PATTERN)
        .dfa_size_limit(limits::SEARCH_PATTERN)
        .build(&request.pattern)
        .map_err(|e| {
            FsError::invalid(format!(
                "pattern '{}' is not a regular expression: {e}",
                request.pattern
            ))
        })?;
    let glob = glob(root, request.glob.as_deref())?;
    let limit = request
        .limit
        .unwrap_or(limits::SEARCH_DEFAULT_MATCHES)
        .clamp(1, limits::SEARCH_MATCHES);
    let context = request.context_lines.min(limits::SEARCH_CONTEXT);
    // What cannot be read, or went away, is passed over as grep does.
    let entries = walk(root, request.respect_ignore)
        .take_while(|_| !stop.now())
        .flatten()
        .filter(|entry| !glob.matched(entry.path(), is_dir(entry)).is_ignore());
    let mut answer = match request.mode {
        Mode::Name => names(entries, root, request, &matcher, limit),
        Mode::Content => {
            let look = content::Look {
                matcher: &matcher,
                limit,
                context,
                stop,
            };
            content::search(entries.filter(|entry| !is_dir(entry)), &look)
        }
    };
    answer.truncated |= stop.now();
    Ok(answer)
}

fn is_dir(entry: &DirEntry) -> bool {
    entry.file_type().is_some_and(|t| t.is_dir())
}

fn names(
    entries: impl Iterator<Item = DirEntry>,
    root: &Path,
    request: &Request,
    matcher: &RegexMatcher,
    limit: usize,
) -> Answer {
    let mut found = Collector::new(limit, 0);
    let mut answer = Answer::default();
    for entry in entries {
        answer.files_searched += u64::from(!is_dir(&entry));
        if entry.depth() > 0 || !is_dir(&entry) {
            by_name(&entry, root, request, matcher, &mut found);
        }
        if found.full() {
            break;
        }
    }
    answer.truncated = found.full();
    answer.matches = found.into_matches();
    answer
}

fn by_name(entry: &DirEntry, root: &Path, request: &Request, matcher: &RegexMatcher, found: &mut Collector) {
    let whole = request
        .pattern
        .contains('/')
        .then(|| entry.path().strip_prefix(root).ok())
        .flatten();
    let name = whole.map_or_else(|| entry.file_name().to_string_lossy(), Path::to_string_lossy);
    if matcher.is_match(name.as_bytes()).unwrap_or(false) {
        found.add(Match {
            path: entry.path().to_string_lossy().into_owned(),
            ..Match::default()
        });
    }
}

/// The entry's file. Links, pipes and devices are not followed or opened.
fn readable(entry: &DirEntry) -> Option<File> {
    // The root itself may be a link.
    let regular = match entry.depth() {
        0 => std::fs::metadata(entry.path()).is_ok_and(|m| m.is_file()),
        _ => entry.file_type().is_some_and(|t| t.is_file()),
    };
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    regular
        .then(|| {
            OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(entry.path())
                .ok()
        })
        .flatten()
}

fn searcher(context: usize) -> Searcher {
    SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(0))
        .line_number(true)
        .before_context(context)
        .after_context(context)
        .heap_limit(Some(limits::SEARCH_LINE_BUFFER))
        .build()
}

fn glob(root: &Path, glob: Option<&str>) -> Result<Override, FsError> {
    let base = if root.is_dir() {
        root
    } else {
        root.parent().unwrap_or(root)
    };
    let mut builder = OverrideBuilder::new(base);
    if let Some(glob) = glob {
        builder
            .add(glob)
            .map_err(|e| FsError::invalid(format!("glob '{glob}' is not valid: {e}")))?;
    }
    builder
        .build()
        .map_err(|e| FsError::invalid(format!("glob is not valid: {e}")))
}

/// File systems that are made of the kernel's answers. Searched only where a search starts in them.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

fn walk(root: &Path, respect_ignore: bool) -> Walk {
    let start: PathBuf = root.to_owned();
    WalkBuilder::new(root)
        .standard_filters(false)
        .parents(respect_ignore)
        .ignore(respect_ignore)
        .git_ignore(respect_ignore)
        .git_exclude(respect_ignore)
        // A project that is no repository yet has its .gitignore for the same reason.
        .require_git(false)
        .sort_by_file_path(Path::cmp)
        .filter_entry(move |entry| {
            let kernel = KERNEL.iter().any(|k| entry.path() == Path::new(k)) && entry.path() != start;
            let repository = respect_ignore && entry.depth() > 0 && entry.file_name() == ".git";
            !kernel && !repository
        })
        .build()
}
