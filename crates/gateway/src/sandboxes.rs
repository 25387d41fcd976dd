//! The table of live sandboxes and what can be done to one.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use sandhold_runtime::{Resources, Runtime, RuntimeInfo, Sandbox as RuntimeSandbox};
use sandhold_wire::rest::{Network, State};
use tokio::{sync::watch, time::Instant};

use crate::{
    GatewayConfig,
    error::Refusal,
    limits::{ENDED_REMEMBERED, SHUTDOWN_PARALLEL},
    store::Store,
};

/// A sandbox that lives.
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) template: String,
    pub(crate) token: Option<String>,
    pub(crate) traffic_token: Option<String>,
    pub(crate) started: SystemTime,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    pub(crate) network: Option<Network>,
    pub(crate) auto_pause: bool,
    pub(crate) auto_resume: bool,
    pub(crate) runtime: Arc<dyn RuntimeSandbox>,
    /// When it ends by itself.
    deadline: watch::Sender<Instant>,
    /// Held while the state changes.
    state: tokio::sync::Mutex<State>,
    /// A copy of `state` that is read without waiting for a change to finish.
    shown: watch::Sender<State>,
    /// Why it is being ended; the first to set it wins.
    reason: Mutex<Option<String>>,
}

/// Everything about a new sandbox that its entry keeps.
pub(crate) struct NewEntry {
    pub(crate) id: String,
    pub(crate) template: String,
    pub(crate) token: Option<String>,
    pub(crate) traffic_token: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    pub(crate) network: Option<Network>,
    pub(crate) auto_pause: bool,
    pub(crate) auto_resume: bool,
    pub(crate) runtime: Arc<dyn RuntimeSandbox>,
    pub(crate) timeout: Duration,
}

impl Entry {
    pub(crate) fn state(&self) -> State {
        *self.shown.borrow()
    }

    /// When the sandbox ends by itself, on the wall clock.
    pub(crate) fn end_at(&self) -> SystemTime {
        let left = self.deadline.borrow().saturating_duration_since(Instant::now());
        SystemTime::now() + left
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

    /// False if it was paused already.
    pub(crate) async fn pause(&self) -> Result<bool, Refusal> {
        let mut state = self.state.lock().await;
        if *state == State::Paused {
            return Ok(false);
        }
        self.runtime.freeze().await?;
        self.show(&mut state, State::Paused);
        Ok(true)
    }

    /// False if it ran already. The timeout is set before the processes go on.
    pub(crate) async fn resume(&self, timeout: Duration) -> Result<bool, Refusal> {
        let mut state = self.state.lock().await;
        if *state == State::Running {
            self.extend_timeout(timeout);
            return Ok(false);
        }
        self.set_timeout(timeout);
        self.runtime.thaw().await?;
        self.show(&mut state, State::Running);
        Ok(true)
    }

    fn show(&self, held: &mut State, state: State) {
        *held = state;
        self.shown.send_replace(state);
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn kill(&self, reason: &str) {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| reason.to_owned());
        self.runtime.kill().await;
    }

    fn end_reason(&self, observed: String) -> String {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or(observed)
    }
}

/// The live sandboxes of this server.
pub(crate) struct Sandboxes {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) config: GatewayConfig,
    live: RwLock<HashMap<String, Arc<Entry>>>,
    ended: Mutex<VecDeque<(String, String)>>,
    store: Store,
}

impl Sandboxes {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, store: Store, config: GatewayConfig) -> Self {
        Self {
            runtime,
            config,
            live: RwLock::default(),
            ended: Mutex::default(),
            store,
        }
    }

    pub(crate) fn info(&self) -> RuntimeInfo {
        self.runtime.info()
    }

    /// Takes a sandbox into the table and watches over its end.
    pub(crate) fn insert(self: &Arc<Self>, new: NewEntry) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            id: new.id,
            template: new.template,
            token: new.token,
            traffic_token: new.traffic_token,
            started: SystemTime::now(),
            metadata: new.metadata,
            resources: new.resources,
            network: new.network,
            auto_pause: new.auto_pause,
            auto_resume: new.auto_resume,
            runtime: new.runtime,
            deadline: watch::Sender::new(Instant::now() + new.timeout),
            state: tokio::sync::Mutex::new(State::Running),
            shown: watch::Sender::new(State::Running),
            reason: Mutex::default(),
        });
        let metadata = serde_json::to_string(&entry.metadata).unwrap_or_default();
        self.store.started(&entry.id, &entry.template, metadata, entry.started);
        self.live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(entry.id.clone(), entry.clone());
        tokio::spawn(watch_over(self.clone(), entry.clone()));
        entry
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// As [`Self::get`], with a refusal that says what became of the sandbox.
    pub(crate) async fn find(&self, id: &str) -> Result<Arc<Entry>, Refusal> {
        match self.get(id) {
            Some(entry) => Ok(entry),
            None => Err(Refusal::no_sandbox(id, self.end_reason(id).await.as_deref())),
        }
    }

    /// Why a sandbox is not there any more, if it ever was.
    pub(crate) async fn end_reason(&self, id: &str) -> Option<String> {
        let remembered = {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended
                .iter()
                .rev()
                .find(|(ended, _)| ended == id)
                .map(|(_, reason)| reason.clone())
        };
        match remembered {
            Some(reason) => Some(reason),
            None => self.store.end_reason(id).await,
        }
    }

    /// All live sandboxes in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) async fn shutdown(&self) {
        futures::stream::iter(self.all())
            .for_each_concurrent(SHUTDOWN_PARALLEL, async |entry| {
                entry.kill("with the server that held it").await
            })
            .await;
        for entry in self.all() {
            self.forget(&entry, "with the server that held it".into());
        }
        self.store.flush().await;
    }

    fn forget(&self, entry: &Entry, observed: String) {
        let was_there = self
            .live
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&entry.id)
            .is_some();
        if !was_there {
            return;
        }
        let reason = entry.end_reason(observed);
        self.store.ended(&entry.id, &reason);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() == ENDED_REMEMBERED {
            ended.pop_front();
        }
        ended.push_back((entry.id.clone(), reason));
    }

    /// Ends a sandbox and forgets it before returning, so that no list shows it any more.
    pub(crate) async fn kill(&self, entry: &Entry, reason: &str) {
        entry.kill(reason).await;
        self.forget(entry, reason.into());
    }
}

/// Waits for the sandbox's end or its deadline, whichever comes first.
async fn watch_over(sandboxes: Arc<Sandboxes>, entry: Arc<Entry>) {
    let mut deadline = entry.deadline.subscribe();
    let mut shown = entry.shown.subscribe();
    let ended = entry.runtime.ended();
    tokio::pin!(ended);
    loop {
        let at = *deadline.borrow_and_update();
        // A paused sandbox is kept until it is ended or resumed.
        let running = *shown.borrow_and_update() == State::Running;
        tokio::select! {
            reason = &mut ended => {
                sandboxes.forget(&entry, reason);
                return;
            }
            () = tokio::time::sleep_until(at), if running => {
                // A freeze that fails falls through to the end: a sandbox must not outlive its timeout.
                if !(entry.auto_pause && entry.pause().await.is_ok()) {
                    sandboxes.kill(&entry, "its timeout was reached").await;
                    return;
                }
            }
            _ = deadline.changed() => {}
            _ = shown.changed() => {}
        }
    }
}
