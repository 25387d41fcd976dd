//! What this machine can do, for `sandhold doctor`.

use serde::{Deserialize, Serialize};

/// What was looked at, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// One row a subject.
    pub items: Vec<ProbeItem>,
}

impl ProbeReport {
    /// Whether sandboxes can be made.
    #[must_use]
    pub fn works(&self) -> bool {
        self.items.iter().any(|item| item.name == SANDBOX && item.ok)
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

/// The row that decides.
const SANDBOX: &str = "sandbox";

#[cfg(target_os = "linux")]
pub use linux::probe;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use super::{ProbeItem, ProbeReport, SANDBOX};
    use crate::cgroup;
    use crate::config::{EngineConfig, InitProgram};
    use crate::engine::Engine;
    use crate::ids::IdPool;
    use sandhold_runtime::RuntimeError;

    /// Looks at the kernel, ids and cgroups, and makes one sandbox up to its exec. `launcher` is the command of
    /// [`crate::EngineConfig::launcher`]. Needs no running engine and leaves nothing behind; must be called within a tokio
    /// runtime.
    pub async fn probe(launcher: &[OsString]) -> ProbeReport {
        let mut items = vec![kernel(), ids(), cgroups()];
        // No init program: the rehearsal stops where one would be started.
        let config = EngineConfig::new(InitProgram::Path(PathBuf::new()), launcher.to_vec());
        items.push(match Engine::set_up(config, None).await {
            Ok(engine) => {
                let info = sandhold_runtime::Runtime::info(&*engine);
                engine.shutdown().await;
                item(SANDBOX, true, info.isolation.detail, None)
            }
            Err(RuntimeError::Unsupported(text)) => {
                let (detail, remedy) = match text.split_once("; ") {
                    Some((detail, remedy)) => (detail.to_owned(), Some(remedy.to_owned())),
                    None => (text, None),
                };
                item(SANDBOX, false, detail, remedy)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map(|cause| format!(": {cause}"))
                    .unwrap_or_default();
                item(SANDBOX, false, format!("{error}{cause}"), None)
            }
        });
        ProbeReport { items }
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
