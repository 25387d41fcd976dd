//! The one task of a process: reads its output, waits for its end, kills it at its deadline.

use std::future::Future;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::process::WaitStatus;
use sandhold_wire::limits::{PIPE_CHUNK, PTY_CHUNK};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Process;
use super::hub::Source;
use super::status::end_event;
use crate::limits::{OUTPUT_AFTER_KILL, OUTPUT_QUIET};
use crate::state::State;

/// The reading end of an output.
#[derive(Debug)]
pub(crate) struct Output {
    source: Source,
    /// None once it has ended.
    fd: Option<Arc<AsyncFd<OwnedFd>>>,
}

/// What one read brought.
enum Chunk {
    Data(Bytes),
    /// Something, but nobody listens.
    Dropped(usize),
    Nothing,
    Closed,
}

impl Output {
    /// Of `fd`, which does not block.
    pub(crate) fn new(source: Source, fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self { source, fd: Some(fd) }
    }

    /// The descriptor, which ends with the output.
    pub(crate) fn fd(&self) -> Weak<AsyncFd<OwnedFd>> {
        self.fd.as_ref().map_or_else(Weak::new, Arc::downgrade)
    }

    fn read(&mut self, heard: bool) -> Chunk {
        let Some(fd) = &self.fd else { return Chunk::Closed };
        let mut buffer = [MaybeUninit::<u8>::uninit(); PIPE_CHUNK];
        let limit = if self.source == Source::Pty {
            PTY_CHUNK
        } else {
            PIPE_CHUNK
        };
        match rustix::io::read(fd.as_ref(), &mut buffer[..limit]) {
            Ok(([], _)) => {}
            Ok((bytes, _)) if heard => return Chunk::Data(Bytes::copy_from_slice(bytes)),
            Ok((bytes, _)) => return Chunk::Dropped(bytes.len()),
            Err(Errno::AGAIN | Errno::INTR) => return Chunk::Nothing,
            // EIO is how a terminal says that nobody has it open any more.
            Err(_) => {}
        }
        self.fd = None;
        Chunk::Closed
    }

    /// Waits for a chunk. With `eager` it reads although nothing was announced: right after a process ended its pipes
    /// have, too, but the poller may not have said so yet.
    fn poll_read(&mut self, cx: &mut Context<'_>, heard: bool, eager: bool) -> Poll<Chunk> {
        if eager {
            match self.read(heard) {
                Chunk::Nothing => {}
                chunk => return Poll::Ready(chunk),
            }
        }
        loop {
            let Some(fd) = self.fd.clone() else {
                return Poll::Ready(Chunk::Closed);
            };
            let Ok(mut guard) = ready!(fd.poll_read_ready(cx)) else {
                self.fd = None;
                return Poll::Ready(Chunk::Closed);
            };
            match self.read(heard) {
                Chunk::Nothing => guard.clear_ready(),
                chunk => return Poll::Ready(chunk),
            }
        }
    }
}

/// The task. It ends when the process has ended and nobody holds its outputs any more.
pub(crate) struct Pump {
    state: Arc<State>,
    process: Arc<Process>,
    outputs: Vec<Output>,
    exit: oneshot::Receiver<WaitStatus>,
    status: Option<WaitStatus>,
    /// The deadline and the listener who set it.
    deadline: Option<(Pin<Box<Sleep>>, u64)>,
    /// Runs while the process has ended but its outputs have not.
    quiet: Option<Pin<Box<Sleep>>>,
    /// Until the sandbox may print again.
    slowed: Option<Pin<Box<Sleep>>>,
    told: bool,
}

impl Pump {
    /// For a process that was just started. `deadline` is when it is killed, and who is told so.
    pub(crate) fn new(
        state: Arc<State>,
        process: Arc<Process>,
        outputs: Vec<Output>,
        exit: oneshot::Receiver<WaitStatus>,
        deadline: Option<(std::time::Instant, u64)>,
    ) -> Self {
        let deadline = deadline.map(|(at, id)| (Box::pin(sleep_until(at.into())), id));
        Self {
            state,
            process,
            outputs,
            exit,
            status: None,
            deadline,
            quiet: None,
            slowed: None,
            told: false,
        }
    }

    fn poll_exit(&mut self, cx: &mut Context<'_>) -> bool {
        if self.status.is_some() {
            return false;
        }
        match Pin::new(&mut self.exit).poll(cx) {
            Poll::Ready(Ok(status)) => {
                self.process.exited();
                self.status = Some(status);
                true
            }
            // The reaper lives as long as the daemon does.
            Poll::Ready(Err(_)) | Poll::Pending => false,
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) {
        if self.told {
            return;
        }
        if let Some((timer, listener)) = &mut self.deadline
            && timer.as_mut().poll(cx).is_ready()
        {
            self.process.kill(rustix::process::Signal::KILL);
            self.process.hub.deadline(*listener);
            self.deadline = None;
        }
    }

    /// Waits until the sandbox's rate of output allows a read.
    fn poll_rate(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(until) = self.state.output.wait_until() {
            let timer = self.slowed.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.deadline() < until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }

    /// Reads once from each output. True when anything came.
    fn poll_outputs(&mut self, cx: &mut Context<'_>, eager: bool) -> bool {
        let heard = !self.told && self.process.hub.is_heard();
        let mut progress = false;
        for output in self.outputs.iter_mut().filter(|o| o.fd.is_some()) {
            match output.poll_read(cx, heard, eager) {
                Poll::Ready(Chunk::Data(bytes)) => {
                    self.state.output.took(bytes.len());
                    self.process.hub.data(output.source, &bytes);
                    progress = true;
                }
                Poll::Ready(Chunk::Dropped(bytes)) => {
                    self.state.output.took(bytes);
                    progress = true;
                }
                Poll::Ready(Chunk::Closed) => progress = true,
                Poll::Ready(Chunk::Nothing) | Poll::Pending => {}
            }
        }
        progress
    }

    /// Takes what the pipes still hold, without waiting.
    fn drain(&mut self) {
        let heard = self.process.hub.is_heard();
        for output in &mut self.outputs {
            let mut taken = 0;
            while taken < OUTPUT_AFTER_KILL {
                match output.read(heard) {
                    Chunk::Data(bytes) => {
                        taken += bytes.len();
                        self.process.hub.data(output.source, &bytes);
                    }
                    Chunk::Dropped(n) => taken += n,
                    Chunk::Nothing | Chunk::Closed => break,
                }
            }
        }
    }

    fn tell(&mut self, status: WaitStatus) {
        let end = Arc::new(end_event(status));
        self.state.processes.ended(&self.process, Arc::clone(&end));
        self.process.hub.end(&end);
        self.told = true;
        self.deadline = None;
        self.quiet = None;
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let just_exited = this.poll_exit(cx);
            this.poll_deadline(cx);
            // Registers before it looks, so that a kill that comes later wakes this task.
            let given_up = this.process.poll_given_up(cx);

            let room = this.told || this.process.hub.poll_room(cx).is_ready();
            let room = room && this.poll_rate(cx).is_ready();
            let progress = room && this.poll_outputs(cx, just_exited);
            let open = this.outputs.iter().any(|o| o.fd.is_some());

            match this.status {
                Some(_) if this.told && !open => return Poll::Ready(()),
                Some(status) if !this.told && !open => {
                    this.tell(status);
                    return Poll::Ready(());
                }
                Some(status) if !this.told && given_up => {
                    this.drain();
                    this.tell(status);
                    continue;
                }
                Some(status) if !this.told && room && !progress => {
                    let timer = this.quiet.get_or_insert_with(|| Box::pin(sleep(OUTPUT_QUIET)));
                    if timer.as_mut().poll(cx).is_ready() {
                        this.tell(status);
                        continue;
                    }
                }
                Some(_) if !this.told => {
                    if let Some(timer) = &mut this.quiet {
                        timer.as_mut().reset(Instant::now() + OUTPUT_QUIET);
                    }
                }
                Some(_) | None => {}
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }
}
