//! Work on layers: what a process of the launcher's is asked for, and what came of it.

use sandhold_runtime::{Change, ChangeKind, Changes, Compression, FileKind, LayerId};
use serde::{Deserialize, Serialize};

use super::{Failure, IdMap, Stack};

/// Work on layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Another overlay for a living sandbox. Descriptor: its border.
    Restack(Restack),
    /// Copy what a sandbox wrote while it stands still, and hold the copy. Descriptor: its border.
    Copy(Transfer),
    /// Write a held layer to the store.
    Keep(Transfer),
    /// Unpack a layer of an image. Descriptor: the archive.
    Unpack(Unpack),
    /// Write what layers show together as one, over others.
    Merge {
        /// The temporary folder's name.
        draft: String,
        /// What it lies over, the lowest first.
        below: Vec<LayerId>,
        /// The layers, the lowest first.
        layers: Vec<LayerId>,
    },
    /// Hold a layer against its name.
    Verify(LayerId),
    /// Remove a temporary folder.
    Remove(String),
    /// Say how much a temporary folder holds.
    Measure(String),
    /// Compare. Descriptor: the sandbox's border.
    Changes(Look),
}

/// A layer that is held, or is to be, as a copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Its number.
    pub(crate) number: u64,
    /// The request that made the sandbox whose files are copied; else 0.
    pub(crate) sandbox: u64,
    /// The ids of the root of the sandbox that it was written by, in the launcher's view, if its files have them.
    pub(crate) from: Option<(u32, u32)>,
    /// The temporary folder's name.
    pub(crate) draft: String,
    /// Whether processes have to be stopped by signals.
    pub(crate) stop: bool,
    /// Most bytes.
    pub(crate) max_bytes: u64,
    /// Most files.
    pub(crate) max_files: u64,
}

/// A layer of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unpack {
    /// The temporary folder's name.
    pub(crate) draft: String,
    /// The layers it lies over, the lowest first.
    pub(crate) below: Vec<LayerId>,
    /// How it is compressed.
    pub(crate) compression: Packed,
    /// The SHA-256 of the tar.
    pub(crate) diff_id: Option<LayerId>,
    /// Most bytes of the tar without compression.
    pub(crate) max_tar: u64,
    /// Most bytes of its files.
    pub(crate) max_bytes: u64,
    /// Most files.
    pub(crate) max_files: u64,
}

/// [`Compression`], for a message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Packed {
    None,
    Gzip,
    Zstd,
}

impl From<Packed> for Compression {
    fn from(packed: Packed) -> Self {
        match packed {
            Packed::None => Self::None,
            Packed::Gzip => Self::Gzip,
            Packed::Zstd => Self::Zstd,
        }
    }
}

impl From<Compression> for Packed {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}

/// A comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Look {
    /// The request that made the sandbox.
    pub(crate) sandbox: u64,
    /// What its root is made of.
    pub(crate) stack: Stack,
    /// How many of its highest layers belong to what is looked at.
    pub(crate) above: usize,
    /// Most paths.
    pub(crate) most: usize,
    /// The host name inside.
    pub(crate) hostname: String,
}

/// What is known of a stored layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Files, folders, links and whiteouts.
    pub(crate) files: u64,
}

/// [`Changes`], for a message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    changes: Vec<(Vec<u8>, u8, u8, u64)>,
    truncated: bool,
}

const KINDS: [ChangeKind; 3] = [ChangeKind::Added, ChangeKind::Changed, ChangeKind::Removed];
const FILES: [FileKind; 4] = [FileKind::File, FileKind::Folder, FileKind::Link, FileKind::Other];

impl From<Changes> for Changed {
    fn from(changes: Changes) -> Self {
        let index = |position: Option<usize>| position.and_then(|index| u8::try_from(index).ok()).unwrap_or(0);
        let plain = |change: Change| {
            let kind = index(KINDS.iter().position(|kind| *kind == change.kind));
            let file = index(FILES.iter().position(|file| *file == change.file));
            (change.path, kind, file, change.bytes)
        };
        Self {
            changes: changes.changes.into_iter().map(plain).collect(),
            truncated: changes.truncated,
        }
    }
}

impl From<Changed> for Changes {
    fn from(changed: Changed) -> Self {
        let full = |(path, kind, file, bytes): (Vec<u8>, u8, u8, u64)| Change {
            path,
            kind: KINDS.get(usize::from(kind)).copied().unwrap_or(ChangeKind::Changed),
            file: FILES.get(usize::from(file)).copied().unwrap_or(FileKind::Other),
            bytes,
        };
        Self {
            changes: changed.changes.into_iter().map(full).collect(),
            truncated: changed.truncated,
        }
    }
}

/// Another overlay for a living sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Restack {
    /// The request that made the sandbox.
    pub(crate) sandbox: u64,
    /// Its ids, users' and groups'.
    pub(crate) ids: (IdMap, IdMap),
    /// The temporary folder that it writes to now; `None`: in memory.
    pub(crate) folder: Option<String>,
    /// The number that its upper of now is held under from then on; `None`: it goes.
    pub(crate) hold: Option<u64>,
    /// What the new root is made of.
    pub(crate) stack: Stack,
    /// Whether every process but the first is ended before, and the root furnished like a new one.
    pub(crate) end_others: bool,
    /// Whether its processes have to be stopped by signals for want of a cgroup.
    pub(crate) stop: bool,
    /// The host name inside.
    pub(crate) hostname: String,
    /// Size of the new upper.
    pub(crate) disk_bytes: u64,
    /// Files of the new upper.
    pub(crate) inodes: u64,
}

/// What came of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Worked {
    /// It failed; nothing has changed.
    Failed(Failure),
    /// The sandbox has another overlay.
    Restacked {
        /// The error number of what could not be tidied up.
        untidy: Option<i32>,
    },
    /// A process of this name uses a file; nothing has changed.
    Busy(String),
    /// A copy is held.
    Copied,
    /// A layer is in the store.
    Layer {
        /// Its name, as it was computed.
        id: LayerId,
        /// Its size.
        about: About,
    },
    /// A folder is gone.
    Removed,
    /// How much a folder holds.
    Measured(About),
    /// What differs.
    Changes(Changed),
    /// File work failed; nothing has changed.
    Spoiled {
        /// Whether that is the archive's fault.
        refused: bool,
        /// What was wrong.
        said: String,
    },
}
