//! Finding jobs that this server did not start: another one of the same user did, or this one before it was started anew.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use sandhold_client::{ListQuery, State};

use crate::{
    answer::ToolError,
    budget,
    call::Target,
    jobs::{Found, Job},
    limits,
    tenant::Tenant,
};

/// What a look into all running sandboxes of a caller brought.
#[derive(Default)]
pub(crate) struct Search {
    pub(crate) jobs: Vec<Found>,
    /// Sandboxes that did not answer, or why there is nothing.
    pub(crate) missed: Vec<String>,
}

impl Tenant {
    /// The job `id`. One that is not known here is looked for in the caller's sandboxes, and followed from then on.
    pub(crate) async fn job(self: &Arc<Self>, id: &str) -> Result<Arc<Job>, ToolError> {
        let in_hand = || self.jobs.get(id).filter(|job| !job.is_lost());
        if let Some(job) = in_hand() {
            return Ok(job);
        }
        if limits::job_id(id).is_err() {
            return Err(unknown(id, &[]));
        }
        let _alone = self.searching.lock().await;
        if let Some(job) = in_hand() {
            return Ok(job);
        }
        let search = self.search_jobs().await;
        let found: Vec<Found> = search.jobs.into_iter().filter(|found| found.job.id == id).collect();
        let lost = self.jobs.get(id);
        let Some(found) = choose(found, self.default_id().as_deref())? else {
            return lost.ok_or_else(|| unknown(id, &search.missed));
        };
        let handle = self.attach(&found.sandbox).await?;
        self.jobs.follow(Target::of(self, handle), found.job).await
    }

    /// All jobs in the caller's running sandboxes.
    pub(crate) async fn search_jobs(&self) -> Search {
        let mut search = Search::default();
        let ids = match tokio::time::timeout(limits::JOB_SEARCH, self.running()).await {
            Ok(Ok(ids)) => ids,
            Ok(Err(error)) => {
                search
                    .missed
                    .push(format!("the sandboxes could not be listed: {error}"));
                return search;
            }
            Err(_) => {
                search
                    .missed
                    .push("the list of the sandboxes did not come in time".into());
                return search;
            }
        };
        // One for all: those that could not be asked by then are said to be missing.
        let until = tokio::time::Instant::now() + limits::JOB_SEARCH;
        let looks = ids.into_iter().map(|id| async move {
            let jobs = tokio::time::timeout_at(until, self.jobs_of(&id)).await;
            (id, jobs)
        });
        let mut looks = stream::iter(looks).buffer_unordered(limits::JOB_SEARCH_WIDE);
        while let Some((id, jobs)) = looks.next().await {
            match jobs {
                Ok(Ok(jobs)) => search.jobs.extend(jobs.into_iter().map(|job| Found {
                    sandbox: id.clone(),
                    job,
                })),
                // It ended meanwhile.
                Ok(Err(sandhold_client::Error::SandboxNotFound { .. })) => {}
                Ok(Err(error)) => search.missed.push(format!("sandbox {id} could not be asked: {error}")),
                Err(_) => search.missed.push(format!("sandbox {id} did not answer in time")),
            }
        }
        search
    }

    /// Ids of the sandboxes that run, the newest first.
    async fn running(&self) -> Result<Vec<String>, sandhold_client::Error> {
        let mut query = ListQuery {
            states: vec![State::Running],
            ..ListQuery::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = self.client().list(query.clone()).await?;
            ids.extend(
                page.sandboxes
                    .into_iter()
                    .filter(|s| s.state == State::Running)
                    .map(|s| s.sandbox_id),
            );
            if ids.len() >= limits::JOB_SEARCH_SANDBOXES {
                ids.truncate(limits::JOB_SEARCH_SANDBOXES);
                return Ok(ids);
            }
            match page.next_cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return Ok(ids),
            }
        }
    }

    async fn jobs_of(&self, id: &str) -> Result<Vec<sandhold_client::JobSummary>, sandhold_client::Error> {
        match self.in_use(id) {
            Some(handle) => handle.sandbox.commands().jobs().await,
            // Looking does not extend its life.
            None => self.client().handle(id).await?.commands().jobs().await,
        }
    }
}

/// The one that is meant: that of the default sandbox, or the only one.
fn choose(mut found: Vec<Found>, default: Option<&str>) -> Result<Option<Found>, ToolError> {
    if let Some(at) = found.iter().position(|f| Some(f.sandbox.as_str()) == default) {
        return Ok(Some(found.swap_remove(at)));
    }
    if found.len() < 2 {
        return Ok(found.pop());
    }
    let sandboxes: Vec<String> = found.into_iter().map(|f| f.sandbox).collect();
    Err(ToolError::new(
        "ambiguous_job",
        format!("several sandboxes have a job of this id: {}", sandboxes.join(", ")),
    )
    .hint("Call connect_sandbox with set_as_default for the one that is meant, then try again."))
}

/// The error for a job id that nobody knows.
fn unknown(id: &str, missed: &[String]) -> ToolError {
    let mut message = format!("there is no job {:?}", budget::line(id, 80));
    for reason in missed.iter().take(3) {
        message.push_str(&format!("; {reason}"));
    }
    ToolError::new("job_not_found", message).hint(
        "Call list_jobs to see those there are; old jobs that ended are forgotten, and those of a paused sandbox are found \
         once connect_sandbox brought it back.",
    )
}

#[cfg(test)]
mod tests {
    use sandhold_client::JobSummary;

    use super::*;

    fn found(sandbox: &str) -> Found {
        let job = JobSummary {
            id: "build".into(),
            pid: 7,
            cmd: "make".into(),
            running: true,
            stdin: None,
            age: None,
            ran: None,
            printed: None,
            exit: None,
        };
        Found {
            sandbox: sandbox.into(),
            job,
        }
    }

    #[test]
    fn a_job_is_chosen_only_where_it_is_clear() {
        let chosen = |sandboxes: &[&str], default| {
            choose(sandboxes.iter().map(|s| found(s)).collect(), default).map(|f| f.map(|f| f.sandbox))
        };
        assert_eq!(chosen(&[], None).unwrap(), None);
        assert_eq!(chosen(&["a"], Some("b")).unwrap().as_deref(), Some("a"));
        assert_eq!(chosen(&["a", "b"], Some("b")).unwrap().as_deref(), Some("b"));
        let told = chosen(&["a", "b"], Some("c")).unwrap_err();
        assert!(
            told.code == "ambiguous_job" && told.message.ends_with("a, b"),
            "{told:?}"
        );
    }
}
