//! One caller: on standard input the only one, over HTTP whoever holds the token.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sandhold_client::{Client, CreateOptions, Error, Sandbox, State};

use crate::{
    answer::ToolError,
    call::Target,
    errors,
    jobs::{Job, Jobs, Start},
    keeping::{Found, Keeping},
    limits, lock,
    sandboxes::{Handle, Table},
    shells::{Open, Shell, Shells},
    undo::Told,
    watches::{Watch, Watches},
};

/// A caller with everything that is its own.
pub(crate) struct Tenant {
    client: Client,
    table: Mutex<Table>,
    /// Held while the default sandbox is made, so that calls side by side make one.
    making: tokio::sync::Mutex<()>,
    /// Held while a job is looked for, so that calls side by side follow it once.
    pub(crate) searching: tokio::sync::Mutex<()>,
    pub(crate) jobs: Jobs,
    pub(crate) shells: Shells,
    pub(crate) watches: Watches,
    pub(crate) undo: Told,
    pub(crate) keeping: Keeping,
    /// What the next answer says of a default sandbox that came back, or did not.
    news: Mutex<Vec<String>>,
    /// Whether an earlier server's default sandbox was looked for.
    looked: AtomicBool,
}

impl Tenant {
    pub(crate) fn new(client: Client, keeping: Keeping) -> Self {
        Self {
            client,
            table: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            searching: tokio::sync::Mutex::default(),
            jobs: Jobs::default(),
            shells: Shells::default(),
            watches: Watches::default(),
            undo: Told::default(),
            keeping,
            news: Mutex::default(),
            looked: AtomicBool::new(false),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn default_id(&self) -> Option<String> {
        lock(&self.table).default_id().map(str::to_owned)
    }

    /// Ids of the sandboxes made here that are not known to have ended.
    pub(crate) fn made(&self) -> Vec<String> {
        lock(&self.table).made()
    }

    /// Ids of the sandboxes that were made or connected to here and are not known to have ended.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        lock(&self.table).all()
    }

    /// The default sandbox, made now if there is none.
    pub(crate) async fn default_or_new(self: &Arc<Self>) -> Result<Arc<Handle>, ToolError> {
        if let Some(handle) = self.default_in_use() {
            return Ok(handle);
        }
        if let Some(id) = self.default_id() {
            // It was paused: attaching says so.
            return self.attach(&id).await;
        }
        let this = Arc::clone(self);
        // In a task of its own: a caller that gives up leaves no sandbox that nobody knows.
        let made = tokio::spawn(async move {
            let _alone = this.making.lock().await;
            if let Some(handle) = this.default_in_use() {
                return Ok(handle);
            }
            if !this.looked.swap(true, Ordering::Relaxed) {
                match this.find_default().await {
                    Found::Nothing => {}
                    Found::Back(sandbox, told) => {
                        lock(&this.news).push(told);
                        return Ok(this.adopt(sandbox, true, true, true));
                    }
                    Found::Lost(told) => lock(&this.news).push(told),
                }
            }
            let sandbox = this
                .client
                .create(this.default_options())
                .await
                .map_err(|e| errors::explain(&e))?;
            Ok(this.adopt(sandbox, true, true, true))
        });
        made.await
            .unwrap_or_else(|_| Err(ToolError::new("internal", "making the default sandbox failed")))
    }

    /// What is to be said once.
    pub(crate) fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.news))
    }

    /// Forks a sandbox, in a task of its own for the same reason.
    pub(crate) async fn fork(
        self: &Arc<Self>,
        id: &str,
        lifetime: Duration,
        count: u32,
        keep_alive: bool,
    ) -> Result<Vec<Result<Arc<Handle>, ToolError>>, ToolError> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        let made = tokio::spawn(async move {
            let forks = this
                .client
                .fork(&id, lifetime, count)
                .await
                .map_err(|e| this.error(&id, &e))?;
            let adopt = |fork: Result<Sandbox, Error>| match fork {
                Ok(sandbox) => Ok(this.adopt(sandbox, true, keep_alive, false)),
                Err(error) => Err(errors::explain(&error)),
            };
            Ok(forks.into_iter().map(adopt).collect())
        });
        made.await
            .unwrap_or_else(|_| Err(ToolError::new("internal", "forking the sandbox failed")))
    }

    /// The sandbox of this id, if it is in use.
    pub(crate) fn in_use(&self, id: &str) -> Option<Arc<Handle>> {
        lock(&self.table).get(id)
    }

    fn default_in_use(&self) -> Option<Arc<Handle>> {
        lock(&self.table).default_handle()
    }

    /// Makes a sandbox, in a task of its own for the same reason.
    pub(crate) async fn create(
        self: &Arc<Self>,
        options: CreateOptions,
        keep_alive: bool,
        default: bool,
    ) -> Result<Arc<Handle>, ToolError> {
        let this = Arc::clone(self);
        let made = tokio::spawn(async move {
            let options = CreateOptions {
                pause_at_timeout: keep_alive && this.keeping.pause,
                ..options
            };
            let sandbox = this.client.create(options).await.map_err(|e| errors::explain(&e))?;
            Ok(this.adopt(sandbox, true, keep_alive, default))
        });
        made.await
            .unwrap_or_else(|_| Err(ToolError::new("internal", "making the sandbox failed")))
    }

    /// Takes a sandbox into use.
    pub(crate) fn adopt(&self, sandbox: Sandbox, made: bool, keep_alive: bool, default: bool) -> Arc<Handle> {
        let handle = Arc::new(Handle::new(sandbox, keep_alive));
        let mut table = lock(&self.table);
        table.insert(Arc::clone(&handle));
        if made {
            table.note_made(handle.sandbox.id());
        }
        if default {
            table.set_default(handle.sandbox.id());
        }
        handle
    }

    /// The sandbox `id`, attached to if it is not in use yet. A paused one is not resumed.
    pub(crate) async fn attach(&self, id: &str) -> Result<Arc<Handle>, ToolError> {
        errors::sandbox_id(id)?;
        if let Some(handle) = lock(&self.table).get(id) {
            return Ok(handle);
        }
        let info = self.client.info(id).await.map_err(|e| self.error(id, &e))?;
        if info.listed.state == State::Paused {
            return Err(ToolError::new("sandbox_paused", format!("sandbox {id} is paused"))
                .hint("Call connect_sandbox with its id to bring it back.")
                .within(id));
        }
        let sandbox = self
            .client
            .connect(id, Some(limits::SANDBOX_LIFETIME))
            .await
            .map_err(|e| self.error(id, &e))?;
        Ok(self.adopt(sandbox, false, true, false))
    }

    /// Attaches to a sandbox and resumes it if it is paused.
    pub(crate) async fn connect(
        &self,
        id: &str,
        timeout: Option<Duration>,
        default: bool,
    ) -> Result<Arc<Handle>, ToolError> {
        errors::sandbox_id(id)?;
        let lifetime = timeout.unwrap_or(limits::SANDBOX_LIFETIME);
        let sandbox = self
            .client
            .connect(id, Some(lifetime))
            .await
            .map_err(|e| self.error(id, &e))?;
        Ok(self.adopt(sandbox, false, timeout.is_none(), default))
    }

    /// Extends the sandbox's life in the background if it is time to.
    pub(crate) fn touch(&self, handle: &Arc<Handle>) {
        if !handle.is_due() {
            return;
        }
        let (client, handle) = (self.client.clone(), Arc::clone(handle));
        tokio::spawn(async move {
            let _gate = handle.gate.lock().await;
            if handle.gone.load(Ordering::Relaxed) {
                return;
            }
            // Connecting never shortens a life, as setting the timeout could.
            if let Err(error) = client
                .connect(handle.sandbox.id(), Some(limits::SANDBOX_LIFETIME))
                .await
            {
                tracing::debug!(sandbox = handle.sandbox.id(), %error, "the life of the sandbox was not extended");
            }
        });
    }

    /// From now on the sandbox lives as long as was asked for.
    pub(crate) fn fixed(&self, id: &str) {
        if let Some(handle) = lock(&self.table).get(id) {
            handle.fixed();
        }
    }

    /// Pauses a sandbox. False if it was paused already.
    pub(crate) async fn pause(&self, id: &str) -> Result<bool, ToolError> {
        let handle = lock(&self.table).get(id);
        let _gate = match &handle {
            Some(handle) => Some(handle.gate.lock().await),
            None => None,
        };
        let paused = self.client.pause(id).await.map_err(|e| self.error(id, &e))?;
        lock(&self.table).paused(id);
        Ok(paused)
    }

    /// Ends a sandbox. False if it had ended already.
    pub(crate) async fn kill(&self, id: &str) -> Result<bool, ToolError> {
        let killed = match self.client.kill(id).await {
            Ok(killed) => killed,
            Err(Error::SandboxNotFound { .. }) => false,
            Err(error) => return Err(self.error(id, &error)),
        };
        lock(&self.table).ended(id);
        Ok(killed)
    }

    /// Starts a job, in a task of its own: a caller that gives up leaves no process that nobody knows.
    /// `hold` is given the job there, so that what it makes of it is dropped also if the caller has gone meanwhile.
    pub(crate) async fn start_job<T: Send + 'static>(
        self: &Arc<Self>,
        target: Target,
        start: Start,
        hold: impl FnOnce(Arc<Job>) -> T + Send + 'static,
    ) -> Result<T, ToolError> {
        let this = Arc::clone(self);
        let started = tokio::spawn(async move { this.jobs.start(target, start).await.map(hold) });
        started
            .await
            .unwrap_or_else(|_| Err(ToolError::new("internal", "starting the command failed")))
    }

    /// Opens a shell, in a task of its own for the same reason.
    pub(crate) async fn open_shell(self: &Arc<Self>, target: Target, open: Open) -> Result<Arc<Shell>, ToolError> {
        let this = Arc::clone(self);
        let opened = tokio::spawn(async move { this.shells.open(target, open).await });
        opened
            .await
            .unwrap_or_else(|_| Err(ToolError::new("internal", "opening the shell failed")))
    }

    /// Watches a folder, in a task of its own for the same reason. `path` is absolute.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        target: Target,
        path: String,
        recursive: bool,
    ) -> Result<Arc<Watch>, ToolError> {
        let this = Arc::clone(self);
        let watched = tokio::spawn(async move { this.watches.add(target, path, recursive).await });
        watched
            .await
            .unwrap_or_else(|_| Err(ToolError::new("internal", "watching the folder failed")))
    }

    /// Says what `error` means for a model; a sandbox that has ended is forgotten.
    pub(crate) fn error(&self, id: &str, error: &Error) -> ToolError {
        if !matches!(error, Error::SandboxNotFound { .. }) {
            return errors::explain(error).within(id);
        }
        let told = if lock(&self.table).ended(id) {
            ToolError::new(
                "sandbox_ended",
                format!("the default sandbox {id} has ended; its files and processes are gone"),
            )
            .hint("Call the tool again without sandbox_id: a new, empty default sandbox is made then.")
        } else {
            ToolError::new("sandbox_not_found", format!("sandbox {id} has ended or never was")).hint(
                "Call create_sandbox, or leave sandbox_id out for the default sandbox; list_sandboxes shows which run.",
            )
        };
        told.within(id)
    }
}
