//! Packing and unpacking by a helper in Python, where the server has none of its own. It keeps the same rules and speaks the
//! same lines.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::{ArchiveWork, UnzipRequest, ZipRequest, events};
use crate::{
    CommandEvent, CommandRequest, CommandSelector, Commands, Error, Files, Process, SignalKind, files::under_home,
    limits,
};

/// What runs: `zip SRC DEST LEAVE_OUT` or `unzip ARCHIVE DEST`.
const SCRIPT: &str = include_str!("helper.py");
/// Exit code when there is no Python.
const NO_PYTHON: i32 = 45;
/// The script is `$0`: what a caller gave is never part of a script's text.
const RUN: &str = r#"command -v python3 >/dev/null 2>&1 || exit 45
exec python3 -I -u -c "$0" "$@""#;

impl Files {
    pub(super) async fn zip_by_command(&self, request: &ZipRequest) -> Result<ArchiveWork, Error> {
        let flag = if request.leave_out { "1" } else { "0" }.to_owned();
        let args = [
            "zip".to_owned(),
            under_home(&request.src),
            under_home(&request.dest),
            flag,
        ];
        self.help_with_archive(args.into(), request.user.as_deref()).await
    }

    pub(super) async fn unzip_by_command(&self, request: &UnzipRequest) -> Result<ArchiveWork, Error> {
        let args = [
            "unzip".to_owned(),
            under_home(&request.archive),
            under_home(&request.dest),
        ];
        self.help_with_archive(args.into(), request.user.as_deref()).await
    }

    async fn help_with_archive(&self, args: Vec<String>, user: Option<&str>) -> Result<ArchiveWork, Error> {
        let commands = Commands {
            envd: self.envd.clone(),
        };
        let request = CommandRequest {
            cmd: "/bin/sh".into(),
            args: ["-c".into(), RUN.into(), SCRIPT.into()]
                .into_iter()
                .chain(args)
                .collect(),
            cwd: Some("~".into()),
            user: user.map(str::to_owned),
            timeout: Some(limits::ARCHIVE_TIMEOUT),
            ..CommandRequest::default()
        };
        let process = commands.start(request).await?;
        let helper = Helper {
            end: KillOnDrop {
                pid: Some(process.pid()),
                commands,
            },
            process,
            stderr: Vec::new(),
        };
        let pieces = futures::stream::unfold(Some(helper), |helper| async move {
            let mut helper = helper?;
            let piece = helper.piece().await;
            match piece {
                Some(Ok(piece)) => Some((Ok(piece), Some(helper))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        });
        Ok(ArchiveWork {
            events: events(pieces.boxed(), self.envd.id.clone()),
        })
    }
}

struct Helper {
    process: Process,
    end: KillOnDrop,
    stderr: Vec<u8>,
}

impl Helper {
    /// What it printed next; an error or nothing at its end.
    async fn piece(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            match self.process.next().await? {
                Ok(CommandEvent::Stdout(piece)) => return Some(Ok(piece)),
                Ok(CommandEvent::Stderr(piece)) => {
                    let room = limits::HELPER_STDERR.saturating_sub(self.stderr.len());
                    self.stderr.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                Ok(CommandEvent::Pty(_)) => {}
                Ok(CommandEvent::Exited(exit)) => {
                    self.end.pid = None;
                    let stderr = String::from_utf8_lossy(&self.stderr);
                    let last = stderr.trim().lines().next_back().unwrap_or_default().to_owned();
                    return match exit.exit_code {
                        0 => None,
                        NO_PYTHON => Some(Err(Error::Unsupported(
                            "this sandbox's daemon knows no archives, and there is no python3 to stand in for it"
                                .into(),
                        ))),
                        code => Some(Err(Error::Server {
                            status: 500,
                            message: format!("the helper for archives ended with exit code {code}: {last}"),
                        })),
                    };
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Ends the helper of work that nobody waits for any more.
struct KillOnDrop {
    commands: Commands,
    pid: Option<u32>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let (Some(pid), Ok(runtime)) = (self.pid.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let commands = self.commands.clone();
        runtime.spawn(async move {
            // TERM first: it removes the half archive.
            for signal in [SignalKind::Term, SignalKind::Kill] {
                match commands.signal(CommandSelector::Pid(pid), signal).await {
                    Ok(true) => tokio::time::sleep(Duration::from_secs(1)).await,
                    _ => return,
                }
            }
        });
    }
}
