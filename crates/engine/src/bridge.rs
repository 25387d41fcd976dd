//! Between the engine's control socket and an init program that no descriptor can be passed to: a sandbox of `gvisor`.
//!
//! ```text
//! engine ── SEQPACKET, as for every level ── bridge ── listener ◀── connect ── init program (inside)
//!     boot message, answer ──────────────────── 4 bytes of length (little endian) and the message, on the first connection
//!     one byte and a descriptor ─────────────── one byte on the first; the next connection is joined to the descriptor
//! ```
//!
//! What connects is untrusted: a process of the sandbox's root can do so as well as the init program, which it could replace
//! anyway. Lengths and times are bounded.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

use crate::limits::{BOOT_DEADLINE_S, BOOT_MESSAGE, BRIDGE_BUFFER};
use crate::packet;
use crate::sandbox::Inner;

/// Serves one sandbox until it has ended or either side lets go.
pub(crate) async fn serve(control: AsyncFd<OwnedFd>, listener: UnixListener, inner: Arc<Inner>) {
    let ended = {
        let inner = Arc::clone(&inner);
        async move { inner.ended().await }
    };
    tokio::select! {
        _ = ended => {}
        result = join(&control, &listener) => if let Err(error) = result {
            tracing::debug!(sandbox = inner.id(), %error, "the bridge to its init program broke");
            inner.end("its first process ended");
        }
    }
}

async fn join(control: &AsyncFd<OwnedFd>, listener: &UnixListener) -> io::Result<()> {
    let (mut first, _) = listener.accept().await?;
    let (boot, _) = receive(control).await?;
    first.write_u32_le(boot.len() as u32).await?;
    first.write_all(&boot).await?;
    let len = first.read_u32_le().await? as usize;
    if len == 0 || len > BOOT_MESSAGE {
        return Err(io::Error::other(format!("a boot answer of {len} bytes")));
    }
    let mut answer = vec![0; len];
    first.read_exact(&mut answer).await?;
    control
        .async_io(Interest::WRITABLE, |fd| Ok(packet::send_bytes(fd, &answer, &[])?))
        .await?;
    let (mut ends, mut asks) = first.into_split();
    let mut end = [0];
    loop {
        tokio::select! {
            // It says nothing more; that it ends is what is waited for.
            _ = ends.read(&mut end) => return Err(io::ErrorKind::UnexpectedEof.into()),
            received = receive(control) => {
                let (byte, fds) = received?;
                let Some(fd) = fds.into_iter().next() else { continue };
                asks.write_all(&byte).await?;
                let accepted = tokio::time::timeout(Duration::from_secs(BOOT_DEADLINE_S), listener.accept()).await;
                let (stream, _) = accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                tokio::spawn(copy(fd, stream));
            }
        }
    }
}

async fn receive(control: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; BOOT_MESSAGE];
    let (len, fds) = control
        .async_io(Interest::READABLE, |fd| Ok(packet::receive_bytes(fd, &mut buffer)?))
        .await?;
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.truncate(len);
    Ok((buffer, fds))
}

async fn copy(fd: OwnedFd, mut inside: UnixStream) {
    let Ok(mut outside) = UnixStream::from_std(std::os::unix::net::UnixStream::from(fd)) else {
        return;
    };
    // Either side may break off at any time; both are closed then.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut outside, &mut inside, BRIDGE_BUFFER, BRIDGE_BUFFER).await;
}
