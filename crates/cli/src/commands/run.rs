//! `sandhold run`: one sandbox, one command.

use std::{
    io::{IsTerminal, Read, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use sandhold_client::{
    CommandEvent, CommandRequest, CommandSelector, Commands, CreateOptions, Error, ExitStatus, Sandbox, SignalKind,
};
use tokio::sync::mpsc;

use super::{
    signals::Signals,
    terminal::{self, RawTerminal, Resizes},
};
use crate::{
    args::RunArgs,
    provider::Connected,
    settings::{Provider, Settings},
};

/// How long the sandbox lives if nothing ends it before: a command may run this long.
const SANDBOX_LIFE: Duration = Duration::from_secs(86_400);
/// E2B's hobby plan ends sandboxes after an hour and refuses to make longer ones.
const SANDBOX_LIFE_E2B: Duration = Duration::from_secs(3_600);
/// What timeout(1) exits with.
const TIMED_OUT: u8 = 124;
/// What shells exit with when a program cannot be executed, and when there is none.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Input is read in pieces of this size.
const INPUT_CHUNK: usize = 32 << 10;

pub(crate) async fn run(args: RunArgs, settings: Settings) -> Result<ExitCode> {
    let connected = Connected::without_spares(&settings)?;
    let done = in_sandbox(&connected, life(&settings.provider), args).await;
    connected.shutdown().await;
    done
}

fn life(provider: &Provider) -> Duration {
    match provider {
        Provider::E2b(_) => SANDBOX_LIFE_E2B,
        Provider::Local | Provider::Sandhold(_) => SANDBOX_LIFE,
    }
}

async fn in_sandbox(connected: &Connected, life: Duration, args: RunArgs) -> Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let options = CreateOptions {
        timeout: Some(life),
        template: args.template.clone(),
        ..CreateOptions::default()
    };
    let sandbox = tokio::select! {
        made = connected.client.create(options) => made.context("no sandbox could be made")?,
        number = signals.next() => return Ok(by_signal(number)),
    };
    let done = command(&sandbox, args, &mut signals).await;
    // A local sandbox ends with the engine in any case; one elsewhere lives on until it is told.
    if let Err(error) = sandbox.kill().await {
        tracing::warn!(sandbox = sandbox.id(), %error, "the sandbox could not be ended");
    }
    done
}

async fn command(sandbox: &Sandbox, args: RunArgs, signals: &mut Signals) -> Result<ExitCode> {
    let tty = !args.no_tty && (args.tty || (std::io::stdin().is_terminal() && std::io::stdout().is_terminal()));
    let mut envs = std::collections::BTreeMap::new();
    for pair in &args.envs {
        match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => envs.insert(name.to_owned(), value.to_owned()),
            _ => bail!("--env \"{pair}\" is not NAME=VALUE"),
        };
    }
    let mut words = args.cmd.into_iter();
    let request = CommandRequest {
        cmd: words.next().unwrap_or_default(),
        args: words.collect(),
        envs,
        cwd: args.cwd,
        user: args.root.then(|| "root".to_owned()),
        pty: tty.then(terminal::size),
        stdin: !tty,
        timeout: args.timeout.map(Duration::from_secs),
        ..CommandRequest::default()
    };
    let name = request.cmd.clone();
    let limit = args.timeout;
    let commands = sandbox.commands();
    let mut process = match commands.start(request).await {
        Ok(process) => process,
        Err(error) => return cannot_start(&name, error),
    };
    let which = CommandSelector::Pid(process.pid());
    let raw = if tty {
        Some(RawTerminal::enter().context("cannot take the terminal")?)
    } else {
        None
    };
    let input = tokio::spawn(feed(commands.clone(), which.clone(), tty, read_input()));
    let mut resized = Resizes::new().context("cannot listen for signals")?;
    let mut asked_to_end = None;
    let status = loop {
        tokio::select! {
            event = process.next() => match event {
                Some(Ok(CommandEvent::Stdout(data) | CommandEvent::Pty(data))) => write(&mut std::io::stdout(), &data)?,
                Some(Ok(CommandEvent::Stderr(data))) => write(&mut std::io::stderr(), &data)?,
                Some(Ok(CommandEvent::Exited(status))) => break status,
                Some(Err(Error::Timeout(_))) if limit.is_some() => {
                    report(&format!("{name} was killed after {} s, as --timeout says", limit.unwrap_or_default()));
                    return Ok(ExitCode::from(TIMED_OUT));
                }
                Some(Err(error)) => return Err(error).with_context(|| format!("lost {name}")),
                None => bail!("{name} went without saying how it ended"),
            },
            number = signals.next() => {
                // The first asks, the second insists.
                let kind = if asked_to_end.replace(number).is_none() { SignalKind::Term } else { SignalKind::Kill };
                commands.signal(which.clone(), kind).await.with_context(|| format!("cannot signal {name}"))?;
            }
            () = resized.next(), if tty => {
                // The process may have ended; its end is told by the stream.
                let _ = commands.resize(which.clone(), terminal::size()).await;
            }
        }
    };
    input.abort();
    drop(raw);
    Ok(asked_to_end
        .filter(|_| !status.exited)
        .map_or_else(|| exit_code(&status), by_signal))
}

fn write(to: &mut impl Write, data: &[u8]) -> Result<()> {
    to.write_all(data)
        .and_then(|()| to.flush())
        .context("cannot write the command's output")
}

/// Reads standard input in a thread of its own: a blocking read cannot be cancelled.
fn read_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; INPUT_CHUNK];
        while let Ok(n @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn feed(commands: Commands, which: CommandSelector, tty: bool, mut input: mpsc::Receiver<Bytes>) {
    while let Some(data) = input.recv().await {
        let sent = if tty {
            commands.send_pty(which.clone(), &data).await
        } else {
            commands.send_stdin(which.clone(), &data).await
        };
        if let Err(error) = sent {
            // A command need not read its input.
            tracing::debug!(%error, "input was not taken");
            return;
        }
    }
    if !tty {
        let _ = commands.close_stdin(which).await;
    }
}

/// Tells why a program did not start, with the exit code that a shell would have.
fn cannot_start(name: &str, error: Error) -> Result<ExitCode> {
    let text = error.to_string();
    let code = match error {
        Error::InvalidArgument(_) if text.contains("not found") || text.contains("No such file") => NOT_FOUND,
        Error::InvalidArgument(_) if text.starts_with("error starting") => NOT_EXECUTABLE,
        _ => return Err(error).with_context(|| format!("cannot start {name}")),
    };
    report(&text);
    Ok(ExitCode::from(code))
}

#[expect(clippy::print_stderr, reason = "for the person who started it")]
fn report(text: &str) {
    eprintln!("sandhold: {text}");
}

/// What a shell would show: the command's own code, or 128 and the signal's number.
fn exit_code(status: &ExitStatus) -> ExitCode {
    if status.exited {
        return ExitCode::from(u8::try_from(status.exit_code & 0xff).unwrap_or(u8::MAX));
    }
    let named = |text: &str| status.status.contains(text);
    let number = [
        ("hangup", 1),
        ("interrupt", 2),
        ("quit", 3),
        ("aborted", 6),
        ("killed", 9),
        ("segmentation", 11),
        ("pipe", 13),
        ("terminated", 15),
    ]
    .iter()
    .find(|(text, _)| named(text))
    .map_or(0, |(_, n)| *n);
    by_signal(number)
}

pub(super) fn by_signal(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_shells() {
        let status = |exit_code, exited, status: &str| ExitStatus {
            exit_code,
            exited,
            status: status.into(),
            error: None,
        };
        let code = |s| format!("{:?}", exit_code(&s));
        assert_eq!(
            code(status(7, true, "exit status 7")),
            format!("{:?}", ExitCode::from(7))
        );
        assert_eq!(
            code(status(-1, false, "signal: killed")),
            format!("{:?}", ExitCode::from(137))
        );
        assert_eq!(
            code(status(-1, false, "signal: segmentation fault")),
            format!("{:?}", ExitCode::from(139))
        );
    }
}
