//! What issues from layers: sandboxes cold and from the spare ones, one at a time and many at once; checkpoints, forks,
//! snapshots and the way back by the size of the files; an image unpacked beside umoci and podman; a thousand at once.

mod birth;
mod crowd;
mod image;
mod states;

use std::sync::Arc;

use anyhow::Result;
use sandhold_engine::{Engine, EngineConfig, InitProgram};
use sandhold_runtime::{Resources, Root, SandboxSpec};
use sandhold_tests::places;
use tokio::runtime::Runtime as Tokio;

use crate::{Aim, stats::Times};

/// How often everything is measured, and how large it is.
pub(crate) struct Plan {
    /// Sandboxes that live meanwhile.
    live: &'static [usize],
    /// New sandboxes, one after the other.
    singles: usize,
    /// Times that [`Plan::burst`] are made at once.
    bursts: usize,
    burst: usize,
    /// MiB of files in a sandbox.
    sizes: &'static [u64],
    /// Sandboxes of each size.
    fresh: usize,
    /// Times that each is measured which takes next to nothing.
    rounds: usize,
    /// MiB and layers of the image, and how often it is unpacked.
    image: (u64, usize),
    unpacks: usize,
    crowd: usize,
}

/// Everything.
pub(crate) const FULL: Plan = Plan {
    live: &[0, 100, 500],
    singles: 100,
    bursts: 8,
    burst: 50,
    sizes: &[0, 100, 1024],
    fresh: 3,
    rounds: 20,
    image: (100, 30),
    unpacks: 5,
    crowd: 1000,
};
/// A look.
pub(crate) const QUICK: Plan = Plan {
    live: &[0, 20],
    singles: 10,
    bursts: 2,
    burst: 20,
    sizes: &[0, 20],
    fresh: 1,
    rounds: 5,
    image: (10, 5),
    unpacks: 1,
    crowd: 50,
};

/// Measures one after the other; of the parts only those that were named, if any was.
pub(crate) fn layers(tokio: &Tokio, plan: &Plan, only: &[String], aims: &mut Vec<Aim>) -> Result<()> {
    let wanted = |part: &str| only.is_empty() || only.iter().any(|one| one == part);
    more_descriptors();
    if wanted("create") {
        birth::creating(tokio, plan, aims)?;
    }
    if wanted("states") {
        states::states(tokio, plan, aims)?;
    }
    if wanted("image") {
        image::unpacking(tokio, plan)?;
    }
    if wanted("crowd") {
        crowd::crowd(tokio, plan, aims)?;
    }
    Ok(())
}

/// A thousand sandboxes take some thousand descriptors; the program itself raises its limit, too.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the limit says so when it is met.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

/// An engine with the program's own launcher and daemon, changed by `change`.
fn engine(tokio: &Tokio, change: impl FnOnce(&mut EngineConfig)) -> Result<Arc<Engine>> {
    let program = places::sandhold()?;
    let daemon = program.with_file_name("sandhold-envd");
    let launcher = vec![program.into_os_string(), "__launcher".into()];
    let mut config = EngineConfig::new(InitProgram::Path(daemon), launcher);
    change(&mut config);
    Ok(tokio.block_on(Engine::start(config))?)
}

fn spec(id: String, root: Root, resources: Resources) -> Result<SandboxSpec> {
    let mut spec = crate::spec(id)?;
    spec.root = root;
    spec.resources = resources;
    Ok(spec)
}

fn heading(what: &str) {
    println!(
        "\n{what}\n  {:<52} {:>5} {:>10} {:>10} {:>10} {:>10}",
        "", "n", "mean ms", "p50 ms", "p95 ms", "p99 ms"
    );
}

fn row(name: &str, times: &Times) {
    println!(
        "  {name:<52} {:>5} {:>10.3} {:>10.3} {:>10.3} {:>10.3}",
        times.len(),
        times.mean(),
        times.median(),
        times.percentile(95),
        times.percentile(99)
    );
}
