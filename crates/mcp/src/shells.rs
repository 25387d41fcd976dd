//! Shells in terminals: each goes on by itself, and its screen and what it printed are kept for whoever knows its id.

mod emulator;
pub(crate) mod keys;
mod pump;
mod seen;
mod session;
mod text;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sandhold_client::{CommandRequest, CommandSelector, Error, ExitStatus, PtySize, Signal, SignalKind};
use tokio::sync::{mpsc, watch};

use emulator::Emulator;
pub(crate) use emulator::Screen;
#[cfg(fuzzing)]
pub use emulator::terminal;
pub(crate) use session::Rest;
pub(crate) use text::Part;

use crate::{answer::ToolError, budget, call::Target, limits, lock};

/// Answers of a terminal that wait to be typed.
const ANSWERS_QUEUED: usize = 64;

/// How a shell stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// It runs.
    Running,
    /// It ended.
    Ended(ExitStatus),
    /// Nobody knows how it goes on.
    Lost(String),
}

/// What changes while a shell goes on.
struct State {
    emulator: Emulator,
    status: Status,
    /// Something a reader should know, such as output that was missed.
    note: Option<String>,
    /// Bytes printed so far.
    printed: u64,
    /// The same when it was read last, or typed into.
    mark: u64,
    /// What was typed since it was read last: a terminal prints that first.
    typed: Option<String>,
    /// When something was printed or typed last.
    stirred: Instant,
}

/// The picture of a terminal, or text that was not read yet.
pub(crate) enum Shown {
    Screen(Screen),
    Output(Part),
}

/// What a reader gets.
pub(crate) struct Reading {
    pub(crate) shown: Shown,
    pub(crate) size: PtySize,
    pub(crate) title: String,
    pub(crate) alternate: bool,
    pub(crate) status: Status,
    pub(crate) note: Option<String>,
}

/// A shell in a terminal.
pub(crate) struct Shell {
    pub(crate) id: String,
    pub(crate) target: Target,
    pid: AtomicU32,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Held while something is typed, so that what is typed side by side does not mix.
    typing: tokio::sync::Mutex<()>,
}

/// How a shell is opened.
pub(crate) struct Open {
    pub(crate) request: CommandRequest,
    pub(crate) size: PtySize,
}

impl Shell {
    /// How it is found among the processes of its sandbox.
    fn selector(&self) -> CommandSelector {
        CommandSelector::Tag(self.id.clone())
    }

    /// Its process id inside the sandbox.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.state))
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut lock(&self.state));
        self.changed.send_replace(());
        result
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&self) -> bool {
        self.look(|s| s.status == Status::Running)
    }

    /// An error unless it still runs.
    pub(crate) fn running(&self) -> Result<(), ToolError> {
        let how = match self.look(|s| s.status.clone()) {
            Status::Running => return Ok(()),
            status => describe(&status),
        };
        Err(
            ToolError::new("shell_ended", format!("shell {} does not run: {how}", self.id))
                .hint("Read the rest with read_shell, or open a new one with open_shell.")
                .within(self.target.id()),
        )
    }

    /// Types. `line` is what a terminal will print of it first.
    pub(crate) async fn type_in(&self, data: &[u8], line: Option<&str>) -> Result<(), ToolError> {
        self.running()?;
        self.update(|s| {
            s.typed = Some(line.unwrap_or_default().to_owned());
            s.mark = s.printed;
            s.stirred = Instant::now();
        });
        match tokio::time::timeout(limits::SHELL_TYPING, self.send(data)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::NotFound(_))) => {
                // Its end is on its way.
                Err(ToolError::new("shell_ended", format!("shell {} has ended", self.id))
                    .hint("Read the rest with read_shell, or open a new one with open_shell.")
                    .within(self.target.id()))
            }
            Ok(Err(error)) => Err(self.target.error(&error)),
            Err(_) => Err(ToolError::new(
                "not_taken",
                format!("shell {} did not take the input: its program does not read", self.id),
            )
            .hint("Look with read_shell and screen true; close_shell ends it.")
            .within(self.target.id())),
        }
    }

    async fn send(&self, data: &[u8]) -> Result<(), Error> {
        let _alone = self.typing.lock().await;
        self.target.commands().send_pty(self.selector(), data).await
    }

    /// The bytes that these keys are to its program.
    pub(crate) fn keys(&self, keys: &[String]) -> Result<Vec<u8>, ToolError> {
        keys::bytes(keys, self.look(|s| s.emulator.application_keys()))
    }

    /// Changes the size of the terminal.
    pub(crate) async fn resize(&self, size: PtySize) -> Result<(), ToolError> {
        self.running()?;
        // Before the program learns of it: what it draws then is for the new size.
        let before = self.update(|s| {
            let before = s.emulator.size();
            s.emulator.resize(size);
            before
        });
        let resized = self.target.commands().resize(self.selector(), size).await;
        resized.map_err(|error| {
            self.update(|s| s.emulator.resize(before));
            self.target.error(&error)
        })
    }

    /// The size of the terminal.
    pub(crate) fn size(&self) -> PtySize {
        self.look(|s| s.emulator.size())
    }

    /// Waits until something was printed and then nothing more, or the program waits for input, or it ended, or the time is
    /// over. Tells whether the program waits for input, where that is known. `screen`: the picture is to be read, not the text.
    pub(crate) async fn settle(&self, wait: Duration, screen: bool) -> Option<bool> {
        let deadline = Instant::now() + wait;
        let mut changed = self.changed.subscribe();
        // For which stir it was asked, and the answer.
        let mut asked: Option<(Instant, Option<bool>)> = None;
        loop {
            let (running, stirred, news, fresh) = self.look(|s| {
                (
                    s.status == Status::Running,
                    s.stirred,
                    s.has_news(screen),
                    s.is_fresh(screen),
                )
            });
            if !running {
                return None;
            }
            let now = Instant::now();
            let answer = asked.filter(|(at, _)| *at == stirred).map(|(_, answer)| answer);
            let until = if now >= deadline {
                return match answer {
                    Some(answer) => answer,
                    None => self.awaiting_input().await,
                };
            } else if !fresh {
                deadline
            } else if answer.is_none() && now >= stirred + limits::SHELL_CALM {
                let awaiting = self.awaiting_input().await;
                if awaiting == Some(true) {
                    return awaiting;
                }
                asked = Some((stirred, awaiting));
                continue;
            } else if answer.is_none() {
                stirred + limits::SHELL_CALM
            } else if news && now >= stirred + limits::SHELL_SETTLED {
                return self.awaiting_input().await;
            } else if news {
                stirred + limits::SHELL_SETTLED
            } else {
                // What was typed is at work without a word; it may wait again without one.
                now + limits::SHELL_SETTLED
            };
            if tokio::time::timeout_at(until.min(deadline).into(), changed.changed())
                .await
                .is_err()
                && !news
            {
                asked = None;
            }
        }
    }

    async fn awaiting_input(&self) -> Option<bool> {
        self.target.commands().awaiting_input(self.pid()).await.ok().flatten()
    }

    /// Looks at the screen or else takes what was printed since the last time; unless told, the screen if a full-screen
    /// program is on.
    pub(crate) fn read(&self, screen: Option<bool>) -> Reading {
        self.update(|s| {
            s.mark = s.printed;
            s.typed = None;
            let shown = if screen.unwrap_or(s.emulator.alternate()) {
                Shown::Screen(s.emulator.screen())
            } else {
                Shown::Output(s.emulator.unread().take(budget::ANSWER))
            };
            Reading {
                shown,
                size: s.emulator.size(),
                title: s.emulator.title().to_owned(),
                alternate: s.emulator.alternate(),
                status: s.status.clone(),
                note: s.note.take(),
            }
        })
    }

    /// Ends it as a terminal does that goes away, then by force, and what is left of its session. `None` if it had ended.
    async fn close(&self) -> Result<Option<Rest>, ToolError> {
        if !self.is_running() {
            return Ok(None);
        }
        let commands = self.target.commands();
        match commands.kill(self.pid(), Signal::Hup, limits::TERM_GRACE / 5).await {
            Ok(true) => return Ok(Some(session::end(&commands, self.pid()).await)),
            Ok(false) | Err(Error::Unsupported(_) | Error::NotFound(_)) => {}
            Err(Error::SandboxNotFound { .. }) => return Ok(Some(Rest::Killed(0))),
            Err(error) => return Err(self.target.error(&error)),
        }
        match commands.signal(self.selector(), SignalKind::Kill).await {
            Ok(_) => Ok(Some(session::end(&commands, self.pid()).await)),
            Err(Error::SandboxNotFound { .. }) => Ok(Some(Rest::Killed(0))),
            Err(error) => Err(self.target.error(&error)),
        }
    }
}

impl State {
    /// Whether something was printed or typed since it was read last.
    fn is_fresh(&self, screen: bool) -> bool {
        self.typed.is_some() || self.printed > self.mark || !(screen || self.emulator.unread_text().is_empty())
    }

    /// Whether something was printed besides what was typed.
    fn has_news(&self, screen: bool) -> bool {
        let printed = self.printed > self.mark;
        if screen || self.emulator.alternate() {
            return printed;
        }
        let text = self.emulator.unread_text().trim_end();
        match self.typed.as_deref().map(str::trim) {
            None => printed || !text.is_empty(),
            Some("") => printed,
            Some(line) => printed && !text.is_empty() && !text.ends_with(line),
        }
    }
}

/// How it stands, in words.
pub(crate) fn describe(status: &Status) -> String {
    match status {
        Status::Running => "it runs".into(),
        Status::Ended(exit) if exit.exited => format!("it ended with exit code {}", exit.exit_code),
        Status::Ended(exit) => format!("it was ended by {}", exit.status),
        Status::Lost(why) => why.clone(),
    }
}

/// The shells of one caller.
#[derive(Default)]
pub(crate) struct Shells {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    shells: HashMap<String, Arc<Shell>>,
    /// Oldest first; the newest is the default one.
    order: Vec<String>,
}

impl Shells {
    /// The shell of this id, or the one that was opened last.
    pub(crate) fn get(&self, id: Option<&str>) -> Result<Arc<Shell>, ToolError> {
        let table = lock(&self.table);
        let found = match id {
            Some(id) => table.shells.get(id),
            None => table.order.last().and_then(|id| table.shells.get(id)),
        };
        found.cloned().ok_or_else(|| {
            let known = if table.order.is_empty() {
                "none is open".to_owned()
            } else {
                format!("there are {}", table.order.join(", "))
            };
            let message = match id {
                Some(id) => format!("there is no shell {:?}; {known}", budget::line(id, 80)),
                None => "no shell is open".to_owned(),
            };
            ToolError::new("shell_not_found", message).hint("Call open_shell to open one.")
        })
    }

    /// Opens a shell.
    pub(crate) async fn open(&self, target: Target, open: Open) -> Result<Arc<Shell>, ToolError> {
        let Open { request, size } = open;
        let id = format!("s{}", &uuid::Uuid::new_v4().simple().to_string()[..10]);
        let request = CommandRequest {
            tag: Some(id.clone()),
            pty: Some(size),
            ..request
        };
        let shell = Arc::new(Shell {
            id,
            target,
            pid: AtomicU32::new(0),
            state: Mutex::new(State {
                emulator: Emulator::new(size),
                status: Status::Running,
                note: None,
                printed: 0,
                mark: 0,
                typed: None,
                stirred: Instant::now(),
            }),
            changed: watch::Sender::new(()),
            typing: tokio::sync::Mutex::new(()),
        });
        self.insert(&shell)?;
        match shell.target.commands().start(request).await {
            Ok(process) => {
                shell.pid.store(process.pid(), Ordering::Relaxed);
                let (answers, queue) = mpsc::channel(ANSWERS_QUEUED);
                tokio::spawn(pump::answer(Arc::clone(&shell), queue));
                tokio::spawn(pump::pump(Arc::clone(&shell), process, answers));
                Ok(shell)
            }
            Err(error) => {
                self.remove(&shell.id);
                Err(shell.target.error(&error))
            }
        }
    }

    /// Ends a shell and forgets it. Returns what became of its other programs; `None` if it had ended.
    pub(crate) async fn close(&self, shell: &Shell) -> Result<Option<Rest>, ToolError> {
        let rest = shell.close().await?;
        self.remove(&shell.id);
        Ok(rest)
    }

    fn insert(&self, shell: &Arc<Shell>) -> Result<(), ToolError> {
        let mut table = lock(&self.table);
        let running = table.shells.values().filter(|s| s.is_running()).count();
        if running >= limits::SHELLS {
            return Err(ToolError::new(
                "too_many_shells",
                format!("{running} shells are open; more are not allowed"),
            )
            .hint("Close some with close_shell."));
        }
        if table.shells.len() >= limits::SHELLS_KEPT
            && let Some(at) = table.order.iter().position(|id| !table.shells[id].is_running())
        {
            let oldest = table.order.remove(at);
            table.shells.remove(&oldest);
        }
        table.order.push(shell.id.clone());
        table.shells.insert(shell.id.clone(), Arc::clone(shell));
        Ok(())
    }

    fn remove(&self, id: &str) {
        let mut table = lock(&self.table);
        table.shells.remove(id);
        table.order.retain(|known| known != id);
    }
}
