//! Archives that are unpacked inside a sandbox, for the fuzzer.

use std::path::Path;
use std::time::Duration;

use super::{Work, unpack};
use crate::users::User;

/// Unpacks `archive` into `dest` as the caller, for at most `time`: entries and bytes that were written.
///
/// # Errors
/// Why not.
pub fn unzip(archive: &Path, dest: &Path, time: Duration) -> Result<(u64, u64), String> {
    let user = User {
        name: "me".into(),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: vec![],
        home: "/".into(),
        shell: String::new(),
    };
    match unpack::unpack(archive, dest, &user, &Work::new(time)) {
        Ok(report) => Ok((report.entries, report.bytes)),
        Err(error) => Err(error.text().to_string()),
    }
}
