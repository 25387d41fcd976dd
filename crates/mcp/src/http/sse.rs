//! The transport of 2024-11-05, for clients that know no other: `GET /sse` opens a stream whose first event names where
//! messages are posted, `POST /messages?session_id=…` takes them, and the stream carries what the server says.
//!
//! A session is its stream: when the client closes it, its calls are given up. What they started is left alone, for a
//! connection that breaks is no wish of the user.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use futures::{SinkExt as _, StreamExt as _, channel::mpsc, stream};
use http::request::Parts;
use rmcp::{
    RoleServer, ServiceExt,
    model::{ClientRequest, GetExtensions},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Callers, Principal};
use crate::{Server, limits, lock};

/// Messages on their way between a client and its session, each way.
const QUEUE: usize = 64;

type Received = RxJsonRpcMessage<RoleServer>;
type Sent = TxJsonRpcMessage<RoleServer>;

/// Set once the session of a request has ended: what its calls started is left alone from then on.
#[derive(Clone)]
pub(crate) struct SessionEnd {
    pub(crate) token: CancellationToken,
    /// The id of the session.
    pub(crate) session: String,
}

/// All sessions of a server.
struct Sessions {
    server: Server,
    callers: Callers,
    stop: CancellationToken,
    open: Mutex<HashMap<String, Arc<Session>>>,
}

struct Session {
    principal: Principal,
    /// Of the request that opened it: its query narrows the tools, its extensions say whose it is.
    parts: Parts,
    inbox: mpsc::Sender<Received>,
    /// When the last message went either way, or a sign of life to a client that has initialized.
    touched: Mutex<Instant>,
    /// Whether `initialize` has come: from then on the client is there for as long as its stream takes what is sent.
    initialized: AtomicBool,
    /// Its calls are given up, and their jobs left alone.
    left: CancellationToken,
    /// Ends its service; after `left`.
    end: CancellationToken,
}

/// The two routes. Sessions end when `stop` is cancelled.
pub(super) fn routes(server: Server, callers: Callers, stop: CancellationToken) -> Router {
    let sessions = Arc::new(Sessions {
        server,
        callers,
        stop,
        open: Mutex::default(),
    });
    Router::new()
        .route("/sse", get(open))
        .route("/messages", post(take))
        .with_state(sessions)
}

/// Opens a session.
async fn open(State(sessions): State<Arc<Sessions>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if let Err(refusal) = sessions.callers.check(&parts.uri, &parts.headers) {
        return refusal.into_response();
    }
    let principal = principal(&parts);
    let left = sessions.server.closing().child_token();
    parts.headers.remove(header::AUTHORIZATION);
    // 122 random bits.
    let id = uuid::Uuid::new_v4().simple().to_string();
    parts.extensions.insert(SessionEnd {
        token: left.clone(),
        session: id.clone(),
    });
    let (inbox, incoming) = mpsc::channel(QUEUE);
    let (outgoing, outbox) = mpsc::channel(QUEUE);
    let session = Arc::new(Session {
        principal,
        parts,
        inbox,
        touched: Mutex::new(Instant::now()),
        initialized: AtomicBool::new(false),
        left,
        end: CancellationToken::new(),
    });
    {
        let mut open = lock(&sessions.open);
        if open.len() >= limits::HTTP_SESSIONS {
            return (StatusCode::SERVICE_UNAVAILABLE, "too many sessions").into_response();
        }
        open.insert(id.clone(), Arc::clone(&session));
    }
    let leave = Leave {
        sessions: Arc::clone(&sessions),
        id: id.clone(),
    };
    tokio::spawn(serve(sessions, Arc::clone(&session), id.clone(), incoming, outgoing));
    let endpoint = Event::default()
        .event("endpoint")
        .data(format!("/messages?session_id={id}"));
    let first = stream::iter([Ok::<_, Infallible>(endpoint)]);
    // Asked for the next event only while the connection takes more: a client that no longer reads becomes idle.
    let rest = stream::unfold((outbox, leave), async |(mut outbox, leave)| {
        let next: Result<Option<Sent>, _> = tokio::time::timeout(limits::HTTP_KEEP_ALIVE, outbox.next()).await;
        let event = match next {
            Ok(message) => {
                let message = message?;
                leave.touch(|_| true);
                event(&message)
            }
            Err(_) => {
                leave.touch(|session| session.initialized.load(Ordering::Relaxed));
                Event::default().comment("")
            }
        };
        Some((Ok(event), (outbox, leave)))
    });
    let headers = [("x-accel-buffering", "no")];
    (headers, Sse::new(first.chain(rest))).into_response()
}

fn event(message: &Sent) -> Event {
    let text = serde_json::to_string(message).unwrap_or_else(|error| {
        // All that is sent was made here of types that can be encoded.
        tracing::error!(%error, "a message could not be encoded");
        String::new()
    });
    Event::default().event("message").data(text)
}

fn principal(parts: &Parts) -> Principal {
    parts.extensions.get().cloned().unwrap_or_default()
}

/// Serves a session until its client leaves, it is idle for too long, or the server ends.
async fn serve(
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    id: String,
    incoming: mpsc::Receiver<Received>,
    outgoing: mpsc::Sender<Sent>,
) {
    let server = sessions.server.clone();
    let end = session.end.clone();
    let served = async {
        match server.serve_with_ct((outgoing, incoming), end).await {
            Ok(running) => drop(running.waiting().await),
            Err(error) => tracing::debug!(%error, "a client did not open its session"),
        }
    };
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => {}
        () = session.left.cancelled() => {}
        () = sessions.stop.cancelled() => {}
        () = session.idle() => tracing::debug!("a session was idle for too long"),
    }
    sessions.close(&id);
}

impl Session {
    /// Waits until the session was not touched for too long.
    async fn idle(&self) {
        loop {
            let until = *lock(&self.touched) + limits::HTTP_SESSION_IDLE;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn touch(&self) {
        *lock(&self.touched) = Instant::now();
    }
}

impl Sessions {
    fn get(&self, id: &str) -> Option<Arc<Session>> {
        lock(&self.open).get(id).cloned()
    }

    fn close(&self, id: &str) {
        if let Some(session) = lock(&self.open).remove(id) {
            // In this order: a call that is given up must see why.
            session.left.cancel();
            session.end.cancel();
        }
    }
}

/// Ends the session when the client's stream does.
struct Leave {
    sessions: Arc<Sessions>,
    id: String,
}

impl Leave {
    /// Something went to the client, which counts if `counts`.
    fn touch(&self, counts: impl FnOnce(&Session) -> bool) {
        if let Some(session) = self.sessions.get(&self.id)
            && counts(&session)
        {
            session.touch();
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.sessions.close(&self.id);
    }
}

/// Takes a message for a session.
async fn take(State(sessions): State<Arc<Sessions>>, request: Request) -> Response {
    match message(&sessions, request).await {
        Ok(()) => (StatusCode::ACCEPTED, "Accepted").into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn message(sessions: &Sessions, request: Request) -> Result<(), (StatusCode, &'static str)> {
    let (parts, body) = request.into_parts();
    sessions.callers.check(&parts.uri, &parts.headers)?;
    let named = parts.uri.query().and_then(session_id).and_then(|id| sessions.get(id));
    // Another's session is told from none by nothing.
    let session = named.filter(|session| session.principal == principal(&parts)).ok_or((
        StatusCode::NOT_FOUND,
        "there is no such session; open one with GET /sse",
    ))?;
    let kind = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "a message is application/json"));
    }
    let mut message = read(body).await?;
    match &mut message {
        Received::Request(request) => drop(request.request.extensions_mut().insert(session.parts.clone())),
        Received::Notification(news) => drop(news.notification.extensions_mut().insert(session.parts.clone())),
        Received::Response(_) | Received::Error(_) => {}
    }
    if matches!(&message, Received::Request(r) if matches!(r.request, ClientRequest::InitializeRequest(_))) {
        session.initialized.store(true, Ordering::Relaxed);
    }
    session.touch();
    let mut inbox = session.inbox.clone();
    tokio::select! {
        sent = inbox.send(message) => sent.map_err(|_| gone()),
        () = session.left.cancelled() => Err(gone()),
    }
}

fn gone() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "the session has ended")
}

async fn read(body: Body) -> Result<Received, (StatusCode, &'static str)> {
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, "the message is too long or broke off");
    let bytes = to_bytes(body, limits::HTTP_BODY).await.map_err(|_| too_large)?;
    serde_json::from_slice(&bytes).map_err(|_| (StatusCode::BAD_REQUEST, "this is not a message of JSON-RPC"))
}

fn session_id(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("session_id="))
}

#[cfg(test)]
mod tests {
    use axum::body::BodyDataStream;
    use sandhold_client::{Client, HttpConfig};
    use serde_json::json;

    use super::*;
    use crate::{Confirm, Keeping, Provider, Selection, ServerConfig};

    fn sessions() -> Arc<Sessions> {
        let config = ServerConfig {
            client: Client::http(HttpConfig::new("k")).unwrap(),
            provider: Provider::default(),
            selection: Selection::default(),
            dockerfiles: None,
            door: None,
            folders: Vec::new(),
            confirm: Confirm::default(),
            keeping: Keeping::default(),
            checkpoint: false,
        };
        Arc::new(Sessions {
            server: Server::new(config).unwrap(),
            callers: Callers {
                hosts: Vec::new(),
                origins: Vec::new(),
            },
            stop: CancellationToken::new(),
            open: Mutex::default(),
        })
    }

    /// Opens a stream. Returns it and where its messages go.
    async fn connect(sessions: &Arc<Sessions>) -> (BodyDataStream, String) {
        let request = Request::get("/sse")
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap();
        let mut stream = open(State(Arc::clone(sessions)), request)
            .await
            .into_body()
            .into_data_stream();
        let first = stream.next().await.unwrap().unwrap();
        let path = std::str::from_utf8(&first)
            .unwrap()
            .lines()
            .find_map(|l| l.strip_prefix("data: "));
        (stream, path.unwrap().to_owned())
    }

    async fn post(sessions: &Arc<Sessions>, path: &str, message: serde_json::Value) {
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Body::from(message.to_string()))
            .unwrap();
        assert_eq!(
            take(State(Arc::clone(sessions)), request).await.status(),
            StatusCode::ACCEPTED
        );
    }

    /// Whether the stream still goes on after twice the time that a session may be idle. `reads`: somebody takes its events.
    async fn lasts(sessions: &Arc<Sessions>, mut stream: BodyDataStream, reads: bool) -> bool {
        let long = tokio::time::sleep(limits::HTTP_SESSION_IDLE * 2);
        tokio::pin!(long);
        loop {
            tokio::select! {
                event = stream.next(), if reads => if event.is_none() { return false },
                () = &mut long => return !lock(&sessions.open).is_empty(),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_listens_is_not_idle() {
        let hello = || {
            let params = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        };
        let ready = || json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        for (initializes, reads, wanted) in [(true, true, true), (true, false, false), (false, true, false)] {
            let sessions = sessions();
            let (mut stream, path) = connect(&sessions).await;
            if initializes {
                post(&sessions, &path, hello()).await;
                let told = stream.next().await.unwrap().unwrap();
                assert!(std::str::from_utf8(&told).unwrap().contains("serverInfo"));
                post(&sessions, &path, ready()).await;
            }
            let lasted = lasts(&sessions, stream, reads).await;
            assert_eq!(lasted, wanted, "initializes: {initializes}, reads: {reads}");
        }
    }
}
