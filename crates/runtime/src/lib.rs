//! What a sandbox engine is: the specification of a sandbox, what an engine says of itself, and the traits
//! [`Runtime`] and [`Sandbox`] that every engine implements. No I/O of its own.
//!
//! An engine knows ids, limits and an init program whose boot message it passes on unread. It knows neither E2B's
//! protocol nor MCP.
#![forbid(unsafe_code)]

mod error;
mod layers;
mod level;
mod network;
mod root;
mod spec;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

pub use error::RuntimeError;
pub use layers::{Archive, Change, ChangeKind, Changes, Compression, FileKind, Layers, StoredLayer};
pub use level::Level;
pub use network::{DNS_PORT, Doors, PROXY_PORT, Reach, TCP_PORT, UDP_PORT};
pub use root::{Base, Held, Layer, LayerId, NotALayerId, Root, StoredRoot};
pub use spec::{Isolation, Met, Resources, RuntimeInfo, SandboxSpec, Storage, Usage};

/// A byte stream to the init program of a sandbox.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes sandboxes.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// What this engine is and how well it isolates here.
    fn info(&self) -> RuntimeInfo;

    /// Makes a sandbox, starts its init program, sends it the boot message and waits for its answer.
    ///
    /// # Errors
    /// What could not be made; nothing of it is left.
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError>;

    /// Where this engine keeps layers; `None`: it has the host's root and nothing else, and [`RuntimeInfo::no_layers`] says
    /// why.
    fn layers(&self) -> Option<Arc<dyn Layers>> {
        None
    }
}

/// A sandbox that was made. Dropping the last handle ends it.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// What the init program answered to the boot message. Untrusted.
    fn boot_answer(&self) -> &[u8];

    /// The sockets that its way out begins at, once: `None` from then on, and where the engine has none.
    fn take_doors(&self) -> Option<Doors> {
        None
    }

    /// Opens a connection to the init program.
    ///
    /// # Errors
    /// [`RuntimeError::Ended`] once the sandbox ended.
    async fn connect(&self) -> Result<Box<dyn Stream>, RuntimeError>;

    /// Stops every process where it stands.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] where the engine cannot, [`RuntimeError::Ended`] once the sandbox ended.
    async fn freeze(&self) -> Result<(), RuntimeError>;

    /// Lets the processes go on.
    ///
    /// # Errors
    /// As [`Sandbox::freeze`].
    async fn thaw(&self) -> Result<(), RuntimeError>;

    /// What its files stand on now, without what it wrote since.
    fn root(&self) -> Root;

    /// Makes what the sandbox wrote so far a layer that stays as it is, and says what root has it: other sandboxes can be made
    /// of it, and this one go back to it. Where nothing was written it is the root from before. Processes go on and notice
    /// nothing; while some of them use files, the layer is a copy, made while they stand still.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] where the engine cannot, [`RuntimeError::Exhausted`] when a copy does not fit,
    /// [`RuntimeError::Ended`] once the sandbox ended.
    async fn checkpoint(&self) -> Result<Root, RuntimeError> {
        Err(no_layers())
    }

    /// Makes the sandbox's files those of `root`: what it wrote is gone. Every process but the init program is ended.
    ///
    /// # Errors
    /// As [`Sandbox::checkpoint`]; the files are as they were then.
    async fn roll_back(&self, root: &Root) -> Result<(), RuntimeError> {
        let _ = root;
        Err(no_layers())
    }

    /// What differs between `since`, which the sandbox's root must stand on, and its files now; at most `most` paths.
    ///
    /// # Errors
    /// As [`Sandbox::checkpoint`]; [`RuntimeError::InvalidSpec`] if the root does not stand on `since`.
    async fn changes(&self, since: &Root, most: usize) -> Result<Changes, RuntimeError> {
        let _ = (since, most);
        Err(no_layers())
    }

    /// What the sandbox uses now.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] where nothing counts it.
    async fn usage(&self) -> Result<Usage, RuntimeError>;

    /// Ends every process and frees what the sandbox held. Returns when both are done; calling it again does nothing.
    async fn kill(&self);

    /// Waits until the sandbox has ended, for whatever reason, and says why in a few words.
    async fn ended(&self) -> String;
}

fn no_layers() -> RuntimeError {
    RuntimeError::Unsupported("this engine keeps no layers: there are no snapshots and no forks".to_owned())
}
