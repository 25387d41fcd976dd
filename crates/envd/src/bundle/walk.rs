//! Goes through a folder for packing. Nothing is followed: every step goes through the descriptor of the folder it is in.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::{Report, Work, about};
use crate::archive::{names, open_dir};
use crate::filesystem::error::{FsError, Kind};
use crate::limits::{BUNDLE_DEPTH, BUNDLE_ENTRIES};

/// Names of folders that tools make again from what is beside them.
const MADE_AGAIN: [&[u8]; 3] = [b"node_modules", b"__pycache__", b".venv"];
/// Files that mark such a folder whatever its name is: a virtual environment of Python, and by the convention of
/// bford.info/cachedir any cache, Cargo's `target` among them.
const MARKS: [&std::ffi::CStr; 2] = [c"pyvenv.cfg", c"CACHEDIR.TAG"];
/// File systems that are made of the kernel's answers.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What an entry is.
pub(super) enum What {
    Dir,
    File,
    /// With what it points to.
    Link(Vec<u8>),
}

/// Something that goes into the archive.
pub(super) struct Found<'a> {
    /// Below the folder that is packed.
    pub(super) path: &'a [u8],
    /// The folder it is in, and its name there.
    pub(super) at: &'a Arc<OwnedFd>,
    pub(super) name: &'a CString,
    pub(super) what: What,
    pub(super) stat: Stat,
}

impl Found<'_> {
    /// Bytes of a file.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Seconds since 1970.
    #[expect(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    pub(super) fn mtime(&self) -> i64 {
        self.stat.st_mtime as i64
    }

    /// Kind and permissions. Set-id bits mean nothing outside of this sandbox.
    pub(super) fn mode(&self) -> u32 {
        self.stat.st_mode & (0o170_000 | 0o777)
    }
}

/// Takes what is found.
pub(super) trait Sink {
    /// Packs one entry. What cannot be read goes into `report`.
    fn add(&mut self, found: &Found<'_>, report: &mut Report) -> Result<(), FsError>;
}

/// How to walk.
pub(super) struct Options<'a> {
    pub(super) src: &'a Path,
    /// Leave out what tools make again.
    pub(super) leave_out: bool,
    /// Files that are not taken, by device and number: the archive itself, and the one that it replaces.
    pub(super) not: Vec<(u64, u64)>,
}

struct Level {
    fd: Arc<OwnedFd>,
    names: std::vec::IntoIter<CString>,
    /// Bytes of the path up to here.
    path: usize,
}

/// Gives everything below the folder to `sink`, each folder before what is in it, by name.
pub(super) fn walk(
    options: &Options<'_>,
    report: &mut Report,
    work: &Work,
    sink: &mut impl Sink,
) -> Result<(), FsError> {
    let failed = |e: Errno| FsError::io(format!("error opening folder '{}'", options.src.display()), e);
    // The folder that was named may be a link; what is below is not followed.
    let src = std::fs::canonicalize(options.src).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => FsError::new(
            Kind::NotFound,
            format!("path '{}' does not exist", options.src.display()),
        ),
        _ => FsError::io(format!("error opening folder '{}'", options.src.display()), e),
    })?;
    let fd = match open_dir(rustix::fs::CWD, &src) {
        Err(Errno::NOTDIR) => {
            let text = format!("path '{}' is not a directory", options.src.display());
            return Err(FsError::invalid(text));
        }
        fd => fd.map_err(failed)?,
    };
    let mut path: Vec<u8> = Vec::new();
    let mut entries = 0;
    let mut levels = vec![Level {
        names: names(&fd).map_err(failed)?.into_iter(),
        fd: Arc::new(fd),
        path: 0,
    }];
    while let Some(level) = levels.last_mut() {
        work.go_on()?;
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        path.truncate(level.path);
        if level.path > 0 {
            path.push(b'/');
        }
        path.extend(name.to_bytes());
        let at = Arc::clone(&level.fd);
        let stat = match statat(&*at, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            // It went away since its folder was read.
            Err(Errno::NOENT) => continue,
            stat => stat.map_err(|e| about("error looking at", &path, e))?,
        };
        if options.not.contains(&(stat.st_dev, stat.st_ino)) {
            continue;
        }
        let mut below = None;
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => What::File,
            FileType::Symlink => match readlinkat(&*at, &*name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => continue,
                target => What::Link(target.map_err(|e| about("error reading link", &path, e))?.into_bytes()),
            },
            FileType::Directory => {
                let whole = src.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
                let made_again = options.leave_out && MADE_AGAIN.contains(&name.to_bytes());
                if made_again || KERNEL.iter().any(|k| whole == Path::new(k)) {
                    report.left_out.add(&path);
                    continue;
                }
                match enter(&at, &name) {
                    Ok(None) => continue,
                    Ok(Some((fd, _))) if options.leave_out && marked(&fd) => {
                        report.left_out.add(&path);
                        continue;
                    }
                    Ok(Some((fd, names))) => below = Some((fd, names)),
                    Err(Errno::ACCESS | Errno::PERM) => report.unreadable.add(&path),
                    Err(e) => return Err(about("error reading folder", &path, e)),
                }
                What::Dir
            }
            _ => {
                report.special.add(&path);
                continue;
            }
        };
        entries += 1;
        if entries > BUNDLE_ENTRIES {
            let text = format!("the folder has more than {BUNDLE_ENTRIES} files; pack its parts one by one");
            return Err(FsError::invalid(text));
        }
        let found = Found {
            path: &path,
            at: &at,
            name: &name,
            what,
            stat,
        };
        sink.add(&found, report)?;
        if let Some((fd, names)) = below {
            if levels.len() >= BUNDLE_DEPTH {
                return Err(about("error packing", &path, Errno::NAMETOOLONG));
            }
            levels.push(Level {
                fd: Arc::new(fd),
                names: names.into_iter(),
                path: path.len(),
            });
        }
    }
    Ok(())
}

type Entered = (OwnedFd, Vec<CString>);

/// Opens a folder and reads its names. None: it is a folder no longer.
fn enter(at: &OwnedFd, name: &CString) -> Result<Option<Entered>, Errno> {
    let fd = match open_dir(at, &**name) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        fd => fd?,
    };
    let names = names(&fd)?;
    Ok(Some((fd, names)))
}

fn marked(fd: &OwnedFd) -> bool {
    MARKS
        .iter()
        .any(|mark| statat(fd, *mark, AtFlags::SYMLINK_NOFOLLOW).is_ok())
}

/// Opens a file that was found, if it is still one.
pub(super) fn open_file(at: &OwnedFd, name: &CString) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags, openat};

    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(at, &**name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::RegularFile {
        Ok(fd)
    } else {
        Err(Errno::NOENT)
    }
}

/// Reads `into` full, or to the end of the file.
pub(super) fn read_at(fd: &OwnedFd, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < into.len() {
        match rustix::io::pread(fd, &mut into[done..], offset + done as u64) {
            Err(Errno::INTR) => {}
            Ok(0) => break,
            read => done += read?,
        }
    }
    Ok(done)
}
