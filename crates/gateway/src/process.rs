//! Processes that the gateway itself runs in a sandbox, through its daemon.

use std::{collections::BTreeMap, time::Duration};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Method, Request, header};
use sandhold_runtime::Sandbox;
use sandhold_wire::{names::CONNECT_TIMEOUT_HEADER, proto::process as proto};
use serde::Deserialize;

use crate::{
    daemon::{Answer, DaemonError, send},
    limits::{COMMAND_GRACE, COMMAND_MESSAGE},
};

/// What to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Command {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// `None`: the sandbox's default.
    pub(crate) user: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) envs: BTreeMap<String, String>,
    pub(crate) tag: Option<String>,
}

/// What a process prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// `exit status 1`, `signal: killed`.
    pub(crate) status: String,
}

/// Why a process did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The daemon did not start it, or lost it.
    #[error("{0}")]
    Refused(String),
    #[error("it did not end within {} s", .0.as_secs())]
    Time(Duration),
}

/// A process that was started.
pub(crate) struct Running {
    answer: Answer,
    frames: BytesMut,
}

enum Event {
    Started,
    Printed(Output, Bytes),
    Ended(Ended),
    Nothing,
}

impl Running {
    /// Starts a process, which is killed after `within` if that is said.
    pub(crate) async fn start(
        sandbox: &dyn Sandbox,
        token: Option<&str>,
        command: &Command,
        within: Option<Duration>,
    ) -> Result<Self, RunError> {
        let answer = send(sandbox, token, request(command, within)?).await?;
        let mut running = Self {
            answer,
            frames: BytesMut::new(),
        };
        loop {
            match running.event().await? {
                Event::Started => return Ok(running),
                Event::Nothing => {}
                Event::Printed(..) | Event::Ended(_) => {
                    return Err(RunError::Refused("its daemon does not say that it started".into()));
                }
            }
        }
    }

    /// Waits for its end; `each` is told what it prints.
    pub(crate) async fn ended(&mut self, mut each: impl FnMut(Output, &[u8])) -> Result<Ended, RunError> {
        loop {
            match self.event().await? {
                Event::Printed(output, bytes) => each(output, &bytes),
                Event::Ended(ended) => return Ok(ended),
                Event::Started | Event::Nothing => {}
            }
        }
    }

    async fn event(&mut self) -> Result<Event, RunError> {
        loop {
            if let Some((flags, message)) = frame(&mut self.frames)? {
                return event(flags, &message);
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.frames.extend_from_slice(&chunk),
                None => return Err(RunError::Refused("the stream of its output ended before it did".into())),
            }
        }
    }
}

/// Runs a process to its end, at most for `within`.
pub(crate) async fn run(
    sandbox: &dyn Sandbox,
    token: Option<&str>,
    command: &Command,
    within: Duration,
    each: impl FnMut(Output, &[u8]),
) -> Result<Ended, RunError> {
    let running = async {
        let mut running = Running::start(sandbox, token, command, Some(within)).await?;
        running.ended(each).await
    };
    // The daemon ends it in time; where it does not, nobody waits for it.
    let ended = tokio::time::timeout(within + COMMAND_GRACE, running).await;
    match ended {
        Ok(Err(RunError::Refused(message))) if message.starts_with("deadline_exceeded") => Err(RunError::Time(within)),
        Ok(ended) => ended,
        Err(_) => Err(RunError::Time(within)),
    }
}

fn request(command: &Command, within: Option<Duration>) -> Result<Request<Body>, RunError> {
    let config = proto::ProcessConfig {
        cmd: command.program.clone(),
        args: command.args.clone(),
        envs: command.envs.clone().into_iter().collect(),
        cwd: command.cwd.clone(),
        ..Default::default()
    };
    let message = proto::StartRequest {
        process: Some(config).into(),
        tag: command.tag.clone(),
        stdin: Some(false),
        ..Default::default()
    };
    let message = serde_json::to_vec(&message).map_err(|error| RunError::Refused(error.to_string()))?;
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/process.Process/Start")
        .header(header::CONTENT_TYPE, "application/connect+json")
        .header("connect-protocol-version", "1");
    if let Some(user) = &command.user {
        let name = STANDARD.encode(format!("{user}:"));
        request = request.header(header::AUTHORIZATION, format!("Basic {name}"));
    }
    if let Some(within) = within {
        request = request.header(CONNECT_TIMEOUT_HEADER, within.as_millis().to_string());
    }
    Ok(request.body(Body::from(body.freeze())).map_err(DaemonError::Request)?)
}

/// The next message, if it is there as a whole. What a daemon says is not trusted.
fn frame(frames: &mut BytesMut) -> Result<Option<(u8, Bytes)>, RunError> {
    let Some((head, rest)) = frames.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let [flags, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > COMMAND_MESSAGE {
        return Err(RunError::Refused(format!(
            "its daemon sent a message of {length} bytes"
        )));
    }
    if rest.len() < length {
        return Ok(None);
    }
    frames.advance(5);
    Ok(Some((flags, frames.split_to(length).freeze())))
}

fn event(flags: u8, message: &[u8]) -> Result<Event, RunError> {
    #[derive(Deserialize)]
    struct End {
        error: Option<Refusal>,
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
        #[serde(default)]
        message: String,
    }
    let unknown = || RunError::Refused("its daemon sent something that is not understood".into());
    if flags & 2 != 0 {
        let end: End = serde_json::from_slice(message).map_err(|_| unknown())?;
        let text = match end.error {
            Some(error) if error.code == "deadline_exceeded" => format!("{}: {}", error.code, error.message),
            Some(error) => error.message,
            None => "its daemon does not say how it ended".into(),
        };
        return Err(RunError::Refused(text));
    }
    if flags != 0 {
        return Err(unknown());
    }
    let response: proto::StartResponse = serde_json::from_slice(message).map_err(|_| unknown())?;
    let event = Option::<proto::ProcessEvent>::from(response.event).and_then(|event| event.event);
    Ok(match event {
        Some(proto::process_event::Event::Start(_)) => Event::Started,
        Some(proto::process_event::Event::Data(data)) => match data.output {
            Some(proto::process_event::data_event::Output::Stdout(bytes)) => {
                Event::Printed(Output::Stdout, bytes.into())
            }
            Some(proto::process_event::data_event::Output::Stderr(bytes)) => {
                Event::Printed(Output::Stderr, bytes.into())
            }
            _ => Event::Nothing,
        },
        Some(proto::process_event::Event::End(end)) => Event::Ended(Ended {
            code: end.exit_code,
            status: end.status,
        }),
        _ => Event::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_the_stream() {
        let mut stream = BytesMut::new();
        stream.extend_from_slice(&[0, 0, 0, 0, 2, b'{']);
        assert!(frame(&mut stream).unwrap().is_none());
        stream.extend_from_slice(b"}\x02");
        assert_eq!(frame(&mut stream).unwrap().unwrap(), (0, Bytes::from_static(b"{}")));
        assert!(frame(&mut stream).unwrap().is_none());
        stream.extend_from_slice(&[0xff; 4]);
        assert!(frame(&mut stream).is_err());
    }

    #[test]
    fn events() {
        let of = |text: &str| event(0, text.as_bytes());
        assert!(matches!(of(r#"{"event":{"start":{"pid":3}}}"#), Ok(Event::Started)));
        let printed = of(r#"{"event":{"data":{"stderr":"aGk="}}}"#);
        assert!(matches!(printed, Ok(Event::Printed(Output::Stderr, bytes)) if &bytes[..] == b"hi"));
        let ended = of(r#"{"event":{"end":{"exitCode":3,"exited":true,"status":"exit status 3"}}}"#);
        assert!(matches!(ended, Ok(Event::Ended(Ended { code: 3, .. }))));
        assert!(matches!(of(r#"{"event":{"keepalive":{}}}"#), Ok(Event::Nothing)));
        assert!(of("nonsense").is_err() && event(1, b"{}").is_err());
        let refused = event(
            2,
            br#"{"error":{"code":"invalid_argument","message":"no such program"}}"#,
        );
        assert!(matches!(refused, Err(RunError::Refused(message)) if message == "no such program"));
    }
}
