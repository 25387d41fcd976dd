//! What can go wrong with a file, and how both protocols say it.

use std::fmt;
use std::io;

use connectrpc::{ConnectError, ErrorCode};
use http::StatusCode;
use rustix::io::Errno;

use crate::error::HttpError;

/// What kind of failure it is; decides the code that the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NotFound,
    AlreadyExists,
    /// The request cannot be met, however often it is tried.
    Invalid,
    /// The file system does not allow it.
    Denied,
    /// The disk or a quota is full.
    NoSpace,
    /// A limit of the daemon or the kernel.
    Exhausted,
    NotAcceptable,
    Internal,
}

/// A failed operation on a file.
#[derive(Debug)]
pub(crate) struct FsError {
    pub(crate) kind: Kind,
    what: String,
    source: Option<io::Error>,
}

impl FsError {
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, what)
    }

    /// `what` failed with `source`, which also tells the kind.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self {
            kind: kind_of(&source),
            what: what.into(),
            source: Some(source),
        }
    }

    /// The same with `kind` in place of the one that was derived.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The whole text for a client: what failed and why.
    pub(crate) fn text(&self) -> String {
        match &self.source {
            None => self.what.clone(),
            Some(source) => format!("{}: {}", self.what, reason(source)),
        }
    }

    /// The status on HTTP endpoints.
    pub(crate) fn status(&self) -> StatusCode {
        match self.kind {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::AlreadyExists | Kind::Invalid | Kind::Denied => StatusCode::BAD_REQUEST,
            Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Exhausted => StatusCode::TOO_MANY_REQUESTS,
            Kind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for FsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

impl From<FsError> for ConnectError {
    fn from(error: FsError) -> Self {
        let code = match error.kind {
            Kind::NotFound => ErrorCode::NotFound,
            Kind::AlreadyExists => ErrorCode::AlreadyExists,
            Kind::Invalid | Kind::NotAcceptable => ErrorCode::InvalidArgument,
            Kind::Denied => ErrorCode::PermissionDenied,
            Kind::NoSpace | Kind::Exhausted => ErrorCode::ResourceExhausted,
            Kind::Internal => ErrorCode::Internal,
        };
        ConnectError::new(code, error.text())
    }
}

impl From<FsError> for HttpError {
    fn from(error: FsError) -> Self {
        Self::new(error.status(), error.text())
    }
}

/// The reason without the number that `io::Error` adds to it, in the words that programs print.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn kind_of(error: &io::Error) -> Kind {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => Kind::NotFound,
        Some(Errno::EXIST) => Kind::AlreadyExists,
        Some(Errno::NOSPC | Errno::DQUOT) => Kind::NoSpace,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Kind::Denied,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Kind::Exhausted,
        Some(
            Errno::NAMETOOLONG
            | Errno::ISDIR
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::INVAL
            | Errno::NOTEMPTY
            | Errno::BUSY
            | Errno::TXTBSY
            | Errno::FBIG
            | Errno::NXIO
            | Errno::NODEV,
        ) => Kind::Invalid,
        _ => Kind::Internal,
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, FsError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, FsError> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(FsError::io("file work stopped", io::Error::other(error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_the_object_and_the_reason_once() {
        let error = FsError::io("error opening '/x'", Errno::NOSPC);
        assert_eq!(error.to_string(), "error opening '/x'");
        assert_eq!(error.text(), "error opening '/x': no space left on device");
        assert_eq!(error.status(), StatusCode::INSUFFICIENT_STORAGE);
        let error = ConnectError::from(FsError::io("x", Errno::ROFS));
        assert_eq!(error.code, ErrorCode::PermissionDenied);
    }
}
