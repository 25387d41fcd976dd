//! The engine: what it was set up with, its launcher, and how a sandbox is made.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use async_trait::async_trait;
use sandhold_runtime::{
    Layers, Level, Reach, Resources, Root, Runtime, RuntimeError, RuntimeInfo, Sandbox, SandboxSpec, Storage,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::birth::Order;
use crate::cgroup::{self, Cgroups};
use crate::config::EngineConfig;
use crate::fair;
use crate::gvisor;
use crate::held::{Held, chain, describe, explain, start_link};
use crate::ids::{IdPool, single_warning};
use crate::init_image;
use crate::launcher::message::{Phase, Way, Work};
use crate::layers::work;
use crate::limits::BOOT_MESSAGE;
use crate::link::{Link, LinkError};
use crate::sandbox::{Inner, LocalSandbox, Name, Taken};
use crate::spare::Spares;
use crate::spec::{Limits, check_names};
use crate::store::{Keeper, Store};

/// The embedded engine. It lives as long as one of its handles or sandboxes does.
pub struct Engine {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    init: Option<OwnedFd>,
    pub(crate) cgroups: Cgroups,
    pub(crate) ids: Arc<IdPool>,
    slots: Arc<Semaphore>,
    pub(crate) defaults: Limits,
    pub(crate) spares: Spares,
    /// How sandboxes are held.
    pub(crate) held: Held,
    info: RuntimeInfo,
    /// Where layers are kept.
    pub(crate) store: Option<Store>,
    /// Why there are no layers; unset where there are.
    pub(crate) no_layers: OnceLock<String>,
    /// How far the first sandbox's connections were led out, which is the rehearsal's.
    pub(crate) reach: OnceLock<Reach>,
    /// The launcher of now, and how many there were.
    link: tokio::sync::Mutex<(u64, Option<Arc<Link>>)>,
    pub(crate) live: Mutex<HashMap<String, Weak<Inner>>>,
    names: Arc<Mutex<HashSet<String>>>,
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
        let held = Held::by(&config, init.is_some()).await?;
        let way = held.way;
        let cgroups = tokio::task::spawn_blocking(cgroup::detect)
            .await
            .map_err(|error| RuntimeError::failed("looking for cgroups", error))?;
        let mut dead = Vec::new();
        let store = match (way, &config.store) {
            (Way::Namespaces, Some(path)) => {
                let opened = Store::open(path);
                let what = format!("opening the store of layers {}", path.display());
                let (store, found) = opened.map_err(|error| RuntimeError::failed(what, error))?;
                dead = found;
                Some(store)
            }
            _ => None,
        };
        let guard = RemoveCgroups(&cgroups);
        let (mut ids, mut warnings) = match way {
            Way::Namespaces => IdPool::detect(),
            Way::Fenced(fence) => (IdPool::plain(), fence.warnings()),
            Way::Gvisor => (IdPool::plain(), gvisor::warnings()),
        };
        let link = match start_link(1, &config, (&held, store.as_ref()), init.as_ref(), &cgroups, &ids).await {
            Err(LinkError::SubIds(said)) => {
                ids = ids.into_single();
                warnings.push(single_warning(&said));
                start_link(1, &config, (&held, store.as_ref()), init.as_ref(), &cgroups, &ids).await
            }
            other => other,
        };
        let link = link.map_err(explain)?;
        std::mem::forget(guard);
        warnings.extend(cgroups.warnings.iter().cloned());
        warnings.extend(link.facts.warnings.iter().cloned());
        let info = describe(way, &ids, &cgroups, &defaults, config.trust.as_deref(), warnings);
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(config.max_sandboxes)),
            config,
            init,
            cgroups,
            ids: Arc::new(ids),
            defaults,
            spares: Spares::default(),
            held,
            info,
            store,
            no_layers: OnceLock::new(),
            reach: OnceLock::new(),
            link: tokio::sync::Mutex::new((1, Some(link))),
            live: Mutex::default(),
            names: Arc::default(),
        });
        shared.rehearse_either_way().await?;
        if shared.cgroups.hierarchy("cpu").is_some() {
            tokio::spawn(fair::look_after(Arc::downgrade(&shared)));
        }
        if !dead.is_empty() {
            tokio::spawn(sweep(Arc::downgrade(&shared), dead));
        }
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

/// Removes what dead servers left in the store.
async fn sweep(shared: Weak<Shared>, names: Vec<String>) {
    for name in names {
        let Some(shared) = shared.upgrade() else { return };
        let Ok(link) = shared.link().await else { return };
        if let Err(error) = work(&link, Work::Remove(name.clone()), &[]).await {
            tracing::debug!(name, %error, "what a dead server left was not removed");
        }
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
        let mut info = self.shared.info.clone();
        info.no_layers = self.shared.no_layers.get().cloned();
        info.reach = self.shared.reach.get().copied().unwrap_or_default();
        let led_out = self.shared.config.isolation == Level::Namespaces;
        let lacks = match info.reach {
            Reach::Proxy => {
                "this kernel has no nf_tables, or a part of it is missing: only programs that use the proxy of their \
                 environment reach the network"
            }
            Reach::Nothing if led_out => "a way out could not be made: a sandbox reaches its own loopback only",
            _ => return info,
        };
        info.isolation.warnings.push(lacks.to_owned());
        info
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        let (sandbox, _) = self.make(spec, false).await?;
        Ok(sandbox)
    }

    fn layers(&self) -> Option<Arc<dyn Layers>> {
        (self.shared.store.is_some() && self.shared.no_layers.get().is_none())
            .then(|| Arc::new(Keeper(Arc::clone(&self.shared))) as Arc<dyn Layers>)
    }
}

impl Shared {
    fn check(&self, spec: &SandboxSpec) -> Result<Limits, RuntimeError> {
        check_names(spec)?;
        let special = spec.root != Root::default() || spec.storage != Storage::Memory;
        if let Some(why) = self.no_layers.get().filter(|_| special) {
            return Err(RuntimeError::Unsupported(why.clone()));
        }
        if spec.boot.is_empty() || spec.boot.len() > BOOT_MESSAGE {
            let len = spec.boot.len();
            return Err(RuntimeError::InvalidSpec(format!(
                "boot is {len} bytes long; allowed are 1 to {BOOT_MESSAGE}"
            )));
        }
        Limits::check(&spec.resources, &self.defaults)
    }

    /// Rehearses with an overlay, and if that fails without one.
    async fn rehearse_either_way(self: &Arc<Self>) -> Result<(), RuntimeError> {
        if self.held.way != Way::Namespaces {
            let level = self.config.isolation;
            // Nothing else sets it.
            let _ = self.no_layers.set(format!("the isolation level {level} has no layers"));
            return self.rehearse().await;
        }
        let Err(error) = self.rehearse().await else {
            return Ok(());
        };
        let why = chain(&error);
        let _ = self.no_layers.set(format!("overlays cannot be mounted here: {why}"));
        // If it was not the overlay, it fails again, and says the same.
        self.rehearse().await
    }

    /// Makes a sandbox up to where its init program would start.
    async fn rehearse(self: &Arc<Self>) -> Result<(), RuntimeError> {
        let spec = SandboxSpec {
            id: "rehearsal".to_owned(),
            root: Root::default(),
            storage: Storage::Memory,
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
    pub(crate) async fn link(&self) -> Result<Arc<Link>, RuntimeError> {
        let mut current = self.link.lock().await;
        if let Some(link) = current.1.as_ref().filter(|link| !link.is_ended()) {
            return Ok(Arc::clone(link));
        }
        current.0 += 1;
        tracing::info!(number = current.0, "starting another launcher");
        let link = start_link(
            current.0,
            &self.config,
            (&self.held, self.store.as_ref()),
            self.init.as_ref(),
            &self.cgroups,
            &self.ids,
        )
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

    pub(crate) fn name(&self, id: &str) -> Result<Name, RuntimeError> {
        Name::take(&self.names, id).ok_or_else(|| RuntimeError::InvalidSpec(format!("id is {id:?}, which is in use")))
    }

    pub(crate) fn remember(&self, inner: &Arc<Inner>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, known| known.strong_count() > 0);
        live.insert(inner.folder.clone(), Arc::downgrade(inner));
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("live", &self.live())
            .field("ids", &self.shared.ids.source)
            .finish()
    }
}
