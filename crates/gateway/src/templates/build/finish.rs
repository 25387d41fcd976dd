//! The end of a build: whether sandboxes of it start as it says. And the start of such a sandbox.

use std::time::Duration;

use sandhold_runtime::Sandbox as RuntimeSandbox;
use tokio::time::Instant;

use super::{
    super::{cache::Done, logs::Level},
    Building, FINALIZE, Failure,
    scripts::PATH_PROFILE,
    workshop::{Lines, Shell, Task, Workshop},
};
use crate::{
    entry::{Entry, Start},
    error::chain,
    events::Event,
    limits::{BUILD_OWN_TIME, BUILD_READY_TIME, BUILD_START_TIME, READY_EVERY, START_READY_TIME},
    process::{self, Command, Ended, RunError, Running},
};

/// The tag of the process that a start command is.
const START_TAG: &str = "sandhold-start";

impl Building<'_> {
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        let asked = &self.job.asked;
        let said = |command: &Option<String>| command.clone().filter(|command| !command.trim().is_empty());
        let (command, ready) = (said(&asked.start_cmd), said(&asked.ready_cmd));
        // Otherwise what it begins with says.
        if command.is_some() || ready.is_some() {
            self.start.command = command;
            self.start.ready = ready;
        }
        self.path_profile().await?;
        self.log.line(Level::Info, Some(FINALIZE), "Finalizing template build");
        let workshop = Workshop::as_template(self, FINALIZE).await?;
        let tried = self.try_start(&workshop).await;
        workshop.end().await;
        tried
    }

    /// Has login shells keep the template's `PATH`.
    async fn path_profile(&mut self) -> Result<(), Failure> {
        let Some(path) = self.start.envs.get("PATH").cloned() else {
            return Ok(());
        };
        let key = self.key(&[b"path", PATH_PROFILE.as_bytes()], FINALIZE)?;
        if self.cached(&key, FINALIZE).await? {
            return Ok(());
        }
        let workshop = Workshop::open(self, FINALIZE).await?;
        let task = Task {
            step: FINALIZE,
            script: PATH_PROFILE.to_owned(),
            user: workshop.root_user(),
            cwd: Some("/".into()),
            envs: [("SH_PATH".to_owned(), path)].into(),
            shell: Shell::Plain,
            within: BUILD_OWN_TIME,
            level: Level::Debug,
        };
        let written = workshop.run(self, task).await;
        let root = workshop.close(self, FINALIZE, written).await?.1;
        let done = Done {
            root,
            start: self.start.clone(),
        };
        self.done(&key, FINALIZE, done).await
    }

    /// Starts what starts in every sandbox of the template, and waits until it is ready.
    async fn try_start(&self, workshop: &Workshop) -> Result<(), Failure> {
        let failed = |message: String| Failure::new(FINALIZE, message);
        let say = |line: String| self.log.line(Level::Info, Some(FINALIZE), line);
        let (start, entry) = (&self.start, &workshop.entry);
        let runtime = entry.runtime().ok_or_else(|| failed("its sandbox has ended".into()))?;
        let token = entry.recipe.token.as_deref();
        // Whether its user, folder and shell are there.
        let nothing = shell(start, ":".into(), None);
        let alive = process::run(&*runtime, token, &nothing, BUILD_OWN_TIME, |_, _| {}).await;
        match alive {
            Ok(Ended { code: 0, .. }) => {}
            Ok(ended) => return Err(failed(format!("a shell in its sandbox fails: {}", ended.status))),
            Err(error) => return Err(failed(format!("no shell starts in its sandbox: {}", chain(&error)))),
        }
        let mut lines = Lines::default();
        let mut running = match &start.command {
            None => None,
            Some(command) => {
                say(format!("Running start command: {command}"));
                let command = shell(start, command.clone(), Some(START_TAG));
                let running = Running::start(&*runtime, token, &command, None).await;
                Some(running.map_err(|error| failed(format!("the start command does not start: {}", chain(&error))))?)
            }
        };
        let ready = ready(&*runtime, token, start, BUILD_READY_TIME);
        let ready = async {
            match (&start.ready, &start.command) {
                (Some(command), _) => {
                    say(format!("Waiting for template to be ready: {command}"));
                    ready
                        .await
                        .map_err(|message| failed(format!("ready command failed: {message}")))
                }
                (None, Some(_)) => {
                    tokio::time::sleep(BUILD_START_TIME).await;
                    Ok(())
                }
                (None, None) => Ok(()),
            }
        };
        let ended = async {
            if let Some(running) = &mut running {
                let ended = running.ended(|output, bytes| lines.add(output, bytes, say)).await;
                match ended {
                    // Such a one has left its work to others.
                    Ok(Ended { code: 0, .. }) => {}
                    Ok(ended) => return failed(format!("start command failed: {}", ended.status)),
                    Err(error) => return failed(format!("start command failed: {}", chain(&error))),
                }
            }
            std::future::pending().await
        };
        let outcome = tokio::select! {
            ready = ready => ready,
            failure = ended => Err(failure),
        };
        lines.finish(say);
        outcome?;
        if start.command.is_some() || start.ready.is_some() {
            say("Template is ready".into());
        }
        Ok(())
    }
}

/// A command as the template runs it.
fn shell(start: &Start, script: String, tag: Option<&str>) -> Command {
    Command {
        program: "/bin/bash".into(),
        args: vec!["-l".into(), "-c".into(), script],
        user: start.user.clone(),
        cwd: start.workdir.clone(),
        envs: Default::default(),
        tag: tag.map(str::to_owned),
    }
}

/// Repeats the ready command until it succeeds. Without one it is ready at once.
async fn ready(
    runtime: &dyn RuntimeSandbox,
    token: Option<&str>,
    start: &Start,
    within: Duration,
) -> Result<(), String> {
    let Some(command) = &start.ready else { return Ok(()) };
    let command = shell(start, command.clone(), None);
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let why = match process::run(runtime, token, &command, left, |_, _| {}).await {
            Ok(Ended { code: 0, .. }) => return Ok(()),
            Ok(ended) => ended.status,
            Err(RunError::Time(_)) => "it did not end".into(),
            Err(error) => return Err(chain(&error)),
        };
        if Instant::now() + READY_EVERY >= end {
            return Err(format!("it did not succeed within {} s: {why}", within.as_secs()));
        }
        tokio::time::sleep(READY_EVERY).await;
    }
}

/// Whether a ready command does nothing but wait: in a new sandbox it says nothing of what was started.
fn only_waits(command: &str) -> bool {
    let mut words = command.split_whitespace();
    words.next() == Some("sleep")
        && words.next().is_some_and(|time| time.parse::<f64>().is_ok())
        && words.next().is_none()
}

/// Starts in a new sandbox what its template says, and waits for a while until it is ready. What goes wrong there is an
/// event of the sandbox: it can be looked into.
pub(crate) async fn begin(entry: &Entry) {
    let start = &entry.recipe.start;
    let (Some(script), Some(runtime)) = (&start.command, entry.runtime()) else {
        return;
    };
    let token = entry.recipe.token.as_deref();
    let command = shell(start, script.clone(), Some(START_TAG));
    let began = async {
        let running = Running::start(&*runtime, token, &command, None).await;
        drop(running.map_err(|error| format!("the template's start command does not start: {}", chain(&error)))?);
        if start.ready.as_deref().is_some_and(only_waits) {
            return Ok(());
        }
        let ready = ready(&*runtime, token, start, START_READY_TIME).await;
        ready.map_err(|message| format!("the template's start command runs and is not ready: {message}"))
    };
    let event = match began.await {
        Ok(()) => Event::new("started", "the template's start command runs"),
        Err(message) => Event::warning("start failed", message),
    };
    entry.events.note(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_no_question() {
        assert!(only_waits("sleep 20") && only_waits(" sleep  0.5 "));
        assert!(!only_waits("sleep 1; true") && !only_waits("curl x") && !only_waits("sleep x"));
    }
}
