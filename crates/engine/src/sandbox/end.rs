//! The end of a sandbox: whatever led there, everything is given back.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

use super::{Holdings, Inner};
use crate::cgroup::{SandboxCgroups, remove_pause};
use crate::limits::{DISK_LOOK_S, REMOVE_TRIES};
use crate::private;

/// What ends a sandbox: the death of its first process is the death of all; a guard sees to that itself.
pub(super) fn ending(guarded: bool) -> Signal {
    if guarded { Signal::TERM } else { Signal::KILL }
}

/// Looks whether a sandbox's private folder holds more than it may, and ends the sandbox if it does.
async fn look_at_disk(inner: &Arc<Inner>, holdings: &Holdings) {
    let Some(private) = holdings.private.clone() else {
        return;
    };
    let (name, most) = (inner.folder.clone(), holdings.most);
    let size = tokio::task::spawn_blocking(move || private::measure(private.path(), &name, most)).await;
    let Ok(Ok(size)) = size else { return };
    if size.bytes > most.bytes {
        inner.end(&format!("its files took more than its disk of {} bytes", most.bytes));
    } else if size.files > most.files {
        inner.end(&format!("it had more than {} files", most.files));
    }
}

/// Waits for the end of the first process, which is the end of all, and gives everything back.
pub(super) async fn clean_up(inner: Arc<Inner>, pidfd: AsyncFd<OwnedFd>, holdings: Holdings) {
    let mut launcher_ended = holdings.link.ended();
    let mut looks = tokio::time::interval(Duration::from_secs(DISK_LOOK_S));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let watched = holdings.private.is_some() || inner.standing.folder().is_some();
    loop {
        let look = tokio::select! {
            // An error means that the reactor is shutting down, and this program with it.
            _ = pidfd.readable() => break,
            _ = launcher_ended.wait_for(|ended| *ended), if !launcher_gone(&inner) => {
                inner.end("the launcher process ended");
                false
            }
            _ = looks.tick(), if watched => true,
        };
        if look {
            look_at_disk(&inner, &holdings).await;
            inner.look_at_folder().await;
        }
    }
    remove(&inner.cgroups, inner.id()).await;
    if let Some(private) = holdings.private.clone() {
        let name = inner.folder.clone();
        // Fails only when the runtime ends, and the folder with it.
        let _ = tokio::task::spawn_blocking(move || private.remove(&name)).await;
    }
    holdings.ids.release(&holdings.lease);
    holdings.link.forget(holdings.request).await;
    drop((
        inner.doors.lock().unwrap_or_else(PoisonError::into_inner).take(),
        inner.border.lock().unwrap_or_else(PoisonError::into_inner).take(),
        inner
            .standing
            .folder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(),
        holdings.folder,
        inner.taken.lock().unwrap_or_else(PoisonError::into_inner).take(),
    ));
    let reason = inner.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
    inner
        .ended
        .send_replace(Some(reason.unwrap_or_else(|| "its first process ended".to_owned())));
}

/// Removes the cgroups of a sandbox whose processes have ended.
pub(crate) async fn remove(cgroups: &SandboxCgroups, id: &str) {
    for attempt in 0..REMOVE_TRIES {
        if cgroups.try_remove() {
            return;
        }
        tokio::time::sleep(remove_pause(attempt)).await;
    }
    tracing::warn!(sandbox = id, "a cgroup is still busy; the next server removes it");
}

/// Whether the end was already started; the launcher's end adds nothing then.
fn launcher_gone(inner: &Inner) -> bool {
    inner.reason.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}
