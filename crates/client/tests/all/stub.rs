//! A server that writes down what it is asked and answers what the test says.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use sandhold_client::{Client, CreateOptions, HttpConfig, Sandbox};
use serde_json::{Value, json};

pub(crate) const ID: &str = "i0123456789abcdefghij";
pub(crate) const TOKEN: &str = "ed_token";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The message of a streaming request, without its five bytes.
    pub(crate) fn message(&self) -> Bytes {
        let length = u32::from_be_bytes(self.body[1..5].try_into().unwrap());
        assert_eq!(
            (self.body[0], usize::try_from(length).unwrap()),
            (0, self.body.len() - 5)
        );
        self.body.slice(5..)
    }
}

/// What answers: the request and how many came before it.
type Answers = Arc<dyn Fn(&Seen, usize) -> Response + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Stub {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Answers,
}

impl Stub {
    pub(crate) fn new(answers: impl Fn(&Seen, usize) -> Response + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            answers: Arc::new(answers),
        }
    }

    /// Answers every request with the same.
    pub(crate) fn always(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self::new(move |_, _| reply(status, body.clone()))
    }

    /// Makes sandboxes, and answers the rest with `answers`, which counts only its own requests.
    pub(crate) fn with_sandbox(answers: impl Fn(&Seen, usize) -> Response + Send + Sync + 'static) -> Self {
        Self::new(move |seen, before| match seen.line.as_str() {
            "POST /v2/sandboxes" => reply(201, sandbox_json(ID).to_string()),
            _ => answers(seen, before - 1),
        })
    }

    fn router(&self) -> Router {
        let stub = self.clone();
        Router::new().fallback(move |request: Request| {
            let stub = stub.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let line = format!("{} {}", head.method, head.uri.path_and_query().unwrap());
                let seen = Seen {
                    line,
                    headers: head.headers,
                    body,
                };
                let before = {
                    let mut all = stub.seen.lock().unwrap();
                    all.push(seen.clone());
                    all.len() - 1
                };
                (stub.answers)(&seen, before)
            }
        })
    }

    /// A client straight into the server.
    pub(crate) fn in_process(&self) -> Client {
        Client::in_process(self.router())
    }

    /// A client over a socket.
    pub(crate) async fn http(&self) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = HttpConfig {
            api_url: Some(url.clone()),
            sandbox_url: Some(url),
            ..HttpConfig::new("e2b_key")
        };
        Client::http(config).unwrap()
    }

    /// Everything that was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }
}

pub(crate) async fn sandbox(client: &Client) -> Sandbox {
    client.create(CreateOptions::default()).await.unwrap()
}

pub(crate) fn sandbox_json(id: &str) -> Value {
    json!({"templateID": "tpl", "sandboxID": id, "clientID": "c", "envdVersion": "0.6.13", "alias": "base",
        "envdAccessToken": TOKEN, "domain": null, "trafficAccessToken": null, "something": {"new": true}})
}

pub(crate) fn reply(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub(crate) fn with(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

/// A message of a stream.
pub(crate) fn frame(flags: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flags];
    out.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A whole stream of JSON messages with its regular end.
pub(crate) fn json_stream(events: &[Value]) -> Response {
    let mut body: Vec<u8> = events
        .iter()
        .flat_map(|event| frame(0, json!({"event": event}).to_string().as_bytes()))
        .collect();
    body.extend(frame(2, b"{}"));
    with(reply(200, body), "content-type", "application/connect+json")
}
