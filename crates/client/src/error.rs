//! What can go wrong.

/// What went wrong, sorted by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sandbox does not exist, has ended, or belongs to someone else.
    #[error("{message}")]
    SandboxNotFound {
        /// Its id.
        id: String,
        /// What the server said.
        message: String,
    },
    /// A file, process or other object inside the sandbox is not there.
    #[error("{0}")]
    NotFound(String),
    /// It is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// An argument was refused.
    #[error("{0}")]
    InvalidArgument(String),
    /// The key, the token or the user was refused.
    #[error("{0}")]
    Unauthenticated(String),
    /// A limit of the server or of the sandbox was met; trying later may help.
    #[error("{0}")]
    RateLimited(String),
    /// The disk of the sandbox is full.
    #[error("{0}")]
    NoSpace(String),
    /// The deadline passed.
    #[error("{0}")]
    Timeout(String),
    /// The other side works on it already or the state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// This provider cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// The server answered with something else that is not a success.
    #[error("{message}")]
    Server {
        /// HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// No answer came.
    #[error("{what}")]
    Transport {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer came that this client does not understand.
    #[error("{0}")]
    Protocol(String),
}
