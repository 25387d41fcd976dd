//! The engine on systems other than Linux: it says what to use instead.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use sandhold_runtime::{Runtime, RuntimeError, RuntimeInfo, Sandbox, SandboxSpec};

use crate::config::EngineConfig;
use crate::probe::{ProbeItem, ProbeReport};

const INSTEAD: &str = "the embedded engine needs Linux; set E2B_API_KEY to use E2B, or SANDHOLD_URL to use a Sandhold \
                       server on a Linux machine";

/// The embedded engine, which does not exist here.
#[derive(Debug)]
pub struct Engine(Infallible);

impl Engine {
    /// Never succeeds.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] says what to use instead.
    pub async fn start(_config: EngineConfig) -> Result<Arc<Self>, RuntimeError> {
        Err(RuntimeError::Unsupported(INSTEAD.to_owned()))
    }

    /// Never called.
    pub async fn shutdown(&self) {
        match self.0 {}
    }
}

#[async_trait]
impl Runtime for Engine {
    fn info(&self) -> RuntimeInfo {
        match self.0 {}
    }

    async fn create(&self, _spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        match self.0 {}
    }
}

/// Fails: there is nothing to launch.
pub fn launcher_main() -> ExitCode {
    ExitCode::FAILURE
}

/// Says what to use instead.
pub async fn probe(_launcher: &[OsString], _search_path: &OsStr) -> ProbeReport {
    let item = ProbeItem {
        name: "operating system".to_owned(),
        ok: false,
        detail: std::env::consts::OS.to_owned(),
        remedy: Some(INSTEAD.to_owned()),
    };
    ProbeReport { items: vec![item] }
}
