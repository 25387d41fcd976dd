use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::Error;

/// The file system of one sandbox. Paths are relative to the user's home unless absolute; `~` works.
#[derive(Clone)]
pub struct Files { /* private */ }

#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    pub user: Option<String>,
    /// First byte and number of bytes (an HTTP range).
    pub range: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    pub user: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Write beside and rename, so that no reader sees half a file. Sandhold's envd does, E2B's ignores it.
    pub atomic: bool,
}

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType { File, Dir, Symlink, Other }

/// What is known of a file, folder or link.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String, pub path: String, pub kind: EntryType, pub size: u64,
    /// Permission bits only, e.g. 0o644.
    pub mode: u32,
    /// `-rw-r--r--`
    pub permissions: String,
    pub owner: String, pub group: String,
    /// RFC 3339.
    pub modified: Option<String>,
    pub symlink_target: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchMode { Content, Name }

#[derive(Debug, Clone)]
pub struct SearchQuery {
    pub pattern: String, pub path: String, pub glob: Option<String>, pub mode: SearchMode,
    pub case_sensitive: bool, pub context_lines: u32, pub limit: u32,
    /// Honour .gitignore and skip hidden files.
    pub respect_ignore: bool, pub user: Option<String>,
}
#[derive(Debug, Clone, PartialEq)]
pub struct SearchMatch { pub path: String, /** 1-based; 0 for a name match */ pub line: u64, pub text: String, pub before: Vec<String>, pub after: Vec<String> }
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult { pub matches: Vec<SearchMatch>, pub truncated: bool, pub files_searched: u64 }

impl Files {
    /// The whole file, at most `max` bytes: a larger one is an error that names its size.
    pub async fn read(&self, path: &str, options: ReadOptions, max: u64) -> Result<Bytes, Error>;
    pub async fn read_stream(&self, path: &str, options: ReadOptions) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;
    /// Returns the absolute path.
    pub async fn write(&self, path: &str, data: Bytes, options: WriteOptions) -> Result<String, Error>;
    pub async fn write_stream(&self, path: &str, data: BoxStream<'static, std::io::Result<Bytes>>, options: WriteOptions) -> Result<String, Error>;
    /// Appends; makes the file if it is absent.
    pub async fn append(&self, path: &str, data: Bytes, user: Option<&str>) -> Result<(), Error>;
    pub async fn list(&self, path: &str, depth: u32, user: Option<&str>) -> Result<Vec<Entry>, Error>;
    pub async fn info(&self, path: &str, user: Option<&str>) -> Result<Entry, Error>;
    /// False if it stood already.
    pub async fn make_dir(&self, path: &str, user: Option<&str>) -> Result<bool, Error>;
    pub async fn rename(&self, from: &str, to: &str, user: Option<&str>) -> Result<Entry, Error>;
    /// Removes a file or a whole folder; absent is fine.
    pub async fn remove(&self, path: &str, user: Option<&str>) -> Result<(), Error>;
    /// Sandhold's envd searches with ripgrep's engine; elsewhere `grep`/`find` run in the sandbox.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchResult, Error>;
    /// `…/files?path=…&signature=…`, valid until `expires_at` (Unix seconds).
    pub fn download_url(&self, path: &str, user: Option<&str>, expires_at: Option<i64>) -> Result<String, Error>;
    pub fn upload_url(&self, path: &str, user: Option<&str>, expires_at: Option<i64>) -> Result<String, Error>;
}
