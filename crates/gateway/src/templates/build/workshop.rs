//! A sandbox that a build works in. It is in no list; when it is dropped it ends.

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use http::{Method, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sandhold_runtime::{Root, Storage, StoredRoot};
use sandhold_wire::{
    caps::{Cap, Caps},
    names::DEFAULT_USER,
};

use super::{super::logs::Level, Building, Failure};
use crate::{
    create::{new_id, start},
    daemon::send,
    entry::{Entry, Recipe, Start},
    error::{Refusal, chain},
    limits::{BUILD_LOG_LINE, BUILD_OWN_TIME, BUILD_TIME},
    process::{self, Command, Output, RunError},
};

/// Which shell runs a script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Shell {
    /// `/bin/bash -l`, as E2B runs the commands of a build.
    #[default]
    Login,
    /// `/bin/sh`.
    Plain,
}

/// A script that is run to its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Task<'a> {
    pub(super) step: &'a str,
    pub(super) script: String,
    pub(super) user: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) envs: BTreeMap<String, String>,
    pub(super) shell: Shell,
    pub(super) within: Duration,
    /// That of the lines it prints.
    pub(super) level: Level,
}

/// The sandbox.
pub(super) struct Workshop {
    pub(super) entry: Entry,
    /// Whether it has one user id, and no root.
    one_user: bool,
}

impl Workshop {
    /// A sandbox of what the build left so far. What steps write is more than memory should hold: it is kept on disk.
    pub(super) async fn open(building: &Building<'_>, step: &str) -> Result<Self, Failure> {
        // Steps get their environment with each command.
        let made = Self::with(building, Start::default(), Storage::Disk).await;
        made.map_err(Failure::at(step))
    }

    /// The same as the template's sandboxes will be.
    pub(super) async fn as_template(building: &Building<'_>, step: &str) -> Result<Self, Failure> {
        let made = Self::with(building, building.start.clone(), Storage::Memory).await;
        made.map_err(Failure::at(step))
    }

    async fn with(building: &Building<'_>, begin: Start, storage: Storage) -> Result<Self, Refusal> {
        let job = building.job;
        let caps = Caps::default()
            .with(Cap::Cpus, job.cpus)
            .with(Cap::MemoryMb, job.memory_mb.map(whole));
        let recipe = Recipe::of_build(&job.sandboxes, job.owner, &job.template, begin, &caps, storage)?;
        let id = new_id()?;
        let runtime = start(&job.sandboxes, &id, &recipe, Root::from(building.root.clone())).await?;
        let entry = Entry::running(id, recipe, runtime, BUILD_TIME);
        entry.open_way_out(&job.sandboxes.config.egress);
        Ok(Self {
            entry,
            one_user: !job.sandboxes.info().can_switch_user,
        })
    }

    /// Who may do anything inside: root, where there is one.
    pub(super) fn root_user(&self) -> Option<String> {
        Some(if self.one_user { DEFAULT_USER } else { "root" }.to_owned())
    }

    /// Runs a script; what it prints goes to the log. Returns what it printed to standard output.
    pub(super) async fn run(&self, building: &Building<'_>, task: Task<'_>) -> Result<String, Failure> {
        let Task { step, level, .. } = task;
        let failed = |message: String| Failure::new(step, message);
        let runtime = self
            .entry
            .runtime()
            .ok_or_else(|| failed("its sandbox has ended".into()))?;
        let command = command(&task);
        let mut lines = Lines::default();
        let mut kept = String::new();
        let token = self.entry.recipe.token.as_deref();
        let ran = process::run(&*runtime, token, &command, task.within, |output, bytes| {
            if output == Output::Stdout && kept.len() < BUILD_LOG_LINE {
                kept.push_str(&String::from_utf8_lossy(bytes));
            }
            lines.add(output, bytes, |line| building.log.line(level, Some(step), line));
        })
        .await;
        lines.finish(|line| building.log.line(level, Some(step), line));
        match ran {
            Ok(ended) if ended.code == 0 => Ok(kept),
            Ok(ended) => {
                let last = lines.last_error.trim();
                let said = if last.is_empty() {
                    String::new()
                } else {
                    format!(": {last}")
                };
                Err(failed(format!("{}{said}", ended.status)))
            }
            Err(RunError::Refused(message)) if message.contains("/bin/") && message.contains("No such file") => {
                Err(failed(format!("{message}: a template needs a shell, /bin/sh")))
            }
            Err(error) => Err(failed(chain(&error))),
        }
    }

    /// Writes a file of the host into the sandbox.
    pub(super) async fn put(&self, step: &str, file: tokio::fs::File, path: &str) -> Result<(), Failure> {
        let failed = |message: String| Failure::new(step, message);
        let runtime = self
            .entry
            .runtime()
            .ok_or_else(|| failed("its sandbox has ended".into()))?;
        let pieces = futures::stream::try_unfold(file, |mut file| async move {
            let mut piece = bytes::BytesMut::with_capacity(256 << 10);
            let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut piece).await?;
            Ok::<_, std::io::Error>((read > 0).then(|| (piece.freeze(), file)))
        });
        let user = self.root_user().unwrap_or_default();
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(format!(
                "/files?path={}&username={user}",
                utf8_percent_encode(path, NON_ALPHANUMERIC)
            ))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::from_stream(pieces))
            .map_err(|error| failed(error.to_string()))?;
        let sending = send(&*runtime, self.entry.recipe.token.as_deref(), request);
        match tokio::time::timeout(BUILD_OWN_TIME, sending).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed(format!(
                "its files cannot be brought into the sandbox: {}",
                chain(&error)
            ))),
            Err(_) => Err(failed("its files were not taken by the sandbox in time".into())),
        }
    }

    /// Ends the sandbox. What it left is a root, if what was done there went well.
    pub(super) async fn close<T>(
        self,
        building: &Building<'_>,
        step: &str,
        done: Result<T, Failure>,
    ) -> Result<(T, StoredRoot), Failure> {
        let kept = match (done, self.entry.runtime()) {
            (Err(failure), _) => Err(failure),
            (Ok(_), None) => Err(Failure::new(step, "its sandbox has ended")),
            (Ok(done), Some(runtime)) => {
                let keeping = async { building.layers.keep(&runtime.checkpoint().await?).await };
                let kept = keeping.await;
                kept.map(|root| (done, root))
                    .map_err(|error| Failure::new(step, format!("what it left cannot be kept: {}", chain(&error))))
            }
        };
        self.end().await;
        kept
    }

    /// Ends the sandbox.
    pub(super) async fn end(self) {
        if let Some(runtime) = self.entry.set_runtime(None) {
            runtime.kill().await;
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "what is beyond 52 bits is refused in any case"
)]
fn whole(mb: u64) -> f64 {
    mb as f64
}

fn command(task: &Task<'_>) -> Command {
    let mut envs = task.envs.clone();
    let (program, args) = match task.shell {
        Shell::Plain => ("/bin/sh", vec!["-c".to_owned(), task.script.clone()]),
        Shell::Login => {
            // The profile of a login shell sets a PATH of its own.
            let script = match envs.get("PATH") {
                Some(path) => {
                    envs.insert("SANDHOLD_PATH".into(), path.clone());
                    format!("PATH=\"$SANDHOLD_PATH:$PATH\"; unset SANDHOLD_PATH\n{}", task.script)
                }
                None => task.script.clone(),
            };
            ("/bin/bash", vec!["-l".to_owned(), "-c".to_owned(), script])
        }
    };
    Command {
        program: program.to_owned(),
        args,
        user: task.user.clone(),
        cwd: task.cwd.clone(),
        envs,
        tag: None,
    }
}

/// Output, taken apart into lines.
#[derive(Default)]
pub(super) struct Lines {
    open: [Vec<u8>; 2],
    last_error: String,
}

impl Lines {
    pub(super) fn add(&mut self, output: Output, bytes: &[u8], mut each: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let which = usize::from(output == Output::Stderr);
            let room = BUILD_LOG_LINE.saturating_sub(self.open[which].len());
            let ended = matches!(piece.last(), Some(b'\n' | b'\r'));
            self.open[which].extend_from_slice(&piece[..piece.len().min(room)]);
            if ended {
                self.line(output, &mut each);
            }
        }
    }

    pub(super) fn finish(&mut self, mut each: impl FnMut(String)) {
        self.line(Output::Stdout, &mut each);
        self.line(Output::Stderr, &mut each);
    }

    fn line(&mut self, output: Output, each: &mut impl FnMut(String)) {
        let which = usize::from(output == Output::Stderr);
        let bytes = std::mem::take(&mut self.open[which]);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        if text.trim().is_empty() {
            return;
        }
        if output == Output::Stderr {
            text.clone_into(&mut self.last_error);
        }
        each(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole() {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        for (output, bytes) in [
            (Output::Stdout, &b"a"[..]),
            (Output::Stderr, b"err\n"),
            (Output::Stdout, b"b\n\n50%\r60%\r\n"),
            (Output::Stderr, b"last"),
        ] {
            lines.add(output, bytes, |line| said.push(line));
        }
        lines.finish(|line| said.push(line));
        assert_eq!(said, ["err", "ab", "50%", "60%", "last"]);
        assert_eq!(lines.last_error, "last");
    }
}
