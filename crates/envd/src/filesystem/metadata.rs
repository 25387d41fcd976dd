//! Metadata of files, kept in extended attributes `user.e2b.*`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sandhold_wire::names::METADATA_XATTR_PREFIX;

use super::error::FsError;

/// Where the attributes are read from: a path without following a link, or an open file.
enum At<'a> {
    Path(&'a Path),
    File(&'a File),
}

impl At<'_> {
    fn list(&self, buffer: &mut Vec<u8>) -> rustix::io::Result<usize> {
        let to = rustix::buffer::spare_capacity(buffer);
        match self {
            Self::Path(path) => rustix::fs::llistxattr(*path, to),
            Self::File(file) => rustix::fs::flistxattr(file, to),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut Vec<u8>) -> rustix::io::Result<usize> {
        let to = rustix::buffer::spare_capacity(buffer);
        match self {
            Self::Path(path) => rustix::fs::lgetxattr(*path, name, to),
            Self::File(file) => rustix::fs::fgetxattr(file, name, to),
        }
    }

    /// The attributes that hold metadata. None where the file system has no such attributes.
    fn names(&self) -> Vec<Vec<u8>> {
        let mut list = Vec::with_capacity(1024);
        match self.list(&mut list) {
            Ok(_) => {}
            Err(Errno::RANGE) => {
                list = Vec::with_capacity(64 << 10);
                if self.list(&mut list).is_err() {
                    return Vec::new();
                }
            }
            Err(_) => return Vec::new(),
        }
        list.split(|b| *b == 0)
            .filter(|name| name.starts_with(METADATA_XATTR_PREFIX.as_bytes()))
            .map(<[u8]>::to_vec)
            .collect()
    }
}

/// The metadata of `path` itself, not of what it links to.
pub(crate) fn read(path: &Path) -> BTreeMap<String, String> {
    let at = At::Path(path);
    let mut metadata = BTreeMap::new();
    for name in at.names() {
        let mut value = Vec::with_capacity(64 << 10);
        if at.get(&name, &mut value).is_ok() {
            let key = &name[METADATA_XATTR_PREFIX.len()..];
            metadata.insert(
                String::from_utf8_lossy(key).into_owned(),
                String::from_utf8_lossy(&value).into_owned(),
            );
        }
    }
    metadata
}

/// Gives `file` exactly this metadata; what it had before is gone.
pub(crate) fn replace(file: &File, path: &Path, metadata: &BTreeMap<String, String>) -> Result<(), FsError> {
    for name in At::File(file).names() {
        let kept = std::str::from_utf8(&name[METADATA_XATTR_PREFIX.len()..]).is_ok_and(|k| metadata.contains_key(k));
        if !kept {
            rustix::fs::fremovexattr(file, name.as_slice())
                .map_err(|e| FsError::io(format!("error clearing metadata of '{}'", path.display()), e))?;
        }
    }
    for (key, value) in metadata {
        let name = format!("{METADATA_XATTR_PREFIX}{key}");
        rustix::fs::fsetxattr(file, name, value.as_bytes(), XattrFlags::empty()).map_err(|e| match e {
            Errno::OPNOTSUPP => FsError::invalid(format!(
                "the file system of '{}' cannot keep metadata (it has no user extended attributes); upload without X-Metadata headers",
                path.display()
            )),
            e => FsError::io(format!("error setting metadata '{key}' of '{}'", path.display()), e),
        })?;
    }
    Ok(())
}
