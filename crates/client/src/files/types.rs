//! What files are asked with and what they answer.

use std::collections::BTreeMap;

/// How to read a file.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Who reads; `None` is the sandbox's default user.
    pub user: Option<String>,
    /// First byte and number of bytes (an HTTP range).
    pub range: Option<(u64, u64)>,
}

/// How to write a file.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Who writes and owns a new file; `None` is the sandbox's default user.
    pub user: Option<String>,
    /// Pairs that are kept with the file; without any, those of the file before are gone.
    pub metadata: BTreeMap<String, String>,
    /// Write beside and rename, so that no reader sees half a file. Sandhold's envd does, E2B's ignores it.
    pub atomic: bool,
}

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A socket, device or pipe.
    Other,
}

/// What is known of a file, folder or link.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Last part of the path.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// Kind.
    pub kind: EntryType,
    /// Bytes.
    pub size: u64,
    /// Permission bits only, e.g. 0o644.
    pub mode: u32,
    /// `-rw-r--r--`
    pub permissions: String,
    /// Name of the owner.
    pub owner: String,
    /// Name of the group.
    pub group: String,
    /// RFC 3339.
    pub modified: Option<String>,
    /// Where a symbolic link points.
    pub symlink_target: Option<String>,
    /// Pairs that were given when the file was written.
    pub metadata: BTreeMap<String, String>,
}

/// Where a pattern is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchMode {
    /// In the lines of the files.
    Content,
    /// In the names of files and folders, or their whole paths below the folder when the pattern has a slash.
    Name,
}

/// What to search.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// A regular expression.
    pub pattern: String,
    /// The folder, or one file.
    pub path: String,
    /// Only files that fit this glob, e.g. `*.rs`.
    pub glob: Option<String>,
    /// Lines or names.
    pub mode: SearchMode,
    /// Whether `A` differs from `a`.
    pub case_sensitive: bool,
    /// How many lines before and after a match to tell.
    pub context_lines: u32,
    /// At most this many matches.
    pub limit: u32,
    /// Honour .gitignore and skip hidden files.
    pub respect_ignore: bool,
    /// Who searches; `None` is the sandbox's default user.
    pub user: Option<String>,
}

/// One match.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchMatch {
    /// Absolute path of the file.
    pub path: String,
    /// 1-based; 0 for a name match
    pub line: u64,
    /// The line; empty for a name match.
    pub text: String,
    /// The lines before it.
    pub before: Vec<String>,
    /// The lines after it.
    pub after: Vec<String>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// In the order of the files.
    pub matches: Vec<SearchMatch>,
    /// Whether there are more than are told.
    pub truncated: bool,
    /// How many files were looked into; 0 where the server cannot tell.
    pub files_searched: u64,
}
