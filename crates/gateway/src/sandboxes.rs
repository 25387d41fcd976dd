//! The table of this server's sandboxes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::StreamExt;
use sandhold_runtime::{Runtime, RuntimeInfo, Sandbox as RuntimeSandbox};
use sandhold_wire::rest::State;

use crate::{
    GatewayConfig,
    archive::Archives,
    entry::{Entry, Recipe},
    error::{Refusal, StoreError},
    events::Event,
    idempotency::Idempotency,
    layering::{Layering, collect_always},
    limits::{ENDED_REMEMBERED, EVENTS_KEPT_ENDED, METRICS_EVERY, SHUTDOWN_PARALLEL, SHUTDOWN_PAUSE},
    owner::Owner,
    snapshots::Snapshots,
    store::Store,
    templates::{Templates, prune_always},
};

/// What a sandbox ended with is remembered as.
struct Ended {
    id: String,
    owner: Owner,
    reason: String,
    events: Vec<Event>,
}

/// What happened since the start, for the operator.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) created: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) paused: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) forwarded: AtomicU64,
}

/// The sandboxes of this server.
pub(crate) struct Sandboxes {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) config: GatewayConfig,
    pub(crate) store: Store,
    pub(crate) archives: Archives,
    pub(crate) snapshots: Snapshots,
    pub(crate) layering: Arc<Layering>,
    pub(crate) idempotency: Idempotency,
    pub(crate) templates: Templates,
    pub(crate) totals: Totals,
    live: RwLock<HashMap<String, Arc<Entry>>>,
    ended: Mutex<VecDeque<Ended>>,
    sampling: std::sync::Once,
}

impl Sandboxes {
    /// The domain of the sandboxes' host names. Clients are told it with its port; a host name is compared without.
    pub(crate) fn domain(&self) -> Option<&str> {
        self.config.domain.as_deref()?.split(':').next()
    }

    /// Opens the registry and takes over what an earlier server left paused.
    pub(crate) fn open(runtime: Arc<dyn Runtime>, config: GatewayConfig) -> Result<Self, StoreError> {
        let (store, found) = Store::open(&config.home, config.keep_paused)?;
        let archives = Archives::open(&config.home, &found.paused)?;
        let snapshots = Snapshots::open(&config.home)?;
        let templates = Templates::open(&config.home)?;
        let mut live = HashMap::new();
        for kept in found.kept {
            match serde_json::from_str::<Recipe>(&kept.recipe) {
                Ok(recipe) => {
                    let entry = Entry::kept(kept.id.clone(), recipe);
                    entry.count_archive(&archives);
                    entry.events.note(Event::new(
                        "found",
                        "the server started again; the files were kept, processes were not",
                    ));
                    live.insert(kept.id, Arc::new(entry));
                }
                Err(error) => {
                    tracing::warn!(sandbox = %kept.id, %error, "a paused sandbox of another version cannot be read");
                    store.ended(
                        &kept.id,
                        "it was paused by a version of the server that this one cannot read",
                    );
                }
            }
        }
        Ok(Self {
            runtime,
            config,
            store,
            archives,
            snapshots,
            layering: Arc::default(),
            idempotency: Idempotency::default(),
            templates,
            totals: Totals::default(),
            live: RwLock::new(live),
            ended: Mutex::default(),
            sampling: std::sync::Once::new(),
        })
    }

    pub(crate) fn info(&self) -> RuntimeInfo {
        self.runtime.info()
    }

    /// Takes a new sandbox into the table and watches over its end.
    pub(crate) fn insert(self: &Arc<Self>, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let metadata = serde_json::to_string(&entry.recipe.metadata).unwrap_or_default();
        self.store.started(
            &entry.id,
            entry.owner(),
            &entry.recipe.template,
            metadata,
            entry.started(),
        );
        self.totals.created.fetch_add(1, Ordering::Relaxed);
        let message = format!("created from template \"{}\"", entry.recipe.template);
        entry.events.note(Event::new("created", message));
        self.live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(entry.id.clone(), entry.clone());
        self.watch(&entry);
        entry
    }

    /// Watches over the end of a sandbox that was made.
    pub(crate) fn watch(self: &Arc<Self>, entry: &Arc<Entry>) {
        let weak = Arc::downgrade(self);
        self.sampling.call_once(|| {
            tokio::spawn(sample(weak.clone()));
            tokio::spawn(collect_always(weak.clone()));
            tokio::spawn(prune_always(weak));
        });
        if let Some(runtime) = entry.runtime() {
            tokio::spawn(watch_over(self.clone(), entry.clone(), runtime));
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// An owner's sandbox, or a refusal that says what became of it. Another owner's is refused as one that never was.
    pub(crate) async fn find(&self, id: &str, owner: Owner) -> Result<Arc<Entry>, Refusal> {
        // Old clients append `-` and the client id.
        let id = id.split('-').next().unwrap_or(id);
        if let Some(entry) = self.get(id).filter(|e| e.owner() == owner) {
            return Ok(entry);
        }
        let remembered = {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let found = ended.iter().rev().find(|e| e.id == id && e.owner == owner);
            found.map(|e| e.reason.clone())
        };
        let reason = match remembered {
            Some(reason) => Some(reason),
            None => self.store.end_reason(id, owner).await,
        };
        Err(Refusal::no_sandbox(id, reason.as_deref()))
    }

    /// The last events of an owner's sandbox, which may have ended.
    pub(crate) async fn events(&self, id: &str, owner: Owner) -> Result<Vec<Event>, Refusal> {
        let refusal = match self.find(id, owner).await {
            Ok(entry) => return Ok(entry.events.last(usize::MAX)),
            Err(refusal) => refusal,
        };
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let found = ended.iter().rev().find(|e| e.id == id && e.owner == owner);
        found.map(|e| e.events.clone()).ok_or(refusal)
    }

    /// All sandboxes in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// An owner's sandboxes in no order.
    pub(crate) fn all_of(&self, owner: Owner) -> Vec<Arc<Entry>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().filter(|e| e.owner() == owner).cloned().collect()
    }

    /// Ends what runs, or pauses it. What is paused stays for the next server, where paused sandboxes are kept.
    pub(crate) async fn shutdown(self: &Arc<Self>) {
        const REASON: &str = "with the server that held it";
        self.templates.builds.shutdown().await;
        if self.config.keep_paused && self.config.pause_at_end {
            let pausing = futures::stream::iter(self.all()).for_each_concurrent(SHUTDOWN_PARALLEL, |entry| async move {
                if entry.state() == State::Running
                    && let Err(refusal) = self.pause(&entry, false).await
                {
                    tracing::warn!(sandbox = %entry.id, error = refusal.message(), "a sandbox was not paused and ends");
                }
            });
            if tokio::time::timeout(SHUTDOWN_PAUSE, pausing).await.is_err() {
                tracing::warn!("not every sandbox was paused in time; those that were not end");
            }
        }
        futures::stream::iter(self.all())
            .for_each_concurrent(SHUTDOWN_PARALLEL, |entry| async move {
                if !(self.config.keep_paused && entry.is_kept() && entry.state() == State::Paused) {
                    self.kill(&entry, REASON).await;
                    return;
                }
                entry.set_end_reason(REASON);
                let _held = entry.state.lock().await;
                if let Some(runtime) = entry.set_runtime(None) {
                    runtime.kill().await;
                }
                self.live
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&entry.id);
            })
            .await;
        self.store.flush().await;
    }

    /// Ends a sandbox and forgets it before returning, so that no list shows it any more. False if its end had begun
    /// before.
    pub(crate) async fn kill(&self, entry: &Entry, reason: &str) -> bool {
        let first = entry.set_end_reason(reason);
        // Before the lock: who holds it may wait for this sandbox.
        if let Some(runtime) = entry.runtime() {
            runtime.kill().await;
        }
        let _held = entry.state.lock().await;
        if let Some(runtime) = entry.set_runtime(None) {
            runtime.kill().await;
        }
        self.forget(entry, reason).await;
        first
    }

    async fn forget(&self, entry: &Entry, observed: &str) {
        let was_there = self
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&entry.id)
            .is_some();
        if !was_there {
            return;
        }
        let reason = entry.end_reason().unwrap_or_else(|| observed.to_owned());
        self.store.ended(&entry.id, &reason);
        self.totals.ended.fetch_add(1, Ordering::Relaxed);
        entry.events.note(Event::new("ended", format!("ended: {reason}")));
        {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.len() == ENDED_REMEMBERED {
                ended.pop_front();
            }
            ended.push_back(Ended {
                id: entry.id.clone(),
                owner: entry.owner(),
                reason,
                events: entry.events.last(EVENTS_KEPT_ENDED),
            });
        }
        self.drop_kept(entry).await;
    }
}

/// Waits for the sandbox's end or its deadline, whichever comes first.
async fn watch_over(sandboxes: Arc<Sandboxes>, entry: Arc<Entry>, runtime: Arc<dyn RuntimeSandbox>) {
    let mut deadline = entry.watch_deadline();
    let mut shown = entry.watch_state();
    let ended = runtime.ended();
    tokio::pin!(ended);
    loop {
        let at = *deadline.borrow_and_update();
        // A paused sandbox is kept until it is ended or resumed.
        let running = *shown.borrow_and_update() == State::Running;
        tokio::select! {
            reason = &mut ended => {
                let state = entry.state.lock().await;
                // Another one may have taken its place, or nothing but its files.
                if !entry.runtime().is_some_and(|now| Arc::ptr_eq(&now, &runtime)) {
                    return;
                }
                entry.set_runtime(None);
                if *state == State::Paused && entry.is_kept() && entry.end_reason().is_none() {
                    let message = format!("its processes ended while it was paused, its files are kept: {reason}");
                    entry.events.note(Event::warning("processes ended", message));
                } else {
                    sandboxes.forget(&entry, &reason).await;
                }
                return;
            }
            () = tokio::time::sleep_until(at), if running => {
                entry.events.note(Event::new("timeout", "its timeout was reached"));
                let paused = if entry.recipe.auto_pause {
                    sandboxes.pause(&entry, entry.recipe.auto_pause_memory).await.is_ok()
                } else {
                    false
                };
                // A pause that fails falls through to the end: a sandbox must not outlive its timeout.
                if !paused {
                    sandboxes.kill(&entry, "its timeout was reached").await;
                    return;
                }
            }
            _ = deadline.changed() => {}
            _ = shown.changed() => {}
        }
    }
}

/// Looks at every running sandbox from time to time, for as long as the table is there.
async fn sample(sandboxes: std::sync::Weak<Sandboxes>) {
    loop {
        tokio::time::sleep(METRICS_EVERY).await;
        let Some(sandboxes) = sandboxes.upgrade() else { return };
        for entry in sandboxes.all() {
            if entry.state() == State::Running
                && let Some(runtime) = entry.runtime()
            {
                let recipe = &entry.recipe;
                entry
                    .history
                    .look(&*runtime, recipe.token.as_deref(), &recipe.resources)
                    .await;
            }
        }
    }
}
