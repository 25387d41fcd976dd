//! How sandboxes are held on this machine: what that needs, the launcher for it, and what the engine says of it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use sandhold_runtime::{Isolation, Level, Reach, RuntimeError, RuntimeInfo};

use crate::cgroup::Cgroups;
use crate::config::EngineConfig;
use crate::diagnose::Facts;
use crate::etc::{self, BUNDLE};
use crate::gvisor;
use crate::ids::IdPool;
use crate::landlock::Fence;
use crate::launcher::message::{BUILD, Hello, Way};
use crate::link::{Link, LinkError};
use crate::private::ServerFolder;
use crate::spec::Limits;
use crate::store::Store;
use crate::template::{BASE, Template};

/// How sandboxes are held, and what that needs on the host.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) way: Way,
    /// Where sandboxes without a root file system of their own keep their files.
    pub(crate) private: Option<Arc<ServerFolder>>,
    /// The file of `runsc`.
    runsc: Option<PathBuf>,
    /// What sandboxes are made of where the launcher does not know it.
    pub(crate) template: Option<Arc<Template>>,
}

impl Held {
    /// As the configuration asks.
    pub(crate) async fn by(config: &EngineConfig, with_init: bool) -> Result<Self, RuntimeError> {
        let way = match config.isolation {
            Level::Namespaces => Way::Namespaces,
            Level::Landlock => Way::Fenced(Fence::detect()?),
            Level::Gvisor => Way::Gvisor,
        };
        let runsc = match way {
            Way::Gvisor => Some(gvisor::find(&config.search_path)?),
            _ => None,
        };
        let private = match way {
            Way::Namespaces => None,
            Way::Fenced(_) | Way::Gvisor => {
                let made = tokio::task::spawn_blocking(ServerFolder::make).await;
                let made = made.unwrap_or_else(|error| Err(error.into()));
                let what = "making the folder of the sandboxes' files in /var/tmp";
                Some(Arc::new(made.map_err(|error| RuntimeError::failed(what, error))?))
            }
        };
        let mut template = None;
        if let (Way::Gvisor, Some(private)) = (way, &private) {
            let found = Template::load(BASE, config.trust.as_deref())
                .map_err(|missing| RuntimeError::Unsupported(format!("{missing} is missing")))?;
            let found = found.ok_or_else(|| RuntimeError::Unsupported(format!("there is no template {BASE}")))?;
            let init = with_init.then_some(&config.init);
            gvisor::make_root(private.path(), &found, init)
                .map_err(|error| RuntimeError::failed("making the root file system of the sandboxes", error))?;
            template = Some(Arc::new(found));
        }
        Ok(Self {
            way,
            private,
            runsc,
            template,
        })
    }
}

pub(crate) async fn start_link(
    number: u64,
    config: &EngineConfig,
    (held, store): (&Held, Option<&Store>),
    init: Option<&OwnedFd>,
    cgroups: &Cgroups,
    ids: &IdPool,
) -> Result<Arc<Link>, LinkError> {
    let hello = Hello {
        build: BUILD.to_owned(),
        way: held.way,
        private: held
            .private
            .as_ref()
            .map_or_else(String::new, |folder| folder.path().to_string_lossy().into_owned()),
        runsc: held
            .runsc
            .as_ref()
            .map_or_else(String::new, |file| file.to_string_lossy().into_owned()),
        ids: ids.source,
        template: BASE.to_owned(),
        store: store.map_or_else(String::new, |store| store.path().to_string_lossy().into_owned()),
        drafts: store.map_or_else(String::new, |store| store.prefix().to_owned()),
        cgroups: cgroups
            .folders
            .iter()
            .map(|folder| folder.to_string_lossy().into_owned())
            .collect(),
        unified: cgroups.unified(),
        init_args: config.init_args.clone(),
        programs: config.programs.clone(),
        trust: config.trust.clone(),
    };
    let gifts: Vec<&OwnedFd> = held.private.iter().map(|folder| folder.fd()).chain(init).collect();
    Link::start(number, &config.launcher, &hello, &gifts, ids.sub_ids.clone()).await
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(crate) fn explain(error: LinkError) -> RuntimeError {
    match error {
        LinkError::Failed(failure) => Facts::read().explain(failure),
        other => RuntimeError::failed("starting the launcher", other),
    }
}

pub(crate) fn describe(
    way: Way,
    ids: &IdPool,
    cgroups: &Cgroups,
    defaults: &Limits,
    trust: Option<&str>,
    warnings: Vec<String>,
) -> RuntimeInfo {
    let (level, detail) = match way {
        Way::Namespaces => (
            Level::Namespaces,
            format!(
                "own user, mount, process, network, IPC, UTS, cgroup and time namespaces; {}; {}; system call allow-list, \
                 no new privileges",
                ids.describe(),
                cgroups.describe(),
            ),
        ),
        Way::Fenced(fence) => (Level::Landlock, format!("{}; {}", fence.describe(), cgroups.describe())),
        Way::Gvisor => (
            Level::Gvisor,
            format!(
                "gVisor's kernel in user space (runsc, systrap{}); {}",
                if rustix::process::geteuid().is_root() {
                    ""
                } else {
                    ", rootless"
                },
                cgroups.describe(),
            ),
        ),
    };
    RuntimeInfo {
        isolation: Isolation {
            level: level.name().to_owned(),
            detail,
            warnings,
        },
        defaults: defaults.as_resources(),
        least: Limits::LEAST.as_resources(),
        most: Limits::MOST.as_resources(),
        no_layers: None,
        reach: Reach::Nothing,
        ca_bundle: etc::bundle(trust).map(|_| format!("/etc/{BUNDLE}")),
        can_freeze: cgroups.hierarchy("freezer").is_some(),
        can_switch_user: way == Way::Gvisor || (way == Way::Namespaces && ids.can_switch_user()),
    }
}
