//! The file system of one sandbox.

mod archive;
mod entry;
mod fallback;
mod search;
mod transfer;
mod types;
mod url;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use sandhold_wire::proto::filesystem as proto;

use crate::{
    Commands, Error, answer,
    commands::{Helper, Printed},
    envd::Envd,
    limits,
};

pub(crate) use url::{QUERY, pair};
#[cfg(fuzzing)]
pub(crate) use {archive::is_understood, fallback::found_by_command, search::found_by_server};

pub use archive::{ArchiveEvent, ArchiveReport, ArchiveWork, PathList, UnzipRequest, ZipRequest};
pub use watch::{Watch, WatchEvent, WatchKind};

pub use types::{Entry, EntryType, ReadOptions, SearchMatch, SearchMode, SearchQuery, SearchResult, WriteOptions};

/// The file system of one sandbox. Paths are relative to the user's home unless absolute; `~` works.
#[derive(Clone)]
pub struct Files {
    pub(crate) envd: Arc<Envd>,
}

/// Appends `$2` bytes of its standard input to `$1` and makes the folders above it. `head` ends by itself after that many
/// bytes, so nothing has to close its input, which old daemons cannot. A pipe or device could keep it waiting for ever.
const APPEND: &str = r#"set -e
if [ -e "$1" ] && [ ! -f "$1" ] && [ ! -d "$1" ]; then echo "it is not a regular file" >&2; exit 1; fi
case "$1" in */*) mkdir -p -- "${1%/*}/" ;; esac
if [ "$2" = 0 ]; then : >> "$1"; else head -c "$2" >> "$1"; fi"#;

impl Files {
    /// Appends; makes the file and the folders above it if they are absent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the path is a folder, [`Error::NoSpace`] when the disk is full.
    pub async fn append(&self, path: &str, data: Bytes, user: Option<&str>) -> Result<(), Error> {
        let length = data.len();
        let slack = u32::try_from(length / limits::STDIN_CHUNK).unwrap_or(u32::MAX);
        let helper = Helper {
            script: APPEND,
            args: vec![under_home(path), length.to_string()],
            user,
            input: data,
            timeout: limits::REQUEST_TIMEOUT.saturating_mul(slack.saturating_add(1)),
            max_stdout: limits::HELPER_STDERR,
        };
        let Printed { exit_code, stderr, .. } = Commands {
            envd: self.envd.clone(),
        }
        .help(helper)
        .await?;
        if exit_code == 0 {
            return Ok(());
        }
        let message = format!("cannot append to {path}: {stderr}");
        Err(match stderr.as_str() {
            text if answer::disk_is_full(text) => Error::NoSpace(message),
            text if text.contains("Permission denied") => Error::Server { status: 403, message },
            text if ["s a directory", "ot a directory", "not a regular file"]
                .iter()
                .any(|known| text.contains(known)) =>
            {
                Error::InvalidArgument(message)
            }
            _ => Error::Server { status: 500, message },
        })
    }

    /// The entries of a folder, `depth` levels deep; 0 is taken as 1.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such folder, [`Error::InvalidArgument`] when it is none.
    pub async fn list(&self, path: &str, depth: u32, user: Option<&str>) -> Result<Vec<Entry>, Error> {
        let message = proto::ListDirRequest {
            path: path.into(),
            depth: depth.max(1),
            ..Default::default()
        };
        let answer: proto::ListDirResponse = self
            .envd
            .unary("/filesystem.Filesystem/ListDir", &message, user)
            .await?;
        Ok(answer.entries.into_iter().map(Into::into).collect())
    }

    /// What is known of a file, folder or link.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there.
    pub async fn info(&self, path: &str, user: Option<&str>) -> Result<Entry, Error> {
        let message = proto::StatRequest {
            path: path.into(),
            ..Default::default()
        };
        let answer: proto::StatResponse = self.envd.unary("/filesystem.Filesystem/Stat", &message, user).await?;
        entry::required(answer.entry, "Stat")
    }

    /// Makes a folder and those above it. False if it stood already.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a file is in the way.
    pub async fn make_dir(&self, path: &str, user: Option<&str>) -> Result<bool, Error> {
        let message = proto::MakeDirRequest {
            path: path.into(),
            ..Default::default()
        };
        match self
            .envd
            .unary::<_, proto::MakeDirResponse>("/filesystem.Filesystem/MakeDir", &message, user)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves a file or folder; folders above `to` are made.
    ///
    /// # Errors
    /// [`Error::NotFound`] when `from` is not there.
    pub async fn rename(&self, from: &str, to: &str, user: Option<&str>) -> Result<Entry, Error> {
        let message = proto::MoveRequest {
            source: from.into(),
            destination: to.into(),
            ..Default::default()
        };
        let answer: proto::MoveResponse = self.envd.unary("/filesystem.Filesystem/Move", &message, user).await?;
        entry::required(answer.entry, "Move")
    }

    /// Removes a file or a whole folder; absent is fine.
    ///
    /// # Errors
    /// Those of the server, the connection and the sandbox.
    pub async fn remove(&self, path: &str, user: Option<&str>) -> Result<(), Error> {
        let message = proto::RemoveRequest {
            path: path.into(),
            ..Default::default()
        };
        match self
            .envd
            .unary::<_, proto::RemoveResponse>("/filesystem.Filesystem/Remove", &message, user)
            .await
        {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The path for a command that runs in the user's home: `~` is where it is. The result is absolute or starts with `./`, so
/// that no program takes it for an option.
fn under_home(path: &str) -> String {
    if path.starts_with('/') {
        return path.into();
    }
    let mut below = path
        .strip_prefix('~')
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path);
    loop {
        below = match below.trim_start_matches('/') {
            "" | "." => return ".".into(),
            rest => match rest.strip_prefix("./") {
                Some(rest) => rest,
                None => return format!("./{rest}"),
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_commands() {
        for (given, wanted) in [
            ("/a", "/a"),
            ("~", "."),
            ("", "."),
            ("~/a", "./a"),
            ("a/b", "./a/b"),
            ("-rf", "./-rf"),
            (".", "."),
            ("./", "."),
            ("././/a", "./a"),
            ("~/.", "."),
            ("~/.//b", "./b"),
            ("~x", "./~x"),
        ] {
            assert_eq!(under_home(given), wanted);
        }
    }
}
