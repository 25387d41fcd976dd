//! Work that is answered when it is done, or goes on as a job when that takes too long.

use super::run_command::KillOnDrop;
use crate::{
    answer::ToolError,
    call::{Call, Target},
    jobs::Say,
    limits,
};

/// How far it came in time.
pub(super) enum Followed<T> {
    Done(T),
    /// It goes on under this id.
    Job(String),
}

/// Starts `work` and waits for it, with progress for the client. `cmd` is what a list of jobs shows, `text` what the job
/// says when it is done.
pub(super) async fn follow<T, W>(
    call: &Call,
    target: &Target,
    cmd: String,
    work: impl FnOnce(Say) -> W,
    text: fn(&T) -> String,
) -> Result<Followed<T>, ToolError>
where
    T: Send + 'static,
    W: Future<Output = Result<T, ToolError>> + Send + 'static,
{
    let mut started = target.jobs().work(Some(target.clone()), cmd, work, text)?;
    let guard = KillOnDrop::new(call, &started.job);
    let answer_at = call.answer_at();
    let lost = || ToolError::new("cancelled", "the work was ended by kill_job").within(target.id());
    loop {
        let next = answer_at.min(std::time::Instant::now() + limits::PROGRESS_EVERY);
        match tokio::time::timeout_at(next.into(), &mut started.result).await {
            Ok(result) => {
                guard.disarm();
                return result.unwrap_or_else(|_| Err(lost())).map(Followed::Done);
            }
            Err(_) if next == answer_at => {
                guard.disarm();
                return Ok(Followed::Job(started.job.id.clone()));
            }
            Err(_) => {
                if let Some(progress) = &call.progress {
                    let seconds = call.started.elapsed().as_secs_f64();
                    progress.tell(seconds, &started.said.last()).await;
                }
            }
        }
    }
}

/// What an answer says of work that goes on.
pub(super) fn goes_on(job_id: &str) -> String {
    format!("it goes on as job {job_id}: call get_job_status with wait_s to learn how it ended, kill_job to end it")
}
