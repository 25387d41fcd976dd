//! What is told about one file, folder or link.

use std::fs::{FileType as StdType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use buffa_types::google::protobuf::Timestamp;
use sandhold_wire::proto::filesystem::{EntryInfo, FileType};

use super::error::{FsError, Kind};
use super::metadata;
use crate::users::Names;

/// The entry at `path`, which is not followed when it is a link.
pub(crate) fn at(path: &Path, names: &Names) -> Result<EntryInfo, FsError> {
    let meta = std::fs::symlink_metadata(path).map_err(|e| {
        let error = FsError::io(format!("file not found: '{}'", path.display()), e);
        match error.kind {
            Kind::NotFound => error,
            kind => {
                let text = error.text();
                FsError::new(kind, text.replacen("file not found:", "error getting file info:", 1))
            }
        }
    })?;
    Ok(of(path, &meta, names))
}

/// The entry at `path` with what `lstat` said.
pub(crate) fn of(path: &Path, meta: &Metadata, names: &Names) -> EntryInfo {
    let (kind, mode, symlink_target) = if meta.file_type().is_symlink() {
        // As E2B: type and mode are the target's, and a link that leads nowhere names itself and has no type.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (kind, mode) = match std::fs::metadata(path) {
            Ok(followed) => (type_of(followed.file_type()), followed.mode()),
            Err(_) => (FileType::FILE_TYPE_UNSPECIFIED, 0),
        };
        (kind, mode, Some(target.to_string_lossy().into_owned()))
    } else {
        (type_of(meta.file_type()), meta.mode(), None)
    };
    EntryInfo {
        name: path
            .file_name()
            .map_or_else(|| "/".to_owned(), |n| n.to_string_lossy().into_owned()),
        r#type: kind.into(),
        path: path.to_string_lossy().into_owned(),
        size: i64::try_from(meta.len()).unwrap_or(i64::MAX),
        mode: mode & 0o777,
        permissions: permissions(meta.mode()),
        owner: names.user(meta.uid()),
        group: names.group(meta.gid()),
        modified_time: Timestamp {
            seconds: meta.mtime(),
            nanos: i32::try_from(meta.mtime_nsec()).unwrap_or_default(),
            ..Timestamp::default()
        }
        .into(),
        is_symlink: symlink_target.is_some(),
        symlink_target,
        metadata: metadata::read(path).into_iter().collect(),
        ..EntryInfo::default()
    }
}

fn type_of(kind: StdType) -> FileType {
    if kind.is_file() {
        FileType::FILE_TYPE_FILE
    } else if kind.is_dir() {
        FileType::FILE_TYPE_DIRECTORY
    } else {
        FileType::FILE_TYPE_UNSPECIFIED
    }
}

/// What kind of thing it is when it is neither a file, a folder nor a link.
pub(crate) fn special_kind(kind: StdType) -> &'static str {
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The mode as Go's `FileMode.String` writes it: letters for kind and special bits, then nine for the permissions.
fn permissions(mode: u32) -> String {
    let mut text = String::with_capacity(12);
    text.push_str(match mode & libc::S_IFMT {
        libc::S_IFDIR => "d",
        libc::S_IFLNK => "L",
        libc::S_IFBLK => "D",
        libc::S_IFIFO => "p",
        libc::S_IFSOCK => "S",
        _ => "",
    });
    let character_device = mode & libc::S_IFMT == libc::S_IFCHR;
    for (is, letter) in [
        (character_device, 'D'),
        (mode & libc::S_ISUID != 0, 'u'),
        (mode & libc::S_ISGID != 0, 'g'),
        (character_device, 'c'),
        (mode & libc::S_ISVTX != 0, 't'),
    ] {
        if is {
            text.push(letter);
        }
    }
    if text.is_empty() {
        text.push('-');
    }
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode & (1 << bit) != 0 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_go_writes_them() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o060_660, "Drw-rw----"),
            (0o010_600, "prw-------"),
            (0o140_000, "S---------"),
        ] {
            assert_eq!(permissions(mode), text, "{mode:o}");
        }
    }
}
