//! What this machine can do, for `sandhold doctor`.

use sandhold_runtime::Level;
use serde::{Deserialize, Serialize};

/// What was looked at, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// One row a subject.
    pub items: Vec<ProbeItem>,
}

impl ProbeReport {
    /// Whether sandboxes of this level can be made.
    #[must_use]
    pub fn works(&self, level: Level) -> bool {
        self.items.iter().any(|item| item.name == row(level) && item.ok)
    }
}

/// One subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeItem {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// The line that mends it, where one is known.
    pub remedy: Option<String>,
}

/// The name of a level's row.
fn row(level: Level) -> String {
    format!("isolation level {level}")
}

#[cfg(target_os = "linux")]
pub use linux::probe;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::{OsStr, OsString};
    use std::path::PathBuf;

    use super::{ProbeItem, ProbeReport, row};
    use crate::cgroup;
    use crate::config::{EngineConfig, InitProgram};
    use crate::engine::Engine;
    use crate::ids::IdPool;
    use sandhold_runtime::{Level, RuntimeError};

    /// Looks at the kernel, ids and cgroups, and for each level makes one sandbox up to its exec. `launcher` is the command
    /// of [`crate::EngineConfig::launcher`], `search_path` its [`crate::EngineConfig::search_path`]. Needs no running engine
    /// and leaves nothing behind; must be called within a tokio runtime.
    pub async fn probe(launcher: &[OsString], search_path: &OsStr) -> ProbeReport {
        let mut items = vec![kernel(), ids(), cgroups()];
        for level in Level::ALL {
            items.push(try_level(level, launcher, search_path).await);
        }
        ProbeReport { items }
    }

    async fn try_level(level: Level, launcher: &[OsString], search_path: &OsStr) -> ProbeItem {
        // No init program: the rehearsal stops where one would be started.
        let mut config = EngineConfig::new(InitProgram::Path(PathBuf::new()), launcher.to_vec());
        config.isolation = level;
        config.search_path = search_path.to_owned();
        let item = |ok, detail, remedy| item(&row(level), ok, detail, remedy);
        match Engine::set_up(config, None).await {
            Ok(engine) => {
                let info = sandhold_runtime::Runtime::info(&*engine);
                engine.shutdown().await;
                item(true, info.isolation.detail, None)
            }
            Err(RuntimeError::Unsupported(text)) => {
                let (detail, remedy) = match text.split_once("; ") {
                    Some((detail, remedy)) => (detail.to_owned(), Some(remedy.to_owned())),
                    None => (text, None),
                };
                item(false, detail, remedy)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map(|cause| format!(": {cause}"))
                    .unwrap_or_default();
                item(false, format!("{error}{cause}"), None)
            }
        }
    }

    fn item(name: &str, ok: bool, detail: impl Into<String>, remedy: Option<String>) -> ProbeItem {
        ProbeItem {
            name: name.to_owned(),
            ok,
            detail: detail.into(),
            remedy,
        }
    }

    fn kernel() -> ProbeItem {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let ok = version >= (5, 12);
        item(
            "kernel",
            ok,
            release,
            (!ok).then(|| "the engine needs Linux 5.12 or newer".to_owned()),
        )
    }

    fn ids() -> ProbeItem {
        let (pool, warnings) = IdPool::detect();
        item(
            "user ids",
            warnings.is_empty(),
            pool.describe(),
            warnings.into_iter().next(),
        )
    }

    fn cgroups() -> ProbeItem {
        let found = cgroup::detect();
        found.remove();
        item(
            "cgroups",
            found.warnings.is_empty(),
            found.describe(),
            found.warnings.into_iter().next(),
        )
    }
}
