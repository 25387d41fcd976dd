//! Work of this server that goes on as a job when it takes longer than an answer may: archives, files on their way.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use sandhold_client::ExitStatus;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Job, Jobs, Status, new_id};
use crate::{answer::ToolError, call::Target, limits, lock};

/// Where work says how far it is.
#[derive(Clone, Default)]
pub(crate) struct Say(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    last: String,
    /// Lines that the job does not have yet.
    log: String,
}

impl Say {
    /// Replaces what was said before.
    pub(crate) fn say(&self, line: String) {
        lock(&self.0).last = line;
    }

    /// Adds a line to what the job printed.
    pub(crate) fn log(&self, line: &str) {
        let mut said = lock(&self.0);
        said.log.push_str(line);
        said.log.push('\n');
    }

    fn take_log(&self) -> String {
        std::mem::take(&mut lock(&self.0).log)
    }

    /// What was said last.
    pub(crate) fn last(&self) -> String {
        lock(&self.0).last.clone()
    }
}

/// Work that was started, with what it comes to.
pub(crate) struct Worked<T> {
    pub(crate) job: Arc<Job>,
    pub(crate) said: Say,
    pub(crate) result: oneshot::Receiver<Result<T, ToolError>>,
}

impl Jobs {
    /// Starts work. `text` says what it came to, for whoever reads the job. Ending the job drops `work`.
    pub(crate) fn work<T, W>(
        &self,
        target: Option<Target>,
        cmd: String,
        work: impl FnOnce(Say) -> W,
        text: fn(&T) -> String,
    ) -> Result<Worked<T>, ToolError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, ToolError>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let job = Arc::new(Job {
            stop: Some(stop.clone()),
            ..Job::new(new_id(), cmd, target)
        });
        self.insert(&job)?;
        let said = Say::default();
        let (send, result) = oneshot::channel();
        let work = work(said.clone());
        tokio::spawn(drive(Arc::clone(&job), stop, said.clone(), work, send, text));
        Ok(Worked { job, said, result })
    }
}

async fn drive<T, W>(
    job: Arc<Job>,
    stop: CancellationToken,
    said: Say,
    work: W,
    send: oneshot::Sender<Result<T, ToolError>>,
    text: fn(&T) -> String,
) where
    W: Future<Output = Result<T, ToolError>>,
{
    let mut work = Box::pin(work);
    let mut before = String::new();
    let result = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break None,
            result = &mut work => break Some(result),
            () = tokio::time::sleep(limits::WORK_TELLS) => {
                let log = said.take_log();
                if !log.is_empty() {
                    job.update(|p| p.stdout.push(log.as_bytes()));
                }
                let line = said.last();
                if line != before {
                    job.update(|p| p.stdout.push(format!("{line}\n").as_bytes()));
                    before = line;
                }
            }
        }
    };
    // What it held is let go before anybody is told that it ended.
    drop(work);
    let exit = |code: i32| {
        Status::Done(ExitStatus {
            exit_code: code,
            exited: true,
            status: format!("exit status {code}"),
            error: None,
        })
    };
    job.update(|p| {
        p.stdout.push(said.take_log().as_bytes());
        p.status = match &result {
            None => Status::Cancelled,
            Some(Ok(done)) => {
                p.stdout.push(format!("{}\n", text(done)).as_bytes());
                exit(0)
            }
            Some(Err(error)) => {
                p.stderr.push(format!("{}\n", error.text()).as_bytes());
                exit(1)
            }
        };
        p.ended = Some(Instant::now());
    });
    if let Some(result) = result {
        // Nobody waits any more once the answer was given.
        let _ = send.send(result);
    }
}
