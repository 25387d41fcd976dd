//! A process and the stream of its events.

use std::sync::Arc;

use buffa::HasMessageView;
use bytes::Bytes;
use sandhold_wire::proto::process::{
    StartResponse,
    process_event::{
        Event, EventView,
        data_event::{Output, OutputView},
    },
};

use super::{CommandEvent, ExitStatus};
use crate::{
    Error, answer,
    envd::{Broken, Envd, FrameStream},
    limits,
    transport::Codec,
};

/// A process with its events. Dropping it leaves the process running.
pub struct Process {
    pid: u32,
    envd: Arc<Envd>,
    stream: FrameStream,
    /// How the stream broke, until that is told: finding out more takes time, and the caller may stop waiting meanwhile.
    broken: Option<Broken>,
    ended: bool,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What one message says.
enum Told {
    Started(u32),
    Event(CommandEvent),
    /// A keepalive, or something newer than this client.
    Nothing,
}

impl Process {
    /// Waits for the start event, which comes first.
    pub(super) async fn open(envd: Arc<Envd>, stream: FrameStream) -> Result<Self, Error> {
        let mut process = Self {
            pid: 0,
            envd,
            stream,
            broken: None,
            ended: false,
        };
        let first = tokio::time::timeout(limits::REQUEST_TIMEOUT, process.told()).await;
        match first {
            Ok(Some(Ok(Told::Started(pid)))) => {
                process.pid = pid;
                Ok(process)
            }
            Ok(Some(Err(error))) => Err(error),
            Ok(_) => Err(Error::Protocol(format!(
                "{} did not begin with its start event",
                process.stream.path
            ))),
            Err(_) => {
                let wait = limits::REQUEST_TIMEOUT;
                Err(Error::Timeout(format!(
                    "sandbox {} did not start the process within {wait:?}",
                    process.envd.id
                )))
            }
        }
    }

    /// Its id inside the sandbox.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next event; `None` after `Exited`. A stream that breaks is an error. Keepalives are swallowed. Cancelling it loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Result<CommandEvent, Error>> {
        loop {
            match self.told().await? {
                Ok(Told::Event(event)) => return Some(Ok(event)),
                Ok(Told::Started(_) | Told::Nothing) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    async fn told(&mut self) -> Option<Result<Told, Error>> {
        if self.ended {
            return None;
        }
        if self.broken.is_none() {
            match self.stream.next().await {
                Some(Ok(message)) => {
                    let told = read(self.stream.codec, &message, self.stream.path);
                    self.ended = matches!(told, Ok(Told::Event(CommandEvent::Exited(_))) | Err(_));
                    return Some(told);
                }
                Some(Err(broken)) => self.broken = Some(broken),
                None => self.broken = Some(Broken::Lost("the stream ended without the end of the process".into())),
            }
        }
        let id = &self.envd.id;
        let error = match self.broken.as_mut()? {
            Broken::Refused(code, message) => answer::of_code(*code, message.clone(), id),
            Broken::Lost(source) => {
                let source = std::mem::replace(source, "the stream is broken".into());
                Err(Error::Transport {
                    what: format!("the connection to process {} of sandbox {id} broke", self.pid),
                    source,
                })
            }
            Broken::Malformed(text) => Ok(Error::Protocol(text.clone())),
        };
        let error = self.envd.settle(error).await;
        self.broken = None;
        self.ended = true;
        Some(Err(error))
    }
}

/// For the fuzzer: reads a message; the bytes of output in it, `None` if it cannot be read.
#[cfg(fuzzing)]
pub(crate) fn output_in(codec: Codec, message: &Bytes) -> Option<usize> {
    Some(match read(codec, message, "").ok()? {
        Told::Event(CommandEvent::Stdout(bytes) | CommandEvent::Stderr(bytes) | CommandEvent::Pty(bytes)) => {
            bytes.len()
        }
        _ => 0,
    })
}

/// Reads a message. `Start` and `Connect` answer with the same shape.
fn read(codec: Codec, message: &Bytes, path: &str) -> Result<Told, Error> {
    match codec {
        Codec::Binary => {
            let view = StartResponse::decode_view(message)
                .map_err(|error| Error::Protocol(format!("a message of {path} cannot be read: {error}")))?;
            // The output is a part of the message and stays in its buffer.
            let part = |bytes: &[u8]| message.slice_ref(bytes);
            Ok(match view.event.as_option().and_then(|event| event.event.as_ref()) {
                Some(EventView::Start(start)) => Told::Started(start.pid),
                Some(EventView::Data(data)) => match data.output {
                    Some(OutputView::Stdout(bytes)) => Told::Event(CommandEvent::Stdout(part(bytes))),
                    Some(OutputView::Stderr(bytes)) => Told::Event(CommandEvent::Stderr(part(bytes))),
                    Some(OutputView::Pty(bytes)) => Told::Event(CommandEvent::Pty(part(bytes))),
                    None => Told::Nothing,
                },
                Some(EventView::End(end)) => Told::Event(CommandEvent::Exited(ExitStatus {
                    exit_code: end.exit_code,
                    exited: end.exited,
                    status: end.status.to_owned(),
                    error: end.error.map(str::to_owned),
                })),
                Some(EventView::Keepalive(_)) | None => Told::Nothing,
            })
        }
        Codec::Json => {
            let owned: StartResponse = serde_json::from_slice(message)
                .map_err(|error| Error::Protocol(format!("a message of {path} cannot be read: {error}")))?;
            Ok(match owned.event.into_option().and_then(|event| event.event) {
                Some(Event::Start(start)) => Told::Started(start.pid),
                Some(Event::Data(data)) => match data.output {
                    Some(Output::Stdout(bytes)) => Told::Event(CommandEvent::Stdout(bytes.into())),
                    Some(Output::Stderr(bytes)) => Told::Event(CommandEvent::Stderr(bytes.into())),
                    Some(Output::Pty(bytes)) => Told::Event(CommandEvent::Pty(bytes.into())),
                    None => Told::Nothing,
                },
                Some(Event::End(end)) => Told::Event(CommandEvent::Exited(ExitStatus {
                    exit_code: end.exit_code,
                    exited: end.exited,
                    status: end.status,
                    error: end.error,
                })),
                Some(Event::Keepalive(_)) | None => Told::Nothing,
            })
        }
    }
}
