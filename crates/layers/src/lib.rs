//! Layers of a root file system: file work, synchronous and by descriptors.
//!
//! A layer is a folder as overlayfs with `userxattr` reads it: a whiteout is a character device 0:0, an opaque folder has
//! the attribute `user.overlay.opaque` = `y`. Layers are always named the highest first.
//!
//! What was in an archive, or was written by a sandbox, is hostile: no link of it is ever followed by the kernel, no name of
//! it leads out of the folder that was given, trees are walked without recursion and with a bounded number of descriptors,
//! however deep they are. What is given as a layer must hold still; what is written to is nobody else's meanwhile.
//!
//! Everything here wants to be root, of the host or of a user namespace, to read and make files of other users.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod attributes;
mod changes;
mod content;
mod copy;
mod digest;
mod error;
mod file;
mod limits;
mod merge;
mod owners;
mod remove;
mod stream;
mod tar;
mod trail;
mod unpack;
mod view;
mod whole;

pub use changes::changes;
pub use copy::copy;
pub use digest::{FORMAT, digest};
pub use error::{Error, Shown};
pub use limits::Limits;
pub use merge::merge;
pub use owners::{Ids, Owners};
pub use remove::remove;
pub use stream::{Decompressed, stream};
pub use unpack::unpack;
pub use whole::{Size, measure, sync};

/// What an operation wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the files, holes included; a file with several names once.
    pub bytes: u64,
    /// Files, folders, links, pipes and whiteouts, without the layer's own folder.
    pub files: u64,
    /// Devices and sockets, which were left out.
    pub left_out: u64,
    /// Entries of the archive that were read; else 0.
    pub entries: u64,
}
