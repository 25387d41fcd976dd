//! Signed URLs of files.

use std::time::{Duration, SystemTime};

use sandhold_client::{Entry, EntryType, ReadOptions};

use crate::{
    answer::ToolError,
    call::{Call, Target},
    limits,
};

/// What a signed URL is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Download,
    Upload,
}

/// A URL and when it ends.
pub(super) struct Signed {
    pub(super) url: String,
    pub(super) expires_at: String,
}

/// How long a URL is to be valid.
pub(super) fn lifetime(expires_in_s: Option<u64>) -> Result<u64, ToolError> {
    limits::between(
        "expires_in_s",
        expires_in_s.unwrap_or(limits::DEFAULT_URL_S),
        1,
        limits::URL_S,
    )
}

/// Signs a URL for `path` that is valid for so many seconds.
pub(super) async fn sign(
    call: &Call,
    target: &Target,
    path: &str,
    what: For,
    seconds: u64,
) -> Result<Signed, ToolError> {
    call.open_door().await.map_err(|e| e.within(target.id()))?;
    let until = SystemTime::now() + Duration::from_secs(seconds);
    let unix = until.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let unix = i64::try_from(unix).unwrap_or(i64::MAX);
    let files = target.files();
    let url = match what {
        For::Download => files.download_url(path, None, Some(unix)),
        For::Upload => files.upload_url(path, None, Some(unix)),
    };
    Ok(Signed {
        url: url.map_err(|e| target.error(&e))?,
        expires_at: humantime::format_rfc3339_seconds(until).to_string(),
    })
}

/// Whom a URL is of use to.
pub(super) fn reach(call: &Call) -> &'static str {
    match call.door {
        Some(_) => "It works on the machine that this server runs on, while the sandbox and this server run.",
        None => "It works while the sandbox runs.",
    }
}

/// The file that is to be downloaded: it must be one that can be read.
pub(super) async fn readable(target: &Target, path: &str) -> Result<Entry, ToolError> {
    let files = target.files();
    let entry = files.info(path, None).await.map_err(|e| target.error(&e))?;
    if entry.kind == EntryType::Dir {
        return Err(ToolError::invalid(format!("path is {}, which is a folder", entry.path))
            .hint("Use prepare_project_download for a folder.")
            .within(target.id()));
    }
    // A byte of it, asked for as the URL's user will: a link may lead nowhere, a pipe cannot be read.
    let first = ReadOptions {
        range: Some((0, 1)),
        ..ReadOptions::default()
    };
    files.read(&entry.path, first, 1).await.map_err(|e| target.error(&e))?;
    Ok(entry)
}
