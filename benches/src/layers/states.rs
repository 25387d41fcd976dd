//! The states of a sandbox by the size of its files: checkpoint, fork, snapshot, the way back, what changed, and pause.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sandhold_engine::Engine;
use sandhold_runtime::{Layers, Resources, Root, Runtime, Sandbox};
use tokio::runtime::Runtime as Tokio;

use super::{Plan, birth, engine, heading, row, spec};
use crate::{Aim, envd, peers, stats::Times};

/// Copies that are made of one sandbox whose files are in use.
const COPIES: usize = 2;
/// How long the machine has to come to rest.
const SETTLE: Duration = Duration::from_secs(1);
/// Room beside the files.
const ROOM: u64 = 512 << 20;
/// Opens a file, says so, and keeps it open.
const HOLDER: &str = "exec 9> ~/held; echo $$ > ~/holder; echo open; exec sleep 3600";
/// Ends it.
const LET_GO: &str = "read -r pid < ~/holder; kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.01; done";

#[derive(Default)]
struct Measured {
    first: Times,
    first_fork: Times,
    copy: Times,
    copy_fork: Times,
    again: Times,
    fork: Times,
    back: Times,
    changes: Times,
    keep: Times,
    plain: Times,
    keep_again: Times,
    stored: Times,
    freeze: Times,
    thaw: Times,
}

/// Measures every size.
pub(super) fn states(tokio: &Tokio, plan: &Plan, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let engine = engine(tokio, |config| config.store = Some(home.path().join("layers")))?;
    let Some(layers) = engine.layers() else {
        println!(
            "\nStates: not measured, this machine has no layers: {:?}",
            engine.info().no_layers
        );
        return Ok(());
    };
    let mut worst = Times::default();
    for &mib in plan.sizes {
        let peer = Files::make(mib, home.path())?;
        let mut found = Measured::default();
        for round in 0..plan.fresh {
            peer.copied(&mut found.plain)?;
            tokio.block_on(one(&engine, &*layers, (mib, round), plan.rounds, &mut found))?;
        }
        report(mib, &found);
        for times in [&found.first_fork, &found.fork] {
            if worst.len() == 0 || times.median() > worst.median() {
                worst.clear();
                worst.push(Duration::from_secs_f64(times.median() / 1000.0));
            }
        }
    }
    tokio.block_on(engine.shutdown());
    aims.push(Aim {
        what: "fork of a sandbox at rest, whatever the size (worst p50)".to_owned(),
        got: worst.median(),
        most: 10.0,
        unit: "ms",
    });
    Ok(())
}

fn report(mib: u64, found: &Measured) {
    heading(&format!("A sandbox with {mib} MiB of files"));
    for (name, times) in [
        ("checkpoint, all of it new", &found.first),
        ("fork of that: checkpoint, create, first output", &found.first_fork),
        ("checkpoint, one small file new", &found.again),
        ("fork of that", &found.fork),
        ("checkpoint while a file is open: a copy", &found.copy),
        ("fork of that", &found.copy_fork),
        ("snapshot (checkpoint, keep), all of it new", &found.keep),
        ("  `cp -r` of as many files to disk, `sync -f`", &found.plain),
        ("snapshot, one small file new", &found.keep_again),
        ("create from a stored root, first output", &found.stored),
        ("roll_back", &found.back),
        ("changes", &found.changes),
        ("pause (freeze)", &found.freeze),
        ("resume (thaw)", &found.thaw),
    ] {
        row(name, times);
    }
}

/// One sandbox of this size, through all of it.
async fn one(
    engine: &Arc<Engine>,
    layers: &dyn Layers,
    (mib, round): (u64, usize),
    rounds: usize,
    found: &mut Measured,
) -> Result<()> {
    let disk = (mib << 20) + ROOM;
    let resources = Resources {
        disk_bytes: Some(disk),
        memory_bytes: Some(disk * 2),
        ..Resources::default()
    };
    let fork = async |root: &Root, began: Instant, times: &mut Times| {
        let spec = spec("benchfork".to_owned(), root.clone(), resources)?;
        let (sandbox, _, output) = birth::first_output(&**engine, spec, began).await?;
        times.push(output);
        let mut connection = envd::Connection::open(&sandbox).await?;
        // It has the files.
        connection
            .shell(&format!("set -- ~/big/*; test $# = {}", mib.max(1)))
            .await?;
        sandbox.kill().await;
        anyhow::Ok(())
    };
    let sandbox = engine
        .create(spec(format!("benchstate{mib}x{round}"), Root::default(), resources)?)
        .await?;
    let mut connection = envd::Connection::open(&sandbox).await?;
    connection.shell(&Files::script("~/big", mib)).await?;

    let mut holder = envd::Connection::open(&sandbox).await?;
    holder
        .start("/usr/bin/bash", &["-c", HOLDER], envd::Until::Output)
        .await?;
    for _ in 0..COPIES {
        let began = Instant::now();
        let root = sandbox.checkpoint().await?;
        found.copy.push(began.elapsed());
        fork(&root, began, &mut found.copy_fork).await?;
    }
    connection.shell(LET_GO).await?;
    drop(holder);
    // The memory of the copies is given back meanwhile, which takes a processor for a while.
    tokio::time::sleep(SETTLE).await;

    let began = Instant::now();
    let first = sandbox.checkpoint().await?;
    let checkpoint = began.elapsed();
    found.first.push(checkpoint);
    fork(&first, began, &mut found.first_fork).await?;
    // A snapshot is both: what the fork took between is not counted.
    let began = Instant::now();
    let stored = layers.keep(&first).await?;
    found.keep.push(checkpoint + began.elapsed());

    for _ in 0..rounds {
        connection.shell("echo changed > ~/small").await?;
        let began = Instant::now();
        let changes = sandbox.changes(&first, 1000).await?;
        found.changes.push(began.elapsed());
        anyhow::ensure!(!changes.changes.is_empty(), "nothing changed");
        let began = Instant::now();
        let root = sandbox.checkpoint().await?;
        found.again.push(began.elapsed());
        fork(&root, began, &mut found.fork).await?;
        let began = Instant::now();
        sandbox.roll_back(&first).await?;
        found.back.push(began.elapsed());
        drop(root);
        rest(&sandbox, found).await?;
        fork(&stored.clone().into(), Instant::now(), &mut found.stored).await?;
    }
    for number in 0..rounds.div_ceil(4) {
        // No two are the same, or there would be nothing to write.
        let text = format!("echo changed {mib} {round} {number} > ~/small");
        connection.shell(&text).await?;
        let began = Instant::now();
        layers.keep(&sandbox.checkpoint().await?).await?;
        found.keep_again.push(began.elapsed());
    }
    sandbox.kill().await;
    Ok(())
}

async fn rest(sandbox: &Arc<dyn Sandbox>, found: &mut Measured) -> Result<()> {
    let began = Instant::now();
    sandbox.freeze().await?;
    found.freeze.push(began.elapsed());
    let began = Instant::now();
    sandbox.thaw().await?;
    found.thaw.push(began.elapsed());
    Ok(())
}

/// As many files on the host, in memory, to be copied to disk.
struct Files<'a> {
    memory: tempfile::TempDir,
    disk: &'a Path,
}

impl<'a> Files<'a> {
    fn make(mib: u64, disk: &'a Path) -> Result<Self> {
        let memory = tempfile::tempdir_in("/dev/shm").context("a folder in /dev/shm")?;
        let folder = memory.path().join("big");
        let script = Self::script(&folder.to_string_lossy(), mib);
        peers::whole(Command::new("/usr/bin/bash").args(["-c", &script]))?;
        Ok(Self { memory, disk })
    }

    /// Makes a folder of files of one MiB that nothing can compress; of an empty one if there are none.
    fn script(folder: &str, mib: u64) -> String {
        let fill = match mib {
            0 => "touch empty".to_owned(),
            mib => format!("head -c {mib}M /dev/urandom | split -a 4 -b 1M -"),
        };
        format!("mkdir -p {folder} && cd {folder} && {fill}")
    }

    fn copied(&self, times: &mut Times) -> Result<()> {
        let copy = self.disk.join("copy");
        times.measure(|| {
            peers::whole(Command::new("cp").arg("-r").arg(self.memory.path()).arg(&copy))?;
            peers::whole(Command::new("sync").arg("-f").arg(&copy))
        })?;
        Ok(std::fs::remove_dir_all(&copy)?)
    }
}
