//! The bare host, bubblewrap and runc: a new process, a new sandbox each, up to the first byte of output.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

/// What every sandbox runs.
pub(crate) const ECHO: [&str; 2] = ["/usr/bin/echo", "hi"];
/// Where Debian puts programs, some of them outside an ordinary user's PATH.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];
/// The folders at the root that are links into `/usr` on a merged system.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// A program of the system, if it is installed.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

/// Spawn to first byte; the end of the program is waited for, and not counted.
pub(crate) fn first_output(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("no standard output")?;
    let mut byte = [0];
    let read = stdout.read(&mut byte)?;
    let took = began.elapsed();
    let ended = child.wait_with_output()?;
    ensure!(
        read == 1 && ended.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(took)
}

/// Spawn to end.
pub(crate) fn whole(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// `echo` on the host.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(ECHO[0]);
    command.args(&ECHO[1..]);
    command
}

/// bubblewrap with the same root: the host's `/usr` read-only, everything unshared.
pub(crate) fn bwrap(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args([
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
    ]);
    command.args([
        "--tmpfs",
        "/home",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]);
    for name in MERGED {
        if Path::new("/").join(name).is_symlink() {
            command.args(["--symlink", &format!("usr/{name}"), &format!("/{name}")]);
        }
    }
    command.args(ECHO);
    command
}

/// A bundle for runc with the same root.
pub(crate) struct Bundle {
    folder: tempfile::TempDir,
    program: PathBuf,
    next: u32,
}

impl Bundle {
    /// Writes the bundle.
    pub(crate) fn new(program: PathBuf) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("root");
        for name in ["usr", "proc", "dev", "tmp", "home", "sys", "etc"] {
            fs::create_dir_all(root.join(name))?;
        }
        for name in MERGED {
            if Path::new("/").join(name).is_symlink() {
                std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
            }
        }
        let tmpfs = |at: &str, more: &[&str]| {
            let options = [&["nosuid", "mode=755"], more].concat();
            json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": options})
        };
        let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ECHO, "env": ["PATH=/usr/bin:/bin"], "cwd": "/",
                "capabilities": {}, "noNewPrivileges": true
            },
            "root": {"path": root, "readonly": false},
            "hostname": "runc",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                tmpfs("/dev", &[]), tmpfs("/tmp", &["nodev"]), tmpfs("/home", &["nodev"]),
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"]}
            ],
            "linux": {"namespaces": namespaces}
        });
        fs::write(folder.path().join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(Self {
            folder,
            program,
            next: 0,
        })
    }

    /// One container, its name new each time.
    pub(crate) fn command(&mut self) -> Command {
        self.next += 1;
        let mut command = Command::new(&self.program);
        command.args(["run", "--bundle"]).arg(self.folder.path());
        command.arg(format!("sandhold-bench-{}-{}", std::process::id(), self.next));
        command
    }
}
