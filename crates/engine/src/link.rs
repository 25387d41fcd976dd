//! The engine's end of a launcher: starting it, the handshake, and the replies to its requests.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch as signal};

use crate::ids::SubIds;
use crate::launcher::message::{Failure, Hello, Phase, Ready, Reply, Request};
use crate::limits::LAUNCHER_DEADLINE_S;
use crate::packet;
use crate::sys::watch;

/// A launcher that was started.
pub(crate) struct Link {
    /// Which launcher of this engine it is, from 1.
    pub(crate) number: u64,
    pub(crate) facts: Ready,
    core: Arc<Core>,
    requests: AtomicU64,
    /// Dropping it ends the task that reads, and with it the socket: the launcher cleans up and ends.
    _close: oneshot::Sender<()>,
}

/// What the reading task shares with the link.
struct Core {
    socket: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    ended: signal::Sender<bool>,
}

/// The reply to a create request.
pub(crate) type Answer = Result<Born, Failure>;

/// A sandbox's first process.
pub(crate) struct Born {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) phases: Vec<Phase>,
}

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the launcher {0} cannot be started")]
    Spawn(String, #[source] std::io::Error),
    #[error("the launcher's socket failed")]
    Socket(#[from] std::io::Error),
    #[error("the launcher ended before it was ready; is its command one that runs the launcher?")]
    Ended,
    #[error("the launcher was not ready after {LAUNCHER_DEADLINE_S} s")]
    Late,
    #[error("{0}")]
    SubIds(String),
    #[error(transparent)]
    Failed(Failure),
}

impl From<Errno> for LinkError {
    fn from(error: Errno) -> Self {
        Self::Socket(error.into())
    }
}

/// Ends a launcher that never got ready.
struct Started(Option<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Link {
    /// Starts a launcher and waits until it is ready. `gifts` are the descriptors of its first message.
    pub(crate) async fn start(
        number: u64,
        command: &[OsString],
        hello: &Hello,
        gifts: &[&OwnedFd],
        sub_ids: Option<SubIds>,
    ) -> Result<Arc<Self>, LinkError> {
        let (own, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&own, true)?;
        let [program, args @ ..] = command else {
            return Err(LinkError::Spawn(String::new(), std::io::ErrorKind::InvalidInput.into()));
        };
        let child = Command::new(program)
            .arg0("sandhold: launcher")
            .args(args)
            .env_clear()
            .current_dir("/")
            // The socket is its standard input: so no other descriptor has to be passed on.
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| LinkError::Spawn(program.to_string_lossy().into_owned(), error))?;
        let mut started = Started(Some(child));
        let socket = watch(own, Interest::READABLE | Interest::WRITABLE)?;
        let handshake = handshake(&socket, hello, gifts, sub_ids);
        let deadline = Duration::from_secs(LAUNCHER_DEADLINE_S);
        let facts = tokio::time::timeout(deadline, handshake)
            .await
            .map_err(|_| LinkError::Late)??;
        let core = Arc::new(Core {
            socket,
            waiting: Mutex::default(),
            ended: signal::channel(false).0,
        });
        let (close, closing) = oneshot::channel();
        tokio::spawn(read_replies(Arc::clone(&core), closing, started.0.take()));
        Ok(Arc::new(Self {
            number,
            facts,
            core,
            requests: AtomicU64::new(1),
            _close: close,
        }))
    }

    /// Whether the launcher has ended.
    pub(crate) fn is_ended(&self) -> bool {
        *self.core.ended.borrow()
    }

    /// Resolves when the launcher has ended.
    pub(crate) fn ended(&self) -> signal::Receiver<bool> {
        self.core.ended.subscribe()
    }

    /// The number of a new request.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a create request. `None`: the launcher ended.
    pub(crate) async fn create(&self, request: crate::launcher::message::Create, fds: Vec<OwnedFd>) -> Option<Answer> {
        let (sender, receiver) = oneshot::channel();
        let number = request.request;
        lock(&self.core.waiting).insert(number, sender);
        let borrowed: Vec<&OwnedFd> = fds.iter().collect();
        let sent = send(&self.core.socket, &Request::Create(Box::new(request)), &borrowed).await;
        // The child's own copies must be the only ones, so that their closing can be seen.
        drop(fds);
        if sent.is_err() || self.is_ended() {
            lock(&self.core.waiting).remove(&number);
        }
        receiver.await.ok()
    }

    /// Sends a request that has no reply here.
    pub(crate) async fn send(&self, request: &Request, fds: &[&OwnedFd]) -> std::io::Result<()> {
        send(&self.core.socket, request, fds).await
    }

    /// The same without waiting, where there is nobody who could. A launcher that ended needs no telling.
    pub(crate) fn tell(self: &Arc<Self>, request: Request) {
        if packet::send(self.core.socket.get_ref(), &request, &[]) == Err(Errno::AGAIN)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let link = Arc::clone(self);
            runtime.spawn(async move { link.send(&request, &[]).await });
        }
    }

    /// Tells the launcher that a sandbox is gone.
    pub(crate) async fn forget(&self, request: u64) {
        // A launcher that ended has forgotten already.
        let _ = send(&self.core.socket, &Request::Forget { request }, &[]).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send(socket: &AsyncFd<OwnedFd>, message: &impl Serialize, fds: &[&OwnedFd]) -> std::io::Result<()> {
    socket
        .async_io(Interest::WRITABLE, |socket| Ok(packet::send(socket, message, fds)?))
        .await
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> std::io::Result<(Reply, Vec<OwnedFd>)> {
    socket
        .async_io(Interest::READABLE, |socket| Ok(packet::receive(socket)?))
        .await
}

async fn handshake(
    socket: &AsyncFd<OwnedFd>,
    hello: &Hello,
    gifts: &[&OwnedFd],
    sub_ids: Option<SubIds>,
) -> Result<Ready, LinkError> {
    send(socket, &Request::Hello(Box::new(hello.clone())), gifts)
        .await
        .map_err(|_| LinkError::Ended)?;
    loop {
        let (reply, _) = receive(socket).await.map_err(|_| LinkError::Ended)?;
        match (reply, &sub_ids) {
            (Reply::Ready(facts), _) => return Ok(facts),
            (Reply::Failed(failure), _) => return Err(LinkError::Failed(failure)),
            (Reply::NeedsMap { pid }, Some(sub_ids)) => {
                let sub_ids = sub_ids.clone();
                let written = tokio::task::spawn_blocking(move || sub_ids.write_maps(pid)).await;
                written.map_err(std::io::Error::from)?.map_err(LinkError::SubIds)?;
                send(socket, &Request::Mapped, &[])
                    .await
                    .map_err(|_| LinkError::Ended)?;
            }
            _ => return Err(LinkError::Ended),
        }
    }
}

/// Hands replies to those who wait, until the engine lets go of the link or the launcher ends; then reaps it.
async fn read_replies(core: Arc<Core>, mut closing: oneshot::Receiver<()>, mut child: Option<Child>) {
    loop {
        let received = tokio::select! {
            received = receive(&core.socket) => received,
            _ = &mut closing => break,
        };
        match received {
            Ok((reply, fds)) => dispatch(&core, reply, fds),
            Err(error) => {
                tracing::debug!(%error, "the launcher ended");
                if let Some(child) = &mut child {
                    // One that talks nonsense is ended like one that died.
                    let _ = child.kill();
                }
                break;
            }
        }
    }
    core.ended.send_replace(true);
    lock(&core.waiting).clear();
    drop(core);
    if let Some(mut child) = child {
        // It ended, or ends as soon as it has cleaned up.
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
}

fn dispatch(core: &Core, reply: Reply, fds: Vec<OwnedFd>) {
    let (request, answer) = match reply {
        Reply::Created { request, pid, phases } => {
            let Some(pidfd) = fds.into_iter().next() else { return };
            (request, Ok(Born { pid, pidfd, phases }))
        }
        Reply::Refused { request, failure } => (request, Err(failure)),
        Reply::NeedsMap { .. } | Reply::Ready(_) | Reply::Failed(_) => return,
    };
    if let Some(waiting) = lock(&core.waiting).remove(&request) {
        // Nobody waits: its pidfd closes, and the launcher ends the sandbox with the engine.
        let _ = waiting.send(answer);
    }
}
