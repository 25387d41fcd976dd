//! The files that a `COPY` names, out of the folder of a build.
//!
//! They are packed as E2B's SDKs pack them: a tar of the source and all below it, by paths relative to the folder, without
//! what `.dockerignore` leaves out; symbolic links stay links. The hash is the SDKs', too. Nothing outside of the folder is
//! read: links in it that lead out are not followed, whoever puts them there and whenever.
//!
//! All of it blocks: call it on a thread that may.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::Path,
};

use cap_std::{
    ambient_authority,
    fs::{Dir, File, Metadata, OpenOptions},
};

use crate::{Ignore, IgnoreError, digest::Hasher, limits, pattern};

/// The folder of a build.
#[derive(Debug)]
pub struct Context {
    folder: Dir,
    ignore: Ignore,
}

/// What a packed source has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files, folders and links.
    pub files: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Sockets, pipes and devices, which are not packed.
    pub left_out: Vec<String>,
}

/// Why files cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The folder's `.dockerignore` is not understood.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// Nothing has this name, or all of it is left out.
    #[error("no file of the context matches {0:?}; is it named in .dockerignore?")]
    Nothing(String),
    /// It is not a path or pattern below the folder.
    #[error("{source_path:?} cannot be copied: {why}")]
    Source {
        /// What was asked for.
        source_path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A file could not be read, or leads out of the folder.
    #[error("{path:?} of the context could not be read")]
    Read {
        /// The file, relative to the folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The tar could not be written.
    #[error("the archive of the context could not be written")]
    Write(#[source] io::Error),
    /// A name that is not text, or there is too much.
    #[error("{path:?} of the context cannot be copied: {why}")]
    Refused {
        /// The file or folder, relative to the folder of the build.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link,
    Other,
}

type Found = BTreeMap<String, Kind>;

fn read_error(path: &str) -> impl FnOnce(io::Error) -> ContextError {
    let path = path.to_owned();
    move |source| ContextError::Read { path, source }
}

fn kind(file: cap_std::fs::FileType) -> Kind {
    if file.is_symlink() {
        Kind::Link
    } else if file.is_dir() {
        Kind::Folder
    } else if file.is_file() {
        Kind::File
    } else {
        Kind::Other
    }
}

/// The whole mode, as `stat` gives it.
#[cfg(unix)]
fn mode(meta: &Metadata) -> u32 {
    cap_std::fs::MetadataExt::mode(meta)
}

#[cfg(not(unix))]
fn mode(meta: &Metadata) -> u32 {
    match kind(meta.file_type()) {
        Kind::Folder => 0o040_755,
        Kind::Link => 0o120_777,
        _ => 0o100_644,
    }
}

impl Context {
    /// Opens the folder, and reads its `.dockerignore`.
    ///
    /// # Errors
    /// It is no folder, or its `.dockerignore` cannot be read or is not understood.
    pub fn open(folder: &Path) -> Result<Self, ContextError> {
        let folder = Dir::open_ambient_dir(folder, ambient_authority()).map_err(read_error("."))?;
        let mut context = Self {
            folder,
            ignore: Ignore::default(),
        };
        let name = ".dockerignore";
        match context.folder.metadata(name) {
            Ok(meta) if meta.is_file() => {
                let mut text = String::new();
                let file = context.folder.open(name).map_err(read_error(name))?;
                file.take(limits::DOCKERFILE_BYTES as u64 + 1)
                    .read_to_string(&mut text)
                    .map_err(read_error(name))?;
                context.ignore = Ignore::parse(&text)?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(read_error(name)(error)),
        }
        Ok(context)
    }

    /// The SHA-256 over the source's and destination's names, and names, modes and contents of all files, as 64 hexadecimal
    /// digits: E2B's `filesHash`. Owners and times do not count.
    ///
    /// # Errors
    /// There is no such file, or one cannot be read.
    pub fn hash(&self, source: &str, dest: &str) -> Result<String, ContextError> {
        let mut hasher = Hasher::default();
        hasher.add(format!("COPY {source} {dest}").as_bytes());
        for (path, kind) in &self.find(source)? {
            hasher.add(path.as_bytes());
            match kind {
                Kind::File => {
                    let (file, meta) = self.file(path)?;
                    hasher.add(format!("{}{}", mode(&meta), meta.len()).as_bytes());
                    copy(file, meta.len(), path, |part| {
                        hasher.add(part);
                        Ok(())
                    })?;
                }
                Kind::Folder => {
                    let meta = self.folder.symlink_metadata(path).map_err(read_error(path))?;
                    hasher.add(mode(&meta).to_string().as_bytes());
                }
                Kind::Link => {
                    let meta = self.folder.symlink_metadata(path).map_err(read_error(path))?;
                    let to = self.link(path)?;
                    hasher.add(format!("{}{}", mode(&meta), meta.len()).as_bytes());
                    hasher.add(to.as_os_str().as_encoded_bytes());
                }
                // Not packed, so it does not count.
                Kind::Other => {}
            }
        }
        Ok(hasher.end().hex())
    }

    /// Writes a tar of the source and all below it. The same files give the same bytes.
    ///
    /// # Errors
    /// There is no such file, one cannot be read or changes meanwhile, or the tar cannot be written.
    pub fn pack(&self, source: &str, into: impl Write) -> Result<Packed, ContextError> {
        let mut packed = Packed::default();
        let mut archive = tar::Builder::new(into);
        for (path, kind) in &self.find(source)? {
            if *kind == Kind::Other {
                packed.left_out.push(path.clone());
                continue;
            }
            packed.files += 1;
            let mut header = tar::Header::new_gnu();
            if *kind == Kind::File {
                let (file, meta) = self.file(path)?;
                attributes(&mut header, &meta);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(meta.len());
                packed.bytes = packed.bytes.saturating_add(meta.len());
                if packed.bytes > limits::CONTEXT_BYTES {
                    return Err(ContextError::Refused {
                        path: path.clone(),
                        why: "with it the files are too large together",
                    });
                }
                let exact = Exact {
                    inner: file,
                    left: meta.len(),
                };
                archive.append_data(&mut header, path, exact).map_err(|error| {
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        read_error(path)(error)
                    } else {
                        ContextError::Write(error)
                    }
                })?;
                continue;
            }
            let meta = self.folder.symlink_metadata(path).map_err(read_error(path))?;
            attributes(&mut header, &meta);
            header.set_size(0);
            if *kind == Kind::Folder {
                header.set_entry_type(tar::EntryType::Directory);
                archive
                    .append_data(&mut header, format!("{path}/"), io::empty())
                    .map_err(ContextError::Write)?;
            } else {
                header.set_entry_type(tar::EntryType::Symlink);
                let to = self.link(path)?;
                archive
                    .append_link(&mut header, path, to)
                    .map_err(ContextError::Write)?;
            }
        }
        let mut into = archive.into_inner().map_err(ContextError::Write)?;
        into.flush().map_err(ContextError::Write)?;
        Ok(packed)
    }

    /// Opens a regular file. What has become something else since it was found is refused.
    fn file(&self, path: &str) -> Result<(File, Metadata), ContextError> {
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            use cap_std::fs::OpenOptionsExt;
            // A pipe would make the open wait.
            let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
            options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
        }
        let file = self.folder.open_with(path, &options).map_err(read_error(path))?;
        let meta = file.metadata().map_err(read_error(path))?;
        if meta.is_file() {
            return Ok((file, meta));
        }
        Err(ContextError::Refused {
            path: path.to_owned(),
            why: "it changed while it was read",
        })
    }

    fn link(&self, path: &str) -> Result<std::path::PathBuf, ContextError> {
        self.folder.read_link_contents(path).map_err(read_error(path))
    }

    /// What a source means: paths and kinds, in the order of their bytes.
    fn find(&self, source: &str) -> Result<Found, ContextError> {
        let wrong = |why| ContextError::Source {
            source_path: source.chars().take(limits::LINE_CHARS).collect(),
            why,
        };
        if source.starts_with('/') {
            return Err(wrong("it is absolute; name it relative to the context"));
        }
        let cleaned = pattern::clean(source).ok_or_else(|| wrong("it leads out of the context"))?;
        let mut found = Found::new();
        if pattern::is_pattern(&cleaned) {
            let regex = pattern::compile(&cleaned).map_err(|_| wrong("a bracket or a backslash is not ended"))?;
            self.walk(".", 0, &mut found, &|path| regex.is_match(path))?;
        } else {
            let meta = match self.folder.symlink_metadata(&cleaned) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(ContextError::Nothing(source.to_owned()));
                }
                Err(error) => return Err(read_error(&cleaned)(error)),
            };
            if cleaned == "." || !self.ignore.matches(&cleaned) {
                let kind = kind(meta.file_type());
                found.insert(cleaned.clone(), kind);
                if kind == Kind::Folder {
                    self.walk(&cleaned, 0, &mut found, &|_| true)?;
                }
            }
        }
        if found.is_empty() {
            return Err(ContextError::Nothing(source.to_owned()));
        }
        Ok(found)
    }

    /// Adds what lies below a folder and is wanted, itself or with a folder above it.
    fn walk(
        &self,
        folder: &str,
        depth: usize,
        found: &mut Found,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), ContextError> {
        let refused = |why| ContextError::Refused {
            path: folder.to_owned(),
            why,
        };
        if depth > limits::CONTEXT_DEPTH {
            return Err(refused("its folders lie too deep within each other"));
        }
        for entry in self.folder.read_dir(folder).map_err(read_error(folder))? {
            let entry = entry.map_err(read_error(folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Err(refused("a name in it is not text (UTF-8)"));
            };
            let path = if folder == "." {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            let kind = kind(entry.file_type().map_err(read_error(&path))?);
            let ignored = self.ignore.matches(&path);
            let is_wanted = wanted(&path);
            if is_wanted && !ignored {
                found.insert(path.clone(), kind);
                if found.len() > limits::CONTEXT_FILES {
                    return Err(refused("there are too many files; name some in .dockerignore"));
                }
            }
            if kind == Kind::Folder && (!ignored || self.ignore.may_bring_back(&path)) {
                if is_wanted {
                    self.walk(&path, depth + 1, found, &|_| true)?;
                } else {
                    self.walk(&path, depth + 1, found, wanted)?;
                }
            }
        }
        Ok(())
    }
}

/// Mode and time; everything belongs to root until somebody says otherwise.
fn attributes(header: &mut tar::Header, meta: &Metadata) {
    header.set_mode(mode(meta) & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    let time = meta.modified().ok().map(cap_std::time::SystemTime::into_std);
    let seconds = time.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    header.set_mtime(seconds.map_or(0, |time| time.as_secs()));
}

/// Gives so many bytes, or an error.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it became shorter while it was read",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn copy(file: File, bytes: u64, path: &str, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), ContextError> {
    let mut exact = Exact {
        inner: file,
        left: bytes,
    };
    let mut part = vec![0; 1 << 16];
    loop {
        match exact
            .read(&mut part)
            .and_then(|read| each(&part[..read]).map(|()| read))
        {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(path)(error)),
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
