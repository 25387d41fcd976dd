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
//!
//! A paused sandbox stands still in memory. Where the gateway keeps paused sandboxes, its files are written first, as layers
//! where the engine has them, and the next server makes it again from them.
#![forbid(unsafe_code)]

mod api;
mod archive;
mod caps;
mod checkpoints;
mod create;
mod daemon;
mod door;
mod entry;
mod error;
mod events;
mod forks;
mod forward;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod history;
mod idempotency;
mod keys;
mod layering;
mod lifecycle;
pub mod limits;
mod listing;
mod network;
mod owner;
mod pages;
mod pausing;
mod process;
mod query;
mod route;
mod sandboxes;
mod snapshots;
mod status;
mod store;
mod templates;
mod unread;
mod usage;

use std::{path::PathBuf, sync::Arc};

use axum::Router;
use sandhold_egress::Egress;
use sandhold_runtime::Runtime;

use api::Access;
pub use caps::CapRules;
pub use error::StoreError;
pub use keys::{KeyInfo, Keys};
pub use owner::Owner;
use sandboxes::Sandboxes;
pub use sandhold_wire::{
    boot::daemon_version,
    caps::{Cap, Caps},
};
pub use templates::verify::{LayerReport, LayerState, VerifyError};
pub use templates::{ImageCredentials, ImageFailure, ImageLayer, ImageSource, OpenImage, TemplateConfig};

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Folder of the registry, made if it is absent.
    pub home: PathBuf,
    /// Domain of the sandboxes' host names, told to clients.
    pub domain: Option<String>,
    /// Longest timeout of a sandbox in seconds.
    pub max_timeout_s: u64,
    /// Limits that sandboxes get and may ask for. The runtime must have been given [`CapRules::runtime_defaults`].
    pub caps: CapRules,
    /// Whether paused sandboxes outlive this server: their files are written into `home` then.
    pub keep_paused: bool,
    /// Whether sandboxes that run when this server ends are paused then, not ended. Needs `keep_paused`.
    pub pause_at_end: bool,
    /// What sandboxes may reach at most, and who serves their way out.
    pub egress: Arc<Egress>,
    /// How templates are built.
    pub templates: TemplateConfig,
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
    /// The registry or the folder of paused sandboxes cannot be opened.
    pub fn new(runtime: Arc<dyn Runtime>, config: GatewayConfig) -> Result<Self, StoreError> {
        let sandboxes = Arc::new(Sandboxes::open(runtime, config)?);
        let forwarder = forward::Forwarder::new(sandboxes.clone());
        Ok(Self { sandboxes, forwarder })
    }

    /// The service for callers in this process: REST API and forwarding, no key is asked. The caller is `owner`, whose
    /// sandboxes are all that it sees and reaches.
    pub fn router(&self, owner: Owner) -> Router {
        api::router(self.clone(), Access::As(owner), Router::new())
    }

    /// The service for a network: calls of the REST API need one of `keys`, and see what that key made. Forwarded
    /// requests are checked by the sandbox's daemon, as on E2B.
    ///
    /// `beside` is served on the same host, for requests that name no sandbox, and checks its callers itself.
    pub fn router_with_keys(&self, keys: Arc<Keys>, beside: Router) -> Router {
        api::router(self.clone(), Access::Keys(keys), beside).layer(axum::middleware::from_fn(unread::finish))
    }

    /// The service for browsers of this machine: ports of `owner`'s sandboxes under `<port>-<id>.<domain>`, and signed URLs
    /// of their files. No API, and no way to a sandbox but its host name.
    pub fn door(&self, owner: Owner) -> Router {
        door::router(self.clone(), owner).layer(axum::middleware::from_fn(unread::finish))
    }

    /// Ends every sandbox and waits until all are gone, or pauses them where the gateway was set up so. Paused ones that are
    /// kept stay for the next server.
    pub async fn shutdown(&self) {
        self.sandboxes.shutdown().await;
    }
}
