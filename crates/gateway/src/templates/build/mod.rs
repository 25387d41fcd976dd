//! A build: what it begins with, its steps, and the try whether sandboxes of it start.
//!
//! Each step runs in a sandbox of what the steps before left. What it left is a root of its own, found again by the next
//! build that does the same to the same.

mod base;
mod finish;
mod scripts;
mod steps;
mod tasks;
mod workshop;

use std::{collections::HashSet, sync::Arc, time::Duration};

use sandhold_runtime::{LayerId, Layers, StoredRoot};
use sandhold_wire::templates::TemplateBuildStart;

pub(crate) use self::{
    finish::begin,
    tasks::{Builds, this_server},
};
use super::{
    cache::{self, Done},
    logs::{Level, Log},
};
use crate::{entry::Start, error::Refusal, owner::Owner, sandboxes::Sandboxes};

/// The step that a build begins with.
const BASE: &str = "base";
/// The step that it ends with.
const FINALIZE: &str = "finalize";
/// Changes when the same steps leave something else than before.
const RECIPE_VERSION: &[u8] = b"1";

/// What is built, and for whom.
pub(crate) struct Job {
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) owner: Owner,
    pub(crate) template: String,
    pub(crate) build: String,
    pub(crate) asked: TemplateBuildStart,
    pub(crate) cpus: Option<f64>,
    pub(crate) memory_mb: Option<u64>,
}

/// Why a build failed: where, and what a person reads.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: String,
    pub(crate) message: String,
}

impl Failure {
    fn new(step: &str, message: impl Into<String>) -> Self {
        Self {
            step: step.to_owned(),
            message: message.into(),
        }
    }

    /// Something that was refused at a step.
    fn at(step: &str) -> impl Fn(Refusal) -> Self + '_ {
        move |refusal| Self::new(step, refusal.message())
    }
}

/// What a build knows while it goes on.
struct Building<'a> {
    job: &'a Job,
    log: &'a Log,
    layers: Arc<dyn Layers>,
    /// Layers that were there at the start, and those that came since.
    there: HashSet<LayerId>,
    root: StoredRoot,
    start: Start,
    /// Whether nothing more is taken from the cache.
    force: bool,
}

/// Builds.
pub(crate) async fn build(job: &Job, log: &Log) -> Result<Done, Failure> {
    let begun = std::time::Instant::now();
    log.line(
        Level::Info,
        Some(BASE),
        format!("Building template {}/{}", job.template, job.build),
    );
    let layers = job.sandboxes.template_layers().map_err(Failure::at(BASE))?;
    let stored = layers.stored().await.map_err(|error| {
        Failure::new(
            BASE,
            format!("the layers cannot be listed: {}", crate::error::chain(&error)),
        )
    })?;
    let mut building = Building {
        job,
        log,
        layers,
        there: stored.into_iter().map(|layer| layer.id).collect(),
        root: StoredRoot::default(),
        start: Start::default(),
        force: job.asked.force,
    };
    building.base().await?;
    let count = job.asked.steps.len();
    for (number, step) in (1..).zip(&job.asked.steps) {
        building.force |= step.force;
        building.step(step, number, count).await?;
    }
    building.finish().await?;
    log.line(
        Level::Info,
        Some(FINALIZE),
        format!("Build finished, took {}", told(begun.elapsed())),
    );
    Ok(Done {
        root: building.root,
        start: building.start,
    })
}

impl Building<'_> {
    /// Where what is done to the files as they are now is kept.
    fn key(&self, parts: &[&[u8]], step: &str) -> Result<String, Failure> {
        let failed = |error: serde_json::Error| Failure::new(step, error.to_string());
        let root = serde_json::to_vec(&self.root).map_err(failed)?;
        let start = serde_json::to_vec(&self.start).map_err(failed)?;
        let owner = self.job.owner.number().unwrap_or(0).to_le_bytes();
        let mut all: Vec<&[u8]> = vec![RECIPE_VERSION, &owner, &root, &start];
        all.extend(parts);
        Ok(cache::key(&all))
    }

    /// Takes what was done before, if all of it is still there.
    async fn cached(&mut self, key: &str, step: &str) -> Result<bool, Failure> {
        if self.force {
            return Ok(false);
        }
        let db = &self.job.sandboxes.templates.db;
        let found: Option<Done> = cache::look_up(db, key).await.map_err(Failure::at(step))?;
        match found {
            Some(done) if done.root.layers.iter().all(|layer| self.there.contains(layer)) => {
                self.root = done.root;
                self.start = done.start;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Goes on from what a step left, and keeps it for later builds.
    async fn done(&mut self, key: &str, step: &str, done: Done) -> Result<(), Failure> {
        let db = &self.job.sandboxes.templates.db;
        cache::keep(db, key, &done).await.map_err(Failure::at(step))?;
        self.there.extend(&done.root.layers);
        self.root = done.root;
        self.start = done.start;
        Ok(())
    }
}

/// A time, in seconds and tenths.
fn told(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
