use std::os::fd::OwnedFd;

use async_trait::async_trait;

use crate::{LayerId, Root, RuntimeError, StoredRoot};

/// Where an engine keeps layers on disk. Several servers of one user may share it.
#[async_trait]
pub trait Layers: Send + Sync + 'static {
    /// Makes a layer of one layer of an image, over those of `below`, which are asked for what the archive does not say:
    /// the attributes of folders that it leaves out, and files that it links to.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidSpec`] for an archive that is not one, is not what its digest says, would write outside of its
    /// root, or is larger than allowed; nothing of it is left.
    async fn unpack(&self, archive: Archive, below: &StoredRoot) -> Result<StoredLayer, RuntimeError>;

    /// Writes what a root still holds in memory to disk, durably: when this returns it outlives a loss of power.
    ///
    /// # Errors
    /// The disk is full, or the root is not of this engine.
    async fn keep(&self, root: &Root) -> Result<StoredRoot, RuntimeError>;

    /// Every layer that is there.
    ///
    /// # Errors
    /// The store cannot be read.
    async fn stored(&self) -> Result<Vec<StoredLayer>, RuntimeError>;

    /// Reads a layer and holds it against its name.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownLayer`], or what differs.
    async fn verify(&self, layer: &LayerId) -> Result<(), RuntimeError>;

    /// Removes a layer. False if a sandbox of any server stands on it: then it stays.
    ///
    /// # Errors
    /// [`RuntimeError::UnknownLayer`], or it could not be removed.
    async fn remove(&self, layer: &LayerId) -> Result<bool, RuntimeError>;
}

/// A layer of an image, as a tar (the OCI image specification's "layer").
#[derive(Debug)]
pub struct Archive {
    /// A regular file, read from its beginning. Untrusted.
    pub file: OwnedFd,
    /// How it is compressed.
    pub compression: Compression,
    /// The SHA-256 of the tar without compression, where that is known.
    pub diff_id: Option<[u8; 32]>,
    /// Most bytes that its files may hold together.
    pub max_bytes: u64,
    /// Most files, folders and links.
    pub max_files: u64,
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A layer that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// Its name.
    pub id: LayerId,
    /// Bytes of its files.
    pub bytes: u64,
    /// Files, folders and links, and what it removes.
    pub files: u64,
}

/// What differs between two states of a root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What differs, by path.
    pub changes: Vec<Change>,
    /// Whether there is more than was asked for.
    pub truncated: bool,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The absolute path, as bytes. Untrusted.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
    /// What is there now. Of a removed path: what was there.
    pub file: FileKind,
    /// Bytes of a regular file; else 0.
    pub bytes: u64,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It is another file, or holds something else, or its attributes differ.
    Changed,
    /// It is gone, with all that was below it.
    Removed,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Other,
}
