//! E2B's server side over any [`sandhold_runtime::Runtime`]: the REST API of the control plane and the forwarding of
//! everything else into the sandboxes, as one [`axum::Router`], which is a tower service.
//!
//! A request that names a sandbox in `E2b-Sandbox-Id` is forwarded, every other one is an API call. The bodies of
//! forwarded requests are never looked at.
//!
//! ```text
//!            create                  pause                 kill, timeout, end of its init
//!  (nothing) ──────▶ running ◀──────────────▶ paused ──────────────────────────────▶ ended (remembered with its reason)
//!                       │       connect, resume                                         ▲
//!                       └───────────────────────────────────────────────────────────────┘
//! ```
#![forbid(unsafe_code)]

mod api;
mod create;
mod error;
mod forward;
mod keys;
pub mod limits;
mod query;
mod route;
mod sandboxes;
mod store;

use std::{path::PathBuf, sync::Arc};

use axum::Router;
use sandhold_runtime::Runtime;

pub use error::StoreError;
pub use keys::{KeyInfo, Keys};
use sandboxes::Sandboxes;
pub use sandhold_wire::boot::daemon_version;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Folder of the registry, made if it is absent.
    pub home: PathBuf,
    /// Domain of the sandboxes' host names, told to clients.
    pub domain: Option<String>,
    /// Longest timeout of a sandbox in seconds.
    pub max_timeout_s: u64,
}

/// The server side. Cloning shares the state.
#[derive(Clone)]
pub struct Gateway {
    sandboxes: Arc<Sandboxes>,
    forwarder: forward::Forwarder,
}

impl Gateway {
    /// Opens the registry and takes the runtime into use.
    ///
    /// # Errors
    /// The registry cannot be opened.
    pub fn new(runtime: Arc<dyn Runtime>, config: GatewayConfig) -> Result<Self, StoreError> {
        let store = store::Store::open(&config.home)?;
        let sandboxes = Arc::new(Sandboxes::new(runtime, store, config));
        let forwarder = forward::Forwarder::new(sandboxes.clone());
        Ok(Self { sandboxes, forwarder })
    }

    /// The service for callers in this process: REST API and forwarding, no key is asked.
    pub fn router(&self) -> Router {
        api::router(self.clone(), None)
    }

    /// The service for a network: calls of the REST API need one of `keys`. Forwarded requests are checked by the
    /// sandbox's daemon, as on E2B.
    pub fn router_with_keys(&self, keys: Arc<Keys>) -> Router {
        api::router(self.clone(), Some(keys))
    }

    /// Ends every sandbox and waits until all are gone.
    pub async fn shutdown(&self) {
        self.sandboxes.shutdown().await;
    }
}
