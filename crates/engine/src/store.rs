//! The store of layers, as the server sees it: what is there, what is in use, and the work that it has done there.
//!
//! A layer in use is locked, shared, by every server that uses it; who removes one locks it alone. What is being made has a
//! name of the server's, and a server's folder is locked for as long as it lives: what a dead one left is swept.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use sandhold_runtime::{Archive, Layer, LayerId, Layers, Root, RuntimeError, StoredLayer, StoredRoot};

use crate::engine::Shared;
use crate::launcher::keeper;
use crate::launcher::message::{About, Transfer, Unpack, Work, Worked};
use crate::layers::{HeldLayer, work};
use crate::limits::{LAYER_YOUNG_S, LAYERS_MERGED, LAYERS_STORED, TAR_OVERHEAD};

/// A layer's files, in its folder.
pub(crate) const FILES: &str = "fs";
/// What is known of a layer, in its folder.
pub(crate) const META: &str = "layer.json";
/// What is being made or removed.
pub(crate) const TEMPORARY: &str = "tmp";

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The folder that the layers stand in, of the one that was given for them.
fn inner(path: &Path) -> PathBuf {
    path.join("store")
}

/// The folder of layers.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    folder: OwnedFd,
    /// Locks this server's drafts for as long as it lives.
    _lock: OwnedFd,
    /// What drafts of this server begin with.
    prefix: String,
    drafts: AtomicU64,
    in_use: Mutex<HashMap<LayerId, Weak<InUse>>>,
}

/// A layer that must stay.
#[derive(Debug)]
pub(crate) struct InUse {
    _lock: OwnedFd,
}

impl Store {
    /// Opens the store, or makes it. What dead servers left of drafts is in the second part: names to remove.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<String>)> {
        std::fs::create_dir_all(path)?;
        // What is in it has the owners and modes of strangers' images: on the host nobody else gets in.
        rustix::fs::chmod(path, Mode::RWXU)?;
        let path = &inner(path);
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // The ids of an ordinary user's sandboxes pass through it.
        rustix::fs::chmod(path, Mode::from_raw_mode(0o711))?;
        let folder = rustix::fs::open(path, FOLDER, Mode::empty())?;
        match rustix::fs::mkdirat(&folder, TEMPORARY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let temporary = path.join(TEMPORARY);
        // One server after the other looks who is dead and makes its own lock: between the two it would look dead itself.
        let turn = rustix::fs::open(&temporary, FOLDER, Mode::empty())?;
        rustix::fs::flock(&turn, FlockOperation::LockExclusive)?;
        let mut dead = Vec::new();
        let mut live = Vec::new();
        for entry in std::fs::read_dir(&temporary)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(server) = name.strip_suffix(LOCK) {
                let lock = rustix::fs::open(temporary.join(&name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                    live.push(server.to_owned());
                    continue;
                }
            }
            dead.push(name);
        }
        dead.retain(|name| !live.iter().any(|server| name.starts_with(&format!("{server}-"))));
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let started = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}.{number}.{}", std::process::id(), started.as_millis());
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(CWD, temporary.join(format!("{prefix}{LOCK}")), flags, Mode::RUSR)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let store = Self {
            path: path.to_owned(),
            folder,
            _lock: lock,
            prefix,
            drafts: AtomicU64::new(0),
            in_use: Mutex::default(),
        };
        Ok((store, dead))
    }

    /// Where the layers are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the names of this server's drafts and lock begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A name for a draft.
    pub(crate) fn draft(&self) -> String {
        format!("{}-{}", self.prefix, self.drafts.fetch_add(1, Ordering::Relaxed))
    }

    /// Sees to it that a layer stays.
    pub(crate) fn take(&self, id: &LayerId) -> Result<Arc<InUse>, RuntimeError> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = in_use.get(id).and_then(Weak::upgrade) {
            return Ok(held);
        }
        let lock = self.lock(id, FlockOperation::NonBlockingLockShared);
        let lock = lock.map_err(|error| match error {
            // Being removed, or gone.
            Errno::AGAIN | Errno::NOENT => RuntimeError::UnknownLayer(*id),
            error => RuntimeError::failed(format!("locking layer {id}"), io::Error::from(error)),
        })?;
        let held = Arc::new(InUse { _lock: lock });
        in_use.retain(|_, known| known.strong_count() > 0);
        in_use.insert(*id, Arc::downgrade(&held));
        Ok(held)
    }

    fn lock(&self, id: &LayerId, how: FlockOperation) -> Result<OwnedFd, Errno> {
        let open = || rustix::fs::openat(&self.folder, id.to_string(), FOLDER, Mode::empty());
        let lock = open()?;
        rustix::fs::flock(&lock, how)?;
        // Whoever removes it renames it under the lock: then this is not it any more.
        let (locked, there) = (rustix::fs::fstat(&lock)?, rustix::fs::fstat(open()?)?);
        if (locked.st_dev, locked.st_ino) == (there.st_dev, there.st_ino) {
            Ok(lock)
        } else {
            Err(Errno::NOENT)
        }
    }

    fn about(&self, id: &LayerId) -> io::Result<(About, SystemTime)> {
        let path = self.path.join(id.to_string()).join(META);
        let about = serde_json::from_slice(&std::fs::read(&path)?)?;
        Ok((about, path.metadata()?.modified()?))
    }

    /// Says that a layer was asked for just now: it is not removed for a while. False if it is not there.
    fn touch(&self, id: &LayerId) -> Result<bool, RuntimeError> {
        keeper::touch(&self.folder, &id.to_string())
            .map_err(|error| RuntimeError::failed(format!("using layer {id}"), io::Error::from(error)))
    }

    fn list(&self) -> io::Result<Vec<StoredLayer>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let Some(id) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<LayerId>().ok())
            else {
                continue;
            };
            // One that is removed meanwhile is not there.
            if let Ok((about, _)) = self.about(&id) {
                found.push(StoredLayer {
                    id,
                    bytes: about.bytes,
                    files: about.files,
                });
            }
        }
        found.sort_by_key(|layer| layer.id);
        Ok(found)
    }

    /// Takes a layer out of the store, if nobody uses it and nobody asked for it lately; the name of what is left to remove.
    fn take_out(&self, id: &LayerId) -> Result<Option<String>, RuntimeError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => RuntimeError::UnknownLayer(*id),
            _ => RuntimeError::failed(format!("removing layer {id}"), error),
        };
        let _lock = match self.lock(id, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let (_, asked_for) = self.about(id).map_err(failed)?;
        let age = SystemTime::now().duration_since(asked_for).unwrap_or_default();
        if age < Duration::from_secs(LAYER_YOUNG_S) {
            return Ok(None);
        }
        let draft = self.draft();
        let renamed = rustix::fs::renameat(
            &self.folder,
            id.to_string(),
            &self.folder,
            format!("{TEMPORARY}/{draft}"),
        );
        renamed.map_err(|error| failed(error.into()))?;
        Ok(Some(draft))
    }
}

/// What the name of a server's lock ends with.
pub(crate) const LOCK: &str = ".lock";

impl Drop for Store {
    fn drop(&mut self) {
        // The next server would remove it, too.
        let _ = std::fs::remove_file(self.path.join(TEMPORARY).join(format!("{}{LOCK}", self.prefix)));
    }
}

/// [`Layers`] of an engine.
pub(crate) struct Keeper(pub(crate) Arc<Shared>);

impl Keeper {
    fn store(&self) -> Result<&Store, RuntimeError> {
        self.0.store.as_ref().ok_or_else(|| {
            RuntimeError::Unsupported(
                "there is no store of layers: the engine was started without a folder for it".to_owned(),
            )
        })
    }

    async fn work(&self, what: Work, fds: &[&OwnedFd]) -> Result<Worked, RuntimeError> {
        let link = self.0.link().await?;
        match work(&link, what, fds).await? {
            Worked::Spoiled { refused: true, said } => Err(RuntimeError::InvalidSpec(said)),
            Worked::Spoiled { refused: false, said } => {
                Err(RuntimeError::failed("working on a layer", io::Error::other(said)))
            }
            worked => Ok(worked),
        }
    }

    async fn layer(&self, what: Work, fds: &[&OwnedFd]) -> Result<StoredLayer, RuntimeError> {
        match self.work(what, fds).await? {
            Worked::Layer { id, about } => Ok(StoredLayer {
                id,
                bytes: about.bytes,
                files: about.files,
            }),
            _ => Err(strange()),
        }
    }

    /// Merges the highest layers of a root, where there are more than an overlay should have.
    async fn flatten(&self, mut root: StoredRoot) -> Result<StoredRoot, RuntimeError> {
        if root.layers.len() <= LAYERS_STORED {
            return Ok(root);
        }
        let layers = root.layers.split_off(root.layers.len() - LAYERS_MERGED);
        let merge = Work::Merge {
            draft: self.store()?.draft(),
            below: root.layers.clone(),
            layers,
        };
        root.layers.push(self.layer(merge, &[]).await?.id);
        Ok(root)
    }
}

/// The process that works said what it was not asked.
pub(crate) fn strange() -> RuntimeError {
    RuntimeError::failed(
        "working on a layer",
        io::Error::other("its process said something else"),
    )
}

#[async_trait]
impl Layers for Keeper {
    async fn unpack(&self, archive: Archive, below: &StoredRoot) -> Result<StoredLayer, RuntimeError> {
        let store = self.store()?;
        let _in_use = below
            .layers
            .iter()
            .map(|id| store.take(id))
            .collect::<Result<Vec<_>, _>>()?;
        let order = Unpack {
            draft: store.draft(),
            below: below.layers.clone(),
            compression: archive.compression.into(),
            diff_id: archive.diff_id.map(LayerId),
            // Each entry has a header and is padded, and there may be many empty ones.
            max_tar: archive
                .max_bytes
                .saturating_add(archive.max_files.saturating_mul(TAR_OVERHEAD)),
            max_bytes: archive.max_bytes,
            max_files: archive.max_files,
        };
        self.layer(Work::Unpack(order), &[&archive.file]).await
    }

    async fn keep(&self, root: &Root) -> Result<StoredRoot, RuntimeError> {
        let store = self.store()?;
        let mut stored = StoredRoot {
            base: root.base,
            layers: Vec::with_capacity(root.layers.len()),
        };
        for layer in &root.layers {
            let id = match layer {
                Layer::Stored(id) if store.touch(id)? => *id,
                Layer::Stored(id) => return Err(RuntimeError::UnknownLayer(*id)),
                Layer::Held(held) => {
                    let known = held.keep().downcast_ref::<HeldLayer>();
                    let known =
                        known.ok_or_else(|| RuntimeError::InvalidSpec("a layer of another engine".to_owned()))?;
                    // Two who ask at once write it twice, under one name.
                    let there = match known.stored.get() {
                        Some(id) if store.touch(id)? => Some(*id),
                        _ => None,
                    };
                    match there {
                        Some(id) => id,
                        None => {
                            let order = Transfer {
                                number: held.number(),
                                sandbox: 0,
                                from: known.from.as_ref().map(|(_, uid, gid)| (*uid, *gid)),
                                draft: store.draft(),
                                stop: false,
                                max_bytes: u64::MAX,
                                max_files: u64::MAX,
                            };
                            let id = self.layer(Work::Keep(order), &[]).await?.id;
                            *known.stored.get_or_init(|| id)
                        }
                    }
                }
            };
            stored.layers.push(id);
        }
        self.flatten(stored).await
    }

    async fn stored(&self) -> Result<Vec<StoredLayer>, RuntimeError> {
        let shared = Arc::clone(&self.0);
        let list = tokio::task::spawn_blocking(move || match &shared.store {
            Some(store) => store.list(),
            None => Ok(Vec::new()),
        });
        list.await
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(|error| RuntimeError::failed("reading the store of layers", error))
    }

    async fn verify(&self, layer: &LayerId) -> Result<(), RuntimeError> {
        let store = self.store()?;
        let _in_use = store.take(layer)?;
        let found = self.layer(Work::Verify(*layer), &[]).await?;
        if found.id == *layer {
            Ok(())
        } else {
            let said = format!("its files are those of layer {}", found.id);
            Err(RuntimeError::failed(
                format!("verifying layer {layer}"),
                io::Error::other(said),
            ))
        }
    }

    async fn remove(&self, layer: &LayerId) -> Result<bool, RuntimeError> {
        self.0.spares.forget(layer);
        let Some(left) = self.store()?.take_out(layer)? else {
            return Ok(false);
        };
        // It is out of the store; if this fails, the next server removes what is left.
        self.work(Work::Remove(left), &[]).await?;
        Ok(true)
    }
}
