//! A tar as a table: which names it has, and where what they hold begins. Nothing is unpacked.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tar::EntryType;

use crate::{ImageError, limits};

/// Links that are followed one after another.
const LINKS: usize = 8;

#[derive(Debug)]
pub(crate) struct Tarball {
    pub(super) path: PathBuf,
    pub(super) file: Arc<Mutex<File>>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    /// Where it begins, and its bytes.
    File(u64, u64),
    /// Another name of the archive.
    Link(String),
}

/// Reads the heads of an archive and no more than that: a head may say that a name of gigabytes follows.
struct Heads {
    file: File,
    left: u64,
}

impl Read for Heads {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 && !into.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its list of files is too long",
            ));
        }
        let read = self.file.read(&mut into[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl Seek for Heads {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Tarball {
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(ImageError::io(&*name))?;
        let mut magic = [0; 4];
        let read = file.read(&mut magic).map_err(ImageError::io(&*name))?;
        let packed = match &magic[..read] {
            [0x1f, 0x8b, ..] => Some("gunzip"),
            [0x28, 0xb5, 0x2f, 0xfd] => Some("unzstd"),
            [b'B', b'Z', b'h', ..] => Some("bunzip2"),
            [0xfd, b'7', b'z', b'X'] => Some("unxz"),
            _ => None,
        };
        if let Some(tool) = packed {
            let why = format!("it is a compressed archive; take the compression off first, with {tool}");
            return Err(ImageError::invalid(name, why));
        }
        let entries = table(&file).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::Other
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidInput => {
                ImageError::invalid(&*name, format!("it is not a tar of an image: {error}"))
            }
            _ => ImageError::io(&*name)(error),
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(file)),
            entries,
        })
    }

    /// Where a file of the archive begins, and its bytes.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..LINKS {
            match self.entries.get(name)? {
                Entry::File(at, bytes) => return Some((*at, *bytes)),
                Entry::Link(to) => name = to,
            }
        }
        None
    }
}

fn table(file: &File) -> io::Result<HashMap<String, Entry>> {
    let bytes = file.metadata()?.len();
    let mut heads = Heads {
        file: file.try_clone()?,
        left: limits::ARCHIVE_INDEX_BYTES,
    };
    heads.rewind()?;
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut entries = HashMap::new();
    let mut count = 0;
    let mut archive = tar::Archive::new(heads);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        count += 1;
        if count > limits::ARCHIVE_ENTRIES {
            return Err(wrong("it has too many files"));
        }
        // A name that is no text, or that leads up, is none that is ever looked for.
        let Some(name) = plain("", &entry.path_bytes()) else {
            continue;
        };
        let kind = entry.header().entry_type();
        let found = match kind {
            EntryType::Regular | EntryType::Continuous => {
                let (at, size) = (entry.raw_file_position(), entry.size());
                if at.checked_add(size).is_none_or(|end| end > bytes) {
                    return Err(wrong("it is cut off"));
                }
                Entry::File(at, size)
            }
            EntryType::Symlink | EntryType::Link => {
                let folder = match kind {
                    EntryType::Symlink => name.rsplit_once('/').map_or("", |(folder, _)| folder),
                    _ => "",
                };
                let Some(to) = entry.link_name_bytes().and_then(|to| plain(folder, &to)) else {
                    continue;
                };
                Entry::Link(to)
            }
            _ => continue,
        };
        // Programs that unpack take the last one, others the first: two images in one archive.
        if entries.insert(name, found).is_some() {
            return Err(wrong("it has a name twice"));
        }
    }
    Ok(entries)
}

/// A name without `.` and `..`; none if it leads out, is absolute, or is no text.
fn plain(folder: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if name.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, EntryType, &str, &[u8])]) -> tempfile::NamedTempFile {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, link, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            // As a hostile archive does: the builder would refuse some names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), builder.into_inner().unwrap()).unwrap();
        file
    }

    #[test]
    fn names_are_looked_up_and_lead_nowhere() {
        let file = tar(&[
            ("./a/layer.tar", EntryType::Regular, "", b"one"),
            ("b/layer.tar", EntryType::Symlink, "../a/layer.tar", b""),
            ("c", EntryType::Link, "a/layer.tar", b""),
            ("d", EntryType::Symlink, "/etc/passwd", b""),
            ("e", EntryType::Symlink, "../../etc/passwd", b""),
            ("f", EntryType::Symlink, "f", b""),
            ("../g", EntryType::Regular, "", b"two"),
            ("/h", EntryType::Regular, "", b"three"),
            ("dev", EntryType::Char, "", b""),
        ]);
        let tarball = Tarball::open(file.path()).unwrap();
        assert_eq!(tarball.find("a/layer.tar"), Some((512, 3)));
        assert_eq!(tarball.find("b/layer.tar"), Some((512, 3)));
        assert_eq!(tarball.find("c"), Some((512, 3)));
        for none in ["d", "e", "f", "g", "../g", "h", "/h", "dev", "etc/passwd", ""] {
            assert_eq!(tarball.find(none), None, "{none}");
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        let why = |file: &tempfile::NamedTempFile| Tarball::open(file.path()).unwrap_err().to_string();
        let twice = tar(&[
            ("a", EntryType::Regular, "", b"1"),
            ("./a", EntryType::Regular, "", b"2"),
        ]);
        assert!(why(&twice).contains("twice"));
        let many: Vec<String> = (0..=limits::ARCHIVE_ENTRIES).map(|i| i.to_string()).collect();
        let many: Vec<_> = many
            .iter()
            .map(|name| (name.as_str(), EntryType::Regular, "", &b""[..]))
            .collect();
        assert!(why(&tar(&many)).contains("too many"));
        // A file that says to be longer than the archive.
        let cut = tar(&[("a", EntryType::Regular, "", &[7; 5000])]);
        let bytes = std::fs::read(cut.path()).unwrap();
        std::fs::write(cut.path(), &bytes[..2000]).unwrap();
        assert!(why(&cut).contains("not a tar of an image"), "{}", why(&cut));
        // A name of a gigabyte, of holes.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 30);
        header.set_cksum();
        let long = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(long.path(), header.as_bytes()).unwrap();
        File::options()
            .write(true)
            .open(long.path())
            .unwrap()
            .set_len(2 << 30)
            .unwrap();
        assert!(why(&long).contains("too long"), "{}", why(&long));
        for (bytes, part) in [
            (&b"\x1f\x8b\x08\0"[..], "gunzip"),
            (b"no tar at all, but quite some text", "tar"),
        ] {
            std::fs::write(cut.path(), bytes).unwrap();
            assert!(why(&cut).contains(part), "{}", why(&cut));
        }
    }
}
