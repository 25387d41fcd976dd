//! Shell scripts that stand in for what a server cannot do itself.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{CommandEvent, CommandRequest, CommandSelector, Commands, ExitStatus, SignalKind};
use crate::{Error, limits};

/// A script for `/bin/sh` with its arguments: `$1`, `$2`, …; what the user gave is never part of the script's text.
pub(crate) struct Helper<'a> {
    pub(crate) script: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) user: Option<&'a str>,
    /// What it reads. The script must know the length: its standard input is not closed.
    pub(crate) input: Bytes,
    pub(crate) timeout: Duration,
    /// It is ended once it has printed more than this.
    pub(crate) max_stdout: usize,
}

/// What a script printed and how it ended.
pub(crate) struct Printed {
    pub(crate) stdout: Bytes,
    pub(crate) stderr: String,
    /// Whether it was ended because it printed too much.
    pub(crate) cut: bool,
    pub(crate) exit_code: i32,
}

impl Commands {
    /// Runs a script in the home of the user.
    pub(crate) async fn help(&self, helper: Helper<'_>) -> Result<Printed, Error> {
        let Helper {
            script,
            args,
            user,
            input,
            timeout,
            max_stdout,
        } = helper;
        let request = CommandRequest {
            cmd: "/bin/sh".into(),
            args: ["-c".into(), script.into(), "sh".into()]
                .into_iter()
                .chain(args)
                .collect(),
            cwd: Some("~".into()),
            user: user.map(str::to_owned),
            stdin: !input.is_empty(),
            timeout: Some(timeout),
            ..CommandRequest::default()
        };
        let mut process = self.start(request).await?;
        let which = CommandSelector::Pid(process.pid());
        // A script that ends early makes the write fail; what it printed then says more than the write's error.
        let written = self.send_stdin(which.clone(), &input).await;
        let mut stdout = BytesMut::new();
        let mut stderr = Vec::new();
        let mut cut = false;
        let exit: ExitStatus = loop {
            match process.next().await {
                Some(Ok(CommandEvent::Stdout(bytes))) => {
                    stdout.extend_from_slice(&bytes);
                    if stdout.len() > max_stdout {
                        stdout.truncate(max_stdout);
                        cut = true;
                        self.signal(which, SignalKind::Kill).await?;
                        break ExitStatus {
                            exit_code: -1,
                            exited: false,
                            status: "signal: killed".into(),
                            error: None,
                        };
                    }
                }
                Some(Ok(CommandEvent::Stderr(bytes))) => {
                    let room = limits::HELPER_STDERR.saturating_sub(stderr.len());
                    stderr.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Some(Ok(CommandEvent::Pty(_))) => {}
                Some(Ok(CommandEvent::Exited(exit))) => break exit,
                Some(Err(error)) => return Err(error),
                None => return Err(Error::Protocol("a helper command did not tell how it ended".into())),
            }
        };
        if exit.exit_code == 0 {
            written?;
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        Ok(Printed {
            stdout: stdout.freeze(),
            stderr,
            cut,
            exit_code: exit.exit_code,
        })
    }
}
