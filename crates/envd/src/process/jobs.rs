//! `GET /sandhold/jobs`: the jobs of the sandbox, those that run and those that ended not too long ago.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State as Shared;
use axum::response::Response;
use http::StatusCode;
use sandhold_wire::jobs::{Exit, Job, Jobs};
use sandhold_wire::names::job_of_tag;
use sandhold_wire::proto::process::process_event::EndEvent;

use super::hub::Hub;
use super::{Io, Process};
use crate::error::json;
use crate::limits::JOB_COMMAND;
use crate::state::State;

/// What is kept of a job that ended.
#[derive(Debug)]
pub(super) struct EndedJob {
    pub(super) pid: u32,
    pub(super) tag: String,
    cmd: String,
    started: Instant,
    pub(super) at: Instant,
    pub(super) end: Arc<EndEvent>,
    pub(super) hub: Arc<Hub>,
    /// Bytes of output that are kept.
    pub(super) held: usize,
}

impl EndedJob {
    /// Of a process that ended; `None` if it is no job.
    pub(super) fn of(process: &Process, end: &Arc<EndEvent>) -> Option<Self> {
        job_of_tag(process.tag.as_deref()?)?;
        Some(Self {
            pid: process.pid,
            tag: process.tag.clone()?,
            cmd: command(process),
            started: process.started,
            at: Instant::now(),
            end: Arc::clone(end),
            held: process.hub.settle(),
            hub: Arc::clone(&process.hub),
        })
    }

    pub(super) fn show(&self) -> Option<Job> {
        let id = job_of_tag(&self.tag)?.to_owned();
        Some(Job {
            id,
            pid: self.pid,
            cmd: self.cmd.clone(),
            age_ms: millis(self.started.elapsed()),
            ran_ms: millis(self.at - self.started),
            stdin: false,
            printed: self.hub.totals(),
            exit: Some(Exit {
                exit_code: self.end.exit_code,
                exited: self.end.exited,
                status: self.end.status.clone(),
            }),
        })
    }
}

/// A job that runs; `None` if the process is none.
pub(super) fn running(process: &Process) -> Option<Job> {
    let id = job_of_tag(process.tag.as_deref()?)?.to_owned();
    let age = millis(process.started.elapsed());
    Some(Job {
        id,
        pid: process.pid,
        cmd: command(process),
        age_ms: age,
        ran_ms: age,
        stdin: matches!(&process.io, Io::Pipes(stdin) if stdin.is_open()),
        printed: process.hub.totals(),
        exit: None,
    })
}

/// The shell's command, which is its last argument, or the program.
fn command(process: &Process) -> String {
    let config = &process.config;
    let text = config.args.last().unwrap_or(&config.cmd);
    text.chars().take(JOB_COMMAND).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The handler.
pub(crate) async fn get(Shared(state): Shared<Arc<State>>) -> Response {
    let jobs = state.processes.jobs();
    json(StatusCode::OK, &Jobs { jobs })
}
