//! `sandhold serve` under load: many clients, many sandboxes, calls of every kind at once.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sandhold_client::{
    Client, CommandEvent, CommandRequest, CreateOptions, HttpConfig, ListQuery, ReadOptions, Sandbox,
};
use sandhold_tests::{machine, places, run};
use tokio::runtime::Runtime as Tokio;

use crate::stats::Times;

/// Clients at the same time.
const CLIENTS: usize = 64;
/// What one client writes and reads.
const FILE: usize = 4096;
/// How long the sandboxes of a run may live.
const LIFE: Duration = Duration::from_secs(1800);

/// A running `sandhold serve` with a key.
pub(crate) struct Serve {
    child: Child,
    pub(crate) url: String,
    pub(crate) key: String,
}

impl Serve {
    /// Starts one with its state under `home`.
    pub(crate) fn start(home: &Path) -> Result<Self> {
        let program = places::sandhold()?;
        let made = run::run(
            Command::new(&program)
                .args(["keys", "create", "bench"])
                .env("SANDHOLD_HOME", home),
            b"",
            Duration::from_secs(10),
        )?;
        ensure!(made.code() == 0, "sandhold keys create: {}", made.stderr);
        let mut log = tempfile::tempfile()?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("SANDHOLD_HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.try_clone()?)
            .spawn()?;
        let url = loop {
            if let Some(url) = address(&mut log)? {
                break url;
            }
            if let Some(status) = child.try_wait()? {
                bail!("sandhold serve ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Ok(Self {
            child,
            url,
            key: made.stdout.trim().to_owned(),
        })
    }

    /// A client of its own, with connections of its own.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::http(HttpConfig {
            api_url: Some(self.url.clone()),
            sandbox_url: Some(self.url.clone()),
            ..HttpConfig::new(&self.key)
        })?)
    }

    /// Memory that it holds, in MiB (`VmRSS` of proc(5)).
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS")?
            .parse()?;
        Ok(kib / 1024.0)
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = run::wait(&mut self.child, Duration::from_secs(60))?;
        ensure!(
            ended.is_some_and(|status| status.success()),
            "sandhold serve did not end well: {ended:?}"
        );
        Ok(())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(log: &mut File) -> Result<Option<String>> {
    let mut said = String::new();
    log.seek(SeekFrom::Start(0))?;
    log.read_to_string(&mut said)?;
    let url = said.split_once("listening on ").map(|(_, rest)| rest);
    Ok(url.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned))
}

/// The mixture: of this many calls in a row so many are of each kind.
const KINDS: [(&str, usize); 9] = [
    ("state of a sandbox", 10),
    ("20 sandboxes of the list", 3),
    ("metrics of a sandbox", 5),
    ("write 4 KiB", 8),
    ("read 4 KiB", 10),
    ("processes of a sandbox", 4),
    ("`echo`, start to end", 7),
    ("another timeout", 2),
    ("a new sandbox and its end", 1),
];

/// The calls of one kind, or of all.
#[derive(Default)]
struct Tally {
    times: [Times; KINDS.len()],
    errors: Vec<String>,
}

/// 64 clients over `sandboxes` sandboxes for `time`.
pub(crate) fn load(tokio: &Tokio, sandboxes: usize, time: Duration) -> Result<()> {
    let home = tempfile::tempdir()?;
    let serve = Serve::start(home.path())?;
    let began = Instant::now();
    let owner = serve.client()?;
    let made: Arc<Vec<String>> = Arc::new(tokio.block_on(async {
        let mut ids = Vec::new();
        for _ in 0..sandboxes {
            let sandbox = owner.create(new(LIFE)).await?;
            let content = vec![b'x'; FILE].into();
            sandbox.files().write("read.txt", content, Default::default()).await?;
            ids.push(sandbox.id().to_owned());
        }
        anyhow::Ok(ids)
    })?);
    println!(
        "\n{CLIENTS} clients, {sandboxes} sandboxes (made in {:.1} s), {} s of mixed calls",
        began.elapsed().as_secs_f64(),
        time.as_secs()
    );

    let over = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for number in 0..CLIENTS {
        let (client, made, over) = (serve.client()?, Arc::clone(&made), Arc::clone(&over));
        workers.push(tokio.spawn(async move { work(number, &client, &made, &over).await }));
    }
    let mut memory = vec![serve.memory()?];
    for _ in 0..6 {
        std::thread::sleep(time / 6);
        memory.push(serve.memory()?);
    }
    over.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for worker in workers {
        let tally = tokio.block_on(worker)?;
        for (all, times) in all.times.iter_mut().zip(tally.times) {
            all.append(times);
        }
        all.errors.extend(tally.errors);
    }
    let left = tokio.block_on(count(&owner))?;
    let inside = machine::descendants(serve.child.id())?.len();
    serve.stop()?;
    let mut every = Times::default();
    println!("  {:<28} {:>8} {:>10} {:>10}", "", "calls", "p50 ms", "p99 ms");
    let row = |name: &str, times: &Times| {
        println!(
            "  {name:<28} {:>8} {:>10.1} {:>10.1}",
            times.len(),
            times.median(),
            times.percentile(99)
        );
    };
    for ((name, _), times) in KINDS.iter().zip(all.times) {
        row(name, &times);
        every.append(times);
    }
    row("all", &every);
    println!(
        "  {:.0} calls/s, {} errors",
        every.len() as f64 / time.as_secs_f64(),
        all.errors.len()
    );
    for error in all.errors.iter().take(5) {
        println!("  error: {error}");
    }
    let memory: Vec<_> = memory.iter().map(|mib| format!("{mib:.0}")).collect();
    println!(
        "  memory of the server in MiB, from beginning to end: {}",
        memory.join(", ")
    );
    println!("  sandboxes at the end: {left} of {sandboxes}, {inside} processes");
    ensure!(
        all.errors.is_empty() && left == sandboxes,
        "the load was not carried without a fault"
    );
    Ok(())
}

fn new(timeout: Duration) -> CreateOptions {
    CreateOptions {
        timeout: Some(timeout),
        ..CreateOptions::default()
    }
}

async fn count(client: &Client) -> Result<usize> {
    let (mut found, mut cursor) = (0, None);
    loop {
        let page = client
            .list(ListQuery {
                cursor,
                ..ListQuery::default()
            })
            .await?;
        found += page.sandboxes.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

async fn work(number: usize, client: &Client, made: &[String], over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut connected: Vec<Option<Sandbox>> = made.iter().map(|_| None).collect();
    let mut turn = number;
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        let at = (turn * 31 + number * 17) % made.len();
        let kind = kind(turn);
        let began = Instant::now();
        match one(kind, client, &made[at], &mut connected[at]).await {
            Ok(()) => tally.times[kind].push(began.elapsed()),
            Err(error) => tally.errors.push(format!("{}: {error:#}", KINDS[kind].0)),
        }
    }
    tally
}

/// The kind of the call of this number, an index into [`KINDS`].
fn kind(number: usize) -> usize {
    let mut left = number % KINDS.iter().map(|(_, share)| share).sum::<usize>();
    for (kind, (_, share)) in KINDS.iter().enumerate() {
        if left < *share {
            return kind;
        }
        left -= share;
    }
    0
}

/// One call of the mixture.
async fn one(kind: usize, client: &Client, id: &str, known: &mut Option<Sandbox>) -> Result<()> {
    let sandbox = match known {
        Some(sandbox) => sandbox,
        None => known.insert(client.connect(id, Some(LIFE)).await?),
    };
    match kind {
        0 => drop(client.info(id).await?),
        1 => drop(
            client
                .list(ListQuery {
                    limit: Some(20),
                    ..ListQuery::default()
                })
                .await?,
        ),
        2 => ensure!(sandbox.metrics().await?.mem_total > 0, "no memory"),
        3 => {
            let content = vec![b'y'; FILE].into();
            drop(
                sandbox
                    .files()
                    .write("written.txt", content, Default::default())
                    .await?,
            );
        }
        4 => {
            let read = sandbox
                .files()
                .read("read.txt", ReadOptions::default(), FILE as u64)
                .await?;
            ensure!(read.len() == FILE, "{} bytes came", read.len());
        }
        5 => drop(sandbox.commands().list().await?),
        6 => {
            let mut process = sandbox
                .commands()
                .start(CommandRequest {
                    cmd: "/usr/bin/echo".into(),
                    args: vec!["hi".into()],
                    ..CommandRequest::default()
                })
                .await?;
            let mut said = Vec::new();
            while let Some(event) = process.next().await {
                if let CommandEvent::Stdout(data) = event? {
                    said.extend_from_slice(&data);
                }
            }
            ensure!(said == b"hi\n", "echo said {said:?}");
        }
        7 => client.set_timeout(id, LIFE).await?,
        _ => {
            let short = client.create(new(Duration::from_secs(60))).await?;
            ensure!(short.kill().await?, "a new sandbox was gone");
        }
    }
    Ok(())
}
