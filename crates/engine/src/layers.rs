//! The engine's side of layers: what a root is made of, in the launcher's words, and the work that is done on it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use sandhold_runtime::{Base, Changes, Held, Layer, LayerId, Layers, Root, RuntimeError};
use tokio::io::Interest;

use crate::diagnose::Facts;
use crate::engine::Shared;
use crate::launcher::message::{IdMap, LayerName, Look, Request, Restack, Stack, Transfer, Work, Worked};
use crate::limits::{COPY_SLACK, LAYERS_HELD, WORK_DEADLINE_S, WORKED};
use crate::link::Link;
use crate::sandbox::Inner;
use crate::store::{InUse, Keeper, strange};
use crate::sys::watch;

/// A layer that the launcher holds.
#[derive(Debug)]
pub(crate) struct HeldLayer {
    number: u64,
    link: Weak<Link>,
    /// The sandbox whose upper it was, if its files have that sandbox's ids, and the first of these ids.
    pub(crate) from: Option<(String, u32, u32)>,
    /// Its name, once it was written to the store.
    pub(crate) stored: OnceLock<LayerId>,
    /// What it is on disk, if it is.
    _folder: Option<Arc<DiskFolder>>,
}

/// A folder of the store that a sandbox writes to, or wrote to. Dropped: it is removed.
#[derive(Debug)]
pub(crate) struct DiskFolder {
    pub(crate) name: String,
    shared: Weak<Shared>,
}

impl Drop for DiskFolder {
    fn drop(&mut self) {
        // What stays is removed by the next server.
        let (Some(shared), Ok(runtime)) = (self.shared.upgrade(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let name = std::mem::take(&mut self.name);
        runtime.spawn(async move {
            let Ok(link) = shared.link().await else { return };
            if let Err(error) = work(&link, Work::Remove(name.clone()), &[]).await {
                tracing::warn!(name, %error, "what a sandbox wrote was not removed; the next server tries again");
            }
        });
    }
}

impl Drop for HeldLayer {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.tell(Request::Let { layer: self.number });
        }
    }
}

/// What the layers of a sandbox need to know of it.
#[derive(Debug)]
pub(crate) struct Standing {
    /// The request that made it, of this launcher.
    pub(crate) request: u64,
    pub(crate) link: Weak<Link>,
    pub(crate) hostname: String,
    /// Its ids, users' and groups'.
    pub(crate) ids: (IdMap, IdMap),
    pub(crate) disk_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) can_freeze: bool,
    /// `None`: there are no layers.
    pub(crate) root: Mutex<Option<Root>>,
    /// Where it writes to, if that is on disk.
    pub(crate) folder: Mutex<Option<Arc<DiskFolder>>>,
    /// The stored layers of it, which must stay.
    pub(crate) in_use: Mutex<Vec<Arc<InUse>>>,
    pub(crate) shared: Weak<Shared>,
    /// Held while it changes.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Standing {
    pub(crate) fn root(&self) -> Option<Root> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn folder(&self) -> Option<Arc<DiskFolder>> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_root(&self, root: Root) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    }
}

impl Shared {
    /// What the launcher is told of a root for a sandbox of this name. `None`: there are no overlays here.
    pub(crate) fn stack(&self, root: &Root, sandbox: &str, folder: Option<&DiskFolder>) -> Option<Stack> {
        self.no_layers.get().is_none().then(|| stack(root, sandbox, folder))
    }

    /// A name for a folder of the store that a sandbox will write to.
    pub(crate) fn new_folder(self: &Arc<Self>) -> Result<DiskFolder, RuntimeError> {
        let store = self.store.as_ref().ok_or_else(|| {
            RuntimeError::Unsupported(
                "sandboxes keep their files in memory here: there is no folder for them".to_owned(),
            )
        })?;
        Ok(DiskFolder {
            name: store.draft(),
            shared: Arc::downgrade(self),
        })
    }
}

impl Shared {
    /// Sees to it that the stored layers of a root stay.
    pub(crate) fn in_use(&self, root: &Root) -> Result<Vec<Arc<InUse>>, RuntimeError> {
        let stored = root.layers.iter().filter_map(|layer| match layer {
            Layer::Stored(id) => Some(id),
            Layer::Held(_) => None,
        });
        stored
            .map(|id| match &self.store {
                Some(store) => store.take(id),
                None => Err(RuntimeError::UnknownLayer(*id)),
            })
            .collect()
    }
}

fn stack(root: &Root, sandbox: &str, folder: Option<&DiskFolder>) -> Stack {
    Stack {
        host: root.base == Base::Host,
        layers: root.layers.iter().map(|layer| name(layer, sandbox)).collect(),
        folder: folder.map(|folder| folder.name.clone()),
    }
}

fn name(layer: &Layer, sandbox: &str) -> LayerName {
    match layer {
        Layer::Stored(id) => LayerName::Stored(id.to_string()),
        Layer::Held(held) => {
            let from = held
                .keep()
                .downcast_ref::<HeldLayer>()
                .and_then(|held| held.from.as_ref());
            LayerName::Held {
                number: held.number(),
                own: from.is_some_and(|(from, ..)| from == sandbox),
            }
        }
    }
}

/// The number of a new held layer; no two of a process are the same.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Has a piece of work done and waits for what came of it.
pub(crate) async fn work(link: &Link, work: Work, fds: &[&OwnedFd]) -> Result<Worked, RuntimeError> {
    let failed = |error: std::io::Error| RuntimeError::failed("having work on layers done", error);
    let (answer, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    rustix::io::ioctl_fionbio(&answer, true).map_err(|error| failed(error.into()))?;
    let answer = watch(answer, Interest::READABLE).map_err(failed)?;
    let all: Vec<&OwnedFd> = std::iter::once(&theirs).chain(fds.iter().copied()).collect();
    link.send(&Request::Work(Box::new(work)), &all).await.map_err(failed)?;
    // The worker's must be the only one, so that its end can be seen.
    drop(theirs);
    let mut text = Vec::new();
    let read = async {
        loop {
            let mut part = [0; 4096];
            let len = answer
                .async_io(Interest::READABLE, |pipe| Ok(rustix::io::read(pipe, &mut part)?))
                .await?;
            text.extend(&part[..len]);
            if len == 0 {
                return Ok(());
            }
            if text.len() > WORKED {
                return Err(std::io::Error::other("the answer is too long"));
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(WORK_DEADLINE_S), read).await;
    read.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(failed)?;
    match serde_json::from_slice(&text) {
        Ok(Worked::Failed(failure)) => Err(Facts::read().explain(failure)),
        Ok(worked) => Ok(worked),
        Err(_) => Err(failed(std::io::Error::other("its process ended before it was done"))),
    }
}

/// Whether `root` is `lower` with further layers over it. A held layer that was written to the store is the stored one, too.
fn stands_on(root: &Root, lower: &Root) -> bool {
    let stored = |layer: &Layer| match layer {
        Layer::Stored(id) => Some(*id),
        Layer::Held(held) => held.keep().downcast_ref::<HeldLayer>()?.stored.get().copied(),
    };
    let same = |(one, other): (&Layer, &Layer)| one == other || stored(one).is_some_and(|id| stored(other) == Some(id));
    root.base == lower.base
        && root.layers.len() >= lower.layers.len()
        && root.layers.iter().zip(&lower.layers).all(same)
}

impl Inner {
    fn layered(&self) -> Result<(Root, Arc<Link>), RuntimeError> {
        self.check_alive()?;
        let root = self.standing.root().ok_or_else(|| {
            RuntimeError::Unsupported("sandboxes have no layers here: there are no snapshots and no forks".to_owned())
        })?;
        let link = self.standing.link.upgrade();
        let link = link.ok_or_else(|| RuntimeError::Ended("the launcher process ended".to_owned()))?;
        Ok((root, link))
    }

    /// See [`sandhold_runtime::Sandbox::checkpoint`].
    pub(crate) async fn checkpoint(self: &Arc<Self>) -> Result<Root, RuntimeError> {
        let _changing = self.standing.changing.lock().await;
        let (mut root, link) = self.layered()?;
        let held = root
            .layers
            .iter()
            .filter(|layer| matches!(layer, Layer::Held(_)))
            .count();
        if held >= LAYERS_HELD {
            root = self.let_go(&root).await?;
        }
        let number = next_number();
        let (uid, gid) = self.outside();
        let old = self.standing.folder();
        let layer = HeldLayer {
            number,
            link: Arc::downgrade(&link),
            // On disk the ids are those inside.
            from: old.is_none().then(|| (self.folder.clone(), uid, gid)),
            stored: OnceLock::new(),
            _folder: old,
        };
        root.layers.push(Layer::Held(Held::new(number, Arc::new(layer))));
        let worked = self.restack(&link, &root, Some(number)).await?;
        if !matches!(worked, Worked::Busy(_)) {
            return Ok(root);
        }
        // What it stands on stays as it is; the copy is for others, and to go back to.
        root.layers.pop();
        let number = next_number();
        self.copy(&link, number).await?;
        let layer = HeldLayer {
            number,
            link: Arc::downgrade(&link),
            from: None,
            stored: OnceLock::new(),
            _folder: None,
        };
        root.layers.push(Layer::Held(Held::new(number, Arc::new(layer))));
        Ok(root)
    }

    /// The same root with its held layers in the store: an overlay has room for so many, and memory, too.
    async fn let_go(&self, root: &Root) -> Result<Root, RuntimeError> {
        let shared = self.shared()?;
        let stored = Root::from(Keeper(Arc::clone(&shared)).keep(root).await?);
        let in_use = shared.in_use(&stored)?;
        self.standing
            .in_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(in_use);
        Ok(stored)
    }

    fn shared(&self) -> Result<Arc<Shared>, RuntimeError> {
        let shared = self.standing.shared.upgrade();
        shared.ok_or_else(|| RuntimeError::Ended("the engine ended".to_owned()))
    }

    /// Copies what it wrote while it stands still.
    async fn copy(self: &Arc<Self>, link: &Link, number: u64) -> Result<(), RuntimeError> {
        let freeze = self.standing.can_freeze && !self.is_frozen();
        let order = Transfer {
            number,
            sandbox: self.standing.request,
            from: Some(self.outside()),
            draft: String::new(),
            stop: !self.is_frozen() && !freeze,
            max_bytes: self.standing.disk_bytes.saturating_add(COPY_SLACK.0),
            max_files: self.standing.inodes.saturating_add(COPY_SLACK.1),
        };
        let border = self.border()?;
        if freeze {
            self.set_frozen(true).await?;
        }
        let worked = work(link, Work::Copy(order), &[&border]).await;
        if freeze {
            self.set_frozen(false).await?;
        }
        match worked? {
            Worked::Copied => Ok(()),
            Worked::Spoiled { said, .. } => {
                let what = format!("copying what sandbox {} wrote", self.id());
                Err(RuntimeError::failed(what, std::io::Error::other(said)))
            }
            _ => Err(strange()),
        }
    }

    /// See [`sandhold_runtime::Sandbox::changes`].
    pub(crate) async fn changes(self: &Arc<Self>, since: &Root, most: usize) -> Result<Changes, RuntimeError> {
        let _changing = self.standing.changing.lock().await;
        let (root, link) = self.layered()?;
        if !stands_on(&root, since) {
            let what = "the sandbox does not stand on that state any more, or that state is a copy that was made while its \
                        files were in use: what differs since cannot be told";
            return Err(RuntimeError::InvalidSpec(what.to_owned()));
        }
        let look = Look {
            sandbox: self.standing.request,
            stack: stack(&root, &self.folder, None),
            above: root.layers.len() - since.layers.len(),
            most,
            hostname: self.standing.hostname.clone(),
        };
        match work(&link, Work::Changes(look), &[&self.border()?]).await? {
            Worked::Changes(changes) => Ok(changes.into()),
            Worked::Spoiled { said, .. } => {
                let what = format!("comparing the files of sandbox {}", self.id());
                Err(RuntimeError::failed(what, std::io::Error::other(said)))
            }
            _ => Err(strange()),
        }
    }

    /// The ids of its root in the launcher's view.
    fn outside(&self) -> (u32, u32) {
        (self.standing.ids.0.outside, self.standing.ids.1.outside)
    }

    /// Looks whether it has written more to the disk than it may, and ends it if it has.
    pub(crate) async fn look_at_folder(&self) {
        let (Some(folder), Some(link)) = (self.standing.folder(), self.standing.link.upgrade()) else {
            return;
        };
        // What is removed while it is looked at is looked at again.
        let Ok(Worked::Measured(size)) = work(&link, Work::Measure(folder.name.clone()), &[]).await else {
            return;
        };
        let most = (self.standing.disk_bytes, self.standing.inodes);
        if size.bytes > most.0 {
            self.end(&format!("its files took more than its disk of {} bytes", most.0));
        } else if size.files > most.1 {
            self.end(&format!("it had more than {} files", most.1));
        }
    }

    fn border(&self) -> Result<OwnedFd, RuntimeError> {
        let border = self.border.lock().unwrap_or_else(PoisonError::into_inner);
        let border = border.as_ref().map(OwnedFd::try_clone);
        let border = border.ok_or_else(|| RuntimeError::Ended("it is ending".to_owned()))?;
        border.map_err(|error| RuntimeError::failed("copying a descriptor", error))
    }

    /// See [`sandhold_runtime::Sandbox::roll_back`].
    pub(crate) async fn roll_back(self: &Arc<Self>, root: &Root) -> Result<(), RuntimeError> {
        let _changing = self.standing.changing.lock().await;
        let (now, link) = self.layered()?;
        if now.base != root.base {
            let what = "the sandbox was made from other files: it cannot go to a state that does not begin with them";
            return Err(RuntimeError::InvalidSpec(what.to_owned()));
        }
        let in_use = self.shared()?.in_use(root)?;
        match self.restack(&link, root, None).await? {
            Worked::Busy(process) => Err(RuntimeError::Unsupported(format!(
                "its {process} uses files that it cannot let go of"
            ))),
            _ => {
                *self.standing.in_use.lock().unwrap_or_else(PoisonError::into_inner) = in_use;
                Ok(())
            }
        }
    }

    /// Puts another overlay under it: one over its upper of now, which is held as `hold`, or one of other files.
    async fn restack(self: &Arc<Self>, link: &Link, root: &Root, hold: Option<u64>) -> Result<Worked, RuntimeError> {
        let border = self.border()?;
        let end_others = hold.is_none();
        let old = self.standing.folder();
        let new = old.as_ref().map(|_| self.shared()?.new_folder()).transpose()?;
        // Frozen processes do not end.
        let freeze = self.standing.can_freeze && !end_others && !self.is_frozen();
        let order = Restack {
            sandbox: self.standing.request,
            ids: self.standing.ids,
            folder: old.as_ref().map(|folder| folder.name.clone()),
            hold,
            stack: stack(root, &self.folder, new.as_ref()),
            end_others,
            stop: !self.is_frozen() && !freeze,
            hostname: self.standing.hostname.clone(),
            disk_bytes: self.standing.disk_bytes,
            inodes: self.standing.inodes,
        };
        if freeze {
            self.set_frozen(true).await?;
        }
        let worked = work(link, Work::Restack(order), &[&border]).await;
        // What was done is written down first: if this fails, it is ending, or the next look tells.
        let thawed = if freeze { self.set_frozen(false).await } else { Ok(()) };
        let worked = worked?;
        if matches!(worked, Worked::Restacked { .. }) {
            *self.standing.folder.lock().unwrap_or_else(PoisonError::into_inner) = new.map(Arc::new);
        }
        if let Worked::Restacked { untidy: Some(code) } = &worked {
            let error = std::io::Error::from_raw_os_error(*code);
            tracing::warn!(sandbox = self.id(), %error, "an old upper was not let go of");
        }
        if matches!(worked, Worked::Restacked { .. }) {
            self.standing.set_root(root.clone());
        }
        thawed.map(|()| worked)
    }
}
