//! How long a sandbox takes from `create` to its boot answer, and to its end: `create_bench [COUNT] [--phases]`.
//! Needs the program `engine-probe` of this crate beside it.

#[cfg(target_os = "linux")]
mod bench {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::time::Instant;

    use sandhold_engine::{Engine, EngineConfig, InitProgram};
    use sandhold_runtime::{Resources, Runtime, SandboxSpec};

    type Failure = Box<dyn std::error::Error>;

    fn row(out: &mut impl Write, name: &str, mut times: Vec<u64>) -> std::io::Result<()> {
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        writeln!(
            out,
            "{name:<32} n={:<5} min {:>6}  median {:>6}  p95 {:>6} µs",
            times.len(),
            at(0.0),
            at(0.5),
            at(0.95)
        )
    }

    pub(super) async fn run() -> Result<(), Failure> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let count: usize = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(200);
        let show_phases = args.iter().any(|arg| arg == "--phases");
        let here = std::env::current_exe()?;
        let folder = here.parent().and_then(|folder| folder.parent()).ok_or("no folder")?;
        let probe = folder.join("engine-probe");
        let mut config = EngineConfig::new(
            InitProgram::Path(probe.clone()),
            vec![probe.into(), "__launcher".into()],
        );
        config.init_args = vec!["probe-init".to_owned()];
        let begun = Instant::now();
        let engine = Engine::start(config).await?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:#?}", engine.info().isolation)?;
        writeln!(out, "engine start {} µs", begun.elapsed().as_micros())?;
        let (mut create, mut end) = (Vec::new(), Vec::new());
        let mut phases: BTreeMap<(usize, String), Vec<u64>> = BTreeMap::new();
        for number in 0..count {
            let spec = SandboxSpec {
                id: format!("bench{number}"),
                root: sandhold_runtime::Root::default(),
                storage: sandhold_runtime::Storage::Memory,
                hostname: "bench".to_owned(),
                resources: Resources::default(),
                boot: b"go".to_vec(),
            };
            let begun = Instant::now();
            let sandbox = if show_phases {
                let (sandbox, times) = engine.create_traced(spec).await?;
                for (order, phase) in times.into_iter().enumerate() {
                    phases.entry((order, phase.name)).or_default().push(phase.us);
                }
                sandbox
            } else {
                engine.create(spec).await?
            };
            create.push(begun.elapsed().as_micros() as u64);
            let begun = Instant::now();
            sandbox.kill().await;
            end.push(begun.elapsed().as_micros() as u64);
        }
        row(&mut out, "create → boot answer", create)?;
        row(&mut out, "kill → everything gone", end)?;
        for ((_, name), times) in phases {
            row(&mut out, &format!("  {name}"), times)?;
        }
        engine.shutdown().await;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    bench::run().await
}

#[cfg(not(target_os = "linux"))]
fn main() {}
