//! Very many sandboxes at once: made, each used once, counted, ended; and what is left of them then.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use sandhold_runtime::Sandbox;
use sandhold_tests::machine;
use tokio::runtime::Runtime as Tokio;

use super::{Plan, birth, engine, heading, row};
use crate::{Aim, envd, memory, stats::Times};

/// How long what is left may take to go.
const GONE: Duration = Duration::from_secs(10);

/// Measures.
pub(super) fn crowd(tokio: &Tokio, plan: &Plan, aims: &mut Vec<Aim>) -> Result<()> {
    let engine = engine(tokio, |config| {
        config.max_sandboxes = plan.crowd.max(config.max_sandboxes)
    })?;
    let warm = tokio.block_on(birth::crowd(&engine, 1))?;
    tokio.block_on(birth::end(warm));
    std::thread::sleep(Duration::from_millis(500));
    let (before, mounts) = (machine::Held::now(&[])?, mounts()?);
    let memory = memory::Held::now()?;

    let began = Instant::now();
    let sandboxes = tokio.block_on(birth::crowd(&engine, plan.crowd))?;
    let made = began.elapsed();
    let missing = plan.crowd - engine.live();
    std::thread::sleep(Duration::from_secs(1));
    let idle = memory::Held::now()?;
    let used = tokio.block_on(each(&sandboxes))?;
    let began = Instant::now();
    tokio.block_on(birth::end(sandboxes));
    let ended = began.elapsed();
    let left = machine::Held::settle(&before, &[], GONE)?;
    let mounts = self::mounts()?.saturating_sub(mounts);

    heading(&format!("{} sandboxes at once", plan.crowd));
    row("`true` in each of them, one after the other", &used);
    let each = |after: u64, before: u64| (after as f64 - before as f64) / plan.crowd as f64 / f64::from(1 << 20);
    println!(
        "  made in {:.2} s, ended in {:.2} s",
        made.as_secs_f64(),
        ended.as_secs_f64()
    );
    println!(
        "  each while idle: {:.3} MiB of processes (PSS), {:.3} MiB of the kernel and tmpfs",
        each(idle.processes, memory.processes),
        each(idle.kernel, memory.kernel)
    );
    let count = |kind: &str| left.iter().filter(|line| line.starts_with(kind)).count();
    let (processes, cgroups) = (count("process"), count("cgroup"));
    let all_mounts = count("mount") + mounts;
    println!("  left afterwards: {processes} processes, {cgroups} cgroups, {all_mounts} mounts");
    tokio.block_on(engine.shutdown());
    for (what, got) in [
        ("not made", missing),
        (
            "left afterwards: processes, cgroups, mounts",
            processes + cgroups + all_mounts,
        ),
    ] {
        aims.push(Aim {
            what: format!("of {} sandboxes at once, {what}", plan.crowd),
            got: got as f64,
            most: 0.0,
            unit: "",
        });
    }
    Ok(())
}

async fn each(sandboxes: &[Arc<dyn Sandbox>]) -> Result<Times> {
    let mut times = Times::default();
    for sandbox in sandboxes {
        let began = Instant::now();
        let mut connection = envd::Connection::open(sandbox).await?;
        connection.start("/usr/bin/true", &[], envd::Until::End).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Mounts that this process's descendants see, which is the launcher when no sandbox is there.
fn mounts() -> Result<usize> {
    let mut count = 0;
    for pid in machine::descendants(std::process::id())?.into_keys() {
        // One that just ended sees none.
        let seen = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        count += seen.lines().count();
    }
    Ok(count)
}
