//! Requests to the gateway's REST API: a line with method and path, headers, an empty line, the body. `{id}` is a sandbox that is
//! there.
#![no_main]

use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use axum::{Router, body::Body};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use sandhold_egress::{Egress, EgressConfig};
use sandhold_fuzz::wait;
use sandhold_gateway::{CapRules, Gateway, GatewayConfig, Owner};
use sandhold_runtime::{
    Isolation, Reach, Resources, Runtime, RuntimeError, RuntimeInfo, Sandbox, SandboxSpec, Stream, Usage,
};
use sandhold_wire::{names::IDEMPOTENCY_HEADER, rest::ApiError};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt;

/// Makes sandboxes that nobody can reach.
struct Hollow;

struct Nothing {
    answer: Vec<u8>,
    ended: watch::Sender<bool>,
}

#[async_trait]
impl Runtime for Hollow {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo {
            defaults: Resources {
                cpus: Some(1.0),
                memory_bytes: Some(1 << 30),
                disk_bytes: Some(1 << 30),
                ..Resources::default()
            },
            isolation: Isolation::default(),
            least: Resources::default(),
            most: Resources::default(),
            ca_bundle: None,
            no_layers: None,
            reach: Reach::default(),
            can_freeze: true,
            can_switch_user: true,
        }
    }

    async fn create(&self, _: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        Ok(Arc::new(Nothing {
            answer: format!("{{\"version\":\"{}\"}}", VERSION).into_bytes(),
            ended: watch::Sender::new(false),
        }))
    }
}

/// The version that the gateway wants of a daemon.
const VERSION: &str = sandhold_gateway::fuzz::VERSION;

#[async_trait]
impl Sandbox for Nothing {
    fn root(&self) -> sandhold_runtime::Root {
        sandhold_runtime::Root::default()
    }

    fn boot_answer(&self) -> &[u8] {
        &self.answer
    }
    async fn connect(&self) -> Result<Box<dyn Stream>, RuntimeError> {
        Err(RuntimeError::Ended("it is hollow".into()))
    }
    async fn freeze(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn thaw(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn usage(&self) -> Result<Usage, RuntimeError> {
        Ok(Usage::default())
    }
    async fn kill(&self) {
        self.ended.send_replace(true);
    }
    async fn ended(&self) -> String {
        // The sender is this object's own.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
        "killed".into()
    }
}

fn api() -> &'static Router {
    static API: OnceLock<(tempfile::TempDir, Gateway, Router)> = OnceLock::new();
    let (_, _, router) = API.get_or_init(|| {
        let home = tempfile::tempdir().expect("a folder");
        let config = GatewayConfig {
            home: home.path().to_owned(),
            domain: Some("sandhold.localhost".into()),
            max_timeout_s: 3600,
            caps: CapRules::default(),
            keep_paused: false,
            pause_at_end: false,
            egress: Egress::new(EgressConfig::default()).expect("no rule is wrong"),
            templates: sandhold_gateway::TemplateConfig::default(),
        };
        let gateway = Gateway::new(Arc::new(Hollow), config).expect("the registry opens");
        let router = gateway.router(Owner::LOCAL);
        (home, gateway, router)
    });
    router
}

async fn ask(request: Request<Body>) -> (StatusCode, bytes::Bytes) {
    let answer: Response<Body> = api().clone().oneshot(request).await.expect("it never fails");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("an answer is whole");
    (status, body.to_bytes())
}

/// A sandbox that is there.
async fn sandbox() -> String {
    static ID: Mutex<Option<String>> = Mutex::new(None);
    let known = ID.lock().expect("nobody panics").clone();
    if let Some(id) = known {
        let there = Request::get(format!("/sandboxes/{id}"))
            .body(Body::empty())
            .expect("a request");
        if ask(there).await.0 == StatusCode::OK {
            return id;
        }
    }
    let create = Request::post("/v2/sandboxes")
        .body(Body::from(r#"{"templateID":"base"}"#))
        .expect("a request");
    let (status, body) = ask(create).await;
    assert_eq!(status, StatusCode::CREATED, "{body:?}");
    let id = id_in(&body).expect("an id");
    *ID.lock().expect("nobody panics") = Some(id.clone());
    id
}

fn id_in(body: &[u8]) -> Option<String> {
    let made: Value = serde_json::from_slice(body).ok()?;
    made["sandboxID"].as_str().map(str::to_owned)
}

fn request(data: &[u8], id: &str) -> Option<Request<Body>> {
    let mut rest = data;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = rest.split_at(end);
        rest = &after[1..];
        std::str::from_utf8(line).ok()
    };
    let (method, path) = line()?.split_once(' ')?;
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).ok()?)
        .uri(path.replace("{id}", id));
    while let Some((name, value)) = line()
        .filter(|line| !line.is_empty())
        .and_then(|line| line.split_once(':'))
    {
        let (name, value) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value.trim()),
        );
        request = request.header(name.ok()?, value.ok()?);
    }
    request.body(Body::from(rest.to_vec())).ok()
}

fuzz_target!(|data: &[u8]| {
    wait(async {
        let id = sandbox().await;
        let Some(request) = request(data, &id) else { return };
        let path = request.uri().path().to_owned();
        // The answer of before may come again, whose sandbox has ended.
        let again = request.headers().contains_key(IDEMPOTENCY_HEADER);
        let creates = request.method() == Method::POST;
        let (status, body) = ask(request).await;
        if status.is_client_error() || status.is_server_error() {
            // A page for browsers, or the error of E2B's API or of its proxy.
            if let Ok(error) = serde_json::from_slice::<ApiError>(&body) {
                assert_eq!(error.code, status.as_u16());
                assert!(!error.message.is_empty());
            }
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}: {body:?}");
        }
        if let (true, StatusCode::CREATED, Some(made)) = (creates, status, id_in(&body))
            && made != id
        {
            let delete = Request::delete(format!("/sandboxes/{made}"))
                .body(Body::empty())
                .expect("a request");
            let (status, _) = ask(delete).await;
            assert!(status == StatusCode::NO_CONTENT || again, "{status}");
        }
    });
});
