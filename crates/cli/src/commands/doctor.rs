//! `sandhold doctor`: what this machine can do, found by trying.

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use sandhold_client::{CommandEvent, CommandRequest, CreateOptions};
use serde::Serialize;

use crate::{
    args::DoctorArgs,
    daemon, local,
    provider::Connected,
    settings::{LocalSettings, Provider, Settings},
};

#[derive(Serialize)]
struct Report {
    version: &'static str,
    provider: &'static str,
    /// Whether sandboxes can be made.
    ok: bool,
    checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Serialize)]
struct Check {
    name: String,
    /// `ok`, `warning` (sandboxes work, something is weaker) or `failed`.
    status: Status,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Failed,
}

impl Check {
    fn new(name: &str, outcome: Result<String>) -> Self {
        let (status, detail) = match outcome {
            Ok(detail) => (Status::Ok, detail),
            Err(error) => (Status::Failed, format!("{error:#}")),
        };
        Self {
            name: name.into(),
            status,
            detail,
            remedy: None,
        }
    }
}

pub(crate) async fn run(args: &DoctorArgs, settings: &Settings) -> Result<ExitCode> {
    let mut checks = Vec::new();
    let provider = match &settings.provider {
        Provider::Local => {
            checks.push(Check::new(
                "daemon",
                daemon::find().map(|path| path.display().to_string()),
            ));
            checks.extend(machine(settings).await);
            "local"
        }
        Provider::E2b(config) => {
            let domain = config.domain.as_deref().unwrap_or("e2b.app");
            checks.push(Check::new("E2B settings", Ok(format!("domain {domain}, a key is set"))));
            "e2b"
        }
        Provider::Sandhold(config) => {
            let url = config.api_url.as_deref().unwrap_or_default();
            let trusted = if config.authorities.is_some() {
                ", certificates of your own"
            } else {
                ""
            };
            checks.push(Check::new(
                "the server's settings",
                Ok(format!("{url}, a key is set{trusted}")),
            ));
            "sandhold"
        }
    };
    let tried = try_sandbox(settings).await;
    let ok = tried.is_ok();
    checks.push(Check::new("a sandbox runs a command", tried));
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        provider,
        ok,
        checks,
    };
    if args.json {
        print_json(&report)?
    } else {
        print_text(&report)
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the engine finds by trying. What is not as it should be weakens sandboxes or forbids them; the last check, a
/// sandbox that runs a command, tells which.
async fn machine(settings: &Settings) -> Vec<Check> {
    let LocalSettings {
        isolation, search_path, ..
    } = &settings.local;
    let report = sandhold_engine::probe(&local::launcher(), search_path).await;
    let works = report.works(*isolation);
    let status = |ok| match (ok, works) {
        (true, _) => Status::Ok,
        (false, true) => Status::Warning,
        (false, false) => Status::Failed,
    };
    report
        .items
        .into_iter()
        .map(|i| Check {
            status: status(i.ok),
            name: i.name,
            detail: i.detail,
            remedy: i.remedy,
        })
        .collect()
}

/// The whole way: make a sandbox, run a command, end it.
async fn try_sandbox(settings: &Settings) -> Result<String> {
    let connected = Connected::without_spares(settings)?;
    let tried = async {
        let start = Instant::now();
        let sandbox = connected
            .client
            .create(CreateOptions::default())
            .await
            .context("no sandbox could be made")?;
        let request = CommandRequest {
            cmd: "echo".into(),
            args: vec!["hello".into()],
            ..CommandRequest::default()
        };
        let mut process = sandbox
            .commands()
            .start(request)
            .await
            .context("the sandbox runs no command")?;
        let mut output = Vec::new();
        while let Some(event) = process.next().await {
            if let CommandEvent::Stdout(data) = event.context("the command was lost")? {
                output.extend_from_slice(&data);
            }
        }
        let took = start.elapsed();
        let isolation = sandbox.info().await.ok().and_then(|info| info.isolation);
        sandbox.kill().await.context("the sandbox could not be ended")?;
        anyhow::ensure!(output == b"hello\n", "`echo hello` wrote something else");
        let how = isolation
            .map(|i| format!(", isolation: {} ({})", i.level, i.detail))
            .unwrap_or_default();
        Ok(format!(
            "made, used and ended; first output after {:.1} ms{how}",
            took.as_secs_f64() * 1e3
        ))
    }
    .await;
    connected.shutdown().await;
    tried
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print_json(report: &Report) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print_text(report: &Report) {
    println!("sandhold {}, provider {}", report.version, report.provider);
    for check in &report.checks {
        let mark = match check.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Failed => "FAILED ",
        };
        println!("  {mark}  {}: {}", check.name, check.detail);
        if let Some(remedy) = check.remedy.as_ref().filter(|_| check.status != Status::Ok) {
            println!("           to mend it: {remedy}");
        }
    }
    println!(
        "{}",
        if report.ok {
            "Sandboxes work."
        } else {
            "Sandboxes do not work here."
        }
    );
}
