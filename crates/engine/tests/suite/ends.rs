//! Every way to end leaves nothing behind: processes, mounts, cgroups, sockets and descriptors are counted.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandhold_runtime::{Runtime, RuntimeError};

use super::common::{USER, engine, out, run, sandbox, spec};

/// Processes below `root`, by the parent chain.
pub(super) fn descendants(root: u32) -> BTreeSet<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = rest.split_whitespace();
        let (state, parent) = (
            fields.next().unwrap_or(""),
            fields.next().and_then(|text| text.parse::<u32>().ok()),
        );
        if state != "Z" {
            parents.push((pid, parent.unwrap_or(0)));
        }
    }
    let mut found = BTreeSet::from([root]);
    loop {
        let next: BTreeSet<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if next.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(next);
    }
}

pub(super) fn launcher_of(server: u32) -> u32 {
    let is_launcher = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .starts_with(b"sandhold: launcher")
    };
    descendants(server).into_iter().find(is_launcher).expect("a launcher")
}

/// The cgroup folders of a server.
fn cgroups_of(server: u32) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found = BTreeSet::new();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let point = line.split(' ').nth(4).unwrap();
        collect(std::path::Path::new(point), &format!("-{server}-"), 4, &mut found);
    }
    found.into_iter().collect()
}

fn collect(folder: &std::path::Path, mark: &str, depth: u32, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("sandhold-") && name.contains(mark) {
                found.insert(entry.path().display().to_string());
            }
            if depth > 0 {
                collect(&entry.path(), mark, depth - 1, found);
            }
        }
    }
}

fn own_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

/// Inode numbers and names of the abstract sockets by which these processes hold blocks of ids. Servers of other tests,
/// which run at the same time, hold blocks too.
fn id_claims(pids: &BTreeSet<u32>) -> BTreeSet<(String, String)> {
    let sockets: BTreeSet<String> = pids
        .iter()
        .flat_map(|pid| {
            std::fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let mut claims = all_id_claims();
    claims.retain(|(inode, _)| sockets.contains(&format!("socket:[{inode}]")));
    claims
}

/// The same of all processes of this network namespace.
fn all_id_claims() -> BTreeSet<(String, String)> {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    sockets
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(6);
            let (inode, name) = (fields.next()?, fields.next()?);
            name.starts_with("@sandhold-ids-")
                .then(|| (inode.to_owned(), name.to_owned()))
        })
        .collect()
}

pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(8);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs the calling test in a process of its own, so that it can count what belongs to its process: several tests of one
/// process would count each other's. True in that process.
pub(super) fn alone() -> bool {
    const ALONE: &str = "SANDHOLD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() || std::env::var_os(SERVER).is_some() {
        return true;
    }
    let name = std::thread::current().name().expect("a test's name").to_owned();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "1")
        .status();
    assert!(status.unwrap().success(), "{name} in a process of its own");
    false
}

const DAEMONS: &str = "sleep 300 >/dev/null 2>&1 & setsid sleep 300 >/dev/null 2>&1 & (setsid sh -c 'trap \"\" TERM HUP; sleep 300' >/dev/null 2>&1 &)";

#[tokio::test]
async fn kill_ends_all_and_gives_everything_back() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    sandbox(&engine).await.kill().await;
    let me = std::process::id();
    let (processes, fds, mounted) = (descendants(me).len(), own_fds(), mounts());
    for _ in 0..20 {
        let sandbox = sandbox(&engine).await;
        out(&*sandbox, USER, DAEMONS).await;
        assert!(descendants(me).len() >= processes + 4, "the control: they run");
        sandbox.kill().await;
        sandbox.kill().await;
        assert_eq!(sandbox.ended().await, "it was shut down");
        assert!(matches!(sandbox.connect().await.err(), Some(RuntimeError::Ended(_))));
        assert!(matches!(sandbox.usage().await.err(), Some(RuntimeError::Ended(_))));
    }
    assert_eq!(descendants(me).len(), processes);
    assert_eq!(mounts(), mounted);
    eventually("descriptors of this process", || own_fds() <= fds).await;
    let launcher = launcher_of(me);
    let held = || std::fs::read_dir(format!("/proc/{launcher}/fd")).map_or(0, Iterator::count);
    eventually("descriptors of the launcher", || held() < 24).await;
    for folder in cgroups_of(me) {
        let left = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count();
        assert_eq!(left, 0, "{folder}");
    }
    assert_eq!(engine.live(), 0);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_it() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let other = sandbox.clone();
    drop(sandbox);
    assert_eq!(
        run(&*other, USER, &["/bin/echo", "x"]).await.unwrap().0,
        0,
        "one handle is left"
    );
    drop(other);
    eventually("the sandbox ends", || engine.live() == 0).await;
    assert_eq!(descendants(launcher_of(std::process::id())).len(), 0);
}

#[tokio::test]
async fn a_cancelled_create_leaves_nothing() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    for wait in [0, 500, 1000, 2000, 3000, 5000] {
        let create = engine.create(spec());
        let _ = tokio::time::timeout(Duration::from_micros(wait), create).await;
    }
    eventually("half-made sandboxes end", || engine.live() == 0).await;
    assert_eq!(descendants(launcher_of(std::process::id())).len(), 0);
}

#[tokio::test]
async fn many_at_once_come_and_go() {
    let engine = engine().await;
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let sandbox = sandbox(&engine).await;
                assert_eq!(run(&*sandbox, USER, &["/bin/true"]).await.unwrap().0, 0);
                sandbox
            })
        })
        .collect();
    let mut sandboxes = Vec::new();
    for task in tasks {
        sandboxes.push(task.await.unwrap());
    }
    assert_eq!(engine.live(), 40);
    drop(sandboxes);
    eventually("all end", || engine.live() == 0).await;
}

#[tokio::test]
async fn a_killed_launcher_ends_its_sandboxes_and_is_replaced() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    let me = std::process::id();
    let (first, second) = (sandbox(&engine).await, sandbox(&engine).await);
    out(&*first, USER, DAEMONS).await;
    let launcher = launcher_of(me);
    let inside = descendants(launcher);
    assert!(inside.len() >= 5, "{inside:?}");
    let pid = rustix::process::Pid::from_raw(launcher.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    for sandbox in [&first, &second] {
        let reason = tokio::time::timeout(Duration::from_secs(5), sandbox.ended())
            .await
            .expect("it ends");
        assert!(
            reason.contains("launcher") || reason.contains("first process"),
            "{reason}"
        );
    }
    eventually("its processes", || {
        inside
            .iter()
            .all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    })
    .await;
    let third = sandbox(&engine).await;
    assert_eq!(run(&*third, USER, &["/bin/echo", "x"]).await.unwrap().0, 0);
    assert_ne!(launcher_of(me), launcher);
    for folder in cgroups_of(me) {
        let left = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .count();
        assert_eq!(left, 1, "{folder} holds the third alone");
    }
}

#[tokio::test]
async fn shutdown_leaves_no_process_no_cgroup_and_no_claim() {
    if !alone() {
        return;
    }
    let engine = engine().await;
    let me = std::process::id();
    let kept = sandbox(&engine).await;
    let launcher = launcher_of(me);
    engine.shutdown().await;
    assert_eq!(kept.ended().await, "the server shuts down");
    eventually("the launcher", || {
        !std::path::Path::new(&format!("/proc/{launcher}/exe")).exists()
    })
    .await;
    drop((kept, engine));
    eventually("cgroups", || cgroups_of(me).is_empty()).await;
}

/// The server that [`a_killed_server_leaves_nothing`] kills: this same test, told so by its environment.
const SERVER: &str = "SANDHOLD_TEST_SERVER";

fn start_server() -> std::process::Child {
    let name = std::thread::current().name().expect("a test's name").to_owned();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(SERVER, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    assert!(
        lines.any(|line| line.is_ok_and(|line| line.contains("serving"))),
        "the server came up"
    );
    server
}

async fn serve() {
    let engine = engine().await;
    let mut kept = Vec::new();
    for _ in 0..5 {
        let sandbox = sandbox(&engine).await;
        out(&*sandbox, USER, DAEMONS).await;
        kept.push(sandbox);
    }
    println!("serving");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_server_leaves_nothing() {
    if std::env::var_os(SERVER).is_some() {
        return serve().await;
    }
    let mounted = mounts();
    let mut server = start_server();
    let pid = server.id();
    let all = descendants(pid);
    assert!(all.len() > 5 * 4, "{}", all.len());
    let claims = id_claims(&all);
    assert_eq!(claims.is_empty(), !rustix::process::geteuid().is_root(), "{claims:?}");
    server.kill().unwrap();
    server.wait().unwrap();
    let alive =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    eventually("processes", || !all.iter().any(alive)).await;
    eventually("cgroups", || cgroups_of(pid).is_empty()).await;
    assert_eq!(mounts(), mounted);
    eventually("claims of ids", || all_id_claims().is_disjoint(&claims)).await;
}

#[tokio::test]
async fn a_server_killed_with_its_launcher_is_swept_after() {
    if std::env::var_os(SERVER).is_some() {
        return serve().await;
    }
    let mut server = start_server();
    let pid = server.id();
    let all = descendants(pid);
    let launcher = rustix::process::Pid::from_raw(launcher_of(pid).cast_signed()).unwrap();
    // Stopped, the launcher cannot clean up after the server; then it dies too.
    rustix::process::kill_process(launcher, rustix::process::Signal::STOP).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    rustix::process::kill_process(launcher, rustix::process::Signal::KILL).unwrap();
    let alive =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    eventually("processes", || !all.iter().any(alive)).await;
    let left = cgroups_of(pid);
    let next = engine().await;
    if !left.is_empty() {
        assert!(cgroups_of(pid).is_empty(), "the next server sweeps {left:?}");
    }
    drop(next);
}
