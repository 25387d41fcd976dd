//! The engine: what it was set up with, its launcher, and how a sandbox is made.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use sandhold_runtime::{Isolation, Resources, Runtime, RuntimeError, RuntimeInfo, Sandbox, SandboxSpec};
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cgroup::{self, CgroupLimits, Cgroups};
use crate::config::EngineConfig;
use crate::diagnose::Facts;
use crate::ids::{IdPool, single_warning};
use crate::init_image;
use crate::launcher::message::{BUILD, Create, Hello, Phase, Status};
use crate::limits::{BOOT_DEADLINE_S, BOOT_MESSAGE, STATUS, shm_bytes};
use crate::link::{Born, Link, LinkError};
use crate::sandbox::{self, Holdings, Inner, LocalSandbox, Name, Taken};
use crate::spare::Spares;
use crate::spec::{Limits, check_names};
use crate::sys::watch;
use crate::template::BASE;

/// The embedded engine. It lives as long as one of its handles or sandboxes does.
pub struct Engine {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    init: Option<OwnedFd>,
    cgroups: Cgroups,
    ids: Arc<IdPool>,
    slots: Arc<Semaphore>,
    pub(crate) defaults: Limits,
    pub(crate) spares: Spares,
    info: RuntimeInfo,
    /// The launcher of now, and how many there were.
    link: tokio::sync::Mutex<(u64, Option<Arc<Link>>)>,
    live: Mutex<HashMap<String, Weak<Inner>>>,
    names: Arc<Mutex<HashSet<String>>>,
}

/// What a first process was asked for.
pub(crate) struct Order {
    pub(crate) spec: SandboxSpec,
    pub(crate) limits: Limits,
    pub(crate) exec: bool,
    pub(crate) trace: bool,
}

/// A first process that has not answered yet. Dropped: it ends.
pub(crate) struct Newborn {
    sandbox: LocalSandbox,
    status: OwnedFd,
    phases: Vec<Phase>,
}

impl Newborn {
    pub(crate) fn is_alive(&self) -> bool {
        self.sandbox.inner().check_alive().is_ok()
    }
}

impl Engine {
    /// Sets the engine up: seals the init program, finds the ids and cgroups, sweeps after dead servers, starts the
    /// launcher and makes one sandbox up to its exec to see that it works. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] names what this machine forbids and the line that mends it.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>, RuntimeError> {
        let init = init_image::seal(&config.init)
            .map_err(|error| RuntimeError::failed(format!("loading the init program {:?}", config.init), error))?;
        Self::set_up(config, Some(init)).await
    }

    /// As [`Engine::start`], with the init program at hand, or without one to see how far this machine would get.
    pub(crate) async fn set_up(config: EngineConfig, init: Option<OwnedFd>) -> Result<Arc<Self>, RuntimeError> {
        let defaults = Limits::check(&config.defaults, &Limits::default())?;
        let cgroups = tokio::task::spawn_blocking(cgroup::detect)
            .await
            .map_err(|error| RuntimeError::failed("looking for cgroups", error))?;
        let guard = RemoveCgroups(&cgroups);
        let (mut ids, mut warnings) = IdPool::detect();
        let link = match start_link(1, &config, init.as_ref(), &cgroups, &ids).await {
            Err(LinkError::SubIds(said)) => {
                ids = ids.into_single();
                warnings.push(single_warning(&said));
                start_link(1, &config, init.as_ref(), &cgroups, &ids).await
            }
            other => other,
        };
        let link = link.map_err(explain)?;
        std::mem::forget(guard);
        warnings.extend(cgroups.warnings.iter().cloned());
        warnings.extend(link.facts.warnings.iter().cloned());
        let info = describe(&ids, &cgroups, &defaults, warnings);
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(config.max_sandboxes)),
            config,
            init,
            cgroups,
            ids: Arc::new(ids),
            defaults,
            spares: Spares::default(),
            info,
            link: tokio::sync::Mutex::new((1, Some(link))),
            live: Mutex::default(),
            names: Arc::default(),
        });
        shared.rehearse().await?;
        shared.refill();
        Ok(Arc::new(Self { shared }))
    }

    /// Makes a sandbox as [`Runtime::create`] does, and says how long each phase took.
    ///
    /// # Errors
    /// As [`Runtime::create`].
    pub async fn create_traced(&self, spec: SandboxSpec) -> Result<(Arc<dyn Sandbox>, Vec<Phase>), RuntimeError> {
        let (sandbox, phases) = self.make(spec, true).await?;
        Ok((sandbox, phases))
    }

    /// Ends every sandbox and waits until they are gone, then lets the launcher go.
    pub async fn shutdown(&self) {
        self.shared.spares.close();
        let live: Vec<Arc<Inner>> = {
            let live = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.values().filter_map(Weak::upgrade).collect()
        };
        for sandbox in &live {
            sandbox.end("the server shuts down");
        }
        for sandbox in &live {
            sandbox.ended().await;
        }
        let link = self.shared.link.lock().await.1.take();
        if let Some(link) = link {
            let mut ended = link.ended();
            drop(link);
            // An error says the same: nobody is left who could tell.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// How many sandboxes live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.shared.config.max_sandboxes - self.shared.slots.available_permits()
    }

    /// How many sandboxes are there that nobody has asked for yet.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.shared.spares.len()
    }

    async fn make(&self, spec: SandboxSpec, trace: bool) -> Result<(Arc<LocalSandbox>, Vec<Phase>), RuntimeError> {
        let limits = self.shared.check(&spec)?;
        let shared = Arc::clone(&self.shared);
        let order = Order {
            spec,
            limits,
            exec: true,
            trace,
        };
        // A task of its own: a caller that goes away in the middle drops a finished sandbox, which ends it, instead of
        // leaving a half-made one.
        let task = tokio::spawn(async move { shared.make(order).await });
        task.await
            .map_err(|error| RuntimeError::failed("making a sandbox", error))?
    }
}

/// Removes the server's cgroup folders when the start fails.
struct RemoveCgroups<'a>(&'a Cgroups);

impl Drop for RemoveCgroups<'_> {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The launcher does the same when it is still there; whoever comes second finds nothing.
        self.cgroups.remove();
    }
}

#[async_trait]
impl Runtime for Engine {
    fn info(&self) -> RuntimeInfo {
        self.shared.info.clone()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        let (sandbox, _) = self.make(spec, false).await?;
        Ok(sandbox)
    }
}

async fn start_link(
    number: u64,
    config: &EngineConfig,
    init: Option<&OwnedFd>,
    cgroups: &Cgroups,
    ids: &IdPool,
) -> Result<Arc<Link>, LinkError> {
    let hello = Hello {
        build: BUILD.to_owned(),
        ids: ids.source,
        template: BASE.to_owned(),
        cgroups: cgroups
            .folders
            .iter()
            .map(|folder| folder.to_string_lossy().into_owned())
            .collect(),
        unified: cgroups.unified(),
        init_args: config.init_args.clone(),
        programs: config.programs.clone(),
    };
    Link::start(number, &config.launcher, &hello, init, ids.sub_ids.clone()).await
}

fn explain(error: LinkError) -> RuntimeError {
    match error {
        LinkError::Failed(failure) => Facts::read().explain(failure),
        other => RuntimeError::failed("starting the launcher", other),
    }
}

fn describe(ids: &IdPool, cgroups: &Cgroups, defaults: &Limits, warnings: Vec<String>) -> RuntimeInfo {
    let detail = format!(
        "own user, mount, process, network, IPC, UTS, cgroup and time namespaces; {}; {}; system call allow-list, no new \
         privileges",
        ids.describe(),
        cgroups.describe(),
    );
    RuntimeInfo {
        isolation: Isolation {
            level: "namespaces".to_owned(),
            detail,
            warnings,
        },
        defaults: defaults.as_resources(),
        templates: vec![BASE.to_owned()],
        network: "loopback only".to_owned(),
        can_freeze: cgroups.hierarchy("freezer").is_some(),
        can_switch_user: ids.can_switch_user(),
    }
}

impl Shared {
    fn check(&self, spec: &SandboxSpec) -> Result<Limits, RuntimeError> {
        check_names(spec)?;
        if spec.template != BASE {
            return Err(RuntimeError::UnknownTemplate(spec.template.clone()));
        }
        if spec.boot.is_empty() || spec.boot.len() > BOOT_MESSAGE {
            let len = spec.boot.len();
            return Err(RuntimeError::InvalidSpec(format!(
                "boot is {len} bytes long; allowed are 1 to {BOOT_MESSAGE}"
            )));
        }
        Limits::check(&spec.resources, &self.defaults)
    }

    /// Makes a sandbox up to where its init program would start.
    async fn rehearse(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let spec = SandboxSpec {
            id: "rehearsal".to_owned(),
            template: BASE.to_owned(),
            hostname: "rehearsal".to_owned(),
            resources: Resources::default(),
            boot: vec![b'-'],
        };
        let limits = self.defaults.clone();
        self.make(Order {
            spec,
            limits,
            exec: false,
            trace: false,
        })
        .await
        .map(drop)
    }

    /// The launcher; a new one if the last has died.
    async fn link(&self) -> Result<Arc<Link>, RuntimeError> {
        let mut current = self.link.lock().await;
        if let Some(link) = current.1.as_ref().filter(|link| !link.is_ended()) {
            return Ok(Arc::clone(link));
        }
        current.0 += 1;
        tracing::info!(number = current.0, "starting another launcher");
        let link = start_link(current.0, &self.config, self.init.as_ref(), &self.cgroups, &self.ids)
            .await
            .map_err(explain)?;
        current.1 = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn make(self: &Arc<Self>, order: Order) -> Result<(Arc<LocalSandbox>, Vec<Phase>), RuntimeError> {
        let begun = Instant::now();
        let id = &order.spec.id;
        let mut slot = self.slot()?;
        if let Some(spare) = self.spare(&order) {
            self.refill();
            let name = Some(self.name(id)?);
            spare.sandbox.inner().take(id, Taken(slot, name), &order.spec.boot);
            match self.started(spare, &order, begun).await {
                Ok(made) => return Ok(made),
                // It may have ended while it waited.
                Err(error) => tracing::debug!(sandbox = id, %error, "a spare sandbox did not start"),
            }
            slot = self.slot()?;
        }
        let newborn = self.bear(&order, Some(slot)).await?;
        let made = self.started(newborn, &order, begun).await;
        if order.exec {
            self.refill();
        }
        made
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, RuntimeError> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let max = self.config.max_sandboxes;
            RuntimeError::Exhausted(format!(
                "all {max} sandboxes are in use; shut one down, or raise the limit"
            ))
        })
    }

    fn name(&self, id: &str) -> Result<Name, RuntimeError> {
        Name::take(&self.names, id).ok_or_else(|| RuntimeError::InvalidSpec(format!("id is {id:?}, which is in use")))
    }

    /// Has a first process made; with a slot, for the one who holds it.
    pub(crate) async fn bear(
        self: &Arc<Self>,
        order: &Order,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Result<Newborn, RuntimeError> {
        let begun = Instant::now();
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

        let request = link.next_request();
        let mut fds = vec![child_control, child_status];
        let mut lease = lease;
        let claim = lease.claim.take();
        let create = self.request(request, order, &lease, claim.is_some());
        fds.extend(claim);
        let sent = begun.elapsed();
        let born = match link.create(create, fds).await {
            Some(Ok(born)) => born,
            Some(Err(failure)) => {
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
        };
        let cgroups = self.cgroups.of(&order.spec.id);
        let inner = Inner::adopt(order.spec.id.clone(), (pid, pidfd), control, cgroups, holdings)
            .map_err(|error| failed("watching the first process", error))?;
        self.remember(&inner);
        if let Some(slot) = slot {
            inner.take(&order.spec.id, Taken(slot, None), &order.spec.boot);
        }
        Ok(Newborn {
            sandbox: LocalSandbox::new(inner),
            status,
            phases,
        })
    }

    /// Waits for the answer of a first process that was sent its boot message.
    async fn started(
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
        let answer = match tokio::time::timeout(deadline, inner.boot_answer()).await {
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

    fn request(&self, request: u64, order: &Order, lease: &crate::ids::Lease, claim: bool) -> Create {
        let Order { spec, limits, .. } = order;
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
            max_processes: self.cgroups.hierarchy("pids").is_none().then_some(limits.pids),
            max_file: self.cgroups.hierarchy("memory").is_none().then_some(limits.disk_bytes),
            open_files: limits.open_files,
            exec: order.exec,
            trace: order.trace,
            claim,
        }
    }

    fn remember(&self, inner: &Arc<Inner>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, known| known.strong_count() > 0);
        live.insert(inner.folder.clone(), Arc::downgrade(inner));
    }
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

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("live", &self.live())
            .field("ids", &self.shared.ids.source)
            .finish()
    }
}
