//! One sandbox of this server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sandhold_runtime::{Resources, Root, Sandbox as RuntimeSandbox, Storage, StoredRoot};
use sandhold_wire::{
    caps::{Caps, DaemonCaps},
    rest::{Network, State},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    caps, checkpoints::Checkpoints, error::Refusal, events::Events, history::History, network::WayOut, owner::Owner,
};

/// Everything that a sandbox is made from, also when it is made again after a restart. It holds secrets: it is shown
/// to nobody, and the registry that keeps it is its owner's alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub(crate) owner: Owner,
    pub(crate) template: String,
    /// What the template is called, where that is not its id.
    #[serde(default)]
    pub(crate) alias: Option<String>,
    /// What the template gave it.
    #[serde(default)]
    pub(crate) start: Start,
    /// Where it keeps what it writes.
    #[serde(default)]
    pub(crate) storage: Storage,
    pub(crate) token: Option<String>,
    pub(crate) traffic_token: Option<String>,
    /// Nanoseconds since 1970.
    pub(crate) started_ns: u64,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) envs: BTreeMap<String, String>,
    /// What was asked for.
    pub(crate) asked: Resources,
    /// What it has: the engine's defaults filled in.
    pub(crate) resources: Resources,
    /// What its daemon holds processes to.
    #[serde(default)]
    pub(crate) daemon: DaemonCaps,
    pub(crate) network: Option<Network>,
    /// Whether it may reach the internet, where that was said.
    #[serde(default)]
    pub(crate) internet: Option<bool>,
    pub(crate) auto_pause: bool,
    pub(crate) auto_pause_memory: bool,
    pub(crate) auto_resume: bool,
    /// The files of a paused sandbox, where they are kept as layers and not as an archive.
    #[serde(default)]
    pub(crate) files: Option<StoredRoot>,
    /// What it was made of.
    #[serde(default)]
    pub(crate) origin: Option<StoredRoot>,
    /// Bytes that its files take, beside those that it was made of.
    #[serde(default)]
    pub(crate) kept_bytes: u64,
}

/// Where the files of a paused sandbox are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Files {
    /// In an archive, over what it was made of.
    Archive,
    /// In layers.
    Layers(StoredRoot),
}

/// The files of a paused sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) files: Files,
    /// What it was made of, where that is on disk.
    pub(crate) origin: Option<StoredRoot>,
    /// Bytes that they take.
    pub(crate) bytes: u64,
}

/// What the sandboxes of a template begin with, beside files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Start {
    /// The environment of every process.
    pub(crate) envs: BTreeMap<String, String>,
    /// The user of processes and files where a request names none.
    pub(crate) user: Option<String>,
    /// The folder that relative paths start from; the user's home without.
    pub(crate) workdir: Option<String>,
    /// What runs from the start.
    pub(crate) command: Option<String>,
    /// Succeeds once that is ready.
    pub(crate) ready: Option<String>,
}

impl Recipe {
    /// Every limit in force.
    pub(crate) fn caps(&self) -> Caps {
        caps::of_resources(&self.resources).or(&self.daemon.caps())
    }

    /// What its template is called.
    pub(crate) fn template_name(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.template)
    }
}

/// A sandbox that lives, or whose files are kept.
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) recipe: Recipe,
    pub(crate) events: Events,
    pub(crate) history: History,
    /// Absent while the sandbox is nothing but kept files.
    runtime: RwLock<Option<Arc<dyn RuntimeSandbox>>>,
    /// When it ends by itself.
    deadline: watch::Sender<Instant>,
    /// Held while the state changes.
    pub(crate) state: tokio::sync::Mutex<State>,
    /// A copy of `state` that is read without waiting for a change to finish.
    shown: watch::Sender<State>,
    /// Its files, where they are kept beside it.
    kept: Mutex<Option<Kept>>,
    /// What it was made of.
    origin: Mutex<Root>,
    /// What it can go back to.
    checkpoints: Mutex<Checkpoints>,
    /// What it may reach.
    pub(crate) way_out: WayOut,
    /// Why it is being ended; the first to set it wins.
    reason: Mutex<Option<String>>,
}

impl Entry {
    pub(crate) fn running(id: String, recipe: Recipe, runtime: Arc<dyn RuntimeSandbox>, timeout: Duration) -> Self {
        let origin = runtime.root();
        Self::new(id, recipe, Some(runtime), State::Running, timeout, origin)
    }

    /// A sandbox of an earlier server, of which the files are kept.
    pub(crate) fn kept(id: String, mut recipe: Recipe) -> Self {
        let kept = Kept {
            files: recipe.files.take().map_or(Files::Archive, Files::Layers),
            origin: recipe.origin.take(),
            bytes: std::mem::take(&mut recipe.kept_bytes),
        };
        let origin = kept.origin.clone().map(Root::from).unwrap_or_default();
        let entry = Self::new(id, recipe, None, State::Paused, Duration::ZERO, origin);
        entry.set_kept(Some(kept));
        entry
    }

    fn new(
        id: String,
        recipe: Recipe,
        runtime: Option<Arc<dyn RuntimeSandbox>>,
        state: State,
        timeout: Duration,
        origin: Root,
    ) -> Self {
        let events = Events::default();
        Self {
            id,
            way_out: WayOut::new(&recipe, &events),
            recipe,
            events,
            history: History::default(),
            kept: Mutex::default(),
            origin: Mutex::new(origin),
            checkpoints: Mutex::default(),
            runtime: RwLock::new(runtime),
            deadline: watch::Sender::new(Instant::now() + timeout),
            state: tokio::sync::Mutex::new(state),
            shown: watch::Sender::new(state),
            reason: Mutex::default(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.recipe.owner
    }

    pub(crate) fn started(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.recipe.started_ns)
    }

    pub(crate) fn state(&self) -> State {
        *self.shown.borrow()
    }

    pub(crate) fn watch_state(&self) -> watch::Receiver<State> {
        self.shown.subscribe()
    }

    pub(crate) fn show(&self, held: &mut State, state: State) {
        *held = state;
        self.shown.send_replace(state);
    }

    /// The sandbox itself, where it is more than kept files.
    pub(crate) fn runtime(&self) -> Option<Arc<dyn RuntimeSandbox>> {
        self.runtime.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_runtime(&self, runtime: Option<Arc<dyn RuntimeSandbox>>) -> Option<Arc<dyn RuntimeSandbox>> {
        if runtime.is_none() {
            self.way_out.close();
        }
        let mut held = self.runtime.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut held, runtime)
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.held_kept().is_some()
    }

    pub(crate) fn set_kept(&self, kept: Option<Kept>) -> Option<Kept> {
        std::mem::replace(&mut self.held_kept(), kept)
    }

    /// Its files, where they are kept beside it.
    pub(crate) fn get_kept(&self) -> Option<Kept> {
        self.held_kept().clone()
    }

    fn held_kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was made of.
    pub(crate) fn origin(&self) -> Root {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It was made again: what it was made of in the first place is on disk now.
    pub(crate) fn set_origin(&self, origin: Root) {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = origin;
    }

    /// What it can go back to.
    pub(crate) fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Roots that it may be asked to go back to or to be held against.
    pub(crate) fn roots(&self) -> Vec<Root> {
        let kept = self.get_kept().into_iter().flat_map(|kept| {
            let files = match kept.files {
                Files::Layers(root) => Some(root),
                Files::Archive => None,
            };
            kept.origin.into_iter().chain(files).map(Root::from)
        });
        let mut roots: Vec<Root> = kept.collect();
        roots.extend(self.checkpoints().roots().cloned());
        roots.push(self.origin());
        roots
    }

    /// When the sandbox ends by itself, on the wall clock.
    pub(crate) fn end_at(&self) -> SystemTime {
        let left = self.deadline.borrow().saturating_duration_since(Instant::now());
        SystemTime::now() + left
    }

    pub(crate) fn watch_deadline(&self) -> watch::Receiver<Instant> {
        self.deadline.subscribe()
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.deadline.send_replace(Instant::now() + timeout);
    }

    pub(crate) fn extend_timeout(&self, timeout: Duration) {
        let wanted = Instant::now() + timeout;
        self.deadline.send_if_modified(|at| {
            let longer = wanted > *at;
            if longer {
                *at = wanted;
            }
            longer
        });
    }

    /// Begins its end; false if that was begun before, for the reason it was.
    pub(crate) fn set_end_reason(&self, reason: &str) -> bool {
        let mut held = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let first = held.is_none();
        held.get_or_insert_with(|| reason.to_owned());
        first
    }

    /// Why it is being ended.
    pub(crate) fn end_reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses what comes after its end was begun.
    pub(crate) fn check_not_ending(&self) -> Result<(), Refusal> {
        match self.end_reason() {
            None => Ok(()),
            Some(reason) => Err(Refusal::no_sandbox(&self.id, Some(&reason))),
        }
    }
}
