//! Where layers are held that sandboxes left in memory: a mount namespace of its own.
//!
//! A fork copies every mount that it sees, so the launcher must not see a mount for each layer. What is attached here can be
//! cloned by whoever enters; before Linux 6.15 a mount that is attached nowhere cannot.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::message::{At, Failure, Step};
use super::root::{self, attach, clone_tree, make_dir};
use crate::sys::{Unshare, unshare};

/// The vault, and the way back from it.
pub(super) struct Vault {
    vault: OwnedFd,
    own: OwnedFd,
}

/// The mount namespace of this process.
fn own_namespace() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Enters a mount namespace. The working folder is its root from then on.
pub(super) fn enter(namespace: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
}

impl Vault {
    /// Makes the mount namespace that this process is in the vault, and goes on in a copy.
    pub(super) fn make() -> Result<Self, Failure> {
        let make = || {
            let vault = own_namespace()?;
            unshare(Unshare::Mounts)?;
            // It is of no use here, and would be copied with every fork.
            unmount(root::VAULT, UnmountFlags::DETACH)?;
            let own = own_namespace()?;
            Ok(Self { vault, own })
        };
        let made: Result<Self, Errno> = make();
        made.at(Step::Vault)
    }

    /// The same for a process that was forked: it goes on in another copy.
    pub(super) fn for_worker(&self) -> Result<Self, Errno> {
        unshare(Unshare::Mounts)?;
        Ok(Self {
            vault: self.vault.try_clone().map_err(|_| Errno::MFILE)?,
            own: own_namespace()?,
        })
    }

    /// Does something in the vault and comes back.
    fn within<T>(&self, what: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        self.at(&self.vault, what)
    }

    /// Does something in another mount namespace and comes back.
    pub(super) fn at<T>(&self, namespace: &OwnedFd, what: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        enter(namespace)?;
        let result = what();
        // Nothing right can be done in the wrong place.
        if enter(&self.own).is_err() {
            super::child::leave(1);
        }
        result
    }

    /// Holds a mount that is attached nowhere under this number.
    pub(super) fn put(&self, number: u64, mount: &OwnedFd) -> Result<(), Errno> {
        self.within(|| {
            let path = place(number);
            make_dir(CWD, &path, 0o700)?;
            attach(mount, CWD, &path).inspect_err(|_| {
                // What failed is told; an empty folder more does no harm.
                let _ = rustix::fs::rmdir(&path);
            })
        })
    }

    /// Copies of the mounts held under these numbers.
    pub(super) fn get(&self, numbers: &[u64]) -> Result<Vec<OwnedFd>, Errno> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        self.within(|| {
            numbers
                .iter()
                .map(|number| clone_tree(CWD, &place(*number), false))
                .collect()
        })
    }

    /// Bytes of the file system that one is on; 0 if it is not there.
    pub(super) fn bytes(&self, number: u64) -> u64 {
        let found = self.within(|| rustix::fs::statvfs(place(number)));
        found.map_or(0, |found| found.f_blocks.saturating_sub(found.f_bfree) * found.f_frsize)
    }

    /// Lets go of one.
    pub(super) fn drop(&self, number: u64) -> Result<(), Errno> {
        self.within(|| {
            let path = place(number);
            unmount(&path, UnmountFlags::DETACH)?;
            rustix::fs::rmdir(&path)
        })
    }
}

fn place(number: u64) -> String {
    format!("{}/{number}", root::VAULT)
}
