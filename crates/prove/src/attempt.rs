//! The end of an attempt, and the plain ones: to open, to read, to list, to call.

use std::borrow::Cow;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::report::{Found, Outcome};

/// How an attempt ended.
pub(crate) type Attempt = Found;

/// It got through.
pub(crate) fn done(detail: impl Into<Cow<'static, str>>) -> Attempt {
    Found {
        outcome: Outcome::NotHeld,
        detail: detail.into(),
    }
}

/// It was refused.
pub(crate) fn refused(detail: impl Into<Cow<'static, str>>) -> Attempt {
    Found {
        outcome: Outcome::Held,
        detail: detail.into(),
    }
}

/// It could not be made.
pub(crate) fn unknown(detail: impl Into<Cow<'static, str>>) -> Attempt {
    Found {
        outcome: Outcome::Untestable,
        detail: detail.into(),
    }
}

/// A success got through, an error refused it.
pub(crate) fn by_result<T>(result: std::io::Result<T>, got: &'static str) -> Attempt {
    match result {
        Ok(_) => done(got),
        Err(error) => refused(error_name(&error)),
    }
}

/// The short text of an error.
pub(crate) fn error_name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => errno_name(code),
        None => error.to_string(),
    }
}

/// The name of an error number.
pub(crate) fn errno_name(code: i32) -> String {
    let name = match code {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EACCES => "EACCES",
        libc::EROFS => "EROFS",
        libc::ENOSYS => "ENOSYS",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EINVAL => "EINVAL",
        libc::EFAULT => "EFAULT",
        libc::EBADF => "EBADF",
        libc::ENOTDIR => "ENOTDIR",
        libc::ENODEV => "ENODEV",
        libc::ENXIO => "ENXIO",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::ENOSPC => "ENOSPC",
        libc::EMFILE => "EMFILE",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        _ => return std::io::Error::from_raw_os_error(code).to_string(),
    };
    name.to_owned()
}

/// Opens a file for writing and writes nothing. A program that runs was found and allowed, if not now.
pub(crate) fn open_to_write(path: impl AsRef<Path>) -> Attempt {
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => done("allowed, but it runs"),
        other => by_result(other, "open for writing"),
    }
}

/// Opens a file or device for reading.
pub(crate) fn open_to_read(path: impl AsRef<Path>) -> Attempt {
    by_result(open(path.as_ref()), "open")
}

fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Reads the beginning of a file: one that is covered by an empty one can be opened.
pub(crate) fn read_beginning(path: impl AsRef<Path>) -> Result<String, Attempt> {
    let mut bytes = vec![0; 4096];
    let read = open(path.as_ref()).and_then(|mut file| file.read(&mut bytes));
    match read {
        Ok(0) => Err(refused("empty")),
        Ok(count) => Ok(String::from_utf8_lossy(&bytes[..count]).into_owned()),
        Err(error) => Err(refused(error_name(&error))),
    }
}

/// Reads the first bytes of a file.
pub(crate) fn read(path: impl AsRef<Path>) -> Attempt {
    match read_beginning(path) {
        Ok(_) => done("readable"),
        Err(ended) => ended,
    }
}

/// Lists a folder.
pub(crate) fn list(path: impl AsRef<Path>) -> Attempt {
    match std::fs::read_dir(path).map(|entries| entries.flatten().count()) {
        Ok(0) => refused("empty"),
        Ok(count) => done(format!("{count} entries")),
        Err(error) => refused(error_name(&error)),
    }
}

/// Reads a link of `/proc`.
pub(crate) fn link(path: impl AsRef<Path>) -> Attempt {
    by_result(std::fs::read_link(path), "readable")
}

/// Judges a raw call: these errors are what stops the caller; with any other the kernel went on to look at the arguments.
pub(crate) fn by_errno(result: Result<usize, i32>) -> Attempt {
    match result {
        Ok(_) => done("it succeeds"),
        Err(code @ (libc::EPERM | libc::ENOSYS | libc::EACCES | libc::EAFNOSUPPORT)) => refused(errno_name(code)),
        Err(code) => done(format!("the kernel got as far as {}", errno_name(code))),
    }
}
