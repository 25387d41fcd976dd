//! New sandboxes up to their first output: made anew and from the spare ones, one at a time and many at once, alone and with
//! others that live, beside bubblewrap.

use std::{
    path::Path,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use sandhold_engine::Engine;
use sandhold_runtime::{Resources, Root, Runtime, Sandbox, SandboxSpec};
use tokio::{runtime::Runtime as Tokio, task::JoinSet};

use super::{Plan, engine, heading, row, spec};
use crate::{Aim, envd, peers, stats::Times};

/// How long spare sandboxes may take to be there.
const FILLED: Duration = Duration::from_secs(60);
/// How many are made at once where that is not measured.
const ABREAST: usize = 8;
/// Sandboxes whose phases are looked at.
const TRACED: usize = 20;
/// The best published figure for 50 at once (p99, on bare metal), in milliseconds.
const PUBLISHED: f64 = 137.0;

/// What is known of new sandboxes.
#[derive(Default)]
struct Born {
    ready: Times,
    output: Times,
}

/// A new sandbox, how long until its daemon answered, and until the first output.
pub(super) async fn first_output(
    engine: &dyn Runtime,
    spec: SandboxSpec,
    began: Instant,
) -> Result<(Arc<dyn Sandbox>, Duration, Duration)> {
    let sandbox = engine.create(spec).await?;
    let ready = began.elapsed();
    let mut connection = envd::Connection::open(&sandbox).await?;
    connection
        .start(peers::ECHO[0], &peers::ECHO[1..], envd::Until::Output)
        .await?;
    let output = began.elapsed();
    Ok((sandbox, ready, output))
}

/// Sandboxes that live on; some are made at once.
pub(super) async fn crowd(engine: &Arc<Engine>, count: usize) -> Result<Vec<Arc<dyn Sandbox>>> {
    let mut tasks = JoinSet::new();
    let mut made = Vec::with_capacity(count);
    for number in 0..count {
        if tasks.len() == ABREAST {
            made.push(tasks.join_next().await.context("no task")???);
        }
        let engine = Arc::clone(engine);
        let spec = spec(format!("live{number}"), Root::default(), Resources::default())?;
        tasks.spawn(async move { engine.create(spec).await });
    }
    while let Some(sandbox) = tasks.join_next().await {
        made.push(sandbox??);
    }
    Ok(made)
}

/// Ends all of them at once.
pub(super) async fn end(sandboxes: Vec<Arc<dyn Sandbox>>) {
    let mut tasks: JoinSet<()> = sandboxes
        .into_iter()
        .map(|sandbox| async move { sandbox.kill().await })
        .collect();
    while tasks.join_next().await.is_some() {}
}

async fn filled(engine: &Engine, spares: usize) -> Result<()> {
    let began = Instant::now();
    while engine.spares() < spares {
        ensure!(began.elapsed() < FILLED, "only {} spare sandboxes", engine.spares());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Their first processes go to sleep.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// Makes `count` at once. Every time counts from the moment that all of them were asked for.
async fn burst(engine: &Arc<Engine>, count: usize, times: &mut Born) -> Result<()> {
    let mut tasks = JoinSet::new();
    let specs: Result<Vec<_>> = (0..count)
        .map(|number| spec(format!("burst{number}"), Root::default(), Resources::default()))
        .collect();
    let specs = specs?;
    let began = Instant::now();
    for spec in specs {
        let engine = Arc::clone(engine);
        tasks.spawn(async move { first_output(&*engine, spec, began).await });
    }
    let mut made = Vec::new();
    while let Some(born) = tasks.join_next().await {
        let (sandbox, ready, output) = born??;
        made.push(sandbox);
        times.ready.push(ready);
        times.output.push(output);
    }
    end(made).await;
    Ok(())
}

fn bwrap_burst(program: &Path, count: usize, times: &mut Times) -> Result<()> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let one = || {
            barrier.wait();
            peers::first_output(&mut peers::bwrap(program))
        };
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            times.push(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok(())
    })
}

/// Where the time of one that is made anew goes.
async fn phases(engine: &Engine, live: usize) -> Result<()> {
    let mut found: Vec<(String, Times)> = Vec::new();
    for number in 0..TRACED {
        let spec = spec(format!("traced{number}"), Root::default(), Resources::default())?;
        let (sandbox, phases) = engine.create_traced(spec).await?;
        sandbox.kill().await;
        for (at, phase) in phases.into_iter().enumerate() {
            if found.len() == at {
                found.push((phase.name, Times::default()));
            }
            found[at].1.push(Duration::from_micros(phase.us));
        }
    }
    println!("  Phases of one that is made anew, {live} live (medians of {TRACED}, those of 20 µs and more)");
    for (name, times) in found {
        if times.median() >= 0.02 {
            println!("    {name:<40} {:>8.3} ms", times.median());
        }
    }
    Ok(())
}

/// Measures everything here.
pub(super) fn creating(tokio: &Tokio, plan: &Plan, aims: &mut Vec<Aim>) -> Result<()> {
    let bwrap = peers::installed("bwrap");
    for &live in plan.live {
        for spares in [0, plan.burst] {
            let engine = engine(tokio, |config| {
                config.spares = spares;
                config.spares_most = spares;
            })?;
            let others = tokio.block_on(crowd(&engine, live))?;
            measure(tokio, plan, &engine, (live, spares), bwrap.as_deref(), aims)?;
            tokio.block_on(async {
                end(others).await;
                engine.shutdown().await;
            });
        }
    }
    Ok(())
}

fn measure(
    tokio: &Tokio,
    plan: &Plan,
    engine: &Arc<Engine>,
    (live, spares): (usize, usize),
    bwrap: Option<&Path>,
    aims: &mut Vec<Aim>,
) -> Result<()> {
    let (mut one, mut many) = (Born::default(), Born::default());
    let (mut bubble, mut bubbles) = (Times::default(), Times::default());
    for round in 0..=plan.singles {
        tokio.block_on(filled(engine, spares))?;
        let spec = spec(format!("single{round}"), Root::default(), Resources::default())?;
        let (ready, output) = tokio.block_on(async {
            let (sandbox, ready, output) = first_output(&**engine, spec, Instant::now()).await?;
            sandbox.kill().await;
            anyhow::Ok((ready, output))
        })?;
        let peer = bwrap
            .map(|program| peers::first_output(&mut peers::bwrap(program)))
            .transpose()?;
        // The first one warms up.
        if round > 0 {
            one.ready.push(ready);
            one.output.push(output);
            peer.into_iter().for_each(|time| bubble.push(time));
        }
    }
    for _ in 0..plan.bursts {
        tokio.block_on(filled(engine, spares))?;
        tokio.block_on(burst(engine, plan.burst, &mut many))?;
        if let Some(program) = bwrap {
            bwrap_burst(program, plan.burst, &mut bubbles)?;
        }
    }
    let how = match spares {
        0 => "made anew (spares 0)".to_owned(),
        spares => format!("{spares} spares (spares_most raised to {spares})"),
    };
    let count = plan.burst;
    heading(&format!("Create to first output of `echo hi`, {live} live, {how}"));
    row("engine", &one.output);
    row("  of that: until the daemon answers", &one.ready);
    row(&format!("engine, {count} at once"), &many.output);
    row("  of that: until the daemon answers", &many.ready);
    if bwrap.is_some() {
        row("bubblewrap", &bubble);
        row(&format!("bubblewrap, {count} at once"), &bubbles);
    } else {
        println!("  bubblewrap: not measured, it is not installed");
    }
    let kind = if spares == 0 { "cold" } else { "pooled" };
    if spares > 0 {
        for (until, times) in [("its daemon answers", &one.ready), ("the first output", &one.output)] {
            aims.push(Aim {
                what: format!("pooled at the engine, {live} live, until {until} (p50)"),
                got: times.median(),
                most: 1.0,
                unit: "ms",
            });
        }
    } else {
        tokio.block_on(phases(engine, live))?;
    }
    aims.push(Aim {
        what: format!("{count} at once, {kind}, {live} live, until the first output (p99)"),
        got: many.output.percentile(99),
        most: PUBLISHED,
        unit: "ms",
    });
    Ok(())
}
