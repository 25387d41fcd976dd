//! Files of the machine that this server runs on: only below folders that the user named, by descriptors that `..`, links and
//! renames cannot lead out of them (`cap-std`: `openat2` where the kernel has it, otherwise step by step).

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use cap_std::{
    ambient_authority,
    fs::{Dir, File, OpenOptions, Permissions},
};
use futures::{StreamExt, stream::BoxStream};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::{answer::ToolError, limits};

/// A folder that tools may use.
#[derive(Debug)]
pub struct HostFolder {
    /// As it was named, made absolute.
    named: PathBuf,
    /// Without links.
    real: PathBuf,
    dir: Dir,
}

impl HostFolder {
    /// Opens the folder at `path`. What the folder is then, it stays, even if another takes its name.
    ///
    /// # Errors
    /// It is not there, is no folder, or may not be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        Ok(Self {
            named: std::path::absolute(path)?,
            real: path.canonicalize()?,
            dir,
        })
    }
}

/// Which files of this machine a call may use.
#[derive(Debug)]
pub(crate) enum Host {
    /// Those below these folders.
    Folders(Arc<[HostFolder]>),
    /// None: whoever calls over HTTP may sit elsewhere.
    OverHttp,
}

impl Host {
    /// The folder that `path` lies in, and where.
    fn find(&self, path: &str) -> Result<(&HostFolder, PathBuf), ToolError> {
        limits::path("local_path", path)?;
        let folders = match self {
            Self::OverHttp => {
                return Err(
                    ToolError::new("not_allowed", "files of the server's machine cannot be used over HTTP").hint(
                        "Use presigned_upload_url and presigned_download_url, or write_file and read_file for small ones.",
                    ),
                );
            }
            Self::Folders(folders) => folders,
        };
        if folders.is_empty() {
            return Err(ToolError::new("not_allowed", "no folder of this machine is allowed").hint(
                "The user can allow one by starting the server with --allow-dir FOLDER. Without: presigned_upload_url, \
                 presigned_download_url, write_file, read_file.",
            ));
        }
        let given = Path::new(path);
        let found = if given.is_absolute() {
            folders.iter().find_map(|folder| {
                let below = |root: &Path| given.strip_prefix(root).ok().map(Path::to_owned);
                Some((folder, below(&folder.named).or_else(|| below(&folder.real))?))
            })
        } else {
            folders.first().map(|folder| (folder, given.to_owned()))
        };
        let (folder, below) = found.ok_or_else(|| outside(path, folders))?;
        if below.file_name().is_none() || below.components().next_back() == Some(Component::CurDir) {
            return Err(ToolError::invalid(format!("local_path is {path}, which names no file")));
        }
        Ok((folder, below))
    }

    /// Refuses a path by its letters, before anything is done for it.
    pub(crate) fn allows(&self, path: &str) -> Result<(), ToolError> {
        self.find(path).map(drop)
    }

    /// Opens a file to read it. Gives its length, too.
    pub(crate) fn read(&self, path: &str) -> Result<(HostFile, u64), ToolError> {
        let (folder, below) = self.find(path)?;
        let failed = |e: io::Error| self.explain(path, "read", &e);
        // Looked at before it is opened: opening a pipe or a device does something to it.
        let before = folder.dir.metadata(&below).map_err(failed)?;
        if !before.is_file() {
            return Err(
                ToolError::invalid(format!("local_path is {path}, which is no regular file"))
                    .hint("Pack a folder into one file first."),
            );
        }
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
        let file = folder.dir.open_with(&below, &options).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(ToolError::invalid(format!(
                "local_path is {path}, which is no regular file"
            )));
        }
        if meta.len() > limits::TRANSFER {
            return Err(ToolError::invalid(format!(
                "{path} has {} bytes; at most {} are carried",
                meta.len(),
                limits::TRANSFER
            )));
        }
        Ok((HostFile { file }, meta.len()))
    }

    /// Begins a file at `path`, beside its place. Folders above it are made.
    pub(crate) fn write(&self, path: &str, replace: bool) -> Result<NewFile, ToolError> {
        let (folder, below) = self.find(path)?;
        let failed = |e: io::Error| self.explain(path, "write", &e);
        let name = below.file_name().unwrap_or_default().to_owned();
        let above = below.parent().filter(|p| !p.as_os_str().is_empty());
        let dir = match above {
            None => folder.dir.try_clone(),
            Some(above) => match folder.dir.open_dir(above) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => folder
                    .dir
                    .create_dir_all(above)
                    .and_then(|()| folder.dir.open_dir(above)),
                opened => opened,
            },
        }
        .map_err(failed)?;
        let mut before = None;
        match dir.symlink_metadata(&name) {
            Ok(meta) if meta.is_dir() => {
                return Err(ToolError::invalid(format!("local_path is {path}, which is a folder")));
            }
            Ok(_) if !replace => return Err(taken(path)),
            Ok(known) => before = Some(known.permissions()).filter(|_| known.is_file()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let mut temporary = OsString::from(".");
        let shown: String = name.to_string_lossy().chars().take(40).collect();
        temporary.push(format!("{shown}.{}.part", uuid::Uuid::new_v4().simple()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if before.is_some() {
            // What replaces a private file is private from its first byte.
            cap_std::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let file = dir.open_with(&temporary, &options).map_err(failed)?;
        Ok(NewFile {
            file: Some(file),
            dir,
            temporary,
            name,
            path: path.to_owned(),
            replace,
            before,
        })
    }

    /// An error about a file, in words for a model.
    fn explain(&self, path: &str, what: &str, error: &io::Error) -> ToolError {
        let Self::Folders(folders) = self else {
            return ToolError::new("not_allowed", format!("cannot {what} {path}"));
        };
        match error.kind() {
            io::ErrorKind::NotFound => {
                ToolError::new("not_found", format!("local_path is {path}, which does not exist"))
            }
            // So cap-std says that a path leads out; the kernel's own refusal of a file's permissions is told alike.
            io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => outside(path, folders),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ToolError::new(
                "no_space",
                format!("cannot {what} {path}: the disk of this machine is full"),
            ),
            _ => ToolError::new("host_file", format!("cannot {what} {path}: {error}")),
        }
    }
}

fn outside(path: &str, folders: &[HostFolder]) -> ToolError {
    let allowed: Vec<String> = folders.iter().map(|f| f.named.display().to_string()).collect();
    ToolError::new(
        "not_allowed",
        format!("local_path is {path}, which is not inside a folder that the user allowed"),
    )
    .hint(format!(
        "Allowed: {}. Links and .. that lead out are not followed.",
        allowed.join(", ")
    ))
}

fn taken(path: &str) -> ToolError {
    ToolError::new("already_exists", format!("{path} exists on this machine"))
        .hint("Choose another name, or set overwrite if the user wants it replaced.")
}

/// A file that is open for reading.
pub(crate) struct HostFile {
    file: File,
}

impl HostFile {
    /// Its content, in pieces, no more than is allowed.
    pub(crate) fn stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        let file = tokio::fs::File::from_std(self.file.into_std()).take(limits::TRANSFER);
        ReaderStream::with_capacity(file, limits::TRANSFER_PIECE).boxed()
    }
}

/// A file that is being written beside its place. Dropped before [`NewFile::finish`], it is removed.
pub(crate) struct NewFile {
    file: Option<File>,
    dir: Dir,
    temporary: OsString,
    name: OsString,
    path: String,
    replace: bool,
    /// The permissions of the file in its place.
    before: Option<Permissions>,
}

impl NewFile {
    /// Whether something stands in its place now, which it will replace.
    pub(crate) fn replaces(&self) -> bool {
        self.dir.symlink_metadata(&self.name).is_ok()
    }

    /// Writes what `content` gives. Returns how many bytes that were; the error of `content` is told as it is.
    pub(crate) async fn fill<E>(
        self,
        mut content: BoxStream<'static, Result<Bytes, E>>,
        moved: impl Fn(u64),
    ) -> Result<u64, FillError<E>> {
        let mut this = self;
        let mut total = 0;
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(FillError::Content)?;
            total += piece.len() as u64;
            if total > limits::TRANSFER {
                return Err(FillError::TooLarge);
            }
            this = in_background(move || {
                if let Some(file) = &mut this.file {
                    file.write_all(&piece)?;
                }
                Ok(this)
            })
            .await
            .map_err(FillError::Host)?;
            moved(total);
        }
        in_background(move || this.finish()).await.map_err(FillError::Host)?;
        Ok(total)
    }

    /// Puts the file in its place.
    fn finish(mut self) -> io::Result<()> {
        let file = self.file.take();
        let before = self.before.take();
        let whole = file.map_or(Ok(()), |file| {
            before.map_or(Ok(()), |known| file.set_permissions(known))?;
            file.sync_all()
        });
        let placed = whole.and_then(|()| {
            if self.replace {
                return self.dir.rename(&self.temporary, &self.dir, &self.name);
            }
            // A second name is refused where a file stands by now; a rename would replace it.
            match self.dir.hard_link(&self.temporary, &self.dir, &self.name) {
                Ok(()) => self.dir.remove_file(&self.temporary),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
                // File systems without such names.
                Err(_) if self.dir.symlink_metadata(&self.name).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
                Err(_) => self.dir.rename(&self.temporary, &self.dir, &self.name),
            }
        });
        if placed.is_ok() {
            self.temporary.clear();
        }
        placed
    }

    /// What a failure at [`NewFile::fill`] is to a model.
    pub(crate) fn explain(path: &str, error: &io::Error) -> ToolError {
        match error.kind() {
            io::ErrorKind::AlreadyExists => taken(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ToolError::new(
                "no_space",
                format!("cannot write {path}: the disk of this machine is full"),
            ),
            _ => ToolError::new("host_file", format!("cannot write {path}: {error}")),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.temporary.is_empty() {
            self.file = None;
            if let Err(error) = self.dir.remove_file(&self.temporary) {
                tracing::debug!(path = self.path, %error, "a half file was not removed");
            }
        }
    }
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError<E> {
    /// What was to be written did not come.
    #[error("the content broke off")]
    Content(E),
    /// It is more than is carried.
    #[error("there are more than {} bytes", limits::TRANSFER)]
    TooLarge,
    /// This machine did not take it.
    #[error("it was not written")]
    Host(io::Error),
}

async fn in_background<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use futures::stream;

    use super::*;

    struct Stage {
        folder: tempfile::TempDir,
        host: Host,
    }

    /// A folder that is allowed, beside one that is not.
    fn stage() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        for name in ["in/sub", "out"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("in/a"), "a").unwrap();
        fs::write(folder.path().join("out/secret"), "secret").unwrap();
        let inside = folder.path().join("in");
        symlink(folder.path().join("out"), inside.join("way")).unwrap();
        symlink("../out/secret", inside.join("link")).unwrap();
        symlink("a", inside.join("inner")).unwrap();
        let opened = HostFolder::open(&inside).unwrap();
        Stage {
            host: Host::Folders([opened].into()),
            folder,
        }
    }

    async fn write(file: NewFile, content: &'static [u8]) -> Result<u64, FillError<()>> {
        let content = stream::iter(content.chunks(2).map(|c| Ok(Bytes::from_static(c)))).boxed();
        file.fill(content, |_| {}).await
    }

    fn code(refused: Result<impl Sized, ToolError>) -> &'static str {
        refused.err().map_or("none", |e| e.code)
    }

    #[tokio::test]
    async fn nothing_leads_out() {
        let Stage { folder, host } = stage();
        let at = |path: &str| folder.path().join(path).display().to_string();
        for path in [
            "way/secret",
            "link",
            "../out/secret",
            "sub/../../out/secret",
            "/etc/passwd",
        ] {
            assert_eq!(code(host.read(path)), "not_allowed", "{path}");
        }
        assert_eq!(code(host.read(&at("out/secret"))), "not_allowed");
        assert_eq!(code(host.read(&at("in/../out/secret"))), "not_allowed");
        assert_eq!(code(host.read(&at("innn"))), "not_allowed", "a name that begins alike");
        for path in ["way/new", "way/x/new", "../out/new", "../new"] {
            assert_eq!(code(host.write(path, true)), "not_allowed", "{path}");
        }
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
        // The control.
        for path in ["a", "inner", "sub/../a", &at("in/a"), &at("in/sub/../a")] {
            let (file, size) = host.read(path).map_err(|e| e.message).unwrap();
            let pieces: Vec<_> = file.stream().map(Result::unwrap).collect().await;
            assert_eq!((size, pieces.concat()), (1, b"a".to_vec()), "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_there_is_kept_until_the_new_one_is_whole() {
        let Stage { folder, host } = stage();
        let inside = folder.path().join("in");
        let names = || fs::read_dir(&inside).unwrap().count();
        let before = names();
        assert_eq!(code(host.write("a", false)), "already_exists");
        let begun = host.write("a", true).map_err(|e| e.message).unwrap();
        assert_eq!(fs::read(inside.join("a")).unwrap(), b"a");
        drop(begun);
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(())]).boxed();
        let begun = host.write("a", true).map_err(|e| e.message).unwrap();
        assert!(matches!(begun.fill(broken, |_| {}).await, Err(FillError::Content(()))));
        assert_eq!((fs::read(inside.join("a")).unwrap(), names()), (b"a".to_vec(), before));
        let begun = host.write("a", true).map_err(|e| e.message).unwrap();
        assert_eq!(write(begun, b"new").await.unwrap(), 3);
        assert_eq!(fs::read(inside.join("a")).unwrap(), b"new");
        // One that came meanwhile.
        let begun = host.write("b", false).map_err(|e| e.message).unwrap();
        fs::write(inside.join("b"), "mine").unwrap();
        assert!(
            matches!(write(begun, b"new").await, Err(FillError::Host(e)) if e.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(fs::read(inside.join("b")).unwrap(), b"mine");
        // Who could not read the file before cannot read the new one.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(inside.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
        let begun = host.write("a", true).map_err(|e| e.message).unwrap();
        write(begun, b"newer").await.unwrap();
        assert_eq!(
            fs::metadata(inside.join("a")).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // A link is replaced, not followed; folders are made.
        let begun = host.write("link", true).map_err(|e| e.message).unwrap();
        write(begun, b"new").await.unwrap();
        assert_eq!(fs::read(folder.path().join("out/secret")).unwrap(), b"secret");
        let begun = host.write("new/er/file", false).map_err(|e| e.message).unwrap();
        write(begun, b"new").await.unwrap();
        assert_eq!(fs::read(inside.join("new/er/file")).unwrap(), b"new");
    }

    #[test]
    fn only_files() {
        let Stage { host, folder: _kept } = stage();
        assert_eq!(code(host.read("sub")), "invalid_argument");
        assert_eq!(code(host.write("sub", true)), "invalid_argument");
        assert_eq!(code(host.read("nowhere")), "not_found");
        for path in ["", ".", "sub/..", "/"] {
            assert_ne!(code(host.read(path)), "none", "{path}");
        }
    }

    #[test]
    fn without_a_folder_it_says_how() {
        let none = Host::Folders([].into());
        let said = none.read("/etc/passwd").err().map(|e| e.text()).unwrap_or_default();
        assert!(said.contains("--allow-dir"), "{said}");
        assert_eq!(code(Host::OverHttp.write("/tmp/x", true)), "not_allowed");
    }
}
