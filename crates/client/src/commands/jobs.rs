//! Jobs: commands that are found again by an id, also by a client that did not start them.

use std::{sync::atomic::Ordering, time::Duration};

use http::Method;
use sandhold_wire::{jobs, names};

use super::{CommandSelector, Commands, ExitStatus, Process, ProcessSummary};
use crate::{Error, limits, transport::empty};

/// A job, as [`Commands::jobs`] shows it. What E2B's daemon does not tell is `None`.
#[derive(Debug, Clone)]
pub struct JobSummary {
    /// Its id.
    pub id: String,
    /// Its process id inside the sandbox.
    pub pid: u32,
    /// The beginning of its shell command.
    pub cmd: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether its standard input is open.
    pub stdin: Option<bool>,
    /// How long ago it was started.
    pub age: Option<Duration>,
    /// How long it ran, or has run so far.
    pub ran: Option<Duration>,
    /// Bytes that it wrote to standard output and to standard error.
    pub printed: Option<[u64; 2]>,
    /// How it ended.
    pub exit: Option<ExitStatus>,
}

/// A job that was attached to.
#[derive(Debug)]
pub struct AttachedJob {
    /// Its events.
    pub process: Process,
    /// From where on its output follows, in bytes of standard output and of standard error since its start; later than
    /// what was asked for where that is kept no longer. `None`: the server keeps no output, and only what it prints from
    /// now on follows.
    pub replayed: Option<[u64; 2]>,
}

impl CommandSelector {
    /// Names the job `id`; also what a job's command is tagged with, see [`job_tag`].
    #[must_use]
    pub fn job(id: &str) -> Self {
        Self::Tag(job_tag(id))
    }
}

/// The tag that makes a command the job `id`: [`CommandRequest::tag`](super::CommandRequest::tag).
#[must_use]
pub fn job_tag(id: &str) -> String {
    names::job_tag(id)
}

impl Commands {
    /// The jobs of the sandbox, whoever started them, the oldest first. Sandhold's daemon knows those that have ended, too,
    /// for some hours.
    ///
    /// # Errors
    /// Those of the connection and of the sandbox.
    pub async fn jobs(&self) -> Result<Vec<JobSummary>, Error> {
        if !self.envd.no_jobs.load(Ordering::Relaxed) {
            let request = self.envd.request(Method::GET, "/sandhold/jobs", empty())?;
            if let Some(answer) = self.envd.extension::<jobs::Jobs>(request, limits::JOBS_ANSWER).await? {
                return Ok(answer.jobs.into_iter().map(Into::into).collect());
            }
            self.envd.no_jobs.store(true, Ordering::Relaxed);
        }
        Ok(self.list().await?.into_iter().filter_map(of_process).collect())
    }

    /// Attaches to a job and reads on from where the caller is: `has` are the bytes of standard output and of standard error
    /// that it has. Sandhold's daemon sends what came since, and knows jobs that ended some hours ago.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such job.
    pub async fn attach(&self, id: &str, has: [u64; 2]) -> Result<AttachedJob, Error> {
        let stream = self.connecting(CommandSelector::job(id), Some(has)).await?;
        let replayed = stream.replayed;
        let process = Process::open(self.envd.clone(), stream).await?;
        Ok(AttachedJob { process, replayed })
    }
}

impl From<jobs::Job> for JobSummary {
    fn from(job: jobs::Job) -> Self {
        Self {
            id: job.id,
            pid: job.pid,
            cmd: job.cmd,
            running: job.exit.is_none(),
            stdin: Some(job.stdin),
            age: Some(Duration::from_millis(job.age_ms)),
            ran: Some(Duration::from_millis(job.ran_ms)),
            printed: Some(job.printed),
            exit: job.exit.map(|exit| ExitStatus {
                exit_code: exit.exit_code,
                exited: exit.exited,
                status: exit.status,
                error: None,
            }),
        }
    }
}

/// What the protocol tells of every process; `None` if it is no job.
fn of_process(process: ProcessSummary) -> Option<JobSummary> {
    Some(JobSummary {
        id: names::job_of_tag(process.tag.as_deref()?)?.to_owned(),
        pid: process.pid,
        cmd: process.args.last().unwrap_or(&process.cmd).clone(),
        running: true,
        stdin: None,
        age: None,
        ran: None,
        printed: None,
        exit: None,
    })
}
