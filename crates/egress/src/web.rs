//! HTTP/1 whose name decides: each request is read, held against the rules, and sent on. Within TLS, too, where requests
//! get a secret.
//!
//! Framing is hyper's on both sides, so that what was judged as one request is one request for the target too, and every
//! further request on the connection is judged for itself.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self as client, SendRequest},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;

use crate::{
    dial::dial,
    inspect::{Goal, ordered},
    limits,
    name::{self, Host},
    proxy,
    sandbox::{Grant, Nowhere, Permit, Sandbox, lock},
    secure::{self, Secured},
    stream::{Activity, Stream, Watched},
};

pub(crate) type Body = Either<Incoming, Full<Bytes>>;

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// To the host that each names.
    ByName { port: u16, original: Option<IpAddr> },
    /// To one place, if the host that they name is not denied.
    Fixed(Goal),
    /// To one host over TLS, and each gets its secret.
    Secured(Arc<Secured>),
    /// They are for a proxy, and each names host and port.
    Proxy,
}

pub(crate) struct Web {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) permit: Permit,
    route: Route,
    /// The connection that was used last, and where it leads.
    upstream: tokio::sync::Mutex<Option<(String, SendRequest<Incoming>)>>,
    grant: Mutex<Option<Grant>>,
    activity: Activity,
}

/// A request that is not sent on, and why.
pub(crate) struct Answer(pub(crate) StatusCode, pub(crate) String);

/// Serves a connection of HTTP/1.
pub(crate) async fn serve(sandbox: Arc<Sandbox>, client: Stream, route: Route, permit: Permit) {
    let activity = Activity::new();
    let web = Arc::new(Web {
        sandbox,
        permit,
        route,
        upstream: tokio::sync::Mutex::default(),
        grant: Mutex::default(),
        activity: activity.clone(),
    });
    let io = TokioIo::new(Watched {
        inner: client,
        activity: activity.clone(),
    });
    let service = service_fn(|request| {
        let web = Arc::clone(&web);
        async move { Ok::<_, Infallible>(web.answer(request).await) }
    });
    let connection = server::Builder::new()
        .preserve_header_case(true)
        .max_headers(limits::HEADERS)
        .max_buf_size(limits::HTTP_HEAD)
        .half_close(true)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::select! {
        done = connection => {
            if let Err(error) = done {
                tracing::debug!(%error, "a connection of HTTP ended");
            }
        }
        () = activity.idle(limits::IDLE) => {}
        () = web.revoked() => {}
    }
}

impl Web {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let done = match (&self.route, request.method()) {
            (Route::Proxy, &Method::CONNECT) => proxy::connect(&self, request).await,
            (Route::Proxy, _) if request.uri().authority().is_none() => {
                let text = "this is a proxy: send CONNECT host:port, or a request with a whole URL\n";
                Err(Answer(StatusCode::BAD_REQUEST, text.into()))
            }
            (_, &Method::CONNECT) => Err(Answer(
                StatusCode::METHOD_NOT_ALLOWED,
                "CONNECT is for the proxy\n".into(),
            )),
            (Route::Secured(host), &Method::TRACE) => Err(Answer(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("TRACE would show what requests to {} get\n", host.name),
            )),
            _ => self.forward(request).await,
        };
        done.unwrap_or_else(|Answer(status, text)| {
            let mut response = Response::new(Either::Right(Full::from(text)));
            *response.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            // What is left of the request's body is not read.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        })
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Answer> {
        let (host, port) = target(&request).map_err(|why| Answer(StatusCode::BAD_REQUEST, format!("{why}\n")))?;
        let (key, goal) = match &self.route {
            Route::ByName { port, original } => self.goal(host, *port, *original).await?,
            Route::Proxy => {
                if request.uri().scheme_str().is_some_and(|scheme| scheme != "http") {
                    let text = "only http:// goes through a proxy as it is; send CONNECT host:port for others\n";
                    return Err(Answer(StatusCode::BAD_REQUEST, text.into()));
                }
                strip(&mut request);
                self.goal(host, port.unwrap_or(80), None).await?
            }
            Route::Secured(secured) => {
                if host != Some(Host::Name(secured.name.clone())) {
                    let text = format!(
                        "the Host header must be {}, the name that TLS was asked for: requests to it get a secret\n",
                        secured.name
                    );
                    return Err(Answer(StatusCode::MISDIRECTED_REQUEST, text));
                }
                // The connection is about to end; nothing goes out with an old secret until then.
                if self.sandbox.policy().headers(&secured.name).as_ref() != Some(&secured.headers) {
                    let text = format!("the rules for {} have changed; connect again\n", secured.name);
                    return Err(Answer(StatusCode::MISDIRECTED_REQUEST, text));
                }
                strip(&mut request);
                (secured.name.clone(), secured.goal.clone())
            }
            Route::Fixed(goal) => {
                let to = goal.addresses.first();
                let name = match &host {
                    Some(Host::Name(name)) => Some(name.as_str()),
                    _ => None,
                };
                self.sandbox
                    .judge(
                        name,
                        to.map(std::net::SocketAddr::ip),
                        to.map(std::net::SocketAddr::port),
                        "tcp",
                    )
                    .map_err(|refusal| self.refused(refusal))?;
                (String::new(), goal.clone())
            }
        };
        origin_form(&mut request);
        if let Route::Secured(host) = &self.route {
            host.headers.set(request.headers_mut());
        }
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let inner = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let mut response = self.send(key, &goal, request).await?;
        if let Some(inner) = inner
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            self.join(inner, hyper::upgrade::on(&mut response));
        }
        if let Route::Secured(_) = &self.route {
            // It would lead to HTTP/3, where requests get no secret.
            response.headers_mut().remove(header::ALT_SVC);
        }
        Ok(response.map(Either::Left))
    }

    /// Where the host that a request names is.
    async fn goal(&self, host: Option<Host>, port: u16, first: Option<IpAddr>) -> Result<(String, Goal), Answer> {
        let (name, addresses) = match host {
            Some(Host::Ip(ip)) => {
                let judged = self.sandbox.judge(None, Some(ip), Some(port), "tcp");
                judged.map_err(|refusal| self.refused(refusal))?;
                (None, vec![ip])
            }
            Some(Host::Name(name)) => match self.sandbox.addresses(&name, port).await {
                Ok(addresses) => (Some(name), addresses),
                Err(nowhere) => return Err(self.nowhere(&name, nowhere)),
            },
            None => return Err(Answer(StatusCode::BAD_REQUEST, "the request names no host\n".into())),
        };
        let goal = Goal {
            name,
            addresses: ordered(&addresses, port, first),
        };
        let host = goal
            .name
            .clone()
            .unwrap_or_else(|| addresses.first().map(ToString::to_string).unwrap_or_default());
        Ok((format!("{host} {port}"), goal))
    }

    pub(crate) fn refused(&self, refusal: crate::blocked::Refusal) -> Answer {
        let text = refusal.text();
        self.sandbox.block(refusal);
        Answer(StatusCode::FORBIDDEN, text)
    }

    pub(crate) fn nowhere(&self, name: &str, nowhere: Nowhere) -> Answer {
        match nowhere {
            Nowhere::Refused(refusal) => self.refused(refusal),
            Nowhere::Unresolved(why) => Answer(StatusCode::BAD_GATEWAY, format!("{name} cannot be found: {why}\n")),
        }
    }

    /// Sends a request on, over the connection of the one before if it leads to the same place.
    async fn send(&self, key: String, goal: &Goal, request: Request<Incoming>) -> Result<Response<Incoming>, Answer> {
        let mut upstream = self.upstream.lock().await;
        let usable = match upstream.as_mut() {
            Some((known, sender)) => *known == key && sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *upstream = None;
            let sender = self.connect(goal).await.map_err(|error| unreachable(&key, &error))?;
            *upstream = Some((key.clone(), sender));
        }
        let Some((_, sender)) = upstream.as_mut() else {
            return Err(unreachable(&key, &io::ErrorKind::NotConnected.into()));
        };
        sender.send_request(request).await.map_err(|error| {
            *upstream = None;
            Answer(StatusCode::BAD_GATEWAY, format!("the server did not answer: {error}\n"))
        })
    }

    async fn connect(&self, goal: &Goal) -> io::Result<SendRequest<Incoming>> {
        let ready = match &self.route {
            Route::Secured(host) => host.ready.lock().await.take(),
            _ => None,
        };
        let made = match ready {
            Some(made) => made,
            None => dial(&self.sandbox.world, &goal.addresses).await?,
        };
        let mut grant = goal.grant(&made)?;
        if let Route::Secured(host) = &self.route {
            grant.headers = Some(host.headers.clone());
        }
        *lock(&self.grant) = Some(grant.clone());
        // The rules may have changed while this was made.
        let again = self
            .sandbox
            .judge(grant.name.as_deref(), Some(grant.ip), Some(grant.port), grant.protocol);
        again.map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal.rule))?;
        let made: Stream = match &self.route {
            Route::Secured(host) => Box::new(secure::connect(&self.sandbox.world, &host.name, made).await?),
            _ => Box::new(made),
        };
        let io = TokioIo::new(Watched {
            inner: made,
            activity: self.activity.clone(),
        });
        let builder = client::Builder::new()
            .preserve_header_case(true)
            .max_headers(limits::HEADERS)
            .clone();
        let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        self.sandbox.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection of HTTP to a target ended");
            }
        });
        Ok(sender)
    }

    /// Carries what follows when both sides left HTTP (WebSocket).
    fn join(&self, inner: hyper::upgrade::OnUpgrade, outer: hyper::upgrade::OnUpgrade) {
        let (sandbox, permit) = (Arc::clone(&self.sandbox), Arc::clone(&self.permit));
        let Some(grant) = lock(&self.grant).clone() else { return };
        self.sandbox.spawn(async move {
            if let (Ok(inner), Ok(outer)) = tokio::join!(inner, outer) {
                let client: Stream = Box::new(TokioIo::new(inner));
                let outer: Stream = Box::new(TokioIo::new(outer));
                crate::relay::splice(&sandbox, client, outer, &[], &grant).await;
            }
            drop(permit);
        });
    }

    /// Returns when the rules forbid the connection that is in use.
    async fn revoked(&self) {
        let mut policy = self.sandbox.policy.subscribe();
        loop {
            let grant = lock(&self.grant).clone();
            if grant.is_some_and(|grant| self.sandbox.ended(&grant)) {
                return;
            }
            // Before the first request there is no grant yet, but a secret that is no longer the one to use.
            if let Route::Secured(host) = &self.route
                && self.sandbox.policy().headers(&host.name).as_ref() != Some(&host.headers)
            {
                return;
            }
            if policy.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

fn unreachable(key: &str, error: &io::Error) -> Answer {
    let status = match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    Answer(
        status,
        format!("cannot connect to {}: {error}\n", key.replace(' ', ":")),
    )
}

/// The host and port that a request names. Where its URL and its `Host` header both name one, they must be the same.
pub(crate) fn target<B>(request: &Request<B>) -> Result<(Option<Host>, Option<u16>), String> {
    let mut headers = request.headers().get_all(header::HOST).iter();
    let header = headers.next();
    if headers.next().is_some() {
        return Err("the request has more than one Host header".into());
    }
    let header = match header {
        Some(value) => {
            let text = value.to_str().map_err(|_| "the Host header is no text".to_owned())?;
            Some(authority(text).map_err(|why| format!("the Host header {text:?} {why}"))?)
        }
        None => None,
    };
    let Some(url) = request.uri().authority() else {
        return Ok(header.map_or((None, None), |(host, port)| (Some(host), port)));
    };
    let url = authority(url.as_str()).map_err(|why| format!("the host {:?} {why}", url.as_str()))?;
    match header {
        Some((host, _)) if host != url.0 => Err("the Host header names another host than the URL".into()),
        _ => Ok((Some(url.0), url.1)),
    }
}

/// `host[:port]` as it stands in a request.
pub(crate) fn authority(text: &str) -> Result<(Host, Option<u16>), &'static str> {
    let (host, port) = name::split_port(text)?;
    Ok((name::host(host)?, port))
}

/// A target wants the path alone.
fn origin_form<B>(request: &mut Request<B>) {
    if request.uri().authority().is_none() {
        return;
    }
    if !request.headers().contains_key(header::HOST)
        && let Some(host) = request
            .uri()
            .authority()
            .and_then(|a| HeaderValue::from_str(a.as_str()).ok())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// Takes out what is meant for a proxy only.
fn strip<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    let upgrade = headers.contains_key(header::UPGRADE);
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        // Framing and host stay whatever a client says of them.
        .filter(|name| {
            !matches!(
                name.as_str(),
                "upgrade" | "host" | "content-length" | "transfer-encoding"
            )
        })
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in ["proxy-connection", "proxy-authorization", "keep-alive", "te", "trailer"] {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

#[cfg(test)]
#[path = "web_tests.rs"]
mod tests;
