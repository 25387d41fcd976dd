//! The control plane.
#![allow(unused_variables)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use sandhold_wire::rest::{ListedSandbox, Network, SandboxDetail, State};
use tower::Service;

use crate::{
    Error, HttpConfig, Sandbox,
    transport::{Body, BoxError, HttpTransport, InProcess, SharedTransport},
};

/// A client of one control plane. Cloning is cheap and shares connections.
#[derive(Clone)]
pub struct Client {
    transport: SharedTransport,
    provider: &'static str,
}

/// What a new sandbox should be. `Default` is the template `base` for 300 seconds.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Template name; `None` is `base`.
    pub template: Option<String>,
    /// How long it lives; `None` is the server's default.
    pub timeout: Option<Duration>,
    /// Pairs to find it by.
    pub metadata: BTreeMap<String, String>,
    /// Environment of every process.
    pub envs: BTreeMap<String, String>,
    /// Whether it may reach the internet; `None` is the server's default.
    pub allow_internet_access: Option<bool>,
    /// Network rules.
    pub network: Option<Network>,
    /// Virtual processors (an addition of Sandhold, refused by E2B).
    pub cpus: Option<f64>,
    /// Memory in MiB (an addition of Sandhold, refused by E2B).
    pub memory_mb: Option<u64>,
    /// Disk in MiB (an addition of Sandhold, refused by E2B).
    pub disk_mb: Option<u64>,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only these states; empty means all.
    pub states: Vec<State>,
    /// Only those with all of these pairs.
    pub metadata: BTreeMap<String, String>,
    /// At most this many; `None` is the server's page size.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// One page of sandboxes.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// The page's sandboxes, newest first.
    pub sandboxes: Vec<ListedSandbox>,
    /// Where the next page starts; `None` at the end.
    pub next_cursor: Option<String>,
}

impl Client {
    /// A client of a control plane over HTTP.
    pub fn http(_config: HttpConfig) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(HttpTransport::new()?),
            provider: "e2b",
        })
    }
    /// A client of a service in this process, in place of a socket. Requests for a sandbox carry the `E2b-Sandbox-Id` and
    /// `E2b-Sandbox-Port` headers, all others are control-plane requests.
    pub fn in_process<S, B>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            transport: Arc::new(InProcess(service)),
            provider: "local",
        }
    }
    /// `local` or `e2b`, for messages.
    pub fn provider(&self) -> &'static str {
        let _ = &self.transport;
        self.provider
    }
    /// Draft.
    pub async fn create(&self, options: CreateOptions) -> Result<Sandbox, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Attaches to a sandbox; resumes it if it is paused; never shortens its life.
    pub async fn connect(&self, id: &str, timeout: Option<Duration>) -> Result<Sandbox, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn info(&self, id: &str) -> Result<SandboxDetail, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// False if there was none.
    pub async fn kill(&self, id: &str) -> Result<bool, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn set_timeout(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// False if it was paused already.
    pub async fn pause(&self, id: &str) -> Result<bool, Error> {
        Err(Error::Unsupported("draft".into()))
    }
}
