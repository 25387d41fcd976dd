//! One sandbox of this server.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sandhold_runtime::{Resources, Sandbox as RuntimeSandbox};
use sandhold_wire::{
    caps::{Caps, DaemonCaps},
    rest::{Network, State},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{caps, error::Refusal, events::Events, history::History, network::WayOut, owner::Owner};

/// Everything that a sandbox is made from, also when it is made again after a restart. It holds secrets: it is shown
/// to nobody, and the registry that keeps it is its owner's alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub(crate) owner: Owner,
    pub(crate) template: String,
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
}

impl Recipe {
    /// Every limit in force.
    pub(crate) fn caps(&self) -> Caps {
        caps::of_resources(&self.resources).or(&self.daemon.caps())
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
    /// Whether its files are kept beside it.
    pub(crate) kept: AtomicBool,
    /// What it may reach.
    pub(crate) way_out: WayOut,
    /// Why it is being ended; the first to set it wins.
    reason: Mutex<Option<String>>,
}

impl Entry {
    pub(crate) fn running(id: String, recipe: Recipe, runtime: Arc<dyn RuntimeSandbox>, timeout: Duration) -> Self {
        Self::new(id, recipe, Some(runtime), State::Running, timeout)
    }

    /// A sandbox of an earlier server, of which the files are kept.
    pub(crate) fn kept(id: String, recipe: Recipe) -> Self {
        Self::new(id, recipe, None, State::Paused, Duration::ZERO)
    }

    fn new(
        id: String,
        recipe: Recipe,
        runtime: Option<Arc<dyn RuntimeSandbox>>,
        state: State,
        timeout: Duration,
    ) -> Self {
        let events = Events::default();
        Self {
            id,
            way_out: WayOut::new(&recipe, &events),
            recipe,
            events,
            history: History::default(),
            kept: AtomicBool::new(runtime.is_none()),
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
        self.kept.load(Ordering::Acquire)
    }

    pub(crate) fn set_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Release);
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
