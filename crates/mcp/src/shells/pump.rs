//! Carries a shell's output to its terminal until it ends, through broken connections, and types the terminal's answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sandhold_client::{CommandEvent, Process};
use tokio::sync::mpsc;

use super::{Shell, Status};
use crate::{
    limits,
    reattach::{Gone, reattach},
};

/// What is drawn at once: the lock is held meanwhile, and two bytes can ask for a whole screen.
const PIECE: usize = 1 << 10;
/// Drawing a piece takes less unless it is made to take long.
const QUICK: Duration = Duration::from_millis(4);
/// The longest pause after a piece that took long.
const PAUSE: Duration = Duration::from_secs(1);
/// What may come at once before a program counts as too fast.
const BURST: usize = limits::SHELL_RATE / 16;

/// Runs until the shell has ended.
pub(super) async fn pump(shell: Arc<Shell>, mut process: Process, answers: mpsc::Sender<Vec<u8>>) {
    let mut pace = Pace::new();
    let status = loop {
        let broken = match process.next().await {
            Some(Ok(CommandEvent::Pty(data) | CommandEvent::Stdout(data) | CommandEvent::Stderr(data))) => {
                for piece in data.chunks(PIECE) {
                    let began = Instant::now();
                    take(&shell, piece, &answers);
                    rest(began.elapsed()).await;
                }
                pace.keep(data.len()).await;
                continue;
            }
            Some(Ok(CommandEvent::Exited(exit))) => break Status::Ended(exit),
            Some(Err(error)) => Some(error),
            None => None,
        };
        let commands = shell.target.commands();
        match reattach(broken, || commands.connect(shell.selector())).await {
            Ok(again) => {
                process = again;
                shell
                    .update(|s| s.note = Some("The connection broke for a moment; some output may be missing.".into()));
            }
            Err(Gone::Sandbox(said)) => break Status::Lost(said),
            Err(Gone::Object) => {
                break Status::Lost("it ended while the connection to it was broken; its exit code is unknown".into());
            }
            Err(Gone::Unreachable(why)) => break Status::Lost(format!("the connection to it is lost: {why}")),
        }
    };
    shell.update(|s| s.status = status);
}

fn take(shell: &Shell, piece: &[u8], answers: &mpsc::Sender<Vec<u8>>) {
    let answer = shell.update(|s| {
        s.printed += piece.len() as u64;
        s.stirred = Instant::now();
        s.emulator.feed(piece)
    });
    if !answer.is_empty() {
        // A program that asks and does not read the answers gets no more of them.
        let _ = answers.try_send(answer);
    }
}

/// Lets others have their turn after a piece; what took long waits as long again, so that it never takes all of a processor.
async fn rest(took: Duration) {
    if took > QUICK {
        tokio::time::sleep(took.min(PAUSE)).await;
    } else {
        tokio::task::yield_now().await;
    }
}

/// Types the answers of the terminal, one after the other.
pub(super) async fn answer(shell: Arc<Shell>, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(answer) = queue.recv().await {
        if let Ok(Err(error)) = tokio::time::timeout(limits::SHELL_TYPING, shell.send(&answer)).await {
            tracing::debug!(shell = shell.id, %error, "an answer of the terminal was not taken");
        }
    }
}

/// Slows down what prints without end: drawing costs the server time.
struct Pace {
    since: Instant,
    taken: usize,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            taken: 0,
        }
    }

    async fn keep(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken < BURST {
            return;
        }
        let millis = u64::try_from(self.taken * 1000 / limits::SHELL_RATE).unwrap_or(u64::MAX);
        let until = self.since + Duration::from_millis(millis);
        tokio::time::sleep_until(until.into()).await;
        *self = Self::new();
    }
}
