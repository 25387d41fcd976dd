//! Limits of the file services. Bytes unless the name says otherwise.

use std::time::Duration;

/// Entries in one answer of `ListDir`.
pub(crate) const LIST_ENTRIES: usize = 100_000;
/// Symbolic links that are followed one after another before a path counts as a loop, as the kernel counts.
pub(crate) const SYMLINK_HOPS: usize = 40;

/// Watchers that are asked for their events, in the whole sandbox.
pub(crate) const WATCHERS: usize = 64;
/// Folders that one recursive watch covers.
pub(crate) const WATCHED_DIRS: usize = 65_536;
/// Events that a watcher keeps until they are fetched.
pub(crate) const WATCHER_EVENTS: usize = 16_384;
/// A watcher nobody asked for so long is dropped.
pub(crate) const WATCHER_IDLE: Duration = Duration::from_secs(3600);
/// How long after a folder was moved away its arrival elsewhere in the tree is waited for.
pub(crate) const MOVE_PAIRING: Duration = Duration::from_millis(100);
/// What is read from inotify at once.
pub(crate) const INOTIFY_BUFFER: usize = 64 << 10;

/// Pieces in which files are read and written.
pub(crate) const FILE_CHUNK: usize = 256 << 10;
/// Pieces in which decoded uploads arrive.
pub(crate) const DECODE_CHUNK: usize = 64 << 10;
/// What is read of a file whose size the kernel does not know, as below `/proc`.
pub(crate) const UNSIZED_FILE: usize = 64 << 10;
/// What is still read of an upload that was refused, so that its sender gets to see the refusal.
pub(crate) const UPLOAD_DRAIN: usize = 64 << 20;
/// Files in one multipart upload.
pub(crate) const UPLOAD_FILES: usize = 10_000;
/// Sources of one compose.
pub(crate) const COMPOSE_SOURCES: usize = 10_000;
/// Body of a JSON request.
pub(crate) const JSON_BODY: usize = 1 << 20;
/// Bytes at the start of a file that its content type is guessed from, as browsers do.
pub(crate) const SNIFF: usize = 512;

/// Searches that run at once.
pub(crate) const SEARCHES: usize = 2;
/// Threads of one search that look into files, at most one for each processor.
pub(crate) const SEARCH_THREADS: usize = 4;
/// Files that such a thread is given at once.
pub(crate) const SEARCH_PIECE: usize = 64;
/// Such pieces on their way for each of these threads; each may hold as much as an answer.
pub(crate) const SEARCH_AHEAD: usize = 4;
/// How long a search may take before it answers with what it found.
pub(crate) const SEARCH_TIME: Duration = Duration::from_secs(20);
/// Texts and paths in one answer of a search.
pub(crate) const SEARCH_ANSWER: usize = 1 << 20;
/// One line in the answer of a search; the rest is cut.
pub(crate) const SEARCH_LINE: usize = 2000;
/// One line while searching; a file with a longer one is skipped.
pub(crate) const SEARCH_LINE_BUFFER: usize = 16 << 20;
/// A compiled pattern.
pub(crate) const SEARCH_PATTERN: usize = 10 << 20;
/// Matches in one answer when the request names no limit.
pub(crate) const SEARCH_DEFAULT_MATCHES: usize = 200;
/// Matches in one answer at most.
pub(crate) const SEARCH_MATCHES: usize = 10_000;
/// Lines of context on each side of a match at most.
pub(crate) const SEARCH_CONTEXT: usize = 20;
