//! Commands as jobs: each goes on by itself, its output is kept, and whoever knows its id reads on, also through another
//! server than the one that started it. Transfers that take long are jobs, too.

mod cursor;
mod found;
mod output;
mod pump;
mod spill;
mod work;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::AtomicU32, atomic::Ordering},
    time::{Duration, Instant},
};

use sandhold_client::{CommandRequest, CommandSelector, Error, ExitStatus, SignalKind, job_tag};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use cursor::Cursor;
pub(crate) use found::Found;
pub(crate) use output::Output;
pub(crate) use spill::Kept;
pub(crate) use work::Say;

use crate::{answer::ToolError, call::Target, errors, limits, lock};

/// How a job stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// It runs.
    #[default]
    Running,
    /// It ended by itself, or by a signal of someone inside.
    Done(ExitStatus),
    /// It was ended through `kill_job` or by a cancelled call.
    Cancelled,
    /// Its deadline passed.
    TimedOut,
    /// Nobody knows how it ended.
    Lost(String),
}

impl Status {
    /// Its name in answers.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done(_) => "done",
            Self::Cancelled => "cancelled",
            Self::TimedOut | Self::Lost(_) => "error",
        }
    }
}

/// What changes while a job goes on.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) status: Status,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    /// Files with the output, when it is long.
    pub(crate) kept: [Option<Kept>; 2],
    /// Something a reader should know, such as output that was missed.
    pub(crate) note: Option<String>,
    /// The limit of the sandbox that it met, if it failed.
    pub(crate) limit: Option<ToolError>,
    pub(crate) ended: Option<Instant>,
    cancelled: bool,
}

impl Progress {
    /// The streams go on there; what lies between was missed.
    fn skip_to(&mut self, [stdout, stderr]: [u64; 2]) {
        self.stdout.skip(stdout.saturating_sub(self.stdout.total()));
        self.stderr.skip(stderr.saturating_sub(self.stderr.total()));
    }
}

/// A command that was started, or other work that goes on by itself.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) cmd: String,
    /// Its sandbox; none of work outside of any, the build of a template.
    pub(crate) target: Option<Target>,
    pub(crate) started: Instant,
    pub(crate) timeout: Option<Duration>,
    pub(crate) takes_stdin: bool,
    /// The port of its sandbox that it was started to serve.
    pub(crate) port: Option<u16>,
    /// Where its output is counted from, see [`Cursor::since`].
    pub(crate) since: u16,
    /// When it ended, if that was before it was found.
    ended: Option<Instant>,
    pid: AtomicU32,
    /// Of work that is no process: what ends it.
    stop: Option<CancellationToken>,
    progress: Mutex<Progress>,
    changed: watch::Sender<()>,
}

/// What to start.
pub(crate) struct Start {
    pub(crate) request: CommandRequest,
    pub(crate) job_id: Option<String>,
    /// The command as it was given.
    pub(crate) cmd: String,
    /// The port that it is to serve.
    pub(crate) port: Option<u16>,
}

impl Job {
    fn new(id: String, cmd: String, target: Option<Target>) -> Self {
        Self {
            id,
            cmd,
            target,
            started: Instant::now(),
            timeout: None,
            takes_stdin: false,
            port: None,
            since: 0,
            ended: None,
            pid: AtomicU32::new(0),
            stop: None,
            progress: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// How it is found among the processes of its sandbox.
    pub(crate) fn selector(&self) -> CommandSelector {
        CommandSelector::job(&self.id)
    }

    /// The id of its sandbox.
    pub(crate) fn sandbox_id(&self) -> Option<&str> {
        self.target.as_ref().map(Target::id)
    }

    /// Whether it is in this sandbox.
    pub(crate) fn is_in(&self, sandbox: &str) -> bool {
        self.sandbox_id() == Some(sandbox)
    }

    /// An error of something done to it.
    pub(crate) fn error(&self, error: &Error) -> ToolError {
        self.target
            .as_ref()
            .map_or_else(|| errors::explain(error), |target| target.error(error))
    }

    /// Its process id inside the sandbox.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// Looks at what has come so far. `look` holds the job's lock, so it must not ask the job for anything.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Progress) -> T) -> T {
        look(&lock(&self.progress))
    }

    fn update<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        let result = change(&mut lock(&self.progress));
        self.changed.send_replace(());
        result
    }

    /// Tells whoever reads it something.
    pub(crate) fn note(&self, text: String) {
        self.update(|p| p.note = Some(text));
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.look(|p| p.status == Status::Running)
    }

    /// Whether nobody knows here how it ended, if it did.
    pub(crate) fn is_lost(&self) -> bool {
        self.look(|p| matches!(p.status, Status::Lost(_)))
    }

    /// How long it ran, or has run so far.
    pub(crate) fn duration(&self) -> Duration {
        self.look(|p| p.ended.unwrap_or_else(Instant::now)) - self.started
    }

    /// Waits for its end; false if that did not come in time.
    pub(crate) async fn ended_by(&self, deadline: Instant) -> bool {
        let mut changed = self.changed.subscribe();
        let end = async {
            while self.is_running() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout_at(deadline.into(), end).await.is_ok()
    }

    /// Removes the files with its output, in the background. Returns their size.
    fn drop_files(&self) -> u64 {
        let kept = self.update(|p| std::mem::take(&mut p.kept));
        let bytes = kept.iter().flatten().map(|k| k.bytes).sum();
        if let Some(target) = self.target.as_ref().filter(|_| bytes > 0) {
            let (files, folder) = (target.files(), spill::folder(&self.id));
            tokio::spawn(async move {
                if let Err(error) = files.remove(&folder, None).await {
                    tracing::debug!(folder, %error, "output of an old job was not removed");
                }
            });
        }
        bytes
    }

    /// Signals its process group. False if it has ended already.
    pub(crate) async fn signal(&self, signal: SignalKind) -> Result<bool, Error> {
        if !self.is_running() {
            return Ok(false);
        }
        self.update(|p| p.cancelled = true);
        if let Some(stop) = &self.stop {
            stop.cancel();
            return Ok(true);
        }
        match &self.target {
            Some(target) => target.commands().signal(self.selector(), signal).await,
            None => Ok(false),
        }
    }
}

/// An id that no other job has.
fn new_id() -> String {
    format!("j{}", uuid::Uuid::new_v4().simple())
}

/// The jobs of one caller.
#[derive(Default)]
pub(crate) struct Jobs {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    jobs: HashMap<String, Arc<Job>>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Jobs {
    /// The job of this id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.table).jobs.get(id).cloned()
    }

    /// All jobs that are kept, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        let table = lock(&self.table);
        table
            .order
            .iter()
            .filter_map(|id| table.jobs.get(id).cloned())
            .collect()
    }

    /// Starts a command.
    pub(crate) async fn start(&self, target: Target, start: Start) -> Result<Arc<Job>, ToolError> {
        let id = match start.job_id {
            Some(id) => {
                limits::job_id(&id)?;
                // Another server may have started one of this name here.
                let jobs = target.commands().jobs().await.map_err(|e| target.error(&e))?;
                if jobs.iter().any(|job| job.running && job.id == id) {
                    return Err(taken(&id));
                }
                id
            }
            None => new_id(),
        };
        let request = CommandRequest {
            tag: Some(job_tag(&id)),
            ..start.request
        };
        let job = Arc::new(Job {
            timeout: request.timeout,
            takes_stdin: request.stdin,
            port: start.port,
            ..Job::new(id, start.cmd, Some(target.clone()))
        });
        self.insert(&job)?;
        let started = target.commands().start(request).await;
        match started {
            Ok(process) => {
                job.pid.store(process.pid(), Ordering::Relaxed);
                let spills = spills(&job.id, &target);
                tokio::spawn(pump::pump(Arc::clone(&job), target, process, spills));
                Ok(job)
            }
            Err(error) => {
                self.remove(&job.id);
                Err(target.error(&error))
            }
        }
    }

    /// Removes files with output of the oldest jobs that ended until those of the sandbox fit.
    pub(crate) fn trim_files(&self, sandbox: &str) {
        let jobs: Vec<Arc<Job>> = self.all().into_iter().filter(|j| j.is_in(sandbox)).collect();
        let bytes = |job: &Arc<Job>| job.look(|p| p.kept.iter().flatten().map(|k| k.bytes).sum::<u64>());
        let mut total: u64 = jobs.iter().map(bytes).sum();
        for job in jobs.iter().filter(|j| !j.is_running()) {
            if total <= limits::SPILL_TOTAL {
                return;
            }
            total -= job.drop_files().min(total);
        }
    }

    fn insert(&self, job: &Arc<Job>) -> Result<(), ToolError> {
        let mut table = lock(&self.table);
        if table.jobs.contains_key(&job.id) {
            return Err(taken(&job.id));
        }
        let running = table.jobs.values().filter(|j| j.is_running()).count();
        if running >= limits::JOBS_RUNNING {
            return Err(ToolError::new(
                "too_many_jobs",
                format!("{running} jobs run already; more are not allowed"),
            )
            .hint("End some with kill_job; list_jobs shows them."));
        }
        table.make_room();
        table.order.push_back(job.id.clone());
        table.jobs.insert(job.id.clone(), Arc::clone(job));
        Ok(())
    }

    /// Forgets a job, one that never began.
    pub(crate) fn remove(&self, id: &str) {
        let mut table = lock(&self.table);
        table.jobs.remove(id);
        table.order.retain(|known| known != id);
    }
}

/// The writers of a job's files.
fn spills(job: &str, target: &Target) -> [spill::Spill; 2] {
    let files = target.files();
    ["stdout", "stderr"].map(|name| spill::Spill::new(files.clone(), job, name))
}

fn taken(id: &str) -> ToolError {
    ToolError::invalid(format!("job_id {id:?} is taken by another job"))
        .hint("Choose another one, or leave job_id out.")
}

impl Table {
    /// Drops the oldest jobs that have ended until the limits are kept.
    fn make_room(&mut self) {
        let held = |job: &Arc<Job>| job.look(|p| p.stdout.held() + p.stderr.held());
        let mut memory: usize = self.jobs.values().map(held).sum();
        let mut at = 0;
        while at < self.order.len() && (self.jobs.len() >= limits::JOBS || memory > limits::JOBS_MEMORY) {
            match self.jobs.get(&self.order[at]) {
                Some(job) if job.is_running() => at += 1,
                Some(job) => {
                    memory -= held(job).min(memory);
                    job.drop_files();
                    self.jobs.remove(&self.order[at]);
                    self.order.remove(at);
                }
                None => {
                    self.order.remove(at);
                }
            }
        }
    }
}
