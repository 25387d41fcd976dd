//! Processes of one sandbox.

mod helper;
mod jobs;
mod process;
mod processes;
mod types;

use std::sync::{Arc, atomic::Ordering};
use std::time::Duration;

use http::Method;
use sandhold_wire::proto::process as proto;
use serde::Deserialize;

use crate::{
    Error,
    envd::{Envd, FrameStream, Streaming},
    limits,
    transport::empty,
};

pub(crate) use helper::{Helper, Printed};
pub use jobs::{AttachedJob, JobSummary, job_tag};
pub use process::Process;
pub use types::{CommandEvent, CommandRequest, CommandSelector, ExitStatus, ProcessSummary, PtySize, SignalKind};
#[cfg(fuzzing)]
pub(crate) use {process::output_in, processes::listed};

/// Processes of one sandbox.
#[derive(Clone)]
pub struct Commands {
    pub(crate) envd: Arc<Envd>,
}

impl Commands {
    /// Starts a process and waits for its start event.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the program or its working folder cannot be used, [`Error::Unauthenticated`] when the
    /// user is unknown, [`Error::RateLimited`] when the sandbox has no room for a process.
    pub async fn start(&self, request: CommandRequest) -> Result<Process, Error> {
        let CommandRequest {
            cmd,
            args,
            envs,
            cwd,
            user,
            tag,
            pty,
            stdin,
            timeout,
        } = request;
        let process = proto::ProcessConfig {
            cmd,
            args,
            envs: envs.into_iter().collect(),
            cwd,
            ..Default::default()
        };
        let message = proto::StartRequest {
            process: Some(process).into(),
            pty: pty.map(Into::into).into(),
            tag,
            // A terminal is its own input; the SDKs leave the field out then.
            stdin: pty.is_none().then_some(stdin),
            ..Default::default()
        };
        let how = Streaming {
            user: user.as_deref(),
            timeout,
            has: None,
        };
        let stream = self.envd.stream("/process.Process/Start", &message, how).await?;
        Process::open(self.envd.clone(), stream).await
    }

    /// Attaches to a running process and tells what it does from now on; within 30 s of its end the end is told.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process.
    pub async fn connect(&self, which: CommandSelector) -> Result<Process, Error> {
        let stream = self.connecting(which, None).await?;
        Process::open(self.envd.clone(), stream).await
    }

    async fn connecting(&self, which: CommandSelector, has: Option<[u64; 2]>) -> Result<FrameStream, Error> {
        let message = proto::ConnectRequest {
            process: Some(which.into()).into(),
            ..Default::default()
        };
        let how = Streaming {
            has,
            ..Streaming::default()
        };
        self.envd.stream("/process.Process/Connect", &message, how).await
    }

    /// The processes that were started by clients and still run.
    ///
    /// # Errors
    /// Those of the connection and of the sandbox.
    pub async fn list(&self) -> Result<Vec<ProcessSummary>, Error> {
        let answer: proto::ListResponse = self
            .envd
            .unary("/process.Process/List", &proto::ListRequest::default(), None)
            .await?;
        Ok(answer.processes.into_iter().map(Into::into).collect())
    }

    /// Writes to the standard input of a process that was started with `stdin`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process; an error of the server when its input is closed.
    pub async fn send_stdin(&self, which: CommandSelector, data: &[u8]) -> Result<(), Error> {
        self.send_input(which, data, proto::process_input::Input::Stdin, limits::REQUEST_TIMEOUT)
            .await
    }

    /// Writes all of `data` to the standard input of a process and closes it. The process may take its time: each piece
    /// may wait for it as long as `within`.
    ///
    /// # Errors
    /// As [`Commands::send_stdin`].
    pub async fn feed(&self, which: CommandSelector, data: &[u8], within: Duration) -> Result<(), Error> {
        self.send_input(which.clone(), data, proto::process_input::Input::Stdin, within)
            .await?;
        self.close_stdin(which).await
    }

    /// Types into the terminal of a process.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process; an error of the server when it has no terminal.
    pub async fn send_pty(&self, which: CommandSelector, data: &[u8]) -> Result<(), Error> {
        self.send_input(which, data, proto::process_input::Input::Pty, limits::REQUEST_TIMEOUT)
            .await
    }

    async fn send_input(
        &self,
        which: CommandSelector,
        data: &[u8],
        kind: fn(Vec<u8>) -> proto::process_input::Input,
        within: Duration,
    ) -> Result<(), Error> {
        let process = proto::ProcessSelector::from(which);
        for chunk in data.chunks(limits::STDIN_CHUNK) {
            let input = proto::ProcessInput {
                input: Some(kind(chunk.to_vec())),
                ..Default::default()
            };
            let message = proto::SendInputRequest {
                process: Some(process.clone()).into(),
                input: Some(input).into(),
                ..Default::default()
            };
            let _: proto::SendInputResponse = self
                .envd
                .unary_within("/process.Process/SendInput", &message, None, within)
                .await?;
        }
        Ok(())
    }

    /// Closes the standard input of a process, which sees its end.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process; an error of the server when it has a terminal instead.
    pub async fn close_stdin(&self, which: CommandSelector) -> Result<(), Error> {
        let message = proto::CloseStdinRequest {
            process: Some(which.into()).into(),
            ..Default::default()
        };
        let _: proto::CloseStdinResponse = self.envd.unary("/process.Process/CloseStdin", &message, None).await?;
        Ok(())
    }

    /// Signals the process group. False if there is no such process.
    ///
    /// # Errors
    /// Those of the connection and of the sandbox.
    pub async fn signal(&self, which: CommandSelector, signal: SignalKind) -> Result<bool, Error> {
        let signal = match signal {
            SignalKind::Term => proto::Signal::SIGNAL_SIGTERM,
            SignalKind::Kill => proto::Signal::SIGNAL_SIGKILL,
        };
        let message = proto::SendSignalRequest {
            process: Some(which.into()).into(),
            signal: signal.into(),
            ..Default::default()
        };
        match self
            .envd
            .unary::<_, proto::SendSignalResponse>("/process.Process/SendSignal", &message, None)
            .await
        {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process.
    pub async fn resize(&self, which: CommandSelector, size: PtySize) -> Result<(), Error> {
        let message = proto::UpdateRequest {
            process: Some(which.into()).into(),
            pty: Some(size.into()).into(),
            ..Default::default()
        };
        let _: proto::UpdateResponse = self.envd.unary("/process.Process/Update", &message, None).await?;
        Ok(())
    }

    /// Whether the process waits for input: it reads from its standard input or terminal, and nothing is there. `None` where
    /// the server cannot tell; Sandhold's can.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process.
    pub async fn awaiting_input(&self, pid: u32) -> Result<Option<bool>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            awaiting_input: Option<bool>,
        }
        if self.envd.no_awaiting.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let request = self
            .envd
            .request(Method::GET, &format!("/sandhold/process?pid={pid}"), empty())?;
        let answer = self.envd.extension::<Answer>(request, limits::ERROR_BODY).await?;
        if answer.is_none() {
            self.envd.no_awaiting.store(true, Ordering::Relaxed);
        }
        Ok(answer.and_then(|answer| answer.awaiting_input))
    }
}

impl From<CommandSelector> for proto::ProcessSelector {
    fn from(which: CommandSelector) -> Self {
        let selector = match which {
            CommandSelector::Pid(pid) => proto::process_selector::Selector::Pid(pid),
            CommandSelector::Tag(tag) => proto::process_selector::Selector::Tag(tag),
        };
        Self {
            selector: Some(selector),
            ..Default::default()
        }
    }
}

impl From<PtySize> for proto::PTY {
    fn from(PtySize { cols, rows }: PtySize) -> Self {
        let size = proto::pty::Size {
            cols,
            rows,
            ..Default::default()
        };
        Self {
            size: Some(size).into(),
            ..Default::default()
        }
    }
}

impl From<proto::ProcessInfo> for ProcessSummary {
    fn from(info: proto::ProcessInfo) -> Self {
        let config = info.config.into_option().unwrap_or_default();
        Self {
            pid: info.pid,
            tag: info.tag,
            cmd: config.cmd,
            args: config.args,
            cwd: config.cwd,
            envs: config.envs.into_iter().collect(),
        }
    }
}
