//! A sandbox that was made.
//!
//! ```text
//!            create                      boot answer
//!   (none) ─────────▶ starting ────────────────────────▶ running ◀──thaw── frozen
//!                        │ failure, deadline                │ └──freeze──────▲│
//!                        ▼                                  ▼ kill, drop,     │
//!                      ending ◀──────────────────────────── its init ends, ◀──┘
//!                        │ SIGKILL; pidfd readable:         the launcher dies
//!                        │ every process of the namespace is gone
//!                        ▼
//!                      ended: cgroups removed, ids given back, launcher told
//! ```
//!
//! One task a sandbox waits for its pidfd and does the last step, whatever led there.

mod end;

use std::collections::HashSet;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, ReturnFlags, SocketFlags, SocketType, recvmsg, socketpair};
use rustix::process::pidfd_send_signal;
use sandhold_runtime::{Changes, Doors, Reach, Root, RuntimeError, Sandbox, Stream, Usage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

pub(crate) use end::remove;
use end::{clean_up, ending};

use crate::cgroup::SandboxCgroups;
use crate::ids::{IdPool, Lease};
use crate::launcher::doors::{FAILED, TRANSPARENT};
use crate::layers::Standing;
use crate::limits::{BOOT_MESSAGE, CONNECT_DEADLINE_S, KILL_DEADLINE_S};
use crate::link::Link;
use crate::packet;
use crate::private::{ServerFolder, Size};
use crate::sys;

/// The byte that goes with the descriptor of a new connection.
const CONNECTION: u8 = b'c';
/// Longest message that comes with the doors.
const DOORS: usize = 2;

/// What a sandbox holds, shared by its handle and the task that waits for its end.
pub(crate) struct Inner {
    /// The name of its cgroups; its id, too, while nobody has taken it.
    pub(crate) folder: String,
    id: OnceLock<String>,
    taken: Mutex<Option<Taken>>,
    pidfd: OwnedFd,
    control: AsyncFd<OwnedFd>,
    cgroups: SandboxCgroups,
    /// Whether the pidfd is a guard's, which ends all others before it ends, and has to be asked to.
    guarded: bool,
    frozen: AtomicBool,
    /// Why it is ending, once somebody decided.
    reason: Mutex<Option<String>>,
    ended: watch::Sender<Option<String>>,
    /// Its way out, until somebody serves it.
    doors: Mutex<Option<Doors>>,
    /// What is below its root, where that is an overlay.
    pub(crate) border: Mutex<Option<OwnedFd>>,
    /// What it stands on.
    pub(crate) standing: Standing,
}

/// What is given back when the sandbox ended.
pub(crate) struct Holdings {
    pub(crate) request: u64,
    pub(crate) link: Arc<Link>,
    pub(crate) ids: Arc<IdPool>,
    pub(crate) lease: Lease,
    /// The name of its cgroups.
    pub(crate) folder: Name,
    /// Where its private folder is.
    pub(crate) private: Option<Arc<ServerFolder>>,
    /// Most that the private folder may hold.
    pub(crate) most: Size,
}

/// What whoever asked for a sandbox holds until its end: a place among the sandboxes at once, and the id where that is
/// not the name of its cgroups.
#[expect(dead_code, reason = "held, not read")]
pub(crate) struct Taken(pub(crate) OwnedSemaphorePermit, pub(crate) Option<Name>);

/// An id in use: no second sandbox can take it.
pub(crate) struct Name {
    id: String,
    all: Arc<Mutex<HashSet<String>>>,
}

impl Name {
    /// Takes an id, unless it is in use.
    pub(crate) fn take(all: &Arc<Mutex<HashSet<String>>>, id: &str) -> Option<Self> {
        let free = all.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        free.then(|| Self {
            id: id.to_owned(),
            all: Arc::clone(all),
        })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// The handle: dropping the last one ends the sandbox.
pub(crate) struct LocalSandbox {
    inner: Arc<Inner>,
    boot_answer: Vec<u8>,
}

impl Inner {
    /// Takes over a first process and starts to wait for its end.
    pub(crate) fn adopt(
        folder: String,
        (pid, pidfd): (i32, OwnedFd),
        control: AsyncFd<OwnedFd>,
        cgroups: SandboxCgroups,
        holdings: Holdings,
        standing: Standing,
    ) -> io::Result<Arc<Self>> {
        let waiting = pidfd.try_clone().and_then(|copy| sys::watch(copy, Interest::READABLE));
        let waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                // Nobody would notice its end: it goes now, and the launcher removes its cgroups at its own end.
                let _ = pidfd_send_signal(&pidfd, ending(holdings.private.is_some()));
                return Err(error);
            }
        };
        let inner = Arc::new(Self {
            folder,
            id: OnceLock::new(),
            taken: Mutex::default(),
            doors: Mutex::default(),
            border: Mutex::default(),
            standing,
            pidfd,
            control,
            cgroups,
            guarded: holdings.private.is_some(),
            frozen: AtomicBool::new(false),
            reason: Mutex::new(None),
            ended: watch::channel(None).0,
        });
        tracing::debug!(sandbox = inner.folder, pid, "started");
        tokio::spawn(clean_up(Arc::clone(&inner), waiting, holdings));
        Ok(inner)
    }

    /// Its control groups.
    pub(crate) fn cgroups(&self) -> &SandboxCgroups {
        &self.cgroups
    }

    /// The id it is known by.
    pub(crate) fn id(&self) -> &str {
        self.id.get().unwrap_or(&self.folder)
    }

    /// Gives it to whoever asked for a sandbox of this id, with its boot message, which waits in the socket until the
    /// init program reads it.
    pub(crate) fn take(&self, id: &str, taken: Taken, boot: &[u8]) {
        // A second time is never asked for.
        let _ = self.id.set(id.to_owned());
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        // Where nobody is left to read it, the answer fails to come, and the status pipe may tell why.
        if let Err(error) = packet::send_bytes(&self.control, boot, &[]) {
            tracing::debug!(sandbox = id, %error, "the boot message was not sent");
        }
    }

    /// Starts its end, for this reason unless there is one already.
    pub(crate) fn end(&self, reason: &str) {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| reason.to_owned());
        // ESRCH: it has ended by itself.
        let _ = pidfd_send_signal(&self.pidfd, ending(self.guarded));
        if self.frozen.load(Ordering::Acquire) {
            self.cgroups.release_for_kill();
        }
    }

    /// Waits until it is gone, and says why.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        let reason = ended.wait_for(Option::is_some).await;
        // The sender lives in `self`, so the wait cannot fail.
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    pub(crate) fn check_alive(&self) -> Result<(), RuntimeError> {
        match &*self.ended.borrow() {
            Some(reason) => Err(RuntimeError::Ended(reason.clone())),
            None => Ok(()),
        }
    }

    /// Takes over the doors, which the first process sends before it becomes the init program: what comes here is our own
    /// launcher's word. An end of the stream says nothing: what follows will tell.
    pub(crate) async fn receive_doors(&self) -> io::Result<Reach> {
        let (doors, fds) = self
            .control
            .async_io(Interest::READABLE, |control| {
                let mut buffer = [0; DOORS];
                let (len, fds) = packet::receive_bytes(control, &mut buffer)?;
                Ok((buffer[..len].to_vec(), fds))
            })
            .await?;
        let transparent = doors.first() == Some(&TRANSPARENT);
        if let Some((&FAILED, code)) = doors.split_first() {
            let code = i32::from(code.first().copied().unwrap_or_default());
            tracing::warn!(sandbox = self.id(), error = %io::Error::from_raw_os_error(code), "it has no way out");
        }
        let mut fds = fds.into_iter();
        if doors.first() == Some(&FAILED) {
            self.keep_border(fds.next());
            return Ok(Reach::Nothing);
        }
        let (tcp, proxy) = (fds.next(), fds.next());
        let (conntrack, firewall) = if transparent {
            (fds.next(), fds.next())
        } else {
            (None, None)
        };
        let (udp, dns) = (fds.next(), fds.next());
        self.keep_border(fds.next());
        let (Some(tcp), Some(proxy), Some(udp), Some(dns)) = (tcp, proxy, udp, dns) else {
            return Ok(Reach::Nothing);
        };
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner) = Some(Doors {
            tcp,
            udp,
            dns,
            proxy,
            conntrack,
            firewall,
            transparent,
        });
        Ok(if transparent { Reach::Transparent } else { Reach::Proxy })
    }

    fn keep_border(&self, border: Option<OwnedFd>) {
        *self.border.lock().unwrap_or_else(PoisonError::into_inner) = border;
    }

    /// The init program's answer to the boot message. An end of the stream is `Ok(None)`.
    pub(crate) async fn boot_answer(&self) -> io::Result<Option<Vec<u8>>> {
        self.control
            .async_io(Interest::READABLE, |control| {
                let mut buffer = vec![0; BOOT_MESSAGE];
                let mut none = rustix::net::RecvAncillaryBuffer::default();
                // No room for descriptors: what the sandbox might send is dropped by the kernel.
                let received = recvmsg(
                    control,
                    &mut [IoSliceMut::new(&mut buffer)],
                    &mut none,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                if received.flags.contains(ReturnFlags::TRUNC) {
                    return Err(io::Error::other(format!(
                        "the answer is longer than {BOOT_MESSAGE} bytes"
                    )));
                }
                buffer.truncate(received.bytes);
                Ok((!buffer.is_empty()).then_some(buffer))
            })
            .await
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    pub(crate) async fn set_frozen(self: &Arc<Self>, frozen: bool) -> Result<(), RuntimeError> {
        self.check_alive()?;
        if !self.cgroups.can_freeze() {
            let what = "this machine has no cgroup that can freeze a sandbox's processes";
            return Err(RuntimeError::Unsupported(what.to_owned()));
        }
        // Before the fact: an end that comes in between must let frozen processes go.
        self.frozen.store(true, Ordering::Release);
        let inner = Arc::clone(self);
        let result = tokio::task::spawn_blocking(move || inner.cgroups.set_frozen(frozen)).await;
        // Those that could not all be frozen go on.
        if !frozen || !matches!(result, Ok(Ok(()))) {
            self.frozen.store(false, Ordering::Release);
        }
        self.check_alive()?;
        let verb = if frozen { "freezing" } else { "thawing" };
        result
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(|error| RuntimeError::failed(format!("{verb} sandbox {}", self.id()), error))
    }
}

impl LocalSandbox {
    /// One that has not answered yet.
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            boot_answer: Vec::new(),
        }
    }

    pub(crate) fn answered(mut self, boot_answer: Vec<u8>) -> Self {
        self.boot_answer = boot_answer;
        self
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

/// Does something in a task of its own: a caller that goes away in the middle must not leave a sandbox that stands still,
/// or one of which nobody knows what it stands on.
async fn to_the_end<T: Send + 'static>(
    what: &str,
    work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(RuntimeError::failed(what.to_owned(), error)))
}

impl Drop for LocalSandbox {
    fn drop(&mut self) {
        self.inner.end("nobody holds it any more");
    }
}

#[async_trait]
impl Sandbox for LocalSandbox {
    fn boot_answer(&self) -> &[u8] {
        &self.boot_answer
    }

    fn take_doors(&self) -> Option<Doors> {
        self.inner.doors.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn root(&self) -> Root {
        self.inner.standing.root().unwrap_or_default()
    }

    async fn checkpoint(&self) -> Result<Root, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        to_the_end("making a checkpoint", async move { inner.checkpoint().await }).await
    }

    async fn changes(&self, since: &Root, most: usize) -> Result<Changes, RuntimeError> {
        self.inner.changes(since, most).await
    }

    async fn roll_back(&self, root: &Root) -> Result<(), RuntimeError> {
        let (inner, root) = (Arc::clone(&self.inner), root.clone());
        to_the_end("going back", async move { inner.roll_back(&root).await }).await
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, RuntimeError> {
        self.inner.check_alive()?;
        let failed =
            |error: io::Error| RuntimeError::failed(format!("connecting to sandbox {}", self.inner.id()), error);
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        );
        let (own, theirs) = pair.map_err(|error| failed(error.into()))?;
        let crowded = || {
            RuntimeError::Exhausted(format!(
                "sandbox {} does not accept its connections, too many are waiting",
                self.inner.id()
            ))
        };
        let sent = self.inner.control.async_io(Interest::WRITABLE, |control| {
            match packet::send_bytes(control, &[CONNECTION], &[&theirs]) {
                Err(error) => Err(io::Error::from(error)),
                Ok(()) => Ok(()),
            }
        });
        // One that takes no connections leaves no room for more.
        let deadline = Duration::from_secs(CONNECT_DEADLINE_S);
        let Ok(sent) = tokio::time::timeout(deadline, sent).await else {
            return Err(crowded());
        };
        match sent {
            Ok(()) => {}
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PIPE | Errno::CONNRESET)) => {
                // Its init program let go of the socket: it is ending, and says why in a moment.
                self.inner.end("its first process ended");
                return Err(RuntimeError::Ended(self.inner.ended().await));
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) => return Err(crowded()),
            Err(error) => return Err(failed(error)),
        }
        let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(own)).map_err(failed)?;
        Ok(Box::new(stream))
    }

    async fn freeze(&self) -> Result<(), RuntimeError> {
        let _standing_still = self.inner.standing.changing.lock().await;
        self.inner.set_frozen(true).await
    }

    async fn thaw(&self) -> Result<(), RuntimeError> {
        let _standing_still = self.inner.standing.changing.lock().await;
        self.inner.set_frozen(false).await
    }

    async fn usage(&self) -> Result<Usage, RuntimeError> {
        self.inner.check_alive()?;
        let inner = Arc::clone(&self.inner);
        let usage = tokio::task::spawn_blocking(move || inner.cgroups.usage())
            .await
            .ok()
            .flatten();
        self.inner.check_alive()?;
        usage.ok_or_else(|| {
            RuntimeError::Unsupported("this machine has no cgroup that counts what a sandbox uses".to_owned())
        })
    }

    async fn kill(&self) {
        self.inner.end("it was shut down");
        let ended = self.inner.ended();
        tokio::pin!(ended);
        let deadline = Duration::from_secs(KILL_DEADLINE_S);
        if tokio::time::timeout(deadline, &mut ended).await.is_err() {
            tracing::warn!(
                sandbox = self.inner.id(),
                "its processes have not ended yet after SIGKILL"
            );
            ended.await;
        }
    }

    async fn ended(&self) -> String {
        self.inner.ended().await
    }
}
