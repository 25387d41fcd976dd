//! The local provider: engine and gateway in this process, started at the first request.
//!
//! An MCP client sees its server at once, and what this machine forbids is told in the answer of the call that met it.

use std::{
    convert::Infallible,
    ffi::OsString,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use axum::{Json, Router, body::Body, response::IntoResponse};
use http::{Request, Response, StatusCode};
use sandhold_egress::Egress;
use sandhold_engine::{Engine, EngineConfig, InitProgram};
use sandhold_gateway::{Gateway, GatewayConfig, Owner, TemplateConfig};
use tokio::sync::OnceCell;
use tower::{Service, ServiceExt};

use crate::{daemon, images::Registries, settings::LocalSettings};

/// Longest life of a local sandbox in seconds: 24 hours.
const MAX_TIMEOUT_S: u64 = 86_400;

/// A handle to the local engine and gateway. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Local {
    settings: Arc<LocalSettings>,
    /// What clients build host names from, where something serves them.
    domain: Option<Arc<str>>,
    started: Arc<OnceCell<(Gateway, Router)>>,
}

impl Local {
    pub(crate) fn new(settings: LocalSettings, domain: Option<String>) -> Self {
        Self {
            settings: Arc::new(settings),
            domain: domain.map(Into::into),
            started: Arc::default(),
        }
    }

    /// Starts engine and gateway, if they do not run. A failure is not kept: the next call tries again.
    pub(crate) async fn start(&self) -> Result<&(Gateway, Router)> {
        self.started
            .get_or_try_init(|| start(&self.settings, self.domain.as_deref()))
            .await
    }

    /// Ends every sandbox, or pauses it where the settings say so.
    pub(crate) async fn shutdown(&self) {
        if let Some((gateway, _)) = self.started.get() {
            gateway.shutdown().await;
        }
    }
}

async fn start(settings: &LocalSettings, domain: Option<&str>) -> Result<(Gateway, Router)> {
    let gateway = start_gateway(settings, domain.map(str::to_owned), settings.pause_at_end, false).await?;
    let router = gateway.router(Owner::LOCAL);
    Ok((gateway, router))
}

/// Starts an engine with a gateway in front. `domain` is what clients build host names from; with `keep_paused`, paused
/// sandboxes outlive this program; with `https`, clients reach it by TLS.
pub(crate) async fn start_gateway(
    settings: &LocalSettings,
    domain: Option<String>,
    keep_paused: bool,
    https: bool,
) -> Result<Gateway> {
    let daemon = tokio::task::spawn_blocking(daemon::find)
        .await
        .context("the search for the daemon failed")??;
    let mut config = EngineConfig::new(InitProgram::Path(daemon), launcher());
    config.isolation = settings.isolation;
    config.search_path.clone_from(&settings.search_path);
    config.spares = settings.spares;
    config.store = Some(settings.home.join(LAYERS));
    config.defaults = settings.caps.runtime_defaults(&sandhold_engine::limits::usual());
    let egress = Egress::new(settings.egress.clone())?;
    config.trust = Some(egress.ca_pem().to_owned());
    let engine = Engine::start(config)
        .await
        .context("this machine cannot run local sandboxes")?;
    let config = GatewayConfig {
        home: settings.home.clone(),
        domain,
        max_timeout_s: MAX_TIMEOUT_S,
        caps: settings.caps,
        keep_paused,
        pause_at_end: settings.pause_at_end,
        templates: TemplateConfig {
            images: Some(Arc::new(Registries::new(settings.images.clone(), Arc::clone(&egress))?)),
            https,
        },
        egress,
    };
    Ok(Gateway::new(engine, config)?)
}

/// The folder of layers in the home.
const LAYERS: &str = "layers";

/// The command that runs the engine's helper process: this program.
pub(crate) fn launcher() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), "__launcher".into()]
}

impl Service<Request<sandhold_client::transport::Body>> for Local {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<sandhold_client::transport::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            match this.start().await {
                Ok((_, router)) => router.clone().oneshot(request.map(Body::new)).await,
                Err(error) => {
                    let code = StatusCode::NOT_IMPLEMENTED;
                    let body = serde_json::json!({"code": code.as_u16(), "message": format!("{error:#}")});
                    Ok((code, Json(body)).into_response())
                }
            }
        })
    }
}
