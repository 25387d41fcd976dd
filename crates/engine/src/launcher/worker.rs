//! A process for one piece of work on layers: forked by the launcher, it says what came of it and ends.
//!
//! It sees what the launcher sees: the store of layers, nothing else of the host. It has the launcher's rights over it, so
//! that it can read what any id inside a sandbox wrote.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use super::child::{leave, stay_with_launcher};
use super::message::{At, Failure, Step, Work, Worked};
use super::setup::Launcher;
use super::{busy, keeper, protocol, restack};
use crate::limits::LET_GO_BYTES;
use crate::sys::{self, CloneFlags, Forked};

/// Starts it. `first` finds the first process of a sandbox by the request that made it.
pub(super) fn start<'a>(
    launcher: &mut Launcher,
    work: &Work,
    fds: Vec<OwnedFd>,
    first: impl Fn(u64) -> Option<(Pid, &'a OwnedFd)>,
) {
    let mut fds = fds.into_iter();
    let Some(answer) = fds.next() else { return };
    let worked = match sys::clone3(&launcher.proof, CloneFlags::NONE, None).at(Step::Worker) {
        Ok(Forked::Parent { .. }) => return,
        Ok(Forked::Child) => {
            let worked = work_on(launcher, work, fds.collect(), first);
            tell(&answer, &worked.unwrap_or_else(Worked::Failed));
            // Who waits reads to the end. A process's end closes what is open only after its mount namespaces are taken
            // apart, which waits for every processor.
            drop(answer);
            leave(0)
        }
        Err(failure) => Worked::Failed(failure),
    };
    tell(&answer, &worked);
}

/// Lets go of a held layer. The memory of a large one is given back by a process of its own: that takes a tenth of a second
/// for each GiB, in which this one makes no sandbox.
pub(super) fn let_go(launcher: &mut Launcher, layer: u64) {
    let large = launcher.vault().is_ok_and(|vault| vault.bytes(layer) >= LET_GO_BYTES);
    let forked = large.then(|| sys::clone3(&launcher.proof, CloneFlags::NONE, None));
    if matches!(forked, Some(Ok(Forked::Parent { .. }))) {
        return;
    }
    let is_worker = matches!(forked, Some(Ok(Forked::Child)));
    if is_worker && stay_with_launcher(launcher).is_err() {
        // The launcher has ended, and what it held with it.
        leave(1)
    }
    // A layer that is not there is let go of.
    let _ = launcher.vault().map(|vault| vault.drop(layer));
    if is_worker {
        leave(0)
    }
}

fn work_on<'a>(
    launcher: &mut Launcher,
    work: &Work,
    fds: Vec<OwnedFd>,
    first: impl Fn(u64) -> Option<(Pid, &'a OwnedFd)>,
) -> Result<Worked, Failure> {
    sys::own_signals();
    stay_with_launcher(launcher)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut fds = fds.into_iter();
    let mut given = || fds.next().ok_or_else(|| protocol("a descriptor is missing"));
    let find = |sandbox| {
        let (pid, pidfd) = first(sandbox).ok_or_else(|| protocol("no such sandbox"))?;
        let proc = busy::Proc::open(pid).on(Step::Look, "/proc")?;
        // It may have ended, and its number may be another process's: not if it still lives now.
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)) {
            Ok(0) => Ok((pid, proc)),
            Ok(_) => Err(Errno::SRCH).on(Step::Look, "its first process"),
            Err(error) => Err(error).on(Step::Look, "its first process"),
        }
    };
    match work {
        Work::Restack(order) => restack::restack(launcher, find(order.sandbox)?, order, &given()?),
        Work::Copy(order) => keeper::copy(launcher, find(order.sandbox)?, order, &given()?),
        Work::Changes(order) => keeper::changes(launcher, find(order.sandbox)?, order, &given()?),
        Work::Keep(order) => keeper::keep(launcher, order),
        Work::Unpack(order) => keeper::unpack(launcher, order, given()?),
        Work::Merge { draft, below, layers } => keeper::merge(launcher, draft, below, layers),
        Work::Verify(layer) => keeper::verify(launcher, layer),
        Work::Remove(name) => keeper::remove(name),
        Work::Measure(name) => keeper::measure(name),
    }
}

fn tell(answer: &OwnedFd, worked: &Worked) {
    let text = serde_json::to_vec(worked).unwrap_or_default();
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(answer, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Nobody waits for it any more.
            Err(_) => return,
        }
    }
}
