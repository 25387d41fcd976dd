//! Tests of `/files`, through the router.

mod compose;
mod download;
mod upload;
mod wire;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sandhold_wire::boot::BootSpec;
use serde_json::Value;
use tower::ServiceExt;

use crate::state::State;
use crate::users::Names;

/// The name of the user who runs the tests.
pub(crate) fn me() -> String {
    Names::read().user(rustix::process::geteuid().as_raw())
}

/// A sandbox's state for that user, with `token` if one is given.
pub(crate) fn state(token: Option<&str>) -> Arc<State> {
    Arc::new(State::new(BootSpec {
        default_user: me(),
        access_token: token.map(str::to_owned),
        can_switch_user: rustix::process::geteuid().is_root(),
        ..BootSpec::default()
    }))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of a refusal, whose code must be the status.
    fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["code"], self.status.as_u16());
        (self.status.as_u16(), json["message"].as_str().unwrap().to_owned())
    }
}

fn router() -> Router {
    super::router(state(None))
}

async fn send(router: Router, method: Method, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = router.oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

fn url(path: &Path) -> String {
    format!("/files?path={}", coded(path.to_str().unwrap()))
}

fn coded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn get(path: &Path, headers: &[(&str, &str)]) -> Answer {
    send(router(), Method::GET, &url(path), headers, Body::empty()).await
}

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

async fn put(path: &Path, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let headers: Vec<_> = [OCTETS].into_iter().chain(headers.iter().copied()).collect();
    send(router(), Method::POST, &url(path), &headers, body).await
}

fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that repeat late and compress badly.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
    .take(len)
    .collect()
}

mod signatures {
    use sandhold_wire::signature::{Operation, sign};

    use super::*;

    #[tokio::test]
    async fn a_token_or_a_signature_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b");
        std::fs::write(&path, "x").unwrap();
        let (plain, text) = (url(&path), path.to_str().unwrap());
        let ask = async |method: Method, url: String, headers: &[(&str, &str)]| {
            let headers: Vec<_> = [OCTETS].into_iter().chain(headers.iter().copied()).collect();
            let router = super::super::router(state(Some("secret")));
            send(router, method, &url, &headers, "y").await
        };
        let refused = |answer: Answer, wanted: &str| assert_eq!(answer.refusal(), (401, wanted.to_owned()));
        refused(
            ask(Method::GET, plain.clone(), &[]).await,
            "missing signature query parameter",
        );
        refused(
            ask(Method::POST, plain.clone(), &[]).await,
            "missing signature query parameter",
        );
        let wrong = [("x-access-token", "wrong")];
        refused(
            ask(Method::GET, plain.clone(), &wrong).await,
            "access token present in header but does not match",
        );
        assert_eq!(
            ask(Method::GET, plain.clone(), &[("x-access-token", "secret")])
                .await
                .text(),
            "x"
        );
        let signed = |op, user: &str, exp| {
            let signature = coded(&sign(text, op, user, "secret", exp));
            let exp = exp.map_or(String::new(), |e: i64| format!("&signature_expiration={e}"));
            format!("{plain}&signature={signature}{exp}")
        };
        let read = signed(Operation::Read, "", None);
        assert_eq!(ask(Method::GET, read.clone(), &[]).await.text(), "x");
        refused(ask(Method::POST, read.clone(), &[]).await, "invalid signature");
        refused(
            ask(Method::GET, format!("{read}&username={}", me()), &[]).await,
            "invalid signature",
        );
        refused(
            ask(Method::GET, signed(Operation::Read, "", Some(1)), &[]).await,
            "signature is already expired",
        );
        let later = signed(Operation::Write, &me(), Some(i64::MAX)) + "&username=" + &me();
        assert_eq!(ask(Method::POST, later, &[]).await.status, 200);
        assert_eq!(std::fs::read(&path).unwrap(), b"y");
    }

    #[tokio::test]
    async fn unknown_users_are_refused() {
        let answer = send(
            router(),
            Method::GET,
            "/files?path=a&username=no-such",
            &[],
            Body::empty(),
        )
        .await;
        let text = "error looking up user 'no-such': user: unknown user no-such";
        assert_eq!(answer.refusal(), (401, text.to_owned()));
    }
}
