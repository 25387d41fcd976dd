//! The level `landlock`: what it holds, each with a control that succeeds without it, and that it ends as the others do.

use std::process::Command;
use std::sync::Arc;

use sandhold_engine::{Engine, Level};
use sandhold_runtime::{Resources, Runtime, RuntimeError};

use super::common::{
    LEVEL, USER, config, is_root, out, probe_inside, probe_outside, run, sandbox, sandbox_with, sh, skip,
};
use super::ends::{descendants, eventually, launcher_of};

async fn engine() -> Option<Arc<Engine>> {
    let mut config = config();
    config.isolation = Level::Landlock;
    match Engine::start(config).await {
        Ok(engine) => Some(engine),
        Err(RuntimeError::Unsupported(why)) => {
            skip(&why);
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// What a Python program prints on the host; it must succeed.
fn outside(script: &str) -> String {
    let output = Command::new("python3").args(["-c", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What it prints inside, or the name of the error that it met.
async fn inside(sandbox: &dyn sandhold_runtime::Sandbox, script: &str) -> String {
    let (_, said) = run(sandbox, USER, &["/usr/bin/python3", "-c", script]).await.unwrap();
    said.trim_end().lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn usual_programs_work() {
    let Some(engine) = engine().await else { return };
    let sandbox = sandbox(&engine).await;
    let said = out(
        &*sandbox,
        USER,
        "pwd; echo x > f; cat f; ls -A | tr '\\n' ' '; echo; echo y > $TMPDIR/f; cat $TMPDIR/f",
    )
    .await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with("/var/tmp/sandhold-") && lines[0].ends_with("/home"),
        "{said}"
    );
    assert_eq!(lines[1..], ["x", ".bashrc .profile f ", "y"]);
    assert_eq!(out(&*sandbox, USER, "bash -lc 'echo $((6*7))'").await, "42");
    let python = "import json, ssl, sqlite3, hashlib, tempfile; tempfile.TemporaryFile(); print(6*7)";
    assert_eq!(inside(&*sandbox, python).await, "42");
    let status = out(
        &*sandbox,
        USER,
        "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd|Groups):' /proc/self/status",
    )
    .await;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or("")
            .trim()
            .to_owned()
    };
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:"), field("CapEff:")),
        ("1".into(), "2".into(), "0000000000000000".into())
    );
    if is_root() {
        assert_eq!(field("CapBnd:"), "0000000000000000", "nothing that could come back");
        assert!(out(&*sandbox, USER, "id -u").await.parse::<u32>().unwrap() >= 1_500_000_000);
    }
    let info = engine.info();
    assert_eq!(info.isolation.level, "landlock");
    assert!(!info.can_switch_user);
    assert!(
        info.isolation
            .warnings
            .iter()
            .any(|warning| warning.contains("loopback")),
        "{info:?}"
    );
}

#[tokio::test]
async fn files_outside_are_closed() {
    let Some(engine) = engine().await else { return };
    let (one, other) = (sandbox(&engine).await, sandbox(&engine).await);
    let folder = tempfile::Builder::new().prefix("open-").tempdir_in("/var/tmp").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let readable = folder.path().join("readable");
    std::fs::write(&readable, "secret").unwrap();
    std::fs::set_permissions(&readable, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let (readable, folder) = (readable.display(), folder.path().display());
    let theirs = out(&*other, USER, "echo mine > f; chmod 777 . .. f; pwd").await;
    assert_eq!(
        out(&*other, USER, &format!("cat {theirs}/f")).await,
        "mine",
        "the control: its own"
    );
    for (what, script) in [
        ("read", format!("open('{readable}').read()")),
        ("write", format!("open('{readable}', 'w')")),
        ("truncate", format!("import os; os.truncate('{readable}', 0)")),
        ("list", format!("import os; os.listdir('{folder}')")),
        (
            "make",
            format!("open('{folder}/new', 'w'); import os; os.unlink('{folder}/new')"),
        ),
        (
            "make a folder",
            format!("import os; os.mkdir('{folder}/d'); os.rmdir('{folder}/d')"),
        ),
        (
            "link",
            format!("import os; os.link('{readable}', '{folder}/l'); os.unlink('{folder}/l')"),
        ),
        (
            "symlink",
            format!("import os; os.symlink('x', '{folder}/s'); os.unlink('{folder}/s')"),
        ),
        (
            "rename",
            format!("import os; os.rename('{readable}', '{folder}/r'); os.rename('{folder}/r', '{readable}')"),
        ),
        (
            "socket",
            format!("import os; os.mknod('{folder}/p', 0o10600); os.unlink('{folder}/p')"),
        ),
    ] {
        outside(&script);
        let said = inside(&*one, &script).await;
        assert!(said.starts_with("PermissionError"), "{what}: {said}");
    }
    for script in [format!("open('{theirs}/f').read()"), format!("open('{theirs}/g', 'w')")] {
        let said = inside(&*one, &script).await;
        assert!(said.starts_with("PermissionError"), "another sandbox's: {said}");
    }
    for path in [
        "/root",
        "/home",
        "/tmp",
        "/etc/shadow",
        "/var/tmp",
        "/dev/shm",
        "/run",
        "/sys/kernel",
        "/dev/mem",
    ] {
        let (code, said) = sh(
            &*one,
            USER,
            &format!("head -c 1 {path} 2>/dev/null >/dev/null || ls {path}/ 2>/dev/null"),
        )
        .await;
        assert_ne!(code, 0, "{path}: {said}");
    }
    assert_eq!(
        out(
            &*one,
            USER,
            "cat /etc/hostname >/dev/null && ls /usr/bin >/dev/null && echo read"
        )
        .await,
        "read"
    );
}

#[tokio::test]
async fn there_is_no_network() {
    let Some(engine) = engine().await else { return };
    let sandbox = sandbox(&engine).await;
    assert_eq!(probe_outside("socket-inet"), 0, "the control");
    assert_eq!(probe_outside("socket-route"), 0, "the control");
    for name in [
        "socket-inet",
        "socket-route",
        "socket-vsock",
        "socket-packet",
        "socket-alg",
        "socket-netfilter",
    ] {
        assert_eq!(probe_inside(&*sandbox, USER, name).await, libc::EAFNOSUPPORT, "{name}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port})); print('in')");
    assert_eq!(outside(&connect), "in");
    assert!(inside(&*sandbox, &connect).await.starts_with("OSError"));
    let datagram = format!("import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port})); print('in')");
    assert_eq!(outside(&datagram), "in");
    assert!(inside(&*sandbox, &datagram).await.starts_with("OSError"));
    // An abstract socket of the host; where it is root's sandbox it has such sockets of its own.
    let name = format!("sandhold-test-{}", std::process::id());
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address.unwrap()).unwrap();
    let connect = format!("import socket; socket.socket(1).connect('\\0{name}'); print('in')");
    assert_eq!(outside(&connect), "in");
    let said = inside(&*sandbox, &connect).await;
    assert!(
        said.starts_with("PermissionError") || said.starts_with("OSError"),
        "{said}"
    );
    let own = "import socket; s = socket.socket(1); s.bind('\\0own'); s.listen(); socket.socket(1).connect('\\0own'); print('in')";
    assert_eq!(outside(own), "in");
    let said = inside(&*sandbox, own).await;
    if is_root() {
        assert_eq!(said, "in");
    } else {
        assert!(said.starts_with("OSError"), "{said}");
    }
    let pair = "import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))";
    assert_eq!(inside(&*sandbox, pair).await, "b'x'");
}

#[tokio::test]
async fn other_processes_are_out_of_reach() {
    if !super::ends::alone() {
        return;
    }
    let Some(engine) = engine().await else { return };
    let (one, other) = (sandbox(&engine).await, sandbox(&engine).await);
    let theirs = out(&*other, USER, "sleep 300 >/dev/null 2>&1 & echo $!").await;
    let mut ours = Command::new("sleep").arg("300").spawn().unwrap();
    let host = ours.id();
    let launcher = launcher_of(std::process::id());
    for (whose, pid) in [
        ("another sandbox's", theirs.parse().unwrap()),
        ("the host's", host),
        ("the launcher", launcher),
    ] {
        for script in [
            format!("import os; os.kill({pid}, 0)"),
            format!("import os; os.kill({pid}, 9)"),
            format!("open('/proc/{pid}/environ').read()"),
            format!("open('/proc/{pid}/mem', 'rb')"),
            format!("import os; os.listdir('/proc/{pid}/fd')"),
            format!("import os; os.sched_setaffinity({pid}, [0])"),
            format!("import resource; resource.prlimit({pid}, resource.RLIMIT_CORE, (0, 0))"),
            format!("import os; os.setpriority(os.PRIO_PROCESS, {pid}, 19)"),
        ] {
            let said = inside(&*one, &script).await;
            assert!(said.starts_with("PermissionError"), "{whose} {script}: {said}");
        }
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{whose} lives");
    }
    outside(&format!(
        "import os; os.kill({host}, 0); open('/proc/{host}/environ').read(); os.listdir('/proc/{host}/fd'); os.sched_setaffinity({host}, [0])"
    ));
    // kill(-1) of a sandbox ends the sandbox at most.
    let (_, said) = sh(&*one, USER, "sleep 300 >/dev/null 2>&1 & kill -0 $! && echo own").await;
    assert_eq!(said.trim(), "own", "the control: its own");
    let _ = run(&*one, USER, &["/bin/sh", "-c", "kill -9 -1"]).await;
    assert_eq!(out(&*other, USER, "echo alive").await, "alive");
    assert!(ours.try_wait().unwrap().is_none(), "the host's lives");
    ours.kill().unwrap();
    ours.wait().unwrap();
    for name in [
        "ptrace",
        "io-uring",
        "keyctl",
        "bpf",
        "userfaultfd",
        "unshare-user",
        "mount",
        "process-vm-readv",
    ] {
        assert_eq!(probe_inside(&*other, USER, name).await, libc::EPERM, "{name}");
    }
}

#[tokio::test]
async fn the_disk_has_an_end() {
    let Some(engine) = engine().await else { return };
    let resources = Resources {
        disk_bytes: Some(8 << 20),
        ..Resources::default()
    };
    let small = sandbox_with(&engine, resources).await;
    let (code, said) = sh(
        &*small,
        USER,
        // What was written of it goes at once: together with the other it is more than the disk, which a look may find.
        "head -c 4000000 /dev/zero > ok && head -c 9000000 /dev/zero > big; code=$?; rm big; exit $code",
    )
    .await;
    assert_ne!(code, 0, "one file: {said}");
    assert_eq!(out(&*small, USER, "stat -c %s ok").await, "4000000");
    let folder = out(&*small, USER, "dirname $PWD").await;
    let _ = run(
        &*small,
        USER,
        &[
            "/bin/sh",
            "-c",
            "for i in 1 2 3; do head -c 7000000 /dev/zero > f$i; done",
        ],
    )
    .await;
    let reason = tokio::time::timeout(std::time::Duration::from_secs(20), small.ended())
        .await
        .expect("it ends");
    assert!(reason.contains("disk of 8388608 bytes"), "{reason}");
    assert!(!std::path::Path::new(&folder).exists(), "{folder}");
}

#[tokio::test]
async fn a_killed_guard_leaves_nothing() {
    if !super::ends::alone() {
        return;
    }
    let Some(engine) = engine().await else { return };
    let (one, other) = (sandbox(&engine).await, sandbox(&engine).await);
    let launcher = launcher_of(std::process::id());
    out(
        &*one,
        USER,
        "setsid sleep 300 >/dev/null 2>&1 & (setsid sh -c 'sleep 300; true' >/dev/null 2>&1 &)",
    )
    .await;
    let marks = descendants(launcher);
    let parent = |pid: u32| -> u32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0)
    };
    let guard = marks
        .iter()
        .copied()
        .find(|pid| parent(*pid) == launcher && descendants(*pid).len() >= 3)
        .expect("the guard of the first");
    let doomed = descendants(guard);
    let pid = rustix::process::Pid::from_raw(guard.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    one.ended().await;
    let alive =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    eventually("its processes", || !doomed.iter().any(alive)).await;
    assert_eq!(out(&*other, USER, "echo alive").await, "alive");
}

/// The suite `ends`, and of `spares` what does not ask for host names or ids, once more on this level.
#[tokio::test]
async fn it_ends_as_the_default_level_does() {
    if std::env::var_os(LEVEL).is_some() || engine().await.is_none() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["suite::ends::", "suite::spares::an_id", "suite::spares::shutdown"])
        .args(["--test-threads", "2"])
        .env(LEVEL, Level::Landlock.name())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{said}");
}
