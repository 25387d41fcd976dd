//! Forwarding into sandboxes, streamed both ways. Connections are kept and used again.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use hyper::{rt::ReadBufCursor, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use sandhold_runtime::Stream;
use sandhold_wire::{
    limits::DEFAULT_TIMEOUT_S,
    names::{ACCESS_TOKEN_HEADER, ENVD_PORT, PROXY_NOT_FOUND, PROXY_PORT_CLOSED, TRAFFIC_TOKEN_HEADER},
    rest::{ProxyError, State},
    signature::same,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    entry::Entry,
    limits::{POOL_IDLE, POOL_PER_PORT, TUNNEL_HEAD, TUNNEL_TIME},
    owner::Owner,
    route::text,
    sandboxes::Sandboxes,
};

/// Headers that belong to one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Sends requests into sandboxes.
#[derive(Clone)]
pub(crate) struct Forwarder {
    sandboxes: Arc<Sandboxes>,
    client: Client<Connector, Body>,
}

impl Forwarder {
    pub(crate) fn new(sandboxes: Arc<Sandboxes>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_PER_PORT)
            .pool_timer(TokioTimer::new())
            .set_host(false)
            .build(Connector(sandboxes.clone()));
        Self { sandboxes, client }
    }

    /// Forwards a request to a port of a sandbox.
    /// With `only`, sandboxes of other owners are not there.
    pub(crate) async fn forward(
        &self,
        id: &str,
        port: u16,
        only: Option<Owner>,
        mut request: Request<Body>,
    ) -> Response {
        let found = self.sandboxes.get(id);
        let Some(entry) = found.filter(|e| only.is_none_or(|owner| e.owner() == owner)) else {
            return refuse(StatusCode::BAD_GATEWAY, id, None, PROXY_NOT_FOUND);
        };
        if let Some(refusal) = refuse_traffic(&entry, port, request.headers()) {
            return refusal;
        }
        if entry.state() == State::Paused {
            // A caller who cannot get in does not wake it: envd would refuse it too.
            let may_wake = entry.recipe.auto_resume && (port != ENVD_PORT || has_access(&entry, request.headers()));
            let timeout = Duration::from_secs(DEFAULT_TIMEOUT_S);
            if !may_wake || self.sandboxes.resume(&entry, timeout, true).await.is_err() {
                let message = format!("{PROXY_NOT_FOUND}: it is paused, connect to it first");
                return refuse(StatusCode::BAD_GATEWAY, id, None, &message);
            }
        }
        if let Some(mask) = entry
            .recipe
            .network
            .as_ref()
            .and_then(|n| n.mask_request_host.as_deref())
            .filter(|_| port != ENVD_PORT)
            && let Ok(host) = HeaderValue::from_str(&mask.replace("${PORT}", &port.to_string()))
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let switch = is_upgrade(request.headers()).then(|| request.headers()[header::UPGRADE].clone());
        self.send(id, port, request, switch).await
    }

    async fn send(&self, id: &str, port: u16, mut request: Request<Body>, switch: Option<HeaderValue>) -> Response {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let Ok(uri) = Uri::try_from(format!("http://{port}-{id}{path}")) else {
            return refuse(StatusCode::BAD_REQUEST, id, None, "the path cannot be forwarded");
        };
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_11;
        strip(request.headers_mut());
        if !request.headers().contains_key(header::HOST) {
            request
                .headers_mut()
                .insert(header::HOST, http::HeaderValue::from_static("localhost"));
        }
        let client_side = switch.as_ref().map(|_| hyper::upgrade::on(&mut request));
        put_upgrade(request.headers_mut(), switch.as_ref());
        match self.client.request(request).await {
            Ok(mut response) => {
                let switched = client_side.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS);
                if let Some(client_side) = switched {
                    tokio::spawn(join(client_side, hyper::upgrade::on(&mut response)));
                    return Response::from_parts(response.into_parts().0, Body::empty());
                }
                let (mut parts, body) = response.into_parts();
                strip(&mut parts.headers);
                let rpc_stream = text(&parts.headers, header::CONTENT_TYPE.as_str())
                    .is_some_and(|t| t.starts_with("application/connect+"));
                let body = Body::new(body);
                let body = if rpc_stream {
                    told_if_cut(body, id.to_owned())
                } else {
                    body
                };
                Response::from_parts(parts, body)
            }
            Err(error) if self.sandboxes.get(id).is_none() || says_ended(&error) => {
                tracing::debug!(sandbox = %id, error = %crate::error::chain(&error), "ended while a request was under way");
                refuse(StatusCode::BAD_GATEWAY, id, None, PROXY_NOT_FOUND)
            }
            Err(error) if error.is_connect() && port != ENVD_PORT => {
                refuse(StatusCode::BAD_GATEWAY, id, Some(port), PROXY_PORT_CLOSED)
            }
            Err(error) => {
                let message = format!("the sandbox did not answer: {}", crate::error::chain(&error));
                refuse(StatusCode::BAD_GATEWAY, id, Some(port), &message)
            }
        }
    }
}

/// Whether the runtime says that the sandbox has ended. It knows a moment before the list of sandboxes does.
fn says_ended(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<sandhold_runtime::RuntimeError>())
        .any(|cause| matches!(cause, sandhold_runtime::RuntimeError::Ended(_)))
}

/// Whether a request carries the token of the sandbox's daemon.
fn has_access(entry: &Entry, headers: &HeaderMap) -> bool {
    let token = entry.recipe.token.as_deref();
    token.is_none_or(|t| text(headers, ACCESS_TOKEN_HEADER).is_some_and(|given| same(given.as_bytes(), t.as_bytes())))
}

/// Ports other than envd's ask for a token where the sandbox was made so.
fn refuse_traffic(entry: &Entry, port: u16, headers: &HeaderMap) -> Option<Response> {
    let token = entry.recipe.traffic_token.as_deref().filter(|_| port != ENVD_PORT)?;
    let message = match text(headers, TRAFFIC_TOKEN_HEADER) {
        None => {
            format!("Sandbox is secured with traffic access token. Token header '{TRAFFIC_TOKEN_HEADER}' is missing")
        }
        Some(given) if !same(given.as_bytes(), token.as_bytes()) => {
            format!(
                "Sandbox is secured with traffic access token. Provided token in header '{TRAFFIC_TOKEN_HEADER}' is invalid"
            )
        }
        Some(_) => return None,
    };
    Some(refuse(StatusCode::FORBIDDEN, &entry.id, None, &message))
}

/// Ends a cut RPC stream with a frame that says so. Without it a client sees a broken connection and cannot tell why.
fn told_if_cut(body: Body, id: String) -> Body {
    let frames = body.into_data_stream().map(move |part| {
        part.or_else(|_| {
            let message = format!("{PROXY_NOT_FOUND}: sandbox {id} ended while the stream was open");
            let end = serde_json::json!({"error": {"code": "unavailable", "message": message}}).to_string();
            let mut frame = BytesMut::with_capacity(5 + end.len());
            frame.put_u8(0x02); // Connect: end of stream
            frame.put_u32(u32::try_from(end.len()).unwrap_or(0));
            frame.put_slice(end.as_bytes());
            Ok::<Bytes, axum::Error>(frame.freeze())
        })
    });
    Body::from_stream(frames)
}

/// Whether a request asks to change the protocol of its connection, as WebSockets do.
fn is_upgrade(headers: &HeaderMap) -> bool {
    let listed = text(headers, header::CONNECTION.as_str()).unwrap_or_default();
    headers.contains_key(header::UPGRADE) && listed.split(',').any(|t| t.trim().eq_ignore_ascii_case("upgrade"))
}

fn put_upgrade(headers: &mut HeaderMap, switch: Option<&HeaderValue>) {
    if let Some(protocol) = switch {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

/// Joins both sides of a connection whose protocol was changed.
async fn join(client: OnUpgrade, sandbox: OnUpgrade) {
    match tokio::try_join!(client, sandbox) {
        Ok((client, sandbox)) => {
            let (mut client, mut sandbox) = (TokioIo::new(client), TokioIo::new(sandbox));
            // Either side may cut it; there is nobody to tell.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut sandbox).await;
        }
        Err(error) => tracing::debug!(%error, "a connection did not change its protocol"),
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// A refusal of the proxy, as JSON.
pub(crate) fn refuse(status: StatusCode, id: &str, port: Option<u16>, message: &str) -> Response {
    let body = ProxyError {
        sandbox_id: id.into(),
        message: message.into(),
        port,
        code: status.as_u16(),
    };
    let mut response = (status, Json(&body)).into_response();
    // For a browser it becomes a page.
    response.extensions_mut().insert(Arc::new(body));
    response
}

/// Opens connections to `<port>-<id>`: the daemon itself, or a port of the sandbox through the daemon's tunnel.
#[derive(Clone)]
struct Connector(Arc<Sandboxes>);

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("the sandbox is not there")]
    NoSandbox,
    #[error("cannot reach the sandbox's daemon")]
    Daemon(#[source] sandhold_runtime::RuntimeError),
    #[error("cannot speak to the sandbox's daemon")]
    Io(#[source] std::io::Error),
    #[error("the daemon refused the tunnel")]
    Refused,
    #[error("the daemon did not answer within {} s", TUNNEL_TIME.as_secs())]
    Late,
}

impl tower::Service<Uri> for Connector {
    type Response = Wire;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let target = uri.host().and_then(|h| h.split_once('-')).and_then(|(port, id)| {
            let entry = self.0.get(id)?;
            Some((port.parse::<u16>().ok()?, entry))
        });
        Box::pin(async move {
            let (port, entry) = target.ok_or(ConnectError::NoSandbox)?;
            let runtime = entry.runtime().ok_or(ConnectError::NoSandbox)?;
            let mut stream = runtime.connect().await.map_err(ConnectError::Daemon)?;
            if port != ENVD_PORT {
                let asked = tunnel(&mut stream, port, entry.recipe.token.as_deref());
                let answered = tokio::time::timeout(TUNNEL_TIME, asked).await;
                answered.unwrap_or(Err(ConnectError::Late))?;
            }
            Ok(Wire(TokioIo::new(stream)))
        })
    }
}

/// Asks the daemon to join this connection with a port of the sandbox.
async fn tunnel(stream: &mut Box<dyn Stream>, port: u16, token: Option<&str>) -> Result<(), ConnectError> {
    let token = token.map(|t| format!("X-Access-Token: {t}\r\n")).unwrap_or_default();
    let request = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(ConnectError::Io)?;
    let mut head = Vec::with_capacity(256);
    // Byte by byte: what follows the head belongs to the port.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == TUNNEL_HEAD {
            return Err(ConnectError::Refused);
        }
        head.push(stream.read_u8().await.map_err(ConnectError::Io)?);
    }
    if head.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(ConnectError::Refused)
    }
}

/// A connection as hyper wants it.
struct Wire(TokioIo<Box<dyn Stream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_may_say_that_a_sandbox_ended() {
        use sandhold_runtime::RuntimeError;

        let daemon = ConnectError::Daemon(RuntimeError::Ended("of memory".into()));
        assert!(says_ended(&std::io::Error::other(daemon)));
        let daemon = ConnectError::Daemon(RuntimeError::Exhausted("descriptors".into()));
        assert!(!says_ended(&daemon));
        assert!(!says_ended(&ConnectError::NoSandbox));
    }
}
