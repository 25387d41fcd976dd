//! `kill`

use sandhold_client::{Error, Signal as Sent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct Kill;

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Signal {
    Term,
    Kill,
    Int,
    Hup,
    Quit,
    Usr1,
    Usr2,
    Stop,
    Cont,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Which
    pid: u32,
    /// Default: term
    signal: Option<Signal>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    pid: u32,
    ended: bool,
}

impl Tool for Kill {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "kill",
        title: "Signal a process",
        description: "Send a signal to any process of a sandbox; tells whether it ended within 2 s.",
        toolset: Toolset::Processes,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        if p.pid < 2 {
            return Err(ToolError::invalid(format!(
                "pid is {}; process 1 is the sandbox's own, with it the sandbox would end",
                p.pid
            ))
            .hint("Call shutdown_sandbox to end the sandbox, list_processes to see what runs in it."));
        }
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let signal = sent(p.signal.unwrap_or(Signal::Term));
        let ended = target
            .commands()
            .kill(p.pid, signal, limits::KILL_WAIT)
            .await
            .map_err(|error| explain(target.error(&error), &error))?;
        let name = signal.name();
        let text = match (ended, signal.ends()) {
            (true, _) => format!("process {} has ended", p.pid),
            (false, true) => format!(
                "process {} was sent {name} and still runs after {} s; signal kill ends it for certain",
                p.pid,
                limits::KILL_WAIT.as_secs()
            ),
            (false, false) => format!("process {} was sent {name}", p.pid),
        };
        Ok(Reply::new(Output { pid: p.pid, ended }, text).within(target.id()))
    }
}

fn explain(told: ToolError, error: &Error) -> ToolError {
    match error {
        Error::NotFound(_) => told.hint("It has ended, or never was; list_processes shows those that run."),
        Error::InvalidArgument(_) => told.hint("Call shutdown_sandbox to end the sandbox."),
        Error::Server { status: 403, .. } => ToolError {
            code: "not_permitted",
            ..told
        }
        .hint("This sandbox has one user and no root inside, and that one may not signal it."),
        _ => told,
    }
}

fn sent(signal: Signal) -> Sent {
    match signal {
        Signal::Term => Sent::Term,
        Signal::Kill => Sent::Kill,
        Signal::Int => Sent::Int,
        Signal::Hup => Sent::Hup,
        Signal::Quit => Sent::Quit,
        Signal::Usr1 => Sent::Usr1,
        Signal::Usr2 => Sent::Usr2,
        Signal::Stop => Sent::Stop,
        Signal::Cont => Sent::Cont,
    }
}
