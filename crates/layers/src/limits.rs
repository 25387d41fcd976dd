//! How much an archive, or a sandbox's files, may bring.

/// What a layer may hold. Whoever knows tighter ones gives these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, without their holes.
    pub bytes: u64,
    /// Bytes of all files together, holes included: each of them is hashed and may be read.
    pub logical: u64,
    /// Entries of an archive, or files, folders and links of a tree.
    pub files: u64,
    /// Bytes of a path in an archive, and of what it resolves to.
    pub path: usize,
    /// Bytes of one name.
    pub name: usize,
    /// Folders in one another, of an archive. A sandbox's tree may be deeper.
    pub depth: usize,
    /// Extended attributes of one file: the bytes of their names and values.
    pub attributes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            logical: 256 << 30,
            files: 4_000_000,
            path: 4096,
            name: 255,
            depth: 1024,
            attributes: 64 << 10,
        }
    }
}

/// Bytes that are read or written at once.
pub(crate) const CHUNK: usize = 256 << 10;

/// Bytes of what stands before an entry of an archive: its PAX records or long name. As Go's reader has it.
pub(crate) const EXTENSION: u64 = 1 << 20;

/// Pieces of a sparse file in an archive.
pub(crate) const PIECES: usize = 1 << 16;

/// Links that a path of an archive may lead through. As the kernel has it.
pub(crate) const LINKS: usize = 40;

/// Names that are looked up for one path of an archive, links included.
pub(crate) const STEPS: usize = 1 << 14;

/// Open folders of each tree on the way to where a walk is; those further up are opened again.
pub(crate) const OPEN: usize = 2;

/// Names that are read of a folder at a time where their order does not matter.
pub(crate) const NAMES: usize = 4096;

/// Bytes of the paths that a comparison returns.
pub(crate) const CHANGED_PATHS: usize = 16 << 20;

/// Bytes of the longest list of extended attributes' names, and of the longest value: the kernel's own limits.
pub(crate) const XATTRS: usize = 64 << 10;

/// The largest id inside a sandbox; what is beyond becomes [`NOBODY`].
pub(crate) const LAST_ID: u32 = 65_535;

/// Who owns what nobody inside owns.
pub(crate) const NOBODY: u32 = 65_534;

/// Memory of a zstd stream's window, as a power of two. As the program `zstd` has it.
pub(crate) const WINDOW_LOG: u32 = 27;
