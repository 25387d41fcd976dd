//! The processes of the sandbox that the daemon started: those that run, and for a while those that ended; jobs for
//! longer, with their output.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use connectrpc::ConnectError;
use sandhold_wire::jobs::Job;
use sandhold_wire::limits::END_RETAINED_S;
use sandhold_wire::names::job_of_tag;
use sandhold_wire::proto::process::{process_event::EndEvent, process_selector::Selector};

use super::Process;
use super::hub::Hub;
use super::jobs::{self, EndedJob};
use super::kept::Budget;
use crate::limits::{ENDED_PROCESSES, RETAINED_ENDED, RETAINED_FOR};

/// All processes.
#[derive(Debug)]
pub(crate) struct Table {
    inner: Mutex<Inner>,
    /// Of the output that jobs keep.
    pub(super) budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Inner {
    running: BTreeMap<u32, Arc<Process>>,
    /// In the order of their ends.
    ended: VecDeque<Ended>,
    /// Jobs in the order of their ends.
    jobs: VecDeque<EndedJob>,
    /// Output that they keep.
    held: usize,
}

#[derive(Debug)]
struct Ended {
    pid: u32,
    tag: Option<String>,
    at: Instant,
    end: Arc<EndEvent>,
}

/// What a selector found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It runs.
    Running(Arc<Process>),
    /// It ended not long ago. A job has its output still.
    Ended(u32, Arc<EndEvent>, Option<Arc<Hub>>),
}

impl Table {
    /// Of a sandbox that keeps so many bytes of each stream of a job.
    pub(crate) fn new(log_bytes: u64) -> Self {
        Self {
            inner: Mutex::default(),
            budget: Arc::new(Budget::new(log_bytes)),
        }
    }

    /// How many jobs run.
    pub(crate) fn running_jobs(&self) -> usize {
        let inner = self.lock();
        let tags = inner.running.values().filter_map(|p| p.tag.as_deref());
        tags.filter(|tag| job_of_tag(tag).is_some()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.lock().running.len()
    }

    /// All that run, by pid.
    pub(crate) fn running(&self) -> Vec<Arc<Process>> {
        self.lock().running.values().cloned().collect()
    }

    /// All jobs, the oldest first.
    pub(super) fn jobs(&self) -> Vec<Job> {
        let mut inner = self.lock();
        inner.forget();
        let ended = inner.jobs.iter().filter_map(EndedJob::show);
        let mut jobs: Vec<Job> = ended
            .chain(inner.running.values().filter_map(|p| jobs::running(p)))
            .collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.age_ms));
        jobs
    }

    /// Enters a process.
    pub(crate) fn started(&self, process: &Arc<Process>) {
        let mut inner = self.lock();
        inner.forget();
        inner.ended.retain(|e| e.pid != process.pid);
        // A job of the same name takes its place.
        if let Some(at) = inner.jobs.iter().position(|j| Some(&j.tag) == process.tag.as_ref()) {
            inner.forget_job(at);
        }
        inner.running.insert(process.pid, Arc::clone(process));
    }

    /// Keeps nothing of a process but its end.
    pub(crate) fn ended(&self, process: &Arc<Process>, end: Arc<EndEvent>) {
        let mut inner = self.lock();
        // Its pid may be another's by now.
        if inner.running.get(&process.pid).is_some_and(|p| Arc::ptr_eq(p, process)) {
            inner.running.remove(&process.pid);
        }
        if let Some(job) = EndedJob::of(process, &end) {
            inner.held += job.held;
            inner.jobs.push_back(job);
        }
        inner.ended.push_back(Ended {
            pid: process.pid,
            tag: process.tag.clone(),
            at: Instant::now(),
            end,
        });
        inner.forget();
    }

    /// A running process.
    ///
    /// # Errors
    /// `not_found`, in envd's words.
    pub(crate) fn get(&self, selector: Option<&Selector>) -> Result<Arc<Process>, ConnectError> {
        match self.find(selector)? {
            Found::Running(process) => Ok(process),
            Found::Ended(..) => Err(not_found(selector)),
        }
    }

    /// A process that runs or ended not long ago. Of several with one tag the one that runs, and the latest of them.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub(crate) fn find(&self, selector: Option<&Selector>) -> Result<Found, ConnectError> {
        let mut inner = self.lock();
        inner.forget();
        let running = match selector {
            Some(Selector::Pid(pid)) => inner.running.get(pid),
            Some(Selector::Tag(tag)) => {
                let tagged = inner.running.values().filter(|p| p.tag.as_ref() == Some(tag));
                tagged.max_by_key(|p| p.started)
            }
            None => None,
        };
        if let Some(process) = running {
            return Ok(Found::Running(Arc::clone(process)));
        }
        if let Some(Selector::Tag(tag)) = selector
            && let Some(job) = inner.jobs.iter().rev().find(|j| j.tag == *tag)
        {
            return Ok(Found::Ended(job.pid, Arc::clone(&job.end), Some(Arc::clone(&job.hub))));
        }
        let matches = |e: &&Ended| match selector {
            Some(Selector::Pid(pid)) => e.pid == *pid,
            Some(Selector::Tag(tag)) => e.tag.as_ref() == Some(tag),
            None => false,
        };
        let ended = inner.ended.iter().rev().find(matches);
        ended
            .map(|e| Found::Ended(e.pid, Arc::clone(&e.end), None))
            .ok_or_else(|| not_found(selector))
    }
}

impl Inner {
    fn forget(&mut self) {
        let kept = Duration::from_secs(END_RETAINED_S);
        while self.ended.len() > ENDED_PROCESSES || self.ended.front().is_some_and(|e| e.at.elapsed() > kept) {
            self.ended.pop_front();
        }
        while self.jobs.len() > ENDED_PROCESSES
            || self.held > RETAINED_ENDED
            || self.jobs.front().is_some_and(|j| j.at.elapsed() > RETAINED_FOR)
        {
            self.forget_job(0);
        }
    }

    fn forget_job(&mut self, at: usize) {
        if let Some(job) = self.jobs.remove(at) {
            self.held -= job.held;
        }
    }
}

fn not_found(selector: Option<&Selector>) -> ConnectError {
    match selector {
        Some(Selector::Pid(pid)) => ConnectError::not_found(format!("process with pid {pid} not found")),
        Some(Selector::Tag(tag)) => ConnectError::not_found(format!("process with tag {tag} not found")),
        None => ConnectError::invalid_argument("the request names no process: give a pid or a tag"),
    }
}
