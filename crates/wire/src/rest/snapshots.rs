//! Snapshots and forks as E2B has them; checkpoints, rollback and differences, which are additions of Sandhold.

use serde::{Deserialize, Serialize};

use super::{ApiError, Sandbox};

/// [`ApiError::error_code`] of a refusal with status 404 that is about a snapshot, not about the sandbox.
pub const SNAPSHOT_NOT_FOUND: &str = "snapshot_not_found";
/// The same about a checkpoint.
pub const CHECKPOINT_NOT_FOUND: &str = "checkpoint_not_found";
/// What `since` of `GET /sandboxes/{id}/diff` means when it is left out: the sandbox as it was made.
pub const SINCE_CREATION: &str = "creation";

/// `POST /sandboxes/{id}/snapshots`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// `name` or `name:tag`. A snapshot that had it before loses it, and with it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether processes are kept, too. E2B's default is true; Sandhold keeps files in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// Answer of `POST /sandboxes/{id}/snapshots` and entry of `GET /snapshots`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotInfo {
    /// What sandboxes are made of it by, with its tag.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Its names with their tags.
    #[serde(default)]
    pub names: Vec<String>,
    /// The sandbox that it was taken of. An addition of Sandhold, as what follows.
    #[serde(default, rename = "sandboxID", skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Bytes of its files beside those of the template; other snapshots may share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// `POST /sandboxes/{id}/fork`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ForkSandbox {
    /// Seconds that the forks live; 15 unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// How many; one unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

/// What became of one fork: exactly one of both is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkResult {
    /// It runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// It could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// `POST /sandboxes/{id}/rollback`: exactly one is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollBack {
    /// A snapshot's id or name.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// A checkpoint of this sandbox.
    #[serde(default, rename = "checkpointID", skip_serializing_if = "Option::is_none")]
    pub checkpoint_id: Option<String>,
}

/// `POST /sandboxes/{id}/checkpoints`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NewCheckpoint {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A state of a sandbox's files that it can go back to while it lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Its name.
    #[serde(rename = "checkpointID")]
    pub checkpoint_id: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// False where nothing had changed since an earlier one, which is this.
    pub is_new: bool,
}

/// `GET /sandboxes/{id}/diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxChanges {
    /// What differs, by path.
    pub changes: Vec<FileChange>,
    /// Whether there is more than was asked for or fits into an answer.
    pub truncated: bool,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Absolute; what is no UTF-8 in it is replaced.
    pub path: String,
    /// How it differs.
    pub change: ChangeKind,
    /// What is there now; of a removed path, what was there.
    #[serde(rename = "type")]
    pub kind: FileKind,
    /// Bytes of a regular file; else 0.
    pub size: u64,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It holds something else, or its attributes differ.
    Changed,
    /// It is gone, with all that was below it.
    Removed,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A socket, pipe or device.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_e2bs() {
        let info: SnapshotInfo = serde_json::from_str(r#"{"snapshotID":"abc:default","names":["team/n:v1"]}"#).unwrap();
        assert_eq!((info.snapshot_id.as_str(), info.names.len()), ("abc:default", 1));
        let asked: ForkSandbox = serde_json::from_str(r#"{"count":2}"#).unwrap();
        assert_eq!((asked.count, asked.timeout), (Some(2), None));
        let result = ForkResult {
            error: Some(ApiError {
                code: 429,
                message: "full".into(),
                error_code: None,
            }),
            ..ForkResult::default()
        };
        assert_eq!(
            serde_json::to_value(result).unwrap(),
            serde_json::json!({"error": {"code": 429, "message": "full"}})
        );
    }
}
