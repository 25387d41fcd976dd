//! Prints, side by side and measured in one run: making a sandbox up to its first output by Sandhold's engine, by its
//! whole MCP path, by bubblewrap and by runc with the same root; a command in a live sandbox against the bare host; MCP
//! round trips; a search beside ripgrep, archives beside zip; how soon a server is known to listen; what idle sandboxes
//! cost; what a sandbox notices of one that takes all it can get, which `--bombs` measures alone. With `--serve` instead:
//! `sandhold serve` under load, and a large file beside nginx. With `--layers [create] [states] [image] [crowd]`: spare
//! sandboxes, forks and snapshots, images, and a thousand at once. Then which aims are met.
//!
//! Every round measures each contender once, so that what else the machine does meets all of them.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the report is what this program is for")]

mod bombs;
mod envd;
mod layers;
mod memory;
mod pack;
mod peers;
mod search;
mod serve;
mod services;
mod stats;
mod transfer;

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandhold_engine::{Engine, EngineConfig, InitProgram};
use sandhold_runtime::{Resources, Runtime, SandboxSpec};
use sandhold_tests::{mcp::Server, places};
use serde_json::json;
use stats::Times;
use tokio::runtime::{Builder, Runtime as Tokio};

/// How often everything is measured.
struct Rounds {
    /// New sandboxes.
    create: usize,
    /// Commands and calls.
    call: usize,
    /// Rounds that only warm up.
    warm: usize,
    /// Idle sandboxes.
    idle: usize,
    /// Searches.
    search: usize,
    /// Files that are searched.
    files: usize,
    /// Archives of a folder.
    packs: usize,
    /// Files in the folder of small ones.
    packed: usize,
}

const FULL: Rounds = Rounds {
    create: 200,
    call: 1000,
    warm: 5,
    idle: 500,
    search: 30,
    files: 50_000,
    packs: 9,
    packed: 20_000,
};
const QUICK: Rounds = Rounds {
    create: 30,
    call: 100,
    warm: 2,
    idle: 50,
    search: 10,
    files: 5_000,
    packs: 5,
    packed: 2_000,
};

/// As the gateway calls its sandboxes.
const HOSTNAME: &str = "sandhold";

/// An aim and what came of it.
struct Aim {
    what: String,
    got: f64,
    most: f64,
    unit: &'static str,
}

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { QUICK } else { FULL };
    let tokio = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut aims = Vec::new();
    machine()?;
    if std::env::args().any(|argument| argument == "--serve") {
        let (sandboxes, seconds, mib) = if quick { (20, 10, 256) } else { (200, 180, 2048) };
        transfer::transfer(&tokio, mib, transfer::nginx().as_deref(), &mut aims)?;
        serve::load(&tokio, sandboxes, Duration::from_secs(seconds))?;
    } else if std::env::args().any(|argument| argument == "--layers") {
        let plan = if quick { layers::QUICK } else { layers::FULL };
        let parts: Vec<String> = std::env::args()
            .skip(1)
            .filter(|argument| !argument.starts_with('-'))
            .collect();
        layers::layers(&tokio, &plan, &parts, &mut aims)?;
    } else if std::env::args().any(|argument| argument == "--bombs") {
        bombs::bombs(&mut aims)?;
    } else {
        creating(&tokio, &rounds, &mut aims)?;
        commands(&tokio, &rounds, &mut aims)?;
        round_trips(&rounds, &mut aims)?;
        search::search(&rounds, &mut aims)?;
        pack::pack(&rounds, &mut aims)?;
        services::services(&rounds, &mut aims)?;
        idle(&rounds, &mut aims)?;
        bombs::bombs(&mut aims)?;
    }
    println!("\nAims");
    for aim in &aims {
        let met = if aim.got <= aim.most { "met    " } else { "NOT met" };
        println!(
            "  {met}  {}: {:.3} {unit}, aim {:.3} {unit}",
            aim.what,
            aim.got,
            aim.most,
            unit = aim.unit
        );
    }
    Ok(())
}

fn machine() -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism()?;
    println!(
        "kernel {}, {cpus} processors, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim()
    );
    Ok(())
}

fn heading(what: &str) {
    println!("\n{what}\n  {:<44} {:>6} {:>10} {:>10}", "", "n", "median ms", "p95 ms");
}

fn row(name: &str, times: &Times) {
    println!(
        "  {name:<44} {:>6} {:>10.3} {:>10.3}",
        times.len(),
        times.median(),
        times.percentile(95)
    );
}

/// The engine as the program itself starts it, or without a sandbox that is there before it is asked for.
fn engine(tokio: &Tokio, spares: usize) -> Result<Arc<dyn Runtime>> {
    let program = places::sandhold()?;
    let daemon = program.with_file_name("sandhold-envd");
    let launcher = vec![program.into_os_string(), "__launcher".into()];
    let config = EngineConfig {
        spares,
        ..EngineConfig::new(InitProgram::Path(daemon), launcher)
    };
    Ok(tokio.block_on(Engine::start(config))?)
}

fn spec(id: String) -> Result<SandboxSpec> {
    let boot = envd::boot(&id)?;
    Ok(SandboxSpec {
        hostname: HOSTNAME.to_owned(),
        id,
        root: sandhold_runtime::Root::default(),
        storage: sandhold_runtime::Storage::Memory,
        resources: Resources::default(),
        boot,
    })
}

fn creating(tokio: &Tokio, rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let (engine, fresh) = (engine(tokio, 1)?, engine(tokio, 0)?);
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    let bwrap = peers::installed("bwrap");
    // runc as an ordinary user needs another bundle, and a cgroup of one's own.
    let runc = peers::installed("runc").filter(|_| is_root());
    let mut bundle = runc.map(peers::Bundle::new).transpose()?;
    let [
        mut bare,
        mut own,
        mut ready,
        mut anew,
        mut path,
        mut bubble,
        mut container,
    ] = std::array::from_fn(|_| Times::default());
    for round in 0..rounds.warm + rounds.create {
        if round == rounds.warm {
            for times in [
                &mut bare,
                &mut own,
                &mut ready,
                &mut anew,
                &mut path,
                &mut bubble,
                &mut container,
            ] {
                times.clear();
            }
        }
        bare.push(peers::first_output(&mut peers::bare())?);
        // The spare sandbox comes a moment after the one before; that is not counted.
        std::thread::sleep(Duration::from_millis(50));
        let (until_ready, until_output) = tokio.block_on(first_output(&*engine, round))?;
        ready.push(until_ready);
        own.push(until_output);
        anew.push(tokio.block_on(first_output(&*fresh, round))?.1);
        let sandbox = path.measure(|| {
            let made = server.call("create_sandbox", &json!({}))?;
            let sandbox = made["sandbox_id"].as_str().context("no sandbox_id")?.to_owned();
            let said = server.call("run_command", &json!({"sandbox_id": sandbox, "cmd": "echo hi"}))?;
            ensure!(said["stdout"] == "hi\n", "run_command answered {}", envd::shown(&said));
            Ok(sandbox)
        })?;
        server.call("shutdown_sandbox", &json!({"sandbox_id": sandbox}))?;
        if let Some(program) = &bwrap {
            bubble.push(peers::first_output(&mut peers::bwrap(program))?);
        }
        if let Some(bundle) = &mut bundle {
            container.push(peers::first_output(&mut bundle.command())?);
        }
    }
    server.close()?;
    heading("Create to first output of `echo hi`");
    row("bare host, no sandbox", &bare);
    row("Sandhold, engine", &own);
    row("  of that: until the daemon answers", &ready);
    row("Sandhold, engine, without a spare sandbox", &anew);
    row("Sandhold, MCP: create_sandbox, run_command", &path);
    for (name, times) in [("bubblewrap", &bubble), ("runc", &container)] {
        if times.len() > 0 {
            row(name, times);
        } else {
            println!("  {name:<44} not measured: not installed, or not for this user");
        }
    }
    if bubble.len() > 0 {
        let what = "engine, beside bubblewrap (medians)".to_owned();
        aims.push(Aim {
            what,
            got: own.median() / bubble.median(),
            most: 0.9,
            unit: "×",
        });
    }
    Ok(())
}

/// A sandbox of the engine: how long until its daemon answers, and until the first output.
async fn first_output(engine: &dyn Runtime, round: usize) -> Result<(Duration, Duration)> {
    let spec = spec(format!("bench{round}"))?;
    let began = Instant::now();
    let sandbox = engine.create(spec).await?;
    let ready = began.elapsed();
    let mut connection = envd::Connection::open(&sandbox).await?;
    connection
        .start(peers::ECHO[0], &peers::ECHO[1..], envd::Until::Output)
        .await?;
    let output = began.elapsed();
    sandbox.kill().await;
    Ok((ready, output))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn commands(tokio: &Tokio, rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let engine = engine(tokio, 0)?;
    let sandbox = tokio.block_on(engine.create(spec("benchlive".to_owned())?))?;
    let mut connection = tokio.block_on(envd::Connection::open(&sandbox))?;
    let (mut host, mut inside) = (Times::default(), Times::default());
    for round in 0..rounds.warm + rounds.call {
        if round == rounds.warm {
            host.clear();
            inside.clear();
        }
        host.measure(|| peers::whole(&mut Command::new("/usr/bin/true")))?;
        inside.measure(|| tokio.block_on(connection.start("/usr/bin/true", &[], envd::Until::End)))?;
    }
    tokio.block_on(sandbox.kill());
    heading("A process in a live sandbox, start to end");
    row("`true` on the bare host", &host);
    row("`true` in the sandbox, engine", &inside);
    let got = inside.median() - host.median();
    aims.push(Aim {
        what: "`true` in a sandbox, above the host".to_owned(),
        got,
        most: 0.15,
        unit: "ms",
    });
    Ok(())
}

fn round_trips(rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    server.call(
        "write_file",
        &json!({"path": "kilobyte.txt", "content": "x".repeat(1023) + "\n"}),
    )?;
    let [mut bash, mut command, mut read, mut info] = std::array::from_fn(|_| Times::default());
    for round in 0..rounds.warm + rounds.call {
        if round == rounds.warm {
            for times in [&mut bash, &mut command, &mut read, &mut info] {
                times.clear();
            }
        }
        // Without the user's own profile: what stands in there would make us look good.
        let mut shell = Command::new("/usr/bin/bash");
        shell
            .args(["-l", "-c", "true"])
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("PATH", "/usr/bin:/bin");
        bash.measure(|| peers::whole(&mut shell))?;
        command.measure(|| server.call("run_command", &json!({"cmd": "true"})))?;
        read.measure(|| server.call("read_file", &json!({"path": "kilobyte.txt"})))?;
        info.measure(|| server.call("path_info", &json!({"path": "kilobyte.txt"})))?;
    }
    server.close()?;
    heading("MCP round trips over stdin and stdout");
    row("`bash -l -c true` on the bare host", &bash);
    row("run_command `true`", &command);
    row("read_file, 1 KiB", &read);
    row("path_info", &info);
    let what = "run_command `true`, above `bash -l -c true`".to_owned();
    aims.push(Aim {
        what,
        got: command.median() - bash.median(),
        most: 1.0,
        unit: "ms",
    });
    aims.push(Aim {
        what: "read_file of 1 KiB".to_owned(),
        got: read.median(),
        most: 0.6,
        unit: "ms",
    });
    Ok(())
}

fn idle(rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    let warm = server.call("create_sandbox", &json!({}))?;
    server.call("shutdown_sandbox", &json!({"sandbox_id": warm["sandbox_id"]}))?;
    std::thread::sleep(Duration::from_millis(500));
    let before = memory::Held::now()?;
    let began = Instant::now();
    for _ in 0..rounds.idle {
        server.call("create_sandbox", &json!({"timeout_s": 3600}))?;
    }
    let took = began.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let after = memory::Held::now()?;
    let each = |after: u64, before: u64| (after as f64 - before as f64) / rounds.idle as f64 / f64::from(1 << 20);
    let processes = each(after.processes, before.processes);
    let kernel = each(after.kernel, before.kernel);
    println!(
        "\n{} idle sandboxes, made over MCP in {:.2} s",
        rounds.idle,
        took.as_secs_f64()
    );
    println!(
        "  each: {processes:.3} MiB of processes (PSS, the server's growth included), {kernel:.3} MiB of the kernel and tmpfs"
    );
    let began = Instant::now();
    server.call("shutdown_all_sandboxes", &json!({}))?;
    println!("  all ended in {:.2} s", began.elapsed().as_secs_f64());
    server.close()?;
    let what = format!("an idle sandbox of {}, all counted", rounds.idle);
    aims.push(Aim {
        what,
        got: processes + kernel,
        most: 5.0,
        unit: "MiB",
    });
    Ok(())
}
