//! Tests of the service, through its wire format.

mod entries;
mod watches;

use std::path::Path;
use std::sync::Arc;

use connectrpc::{ConnectRpcBody, ConnectRpcService};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::files::tests::state;

/// A client of one service.
#[derive(Clone)]
struct Client(ConnectRpcService);

impl Client {
    fn new() -> Self {
        let service = super::Service::new(state(None));
        Self(ConnectRpcService::new(
            connectrpc::Router::new().add_service(Arc::new(service)),
        ))
    }

    async fn send(
        &self,
        method: &str,
        kind: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response<ConnectRpcBody> {
        let mut request = Request::post(format!("/filesystem.Filesystem/{method}"))
            .header("content-type", kind)
            .header("connect-protocol-version", "1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        self.0.clone().oneshot(request).await.unwrap()
    }

    async fn ask_as(&self, user: Option<&str>, method: &str, body: Value) -> (StatusCode, Value) {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let basic = user.map(|u| format!("Basic {}", STANDARD.encode(format!("{u}:"))));
        let headers: Vec<_> = basic.iter().map(|b| ("authorization", b.as_str())).collect();
        let answer = self
            .send(method, "application/json", &headers, body.to_string().into())
            .await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// The answer to a request that must succeed.
    async fn ask(&self, method: &str, body: Value) -> Value {
        let (status, answer) = self.ask_as(None, method, body).await;
        assert_eq!(status, 200, "{method}: {answer}");
        answer
    }

    /// Code and message of a request that must fail.
    async fn refusal(&self, method: &str, body: Value) -> (String, String) {
        let (status, answer) = self.ask_as(None, method, body).await;
        assert_ne!(status, 200, "{method}: {answer}");
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("message"))
    }
}

fn path(path: &Path) -> Value {
    json!({"path": path.to_str().unwrap()})
}
