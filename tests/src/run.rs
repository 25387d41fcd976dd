//! Runs a program to its end, with a deadline that also reaches what it started.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Its standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Ended {
    /// The exit code as a shell tells it: 128 and the signal where one ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

/// Runs `command` with `input` on its standard input. After `limit` its whole process group is killed.
///
/// # Errors
/// It could not be started, or it ran into the limit; the error then holds what it had printed.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Ended> {
    // Files, not pipes: a process that outlives its parent cannot hold the reader.
    let (mut stdout, mut stderr, mut stdin) = (tempfile::tempfile()?, tempfile::tempfile()?, tempfile::tempfile()?);
    stdin.write_all(input)?;
    stdin.seek(SeekFrom::Start(0))?;
    let started = Instant::now();
    let mut child = command
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let status = wait(&mut child, limit)?;
    let took = started.elapsed();
    let (stdout, stderr) = (text(&mut stdout)?, text(&mut stderr)?);
    match status {
        Some(status) => Ok(Ended {
            status,
            stdout,
            stderr,
            took,
        }),
        None => bail!("{command:?} did not end within {limit:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"),
    }
}

/// Waits for the end of `child`; `None`, after a SIGKILL to its process group, when `limit` passed first.
///
/// # Errors
/// The system call failed.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            kill_group(child);
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends SIGKILL to the process group that `child` leads.
pub fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// No standard streams of this test's own.
pub fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_reaches_the_whole_group() {
        let _children = crate::CHILDREN.lock();
        let started = Instant::now();
        let error = run(
            Command::new("sh").args(["-c", "echo begun; sleep 60 & wait"]),
            b"",
            Duration::from_millis(200),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.contains("did not end") && text.contains("begun"), "{text}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn ends_are_told_as_a_shell_tells_them() {
        let _children = crate::CHILDREN.lock();
        let ended = run(
            Command::new("sh").args(["-c", "cat; exit 3"]),
            b"in",
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!((ended.code(), ended.stdout.as_str()), (3, "in"));
        let ended = run(
            Command::new("sh").args(["-c", "kill -9 $$"]),
            b"",
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(ended.code(), 137);
    }
}
