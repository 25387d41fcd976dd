//! The two sandboxes.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use sandhold_client::{CommandEvent, CommandRequest, CreateOptions, Process, Sandbox, WriteOptions};
use sandhold_prove::{FLAG, Facts, Found, Line, Outcome, Place, judge};
use serde::Serialize;

use super::{
    host::{OUTPUT, lines, random},
    report::Row,
};
use crate::provider::Connected;

/// Where the program stands in them.
const PROGRAM: &str = "/tmp/sandhold-prove";
/// How long they live if this program dies.
const LIFE: Duration = Duration::from_secs(1_800);
/// How long one run of the program may take.
const RUN_TIME: Duration = Duration::from_secs(300);
/// How long a sandbox may take to say hello while its neighbour throws bombs, and after.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Memory of the second one, in MiB: its bombs use no more.
const SMALL_MB: u64 = 256;
/// The port at which the second one greets.
const NEIGHBOUR_PORT: u16 = 4711;
/// The explicit proxy of a sandbox.
const PROXY: (std::net::Ipv4Addr, u16) = (std::net::Ipv4Addr::LOCALHOST, sandhold_runtime::PROXY_PORT);

/// Which one.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// The one that tries.
    First,
    /// The neighbour.
    Second,
}

/// What a report tells of them.
#[derive(Clone, Serialize)]
pub(super) struct Told {
    /// The level of isolation.
    pub(super) level: String,
    /// How it is held.
    pub(super) detail: String,
    /// What the level lacks on this machine.
    pub(super) warnings: Vec<String>,
    /// As whom it was tried.
    pub(super) users: Vec<&'static str>,
}

pub(super) struct Sandboxes {
    first: Sandbox,
    second: Sandbox,
    facts: Facts,
    told: Told,
    _serving: Process,
}

impl Sandboxes {
    pub(super) async fn make(connected: &Connected, daemon: &Path, host: &Facts) -> Result<Self> {
        let options = |memory_mb| CreateOptions {
            timeout: Some(LIFE),
            memory_mb,
            ..CreateOptions::default()
        };
        let client = &connected.client;
        let first = client.create(options(None)).await.context("no sandbox could be made")?;
        let second = client
            .create(options(Some(SMALL_MB)))
            .await
            .context("no second sandbox could be made")?;
        let program: Bytes = tokio::fs::read(daemon)
            .await
            .context("the daemon's file cannot be read")?
            .into();
        for sandbox in [&first, &second] {
            let files = sandbox.files();
            let written = files.write(PROGRAM, program.clone(), WriteOptions::default());
            written.await.context("the program cannot be put into the sandbox")?;
            let made = output(sandbox, "user", "chmod", vec!["755".into(), PROGRAM.into()]).await?;
            anyhow::ensure!(made.is_empty(), "the program cannot be made executable");
        }
        let isolation = first.info().await?.isolation.unwrap_or_default();
        let mut users = vec!["user"];
        if output(&first, "root", "true", Vec::new()).await.is_ok() {
            users.push("root");
        }
        let bounded = !isolation.warnings.iter().any(|warning| warning.contains("memory"));
        let facts = Facts {
            place: Place::Inside,
            neighbour: Some(format!("sandhold-neighbour-{}", random()?)),
            neighbour_tcp: Some(NEIGHBOUR_PORT),
            proxy: Some(PROXY.into()),
            disk: Some(SMALL_MB << 20),
            memory: bounded.then_some(SMALL_MB << 20),
            ..host.clone()
        };
        let serving = serve(&second, &facts).await?;
        let told = Told {
            level: isolation.level,
            detail: isolation.detail,
            warnings: isolation.warnings,
            users,
        };
        Ok(Self {
            first,
            second,
            facts,
            told,
            _serving: serving,
        })
    }

    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    pub(super) fn first(&self) -> &Sandbox {
        &self.first
    }

    /// `user`, and `root` where there is one.
    pub(super) fn users(&self) -> &[&'static str] {
        &self.told.users
    }

    /// What the bombs are of, in small amounts.
    pub(super) async fn controls(&self, bombs: Vec<String>) -> Result<Vec<Line>> {
        let facts = Facts {
            only: bombs,
            controls: true,
            ..self.facts.clone()
        };
        let said = output(&self.second, "user", PROGRAM, program(&facts)?).await;
        lines(&said.context("the program failed in the second sandbox")?)
    }

    /// Throws one bomb in the second one. What it meets may take along who threw it.
    pub(super) async fn throw(&self, bomb: &str) -> Found {
        let found = |outcome, detail: String| Found {
            outcome,
            detail: detail.into(),
        };
        match self.run(Who::Second, "user", vec![bomb.to_owned()]).await {
            Ok(lines) => match lines.into_iter().next() {
                Some(line) => line.found,
                None => found(Outcome::Untestable, "the program said nothing".to_owned()),
            },
            Err(error) if error.downcast_ref::<Killed>().is_some() => {
                found(Outcome::Held, "killed, and with it what threw it".to_owned())
            }
            Err(error) => found(Outcome::Untestable, format!("{error:#}")),
        }
    }

    /// Runs the program in one of them.
    pub(super) async fn run(&self, who: Who, user: &'static str, only: Vec<String>) -> Result<Vec<Line>> {
        let sandbox = match who {
            Who::First => &self.first,
            Who::Second => &self.second,
        };
        let facts = Facts {
            only,
            ..self.facts.clone()
        };
        let said = output(sandbox, user, PROGRAM, program(&facts)?).await;
        lines(&said.with_context(|| format!("the program failed in the sandbox, as {user}"))?)
    }

    /// Whether the first one still works after what happened in the second.
    pub(super) async fn first_answers(&self) -> Row {
        let answered = tokio::time::timeout(ANSWER_TIME, output(&self.first, "user", "true", Vec::new())).await;
        let (outcome, detail) = match answered {
            Ok(Ok(_)) => (Outcome::Held, "it answers".to_owned()),
            Ok(Err(error)) => (Outcome::NotHeld, format!("{error:#}")),
            Err(_) => (
                Outcome::NotHeld,
                format!("no answer within {} s", ANSWER_TIME.as_secs()),
            ),
        };
        let found = Found {
            outcome,
            detail: detail.into(),
        };
        // It answered before, or there would be nothing to report.
        let before = Found {
            outcome: Outcome::NotHeld,
            detail: "it answered before".into(),
        };
        let judged = judge(&[("user", &found)], &[&before]);
        let title = "hinder the other sandbox by the bombs";
        Row::new(
            9,
            "neighbour-lives",
            title,
            "it answers after them",
            "it answered before them",
            judged,
        )
    }

    pub(super) async fn end(self) {
        for sandbox in [self.first, self.second] {
            if let Err(error) = sandbox.kill().await {
                tracing::warn!(sandbox = sandbox.id(), %error, "the sandbox could not be ended");
            }
        }
    }
}

/// A program was killed by the kernel.
#[derive(Debug, thiserror::Error)]
#[error("{0} was killed")]
struct Killed(String);

/// The program's arguments.
fn program(facts: &Facts) -> Result<Vec<String>> {
    Ok(vec![FLAG.to_owned(), serde_json::to_string(facts)?])
}

/// Starts the program as the neighbour.
async fn serve(sandbox: &Sandbox, facts: &Facts) -> Result<Process> {
    let request = CommandRequest {
        cmd: PROGRAM.to_owned(),
        args: vec![FLAG.to_owned(), "serve".to_owned(), serde_json::to_string(facts)?],
        ..CommandRequest::default()
    };
    let mut process = sandbox
        .commands()
        .start(request)
        .await
        .context("the second sandbox runs nothing")?;
    while let Some(event) = process.next().await {
        match event.context("the second sandbox's program was lost")? {
            CommandEvent::Stdout(_) => return Ok(process),
            CommandEvent::Exited(status) => bail!("the second sandbox's program ended: {}", status.status),
            CommandEvent::Stderr(said) => bail!(
                "the second sandbox's program failed: {}",
                String::from_utf8_lossy(&said).trim()
            ),
            CommandEvent::Pty(_) => {}
        }
    }
    bail!("the second sandbox's program went without a word")
}

/// What a program inside prints; it has to succeed.
pub(super) async fn output(sandbox: &Sandbox, user: &str, cmd: &str, args: Vec<String>) -> Result<Vec<u8>> {
    let request = CommandRequest {
        cmd: cmd.to_owned(),
        args,
        cwd: Some("/tmp".to_owned()),
        user: Some(user.to_owned()),
        timeout: Some(RUN_TIME),
        ..CommandRequest::default()
    };
    let mut process = sandbox
        .commands()
        .start(request)
        .await
        .with_context(|| format!("{cmd} cannot be started"))?;
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    while let Some(event) = process.next().await {
        match event.with_context(|| format!("{cmd} was lost"))? {
            CommandEvent::Stdout(data) => said.extend_from_slice(&data),
            CommandEvent::Stderr(data) => errors.extend_from_slice(&data),
            CommandEvent::Exited(status) if status.exited && status.exit_code == 0 => return Ok(said),
            CommandEvent::Exited(status) if status.status.contains("killed") => {
                return Err(Killed(cmd.to_owned()).into());
            }
            CommandEvent::Exited(status) => {
                bail!(
                    "{cmd} ended with {}: {}",
                    status.status,
                    String::from_utf8_lossy(&errors).trim()
                )
            }
            CommandEvent::Pty(_) => {}
        }
        anyhow::ensure!(
            said.len() + errors.len() <= OUTPUT,
            "{cmd} says more than {OUTPUT} bytes"
        );
    }
    bail!("{cmd} went without saying how it ended")
}
