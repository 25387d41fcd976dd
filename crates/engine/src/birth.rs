//! One first process: what it is asked for, how it is had made, and how its answer is waited for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use sandhold_runtime::{RuntimeError, SandboxSpec, Storage};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::sync::OwnedSemaphorePermit;

use crate::bridge;
use crate::cgroup::CgroupLimits;
use crate::diagnose::Facts;
use crate::engine::Shared;
use crate::gvisor;
use crate::ids::Lease;
use crate::launcher::message::{Create, Phase, Status, Way};
use crate::layers::{DiskFolder, Standing};
use crate::limits::{BOOT_DEADLINE_S, STATUS, shm_bytes};
use crate::link::Born;
use crate::private::Size;
use crate::sandbox::{self, Holdings, Inner, LocalSandbox, Taken};
use crate::spec::Limits;
use crate::store::InUse;
use crate::sys::watch;

/// What a first process was asked for.
pub(crate) struct Order {
    pub(crate) spec: SandboxSpec,
    pub(crate) limits: Limits,
    pub(crate) exec: bool,
    pub(crate) trace: bool,
}

/// A first process that has not answered yet. Dropped: it ends.
pub(crate) struct Newborn {
    pub(crate) sandbox: LocalSandbox,
    status: OwnedFd,
    phases: Vec<Phase>,
}

impl Newborn {
    pub(crate) fn is_alive(&self) -> bool {
        self.sandbox.inner().check_alive().is_ok()
    }
}

impl Shared {
    /// Has a first process made; with a slot, for the one who holds it.
    pub(crate) async fn bear(
        self: &Arc<Self>,
        order: &Order,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Result<Newborn, RuntimeError> {
        let begun = Instant::now();
        let in_use = self.in_use(&order.spec.root)?;
        let disk = match order.spec.storage {
            Storage::Memory => None,
            Storage::Disk => Some(self.new_folder()?),
        };
        let folder = self.name(&order.spec.id)?;
        let link = self.link().await?;
        let lease = self.ids.lease(link.number)?;
        let (control, child_control) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| failed("making the control socket", error.into()))?;
        rustix::io::ioctl_fionbio(&control, true)
            .map_err(|error| failed("setting the control socket", error.into()))?;
        let (status, child_status) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("making the status pipe", error.into()))?;
        rustix::io::ioctl_fionbio(&status, true).map_err(|error| failed("setting the status pipe", error.into()))?;
        let control = watch(control, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| failed("watching the control socket", error))?;

        let bridge = match self.held.way {
            Way::Gvisor => Some((copy_of(&child_control)?, self.bundle(order)?)),
            _ => None,
        };
        let request = link.next_request();
        let mut fds = vec![child_control, child_status];
        let mut lease = lease;
        let claim = lease.claim.take();
        let create = self.request(request, order, &lease, claim.is_some(), disk.as_ref());
        fds.extend(claim);
        let sent = begun.elapsed();
        let born = match link.create(create, fds).await {
            Some(Ok(born)) => born,
            Some(Err(failure)) => {
                self.remove_private(&order.spec.id).await;
                self.ids.release(&lease);
                // What the child itself said is nearer to the cause than what the launcher saw of its end.
                let told = read_status(&status).into_iter().find_map(|status| match status {
                    Status::Failed(failure) => Some(failure),
                    _ => None,
                });
                return Err(Facts::read().explain(told.unwrap_or(failure)));
            }
            None => {
                // If it was born, it died with the launcher.
                sandbox::remove(&self.cgroups.of(&order.spec.id), &order.spec.id).await;
                self.remove_private(&order.spec.id).await;
                self.ids.release(&lease);
                let what = "the launcher process ended while it made the sandbox; try again";
                return Err(RuntimeError::failed(
                    what,
                    std::io::Error::from(std::io::ErrorKind::BrokenPipe),
                ));
            }
        };
        let replied = begun.elapsed();
        let Born { pid, pidfd, mut phases } = born;
        if order.trace {
            phases.push(Phase::new("engine: before the launcher", sent));
            phases.push(Phase::new("engine: until its reply", replied - sent));
        }
        let holdings = Holdings {
            request,
            link,
            ids: Arc::clone(&self.ids),
            lease,
            folder,
            private: self.held.private.clone(),
            most: Size {
                bytes: order.limits.disk_bytes,
                files: order.limits.inodes,
            },
        };
        let cgroups = self.cgroups.of(&order.spec.id);
        let standing = self.standing(order, &holdings, (in_use, disk), cgroups.can_freeze());
        let inner = Inner::adopt(
            order.spec.id.clone(),
            (pid, pidfd),
            control,
            cgroups,
            holdings,
            standing,
        )
        .map_err(|error| failed("watching the first process", error))?;
        self.remember(&inner);
        if let Some((control, listener)) = bridge {
            tokio::spawn(bridge::serve(control, listener, Arc::clone(&inner)));
        }
        if let Some(slot) = slot {
            inner.take(&order.spec.id, Taken(slot, None), &order.spec.boot);
        }
        Ok(Newborn {
            sandbox: LocalSandbox::new(inner),
            status,
            phases,
        })
    }

    fn standing(
        self: &Arc<Self>,
        order: &Order,
        holdings: &Holdings,
        (in_use, disk): (Vec<Arc<InUse>>, Option<DiskFolder>),
        can_freeze: bool,
    ) -> Standing {
        let root = self.no_layers.get().is_none().then(|| order.spec.root.clone());
        Standing {
            request: holdings.request,
            link: Arc::downgrade(&holdings.link),
            hostname: order.spec.hostname.clone(),
            ids: (holdings.lease.uids, holdings.lease.gids),
            disk_bytes: order.limits.disk_bytes,
            inodes: order.limits.inodes,
            can_freeze,
            root: Mutex::new(root),
            folder: Mutex::new(disk.map(Arc::new)),
            in_use: Mutex::new(in_use),
            shared: Arc::downgrade(self),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Makes what `runsc` is told of a sandbox, and the socket that its init program connects to.
    fn bundle(&self, order: &Order) -> Result<UnixListener, RuntimeError> {
        let (Some(private), Some(template)) = (&self.held.private, &self.held.template) else {
            return Err(RuntimeError::InvalidSpec("there is no folder for it".to_owned()));
        };
        let (id, hostname) = (&order.spec.id, &order.spec.hostname);
        let how = (order.exec, self.config.init_args.as_slice());
        gvisor::make_bundle(private.path(), (id, hostname), template, &order.limits, how)
            .map_err(|error| failed("making the description", error))?;
        let folder = private.path().join(id).join(gvisor::CONTROL_FOLDER);
        UnixListener::bind(folder.join(gvisor::SOCKET)).map_err(|error| failed("making the host's socket", error))
    }

    /// Removes the private folder of a sandbox whose processes have ended.
    async fn remove_private(&self, name: &str) {
        if let Some(private) = self.held.private.clone() {
            let name = name.to_owned();
            // Fails only when the runtime ends, and the folder with it.
            let _ = tokio::task::spawn_blocking(move || private.remove(&name)).await;
        }
    }

    /// Waits for the answer of a first process that was sent its boot message.
    pub(crate) async fn started(
        &self,
        newborn: Newborn,
        order: &Order,
        begun: Instant,
    ) -> Result<(Arc<LocalSandbox>, Vec<Phase>), RuntimeError> {
        let Newborn {
            sandbox,
            status,
            mut phases,
        } = newborn;
        let inner = Arc::clone(sandbox.inner());
        let waiting = Instant::now();
        let deadline = Duration::from_secs(BOOT_DEADLINE_S).saturating_sub(begun.elapsed());
        let told = async {
            if self.held.way == Way::Namespaces {
                // The doors come first, and from our own code.
                let reach = inner.receive_doors().await?;
                self.reach.get_or_init(|| reach);
            }
            inner.boot_answer().await
        };
        let answer = match tokio::time::timeout(deadline, told).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::other(format!("no answer within {BOOT_DEADLINE_S} s"))),
        };
        if let Ok(Some(answer)) = answer {
            if order.trace {
                phases.extend(read_phases(&status));
                phases.push(Phase::new("engine: until the answer", waiting.elapsed()));
            }
            return Ok((Arc::new(sandbox.answered(answer)), phases));
        }
        // It ended, or has to.
        let died = matches!(answer, Ok(None));
        inner.end("it did not start");
        inner.ended().await;
        let mut dry = false;
        for status in read_status(&status) {
            match status {
                Status::Failed(failure) => return Err(Facts::read().explain(failure)),
                Status::Dry => dry = true,
                Status::Phases(_) => {}
            }
        }
        if dry && !order.exec {
            return Ok((Arc::new(sandbox), phases));
        }
        let cause = match answer {
            Err(error) => error,
            Ok(_) if died => std::io::Error::other("it ended before it answered"),
            Ok(_) => std::io::ErrorKind::InvalidData.into(),
        };
        Err(RuntimeError::failed(
            format!("starting the init program of sandbox {}", order.spec.id),
            cause,
        ))
    }

    fn request(&self, request: u64, order: &Order, lease: &Lease, claim: bool, disk: Option<&DiskFolder>) -> Create {
        let Order { spec, limits, .. } = order;
        let plain = self.held.way != Way::Namespaces;
        let counted = !plain || self.ids.can_switch_user();
        let no_memory = self.cgroups.hierarchy("memory").is_none();
        let cgroup = CgroupLimits {
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
            cpus: limits.cpus_below_all(),
        };
        Create {
            request,
            id: spec.id.clone(),
            hostname: spec.hostname.clone(),
            uids: lease.uids,
            gids: lease.gids,
            cgroup_files: self.cgroups.files(cgroup),
            disk_bytes: limits.disk_bytes,
            shm_bytes: shm_bytes(limits.memory_bytes),
            inodes: limits.inodes,
            // Of a user id that others have, too, theirs would count.
            max_processes: (counted && self.cgroups.hierarchy("pids").is_none()).then_some(limits.pids),
            max_file: (plain || no_memory).then_some(limits.disk_bytes),
            max_data: (plain && no_memory).then_some(limits.memory_bytes),
            open_files: limits.open_files,
            exec: order.exec,
            trace: order.trace,
            claim,
            stack: self.stack(&spec.root, &spec.id, disk),
        }
    }
}

/// A second descriptor of the init program's end of the control socket, for the bridge.
fn copy_of(control: &OwnedFd) -> Result<AsyncFd<OwnedFd>, RuntimeError> {
    let copy = control.try_clone().and_then(|copy| {
        rustix::io::ioctl_fionbio(&copy, true)?;
        watch(copy, Interest::READABLE | Interest::WRITABLE)
    });
    copy.map_err(|error| failed("copying the control socket", error))
}

fn failed(what: &str, error: std::io::Error) -> RuntimeError {
    RuntimeError::failed(format!("{what} of a sandbox"), error)
}

/// Everything a child wrote into its status pipe so far.
fn read_status(pipe: &OwnedFd) -> Vec<Status> {
    let mut buffer = vec![0; STATUS];
    let len = rustix::io::read(pipe, &mut buffer).unwrap_or(0);
    serde_json::Deserializer::from_slice(&buffer[..len])
        .into_iter()
        .map_while(Result::ok)
        .collect()
}

fn read_phases(pipe: &OwnedFd) -> Vec<Phase> {
    let phases = read_status(pipe).into_iter().filter_map(|status| match status {
        Status::Phases(phases) => Some(phases),
        _ => None,
    });
    phases.flatten().collect()
}
