//! What is mounted where.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::error::FsError;

/// `f_type` of file systems whose other users inotify does not see: NFS, CIFS, SMB, SMB2, FUSE.
const NETWORK: [i64; 5] = [0x6969, 0xFF53_4D42, 0x517B, 0xFE53_4D42, 0x6573_5546];

/// Whether `path` is on a network file system, where changes made elsewhere are not seen.
pub(crate) fn is_network(path: &Path) -> Result<bool, FsError> {
    let stat = rustix::fs::statfs(path)
        .map_err(|e| FsError::io(format!("error checking the mount of '{}'", path.display()), e))?;
    // The width of the field differs between machines, and magic numbers with the highest bit set come back negative.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    let kind = i64::from(stat.f_type as u32);
    Ok(NETWORK.contains(&kind))
}

/// Refuses when `path` is a mount point or has one below it. `what` is what would have been done to it.
pub(crate) fn refuse_within(path: &Path, what: &str) -> Result<(), FsError> {
    // The mounts are listed by their real paths; the last part is not followed, as by what follows.
    let real = match (path.parent().map(std::fs::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    };
    // Without /proc the kernel's own refusal (EBUSY) remains.
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    for point in points(&table) {
        if point == real {
            let text = format!("'{}' is a mount point and cannot be {what}", path.display());
            return Err(FsError::invalid(text));
        }
        if point.starts_with(&real) {
            let text = format!(
                "'{}' cannot be {what}: something is mounted on '{}'",
                path.display(),
                point.display()
            );
            return Err(FsError::invalid(text));
        }
    }
    Ok(())
}

/// The mount points of `/proc/self/mountinfo`: the fifth field of each line.
fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(unescape)
}

/// Spaces, tabs, newlines and backslashes stand as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) = (first, after) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mount_points() {
        let table = b"21 1 0:20 / /proc rw - proc proc rw\n22 1 0:21 / /mnt/a\\040b\\134 rw - tmpfs t rw\n\nbroken\n";
        let points: Vec<_> = points(table).collect();
        assert_eq!(points, [Path::new("/proc"), Path::new("/mnt/a b\\")]);
    }

    #[test]
    fn mount_points_and_what_holds_them_are_refused() {
        let text = refuse_within(Path::new("/proc"), "removed").unwrap_err().text();
        assert_eq!(text, "'/proc' is a mount point and cannot be removed");
        let folder = tempfile::tempdir().unwrap();
        refuse_within(folder.path(), "removed").unwrap();
    }

    #[test]
    fn local_file_systems_are_local() {
        assert!(!is_network(Path::new("/proc")).unwrap());
    }
}
