//! Pause and resume: processes that stand still, files that outlive the server.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::StatusCode;
use sandhold_runtime::{Root, RuntimeError, Sandbox, StoredRoot};
use sandhold_wire::rest::State;

use crate::{
    archive::{ArchiveError, Archives},
    checkpoints::Checkpoints,
    create::start,
    entry::{Entry, Files, Kept},
    error::{Refusal, chain},
    events::Event,
    layering::{Written, in_time},
    sandboxes::Sandboxes,
};

impl Sandboxes {
    /// Pauses a sandbox, with its processes or as its files alone. False if it was paused already.
    pub(crate) async fn pause(self: &Arc<Self>, entry: &Arc<Entry>, memory: bool) -> Result<bool, Refusal> {
        let (this, entry) = (self.clone(), entry.clone());
        // In a task of its own: a caller that goes away leaves nothing half done.
        let task = tokio::spawn(async move { this.pause_now(&entry, memory).await });
        task.await
            .unwrap_or_else(|_| Err(Refusal::internal("the pause broke off")))
    }

    async fn pause_now(&self, entry: &Entry, memory: bool) -> Result<bool, Refusal> {
        let mut state = entry.state.lock().await;
        entry.check_not_ending()?;
        let Some(runtime) = entry.runtime().filter(|_| *state == State::Running) else {
            return Ok(false);
        };
        let freeze = memory && self.info().can_freeze;
        if !freeze && memory && !self.config.keep_paused {
            // Says why the engine cannot.
            runtime.freeze().await?;
        }
        let keep = self.config.keep_paused || !freeze;
        if keep {
            // Layers stay until the row that names them is written.
            let (kept, _written) = self.keep_files(entry, &runtime).await.inspect_err(|refusal| {
                entry
                    .events
                    .note(Event::warning("pause failed", refusal.message().to_owned()));
            })?;
            entry.set_kept(Some(kept));
            if let Err(refusal) = self.remember(entry).await {
                self.unkeep(entry).await;
                return Err(refusal);
            }
        }
        if freeze {
            if let Err(error) = runtime.freeze().await {
                self.unkeep(entry).await;
                return Err(error.into());
            }
            entry.events.note(Event::new("paused", "paused with its processes"));
        } else {
            entry.set_runtime(None);
            runtime.kill().await;
            // They hold memory, and what they are of is gone.
            *entry.checkpoints() = Checkpoints::default();
            entry
                .events
                .note(Event::new("paused", "paused as its files, its processes ended"));
        }
        self.totals.paused.fetch_add(1, Ordering::Relaxed);
        entry.show(&mut state, State::Paused);
        Ok(true)
    }

    /// Keeps the files of a sandbox: as layers where the engine has them, which costs what changed, else as an archive, which
    /// costs everything.
    async fn keep_files(
        &self,
        entry: &Entry,
        runtime: &Arc<dyn Sandbox>,
    ) -> Result<(Kept, Option<Written<'_>>), Refusal> {
        // Layers that no row names are another server's to remove.
        let layered = self.config.keep_paused && self.layers().is_ok();
        if layered {
            match in_time("the checkpoint", runtime.checkpoint()).await {
                Ok(root) => {
                    let written = self.write_layers(&root, &entry.origin()).await?;
                    let kept = Kept {
                        files: Files::Layers(written.root.clone()),
                        origin: Some(written.origin.clone()),
                        bytes: written.bytes,
                    };
                    return Ok((kept, Some(written)));
                }
                // An archive needs no room in memory.
                Err(RuntimeError::Unsupported(why) | RuntimeError::Exhausted(why)) => {
                    tracing::debug!(sandbox = %entry.id, why, "its files are kept as an archive");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let (origin, written) = match entry.origin() {
            origin if origin.layers.is_empty() || !layered => (None, None),
            origin => {
                let written = self.write_layers(&origin, &origin).await?;
                (Some(written.origin.clone()), Some(written))
            }
        };
        let token = entry.recipe.token.as_deref();
        self.archives
            .save(&entry.id, &**runtime, token)
            .await
            .map_err(|error| refuse_archive(&entry.id, "could not be kept", &error))?;
        let kept = Kept {
            files: Files::Archive,
            origin,
            bytes: self.archives.size(&entry.id),
        };
        Ok((kept, written))
    }

    /// Writes into the registry how the sandbox is made again, or that its files are of no use to another server.
    async fn remember(&self, entry: &Entry) -> Result<(), Refusal> {
        let recipe = if self.config.keep_paused {
            serde_json::to_string(&entry.recipe_now()).map_err(|e| Refusal::internal(e.to_string()))?
        } else {
            String::new()
        };
        if self.store.paused(&entry.id, recipe).await {
            Ok(())
        } else {
            Err(Refusal::internal(format!(
                "sandbox {} was not paused: the registry could not be written",
                entry.id
            )))
        }
    }

    /// The sandbox runs: what was kept is of no use any more, and it would be wrong to go back to it.
    async fn unkeep(&self, entry: &Entry) {
        if !entry.is_kept() {
            return;
        }
        if !self.store.resumed(&entry.id).await {
            tracing::warn!(sandbox = %entry.id, "the registry still holds it as paused");
        }
        self.drop_kept(entry).await;
    }

    /// Forgets the files of a sandbox, if there are any. No row may name them any more.
    pub(crate) async fn drop_kept(&self, entry: &Entry) {
        if let Some(kept) = entry.set_kept(None)
            && kept.files != Files::Archive
        {
            self.layering.collect_soon();
        }
        self.archives.remove(&entry.id).await;
    }

    /// Lets a paused sandbox go on, or makes it again from its files, also where its processes could go on but `memory` is
    /// not wanted. `None` if it ran already, and its life is extended.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        timeout: Duration,
        memory: bool,
    ) -> Result<Option<Resumed>, Refusal> {
        let (this, entry) = (self.clone(), entry.clone());
        let task = tokio::spawn(async move { this.resume_now(&entry, timeout, memory).await });
        task.await
            .unwrap_or_else(|_| Err(Refusal::internal("the resume broke off")))
    }

    async fn resume_now(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        timeout: Duration,
        memory: bool,
    ) -> Result<Option<Resumed>, Refusal> {
        let mut state = entry.state.lock().await;
        entry.check_not_ending()?;
        if *state == State::Running {
            entry.extend_timeout(timeout);
            return Ok(None);
        }
        // Before the processes go on.
        entry.set_timeout(timeout);
        if !memory
            && entry.is_kept()
            && let Some(runtime) = entry.set_runtime(None)
        {
            runtime.kill().await;
            *entry.checkpoints() = Checkpoints::default();
        }
        let thawed = match entry.runtime() {
            None => false,
            Some(runtime) => match runtime.thaw().await {
                Ok(()) => true,
                Err(RuntimeError::Ended(_)) if entry.is_kept() => false,
                Err(error) => return Err(error.into()),
            },
        };
        if thawed {
            entry.events.note(Event::new("resumed", "resumed, its processes go on"));
        } else {
            self.restore(entry).await?;
            let message = "resumed from its files: processes that ran when it was paused did not come back";
            entry.events.note(Event::warning("resumed", message));
        }
        self.unkeep(entry).await;
        entry.set_timeout(timeout);
        self.totals.resumed.fetch_add(1, Ordering::Relaxed);
        entry.show(&mut state, State::Running);
        if !thawed {
            self.watch(entry);
        }
        Ok(Some(if thawed { Resumed::Processes } else { Resumed::Files }))
    }

    async fn restore(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Refusal> {
        let Some(kept) = entry.get_kept() else {
            return Err(Refusal::internal(format!(
                "the files of sandbox {} were not kept",
                entry.id
            )));
        };
        let origin = kept.origin.map_or_else(|| entry.origin(), Root::from);
        let root = match &kept.files {
            Files::Layers(root) => root.clone().into(),
            Files::Archive => origin.clone(),
        };
        let runtime = start(self, &entry.id, &entry.recipe_now(), root).await?;
        if kept.files == Files::Archive {
            let token = entry.recipe.token.as_deref();
            if let Err(error) = self.archives.restore(&entry.id, &*runtime, token).await {
                runtime.kill().await;
                return Err(refuse_archive(&entry.id, "could not be brought back", &error));
            }
        }
        entry.set_origin(origin);
        entry.set_runtime(Some(runtime));
        entry.open_way_out(&self.config.egress);
        Ok(())
    }
}

/// What a resumed sandbox came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// Everything.
    Processes,
    /// Its files; processes that ran did not come back.
    Files,
}

impl Resumed {
    /// As E2B calls the mode of a pause.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Processes => "full",
            Self::Files => "filesystem",
        }
    }
}

impl Entry {
    /// The root that the files of a paused sandbox are kept as, where they are.
    pub(crate) fn kept_root(&self) -> Option<StoredRoot> {
        match self.get_kept()?.files {
            Files::Layers(root) => Some(root),
            Files::Archive => None,
        }
    }

    /// Looks how large the archive of a sandbox of an earlier server is.
    pub(crate) fn count_archive(&self, archives: &Archives) {
        if let Some(mut kept) = self.get_kept().filter(|kept| kept.files == Files::Archive) {
            kept.bytes = archives.size(&self.id);
            self.set_kept(Some(kept));
        }
    }
}

fn refuse_archive(id: &str, what: &str, error: &ArchiveError) -> Refusal {
    tracing::warn!(sandbox = %id, error = %chain(error), "the files of a sandbox {what}");
    let status = match error {
        ArchiveError::Full | ArchiveError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, format!("the files of sandbox {id} {what}: {}", chain(error)))
}
