//! Jobs that another server started, or this one in an earlier life: processes of the caller's sandboxes whose tag says so.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU32},
    time::{Duration, Instant},
};

use sandhold_client::JobSummary;

use super::{Job, Jobs, Kept, Progress, pump, spill, spills};
use crate::{answer::ToolError, call::Target, limits, lock};

/// A job that this server does not follow, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) sandbox: String,
    pub(crate) job: JobSummary,
}

impl Jobs {
    /// Follows a job that was found: what it printed is read as far as it is kept, and what it prints from now on.
    pub(crate) async fn follow(&self, target: Target, found: JobSummary) -> Result<Arc<Job>, ToolError> {
        let attached = target.commands().attach(&found.id, [0, 0]).await;
        let attached = attached.map_err(|e| target.error(&e))?;
        let now = Instant::now();
        let ago = |time: Option<Duration>| time.and_then(|t| now.checked_sub(t)).unwrap_or(now);
        let started = ago(found.age);
        let mut progress = Progress::default();
        // Counted from here on, where the beginning is not known. Never 0.
        let since = match attached.replayed {
            Some(_) => 0,
            None => uuid::Uuid::new_v4().as_fields().1 | 1,
        };
        match attached.replayed {
            Some(from) => progress.skip_to(from),
            None => {
                progress.note = Some(
                    "Another server started this job. What it printed before is not kept by this provider; how it ends is \
                     told only while it is followed."
                        .into(),
                );
            }
        }
        let job = Arc::new(Job {
            started,
            takes_stdin: found.stdin.unwrap_or(true),
            since,
            ended: found.exit.as_ref().and(found.ran).map(|ran| started + ran),
            pid: AtomicU32::new(attached.process.pid()),
            progress: Mutex::new(progress),
            ..Job::new(found.id, found.cmd, Some(target.clone()))
        });
        let mut writers = spills(&job.id, &target);
        // A file that begins in the middle would not be what it seems.
        for (at, name) in ["stdout", "stderr"].into_iter().enumerate() {
            if attached.replayed.is_none_or(|from| from[at] > 0) {
                let file = written(&job.id, &target, name, found.printed.map(|p| p[at])).await;
                job.update(|p| p.kept[at] = file.clone());
                let [out, err] = writers;
                writers = if at == 0 {
                    [out.off(file), err]
                } else {
                    [out, err.off(file)]
                };
            }
        }
        self.enter(&job);
        tokio::spawn(pump::pump(Arc::clone(&job), target, attached.process, writers));
        job.caught_up(found.printed, found.exit.is_some(), now + limits::CATCH_UP)
            .await;
        Ok(job)
    }

    /// Takes a job in, in place of one of the same id.
    fn enter(&self, job: &Arc<Job>) {
        let mut table = lock(&self.table);
        table.jobs.remove(&job.id);
        table.order.retain(|id| *id != job.id);
        table.make_room();
        table.order.push_back(job.id.clone());
        table.jobs.insert(job.id.clone(), Arc::clone(job));
    }
}

/// The file with a stream of the job that the server wrote which started it.
async fn written(job: &str, target: &Target, name: &str, printed: Option<u64>) -> Option<Kept> {
    let path = format!("{}/{name}", spill::folder(job));
    let entry = target.files().info(&path, None).await.ok()?;
    Some(Kept {
        path,
        complete: printed == Some(entry.size),
        bytes: entry.size,
    })
}

impl Job {
    /// Waits until what it had printed when it was found is here.
    async fn caught_up(&self, printed: Option<[u64; 2]>, ended: bool, deadline: Instant) {
        let mut changed = self.changed.subscribe();
        let [stdout, stderr] = printed.unwrap_or_default();
        let here =
            || self.look(|p| p.stdout.total() >= stdout && p.stderr.total() >= stderr) && !(ended && self.is_running());
        let wait = async { while !here() && changed.changed().await.is_ok() {} };
        if tokio::time::timeout_at(deadline.into(), wait).await.is_err() {
            tracing::debug!(job = self.id, "what a job printed before did not come in time");
        }
    }
}
