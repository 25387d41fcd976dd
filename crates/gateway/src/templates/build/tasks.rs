//! Builds under way: a few at once, each a task that ends with its server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use http::StatusCode;
use sandhold_wire::{
    limits::BUILD_STEPS,
    templates::{BuildReason, ImageRegistry, TemplateBuildStart},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

use super::{
    super::{
        logs::{Level, Log, Wanted, read},
        rows,
    },
    BASE, Failure, Job,
    steps::Step,
};
use crate::{
    error::Refusal,
    limits::{BUILD_ARGUMENT, BUILD_CANCEL_TIME, BUILD_REASON_LINES, BUILD_TIME, BUILDS_AT_ONCE, BUILDS_WAITING},
    owner::Owner,
    sandboxes::Sandboxes,
    store::server_name,
};

/// The builds of this server.
pub(crate) struct Builds {
    running: Mutex<HashMap<String, Running>>,
    turns: Arc<Semaphore>,
}

struct Running {
    cancel: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Default for Builds {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            turns: Arc::new(Semaphore::new(BUILDS_AT_ONCE)),
        }
    }
}

/// What can be said of a build before it begins. Returns its steps that need files: their hashes.
pub(crate) fn check(asked: &TemplateBuildStart) -> Result<Vec<String>, Refusal> {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
    if given(&asked.from_image) == given(&asked.from_template) {
        return Err(Refusal::bad_request(
            "a build begins with either fromImage or fromTemplate",
        ));
    }
    match &asked.from_image_registry {
        None | Some(ImageRegistry::Registry { .. }) => {}
        Some(other) => {
            let whose = if matches!(other, ImageRegistry::Aws { .. }) {
                "AWS"
            } else {
                "Google"
            };
            return Err(Refusal::bad_request(format!(
                "fromImageRegistry of {whose} is not supported here: log in there yourself (`docker login`) and give the \
                 username and the token as type \"registry\""
            )));
        }
    }
    if asked.steps.len() > BUILD_STEPS {
        return Err(Refusal::bad_request(format!(
            "the build has {} steps, at most {BUILD_STEPS} are allowed",
            asked.steps.len()
        )));
    }
    for command in [&asked.start_cmd, &asked.ready_cmd].into_iter().flatten() {
        if command.len() > BUILD_ARGUMENT || command.contains('\0') {
            return Err(Refusal::bad_request(format!(
                "startCmd and readyCmd may have {BUILD_ARGUMENT} bytes, none of them zero"
            )));
        }
    }
    let mut hashes = Vec::new();
    for (number, step) in (1..).zip(&asked.steps) {
        let read = Step::parse(step);
        let read = read.map_err(|refusal| Refusal::bad_request(format!("step {number}: {}", refusal.message())))?;
        if let Step::Copy(copy) = read {
            hashes.push(copy.hash);
        }
    }
    Ok(hashes)
}

impl Builds {
    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses one build more than may wait.
    pub(crate) fn check_room(&self) -> Result<(), Refusal> {
        if self.running().len() < BUILDS_WAITING {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("{BUILDS_WAITING} builds wait already: try again later"),
        ))
    }

    /// Has a build done that this server claimed.
    pub(crate) fn spawn(&self, job: Job) {
        let cancel = Arc::new(Notify::new());
        let (turns, build, stop) = (self.turns.clone(), job.build.clone(), cancel.clone());
        let mut running = self.running();
        let task = tokio::spawn(async move {
            let sandboxes = job.sandboxes.clone();
            let build = job.build.clone();
            see_to(job, &turns, &stop).await;
            sandboxes.templates.builds.running().remove(&build);
        });
        running.insert(build, Running { cancel, task });
    }

    /// Gives a build up. False if it is not this server's.
    pub(crate) fn cancel(&self, build: &str) -> bool {
        let running = self.running();
        let Some(running) = running.get(build) else {
            return false;
        };
        running.cancel.notify_one();
        true
    }

    /// Gives all builds up and waits until that is written down.
    pub(crate) async fn shutdown(&self) {
        let running: Vec<Running> = self.running().drain().map(|(_, running)| running).collect();
        for build in &running {
            build.cancel.notify_one();
        }
        let ended = futures::future::join_all(running.into_iter().map(|build| build.task));
        if tokio::time::timeout(BUILD_CANCEL_TIME, ended).await.is_err() {
            tracing::warn!("a build did not end in time; the next server notes that it failed");
        }
    }
}

/// Waits for a build's turn, does it and notes how it ended.
async fn see_to(job: Job, turns: &Semaphore, cancel: &Notify) {
    let (sandboxes, owner, build) = (job.sandboxes.clone(), job.owner, job.build.clone());
    let db = sandboxes.templates.db.clone();
    let cancelled = || Failure {
        step: BASE.into(),
        message: "the build was given up: somebody ended it, its template was deleted, or its server ended".into(),
    };
    let log = Log::open(db.clone(), build.clone());
    let outcome = async {
        let turn = tokio::select! {
            turn = turns.acquire() => turn,
            () = cancel.notified() => return Err(cancelled()),
        };
        let _turn = turn.map_err(|_| cancelled())?;
        let begun = build.clone();
        let begun = db.run(move |db| Ok(rows::begun(db, &begun)?)).await;
        begun.map_err(Failure::at(BASE))?;
        tokio::select! {
            done = std::panic::AssertUnwindSafe(super::build(&job, &log)).catch_unwind() => {
                done.unwrap_or_else(|_| Err(Failure::new(BASE, "the build broke off")))
            }
            () = cancel.notified() => Err(cancelled()),
            () = tokio::time::sleep(BUILD_TIME) => {
                Err(Failure::new(BASE, format!("the build did not end within {} s", BUILD_TIME.as_secs())))
            }
        }
    }
    .await;
    if let Err(failure) = &outcome {
        log.line(
            Level::Error,
            Some(&failure.step),
            format!("Build failed: {}", failure.message),
        );
    }
    log.close().await;
    let id = build.clone();
    let noted = db
        .run(move |db| match outcome {
            Ok(done) => rows::ready(db, &id, &done.root, &done.start),
            Err(failure) => {
                let wanted = Wanted {
                    offset: 0,
                    from: None,
                    most: BUILD_REASON_LINES,
                    backward: true,
                    levels: Level::from("debug"),
                };
                let mut log_entries = read(db, &id, wanted)?;
                log_entries.reverse();
                let reason = BuildReason {
                    message: failure.message,
                    step: Some(failure.step),
                    log_entries,
                };
                rows::failed(db, &id, &reason)
            }
        })
        .await;
    if let Err(refusal) = noted {
        tracing::warn!(%build, ?owner, error = refusal.message(), "how a build ended could not be written down");
    }
    sandboxes.layering.collect_soon();
}

/// This server, as builds name it.
pub(crate) fn this_server() -> String {
    server_name(std::process::id())
}

impl Sandboxes {
    /// Has a build begin.
    pub(crate) async fn begin_build(
        self: &Arc<Self>,
        owner: Owner,
        template: &str,
        build: &str,
        asked: TemplateBuildStart,
    ) -> Result<(), Refusal> {
        let hashes = check(&asked)?;
        self.template_layers()?;
        let uploads = &self.templates.uploads;
        if let Some(hash) = hashes.iter().find(|hash| !uploads.present(owner, hash)) {
            return Err(Refusal::bad_request(format!(
                "the files {hash} of a COPY were not uploaded: ask GET /templates/{template}/files/{hash} where to"
            )));
        }
        if let Some(from) = asked.from_template.as_deref().filter(|name| !name.is_empty()) {
            self.resolve(owner, from).await?;
        }
        self.templates.builds.check_room()?;
        let (template, build) = (template.to_owned(), build.to_owned());
        let row = self
            .templates
            .db
            .run(move |db| {
                let template = rows::own(db, owner, &template)?;
                let row = rows::build(db, &template.id, &build)?;
                if !rows::claim(db, &row.id, &this_server())? {
                    let message = format!("build {} was started already: ask for another one", row.id);
                    return Err(Refusal::new(StatusCode::CONFLICT, message).into());
                }
                Ok(row)
            })
            .await?;
        self.templates.builds.spawn(Job {
            sandboxes: self.clone(),
            owner,
            template: row.template,
            build: row.id,
            asked,
            cpus: row.cpus,
            memory_mb: row.memory_mb,
        });
        Ok(())
    }
}
