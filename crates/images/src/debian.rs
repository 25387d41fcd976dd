//! A small Debian as an image of one layer, made by the program mmdebstrap from Debian's packages.

use std::{
    collections::VecDeque,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use sandhold_runtime::Compression;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::{Config, Image, LayerBlob, Platform, Source, image::Origin, layout, limits};

/// The program.
const PROGRAM: &str = "mmdebstrap";

/// What is made.
#[derive(Debug, Clone)]
pub struct Debian {
    /// Debian's release: `stable`, `bookworm`, `trixie`.
    pub suite: String,
    /// Packages besides those that are needed to install packages.
    pub packages: Vec<String>,
    /// Where packages come from: the URL of a mirror. None: what the host's apt uses, or Debian's own.
    pub mirror: Option<String>,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Debian {
    fn default() -> Self {
        Self {
            suite: "stable".to_owned(),
            packages: Vec::new(),
            mirror: None,
            time: limits::DEBIAN_TIME,
        }
    }
}

/// Why there is no Debian.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The program is not installed.
    #[error("the program mmdebstrap is not installed; on Debian and Ubuntu: apt install mmdebstrap")]
    NoProgram,
    /// A suite, package or mirror that cannot be one.
    #[error("{0:?} is not {1}")]
    Name(String, &'static str),
    /// It could not be started, or its result not be read.
    #[error("mmdebstrap could not be run")]
    Io(#[source] std::io::Error),
    /// It failed.
    #[error("mmdebstrap failed ({status}): {log}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// It took longer than it may.
    #[error("mmdebstrap took more than {} s", .0.as_secs())]
    Timeout(Duration),
    /// Somebody stopped it.
    #[error("mmdebstrap was stopped")]
    Cancelled,
}

/// Finds the program in one of these folders.
#[must_use]
pub fn find(folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(PROGRAM))
        .find(|path| path.is_file())
}

/// The release of this machine, if it is a Debian, by the text of `/etc/os-release`; else `stable`.
#[must_use]
pub fn suite_of(os_release: &str) -> String {
    let value = |name: &str| {
        let line = os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
    };
    let codename = value("VERSION_CODENAME").filter(|name| is_suite(name));
    match value("ID").as_deref() {
        Some("debian") => codename.unwrap_or_else(|| "stable".to_owned()),
        _ => "stable".to_owned(),
    }
}

/// Makes a root, writes it as a tar to `into`, a path that is replaced, and gives it as an image. `log` gets the program's
/// lines. Dropping the future ends the program at once; with `cancel` it may clear up first.
///
/// # Errors
/// See [`DebianError`]. The file is removed then.
pub async fn build(
    program: &Path,
    debian: &Debian,
    into: &Path,
    log: &(dyn Fn(&str) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Image, DebianError> {
    check(debian)?;
    let made = run(program, debian, into, log, cancel).await;
    let image = match made {
        Ok(()) => image(debian, into).await,
        Err(error) => Err(error),
    };
    if image.is_err() {
        // It may not even be there.
        let _ = std::fs::remove_file(into);
    }
    image
}

fn check(debian: &Debian) -> Result<(), DebianError> {
    let bad = |text: &str, what| Err(DebianError::Name(text.chars().take(limits::LINE_CHARS).collect(), what));
    if !is_suite(&debian.suite) {
        return bad(&debian.suite, "a release of Debian, such as stable or bookworm");
    }
    if debian.packages.len() > limits::DEBIAN_PACKAGES {
        return bad(
            &debian.packages.len().to_string(),
            "a number of packages that may be asked for: 500 at most",
        );
    }
    if let Some(package) = debian.packages.iter().find(|name| !is_package(name)) {
        return bad(package, "the name of a Debian package");
    }
    if let Some(mirror) = &debian.mirror {
        let rest = mirror
            .strip_prefix("https://")
            .or_else(|| mirror.strip_prefix("http://"));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:%+@[]".contains(&b);
        if !rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain)) {
            return bad(mirror, "the URL of a mirror, such as https://deb.debian.org/debian");
        }
    }
    Ok(())
}

fn is_suite(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(plain)
}

/// Debian's policy, 5.6.1: two characters or more of lower-case letters, digits, `+`, `-` and `.`.
fn is_package(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    // apt takes a plus or minus at the end for a wish to install or remove, where there is no package of the name.
    first && (2..=128).contains(&text.len()) && text.bytes().all(plain) && !text.ends_with('-')
}

/// A process group that ends with this.
struct Group {
    child: Child,
    group: Option<Pid>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // Until it is waited for, nobody else has its number.
        if let (Some(group), Some(_)) = (self.group, self.child.id()) {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn run(
    program: &Path,
    debian: &Debian,
    into: &Path,
    log: &(dyn Fn(&str) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<(), DebianError> {
    let output = File::create(into).map_err(DebianError::Io)?;
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new(program);
    command
        .arg("--variant=apt")
        .arg(if root { "--mode=root" } else { "--mode=unshare" })
        .arg("--format=tar")
        // A sandbox has devices of its own.
        .arg("--skip=output/dev");
    if !debian.packages.is_empty() {
        command.arg(format!("--include={}", debian.packages.join(",")));
    }
    command.arg("--").arg(&debian.suite).arg("-");
    command.args(&debian.mirror);
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DebianError::NoProgram,
            _ => DebianError::Io(error),
        })?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut group = Group { child, group };
    let mut last = VecDeque::new();
    let ended = tokio::select! {
        ended = follow(&mut group.child, log, &mut last) => ended.map_err(DebianError::Io).and_then(|status| {
            if status.success() {
                return Ok(());
            }
            let log = last.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
            Err(DebianError::Failed { status, log })
        }),
        () = tokio::time::sleep(debian.time) => Err(DebianError::Timeout(debian.time)),
        () = cancel.cancelled() => Err(DebianError::Cancelled),
    };
    if matches!(ended, Err(DebianError::Timeout(_) | DebianError::Cancelled)) {
        group.signal(Signal::TERM);
        let _ = tokio::time::timeout(limits::DEBIAN_STOP_TIME, group.child.wait()).await;
    }
    ended
}

/// Passes the log on until the program is done.
async fn follow(
    child: &mut Child,
    log: &(dyn Fn(&str) + Send + Sync),
    last: &mut VecDeque<String>,
) -> std::io::Result<ExitStatus> {
    let stderr = child.stderr.take();
    if let Some(stderr) = stderr {
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            let part = lines.fill_buf().await?;
            if part.is_empty() {
                break;
            }
            let (used, end) = match part.iter().position(|b| matches!(b, b'\n' | b'\r')) {
                Some(at) => (at + 1, true),
                None => (part.len(), false),
            };
            let room = limits::LOG_LINE_BYTES.saturating_sub(line.len());
            line.extend_from_slice(&part[..(used - usize::from(end)).min(room)]);
            lines.consume(used);
            if end {
                tell(&line, log, last);
                line.clear();
            }
        }
        tell(&line, log, last);
    }
    child.wait().await
}

fn tell(line: &[u8], log: &(dyn Fn(&str) + Send + Sync), last: &mut VecDeque<String>) {
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    log(line);
    if last.len() == limits::LOG_LINES_TOLD {
        last.pop_front();
    }
    last.push_back(line.chars().take(limits::TOLD_CHARS).collect());
}

async fn image(debian: &Debian, path: &Path) -> Result<Image, DebianError> {
    let file = File::open(path).map_err(DebianError::Io)?;
    let (place, digest, size) = layout::digest_of(file, &path.display().to_string())
        .await
        .map_err(|error| DebianError::Io(std::io::Error::other(error)))?;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Ok(Image {
        source: Source::Debian {
            suite: debian.suite.clone(),
        },
        digest,
        id: digest,
        platform: Platform::host(),
        config: Config {
            env: vec![("PATH".to_owned(), path.to_owned())],
            cmd: vec!["bash".to_owned()],
            ..Config::default()
        },
        layers: vec![LayerBlob {
            digest,
            diff_id: digest,
            size,
            compression: Compression::None,
            foreign: false,
            at: 0,
        }],
        origin: Origin::Local(place),
    })
}

#[cfg(test)]
mod tests;
