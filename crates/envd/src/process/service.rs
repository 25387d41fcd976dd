//! The RPCs of `process.Process`.

use std::sync::Arc;

use connectrpc::{ConnectError, InboundStream, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::StreamExt;
use http::HeaderName;
use rustix::process::Signal;
use sandhold_wire::names;
use sandhold_wire::proto::process::{
    CloseStdinRequest, CloseStdinResponse, ConnectRequest, ListRequest, ListResponse, PTY, Process as Rpc, ProcessInfo,
    ProcessInput, SendInputRequest, SendInputResponse, SendSignalRequest, SendSignalResponse, Signal as WireSignal,
    StartRequest, StreamInputRequest, StreamInputResponse, UpdateRequest, UpdateResponse, process_input::Input,
    stream_input_request::Event as InputEvent,
};

use super::event::Event;
use super::input::{InputError, write_all};
use super::start::start;
use super::stdio::winsize;
use super::stream::EventStream;
use super::table::Found;
use super::{Io, Process};
use crate::auth;
use crate::state::State;

/// The service.
pub(crate) struct Service(Arc<State>);

impl Service {
    /// The service over `state`.
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self(state)
    }
}

type Events = ServiceStream<Event>;

const REPLAY_HEADER: HeaderName = HeaderName::from_static(names::REPLAY_HEADER);

/// Proxies that gather an answer before they pass it on would hold a stream back.
const NO_BUFFERING: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

fn events(stream: EventStream) -> ServiceResult<Events> {
    let (name, value) = NO_BUFFERING;
    let stream: Events = Box::pin(stream);
    Ok(Response::new(stream).with_header(name, value))
}

impl Rpc for Service {
    async fn list(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, ListRequest>,
    ) -> ServiceResult<ListResponse> {
        let info = |p: Arc<Process>| ProcessInfo {
            config: p.config.clone().into(),
            pid: p.pid,
            tag: p.tag.clone(),
            ..ProcessInfo::default()
        };
        let processes = self.0.processes.running().into_iter().map(info).collect();
        Response::ok(ListResponse {
            processes,
            ..ListResponse::default()
        })
    }

    async fn connect(&self, ctx: RequestContext, request: ServiceRequest<'_, ConnectRequest>) -> ServiceResult<Events> {
        let request = request.to_owned_message();
        let has = ctx
            .headers()
            .get(REPLAY_HEADER)
            .and_then(|v| names::parse_replay(v.to_str().ok()?));
        let (stream, starts) = match self.0.processes.find(request.process.selector.as_ref())? {
            Found::Running(process) => {
                let replayed = has.and_then(|from| process.hub.listen_from(from));
                let (starts, listener) = replayed.map_or_else(|| (None, process.hub.listen()), |(s, l)| (Some(s), l));
                (
                    EventStream::live(process.pid, listener, ctx.headers(), ctx.deadline()),
                    starts,
                )
            }
            Found::Ended(pid, end, hub) => {
                let kept = has.and_then(|from| hub?.kept(from));
                let (starts, items) = kept.map_or_else(|| (None, Vec::new()), |(s, items)| (Some(s), items));
                (EventStream::ended(pid, items, end), starts)
            }
        };
        let answer = events(stream)?;
        Ok(match starts {
            Some(starts) => answer.with_header(REPLAY_HEADER, names::replay(starts)),
            None => answer,
        })
    }

    async fn start(&self, ctx: RequestContext, request: ServiceRequest<'_, StartRequest>) -> ServiceResult<Events> {
        let user = auth::user(&self.0, ctx.headers())?;
        let (process, listener) = start(&self.0, &user, request.to_owned_message(), ctx.deadline())?;
        // The process keeps its own deadline and tells this listener.
        events(EventStream::live(process.pid, listener, ctx.headers(), None))
    }

    async fn update(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, UpdateRequest>,
    ) -> ServiceResult<UpdateResponse> {
        let request = request.to_owned_message();
        let process = self.0.processes.get(request.process.selector.as_ref())?;
        if let Some(pty) = Option::<PTY>::from(request.pty) {
            let Io::Terminal(terminal) = &process.io else {
                return Err(ConnectError::internal(
                    "error resizing tty: tty not assigned to process",
                ));
            };
            rustix::termios::tcsetwinsize(terminal.master.get_ref(), winsize(&pty))
                .map_err(|e| ConnectError::internal(format!("error resizing tty: {e}")))?;
        }
        Response::ok(UpdateResponse::default())
    }

    async fn stream_input(
        &self,
        _ctx: RequestContext,
        mut requests: InboundStream<StreamInputRequest>,
    ) -> ServiceResult<StreamInputResponse> {
        let mut process = None;
        while let Some(message) = requests.next().await {
            match message?.to_owned_message().event {
                Some(InputEvent::Start(start)) => {
                    process = Some(self.0.processes.get(start.process.selector.as_ref())?);
                }
                Some(InputEvent::Data(data)) => {
                    let process = process.as_ref().ok_or_else(|| {
                        ConnectError::invalid_argument("the first message must name the process: send a start event")
                    })?;
                    write(process, data.input.into()).await?;
                }
                Some(InputEvent::Keepalive(_)) => {}
                None => {
                    return Err(ConnectError::unimplemented(
                        "invalid event type: none of start, data, keepalive",
                    ));
                }
            }
        }
        Response::ok(StreamInputResponse::default())
    }

    async fn send_input(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, SendInputRequest>,
    ) -> ServiceResult<SendInputResponse> {
        let request = request.to_owned_message();
        let process = self.0.processes.get(request.process.selector.as_ref())?;
        write(&process, request.input.into()).await?;
        Response::ok(SendInputResponse::default())
    }

    async fn send_signal(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, SendSignalRequest>,
    ) -> ServiceResult<SendSignalResponse> {
        let request = request.to_owned_message();
        let process = self.0.processes.get(request.process.selector.as_ref())?;
        let signal = match request.signal.as_known() {
            Some(WireSignal::SIGNAL_SIGTERM) => Signal::TERM,
            Some(WireSignal::SIGNAL_SIGKILL) => Signal::KILL,
            Some(WireSignal::SIGNAL_UNSPECIFIED) | None => {
                return Err(ConnectError::unimplemented(
                    "invalid signal: only SIGTERM (15) and SIGKILL (9) are sent",
                ));
            }
        };
        process.kill(signal);
        Response::ok(SendSignalResponse::default())
    }

    async fn close_stdin(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, CloseStdinRequest>,
    ) -> ServiceResult<CloseStdinResponse> {
        let request = request.to_owned_message();
        let process = self.0.processes.get(request.process.selector.as_ref())?;
        match &process.io {
            Io::Pipes(stdin) => stdin.close().await,
            Io::Terminal(_) => {
                return Err(ConnectError::unknown(format!(
                    "error closing stdin: {}",
                    InputError::CloseTerminal
                )));
            }
        }
        Response::ok(CloseStdinResponse::default())
    }
}

async fn write(process: &Process, input: Option<ProcessInput>) -> Result<(), ConnectError> {
    match input.and_then(|i| i.input) {
        Some(Input::Stdin(bytes)) => match &process.io {
            Io::Pipes(stdin) => stdin.write(process.pid, &bytes).await,
            Io::Terminal(_) => Err(InputError::HasTerminal),
        }
        .map_err(|e| ConnectError::internal(format!("error writing to stdin: {e}"))),
        Some(Input::Pty(bytes)) => match &process.io {
            Io::Pipes(_) => Err(InputError::NoTerminal),
            Io::Terminal(terminal) => {
                let _turn = terminal.writing.lock().await;
                write_all(&terminal.master, &bytes)
                    .await
                    .map_err(|e| InputError::Write("tty", process.pid, e))
            }
        }
        .map_err(|e| ConnectError::internal(format!("error writing to tty: {e}"))),
        None => Err(ConnectError::unimplemented("invalid input type: neither stdin nor pty")),
    }
}
