//! A file, folder or link as several tools show it.

use sandhold_client::EntryType;
use schemars::JsonSchema;
use serde::Serialize;

/// What is known of one.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) size: u64,
    /// `0644`
    pub(crate) mode: String,
    pub(crate) owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) symlink_target: Option<String>,
}

impl From<sandhold_client::Entry> for Entry {
    fn from(entry: sandhold_client::Entry) -> Self {
        Self {
            kind: kind(entry.kind),
            name: entry.name,
            path: entry.path,
            size: entry.size,
            mode: format!("{:04o}", entry.mode),
            owner: entry.owner,
            modified: entry.modified,
            symlink_target: entry.symlink_target,
        }
    }
}

impl Entry {
    /// One line on it.
    pub(crate) fn line(&self) -> String {
        let target = self
            .symlink_target
            .as_ref()
            .map_or(String::new(), |t| format!(" -> {t}"));
        match self.kind {
            "dir" => format!("{}/", self.path),
            "symlink" => format!("{}{target}", self.path),
            _ => format!("{}  {} bytes{target}", self.path, self.size),
        }
    }
}

/// The name of a kind.
pub(crate) fn kind(kind: EntryType) -> &'static str {
    match kind {
        EntryType::File => "file",
        EntryType::Dir => "dir",
        EntryType::Symlink => "symlink",
        EntryType::Other => "other",
    }
}
