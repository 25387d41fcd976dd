//! `sandhold template build`

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail};
use sandhold_client::{BuildEvent, BuildReason, Client, Error, TemplateBuilding, TemplateSpec};
use tokio_util::sync::CancellationToken;

use super::{
    super::{run::by_signal, signals::Signals},
    bytes, plain,
    screen::Screen,
    short, source,
};
use crate::{args::BuildArgs, provider::Connected, settings::Settings};

/// Tries to ask how a build is, one after the other.
const TRIES: u32 = 8;
/// How long after one that failed the next comes.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) async fn run(args: BuildArgs, mut settings: Settings) -> Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let screen = Screen::new();
    let cancel = CancellationToken::new();
    let begin = {
        let beginning = source::begin(&args, &settings, &screen, &cancel);
        tokio::pin!(beginning);
        tokio::select! {
            begin = &mut beginning => begin?,
            number = signals.next() => {
                cancel.cancel();
                // What was stopped says so; the signal is the answer.
                let _ = beginning.await;
                return Ok(by_signal(number));
            }
        }
    };
    settings.local.images.own = begin.own;
    settings.local.images.own.anywhere = true;
    settings.local.images.own.report = Some(screen.report());
    let spec = TemplateSpec {
        name: args.name,
        tags: args.tag,
        from: begin.from,
        steps: begin.steps,
        start_cmd: args.start_cmd.or(begin.start_cmd),
        ready_cmd: args.ready_cmd,
        cpus: args.cpus,
        memory_mb: args.memory_mb,
        force: args.no_cache,
    };
    let connected = Connected::without_spares(&settings)?;
    let built = build(&connected.client, &spec, &screen, &mut signals).await;
    screen.end();
    connected.shutdown().await;
    built
}

async fn build(client: &Client, spec: &TemplateSpec, screen: &Arc<Screen>, signals: &mut Signals) -> Result<ExitCode> {
    let started = client.build_template(spec);
    let mut building = tokio::select! {
        started = started => started.with_context(|| format!("template {} cannot be built", spec.name))?,
        number = signals.next() => return Ok(by_signal(number)),
    };
    tokio::select! {
        ended = follow(&mut building, screen) => ended?,
        number = signals.next() => {
            screen.line("the build is given up");
            if !building.cancel().await.context("the build cannot be ended, it goes on")? {
                screen.line("the server does not end builds: it goes on there");
            }
            return Ok(by_signal(number));
        }
    }
    screen.end();
    told(client, &building, &spec.name).await;
    Ok(ExitCode::SUCCESS)
}

async fn follow(building: &mut TemplateBuilding, screen: &Screen) -> Result<()> {
    let mut left = TRIES;
    loop {
        match building.next().await {
            Ok(BuildEvent::Log(line)) => {
                left = TRIES;
                // Why it failed is told at the end.
                if !matches!(line.level.as_str(), "debug" | "error") {
                    screen.line(&line.message);
                }
            }
            Ok(BuildEvent::Ready) => return Ok(()),
            Ok(BuildEvent::Failed(reason)) => bail!(failure(&reason)),
            Err(Error::Transport { .. } | Error::Timeout(_) | Error::RateLimited(_)) if left > 1 => {
                left -= 1;
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error).context("the build goes on, but nothing is heard of it"),
        }
    }
}

fn failure(reason: &BuildReason) -> String {
    let place = match reason.step.as_deref() {
        None | Some("base") => String::new(),
        Some("finalize") => " when a sandbox of it was tried".into(),
        Some(step) => format!(" at step {}", plain(step)),
    };
    format!("the build failed{place}: {}", plain(&reason.message))
}

/// Says what was built, once it is.
#[expect(clippy::print_stdout, reason = "the command's output")]
async fn told(client: &Client, building: &TemplateBuilding, name: &str) {
    let asked = &building.requested;
    let found = client.template(&asked.template_id).await;
    let size = found.ok().and_then(|found| found.template.size_bytes);
    let size = size.map_or_else(String::new, |size| format!(", {}", bytes(size)));
    println!(
        "{name} is ready: template {}, build {}{size}",
        plain(&asked.template_id),
        short(&asked.build_id)
    );
}
