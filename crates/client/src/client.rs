//! The control plane: sandboxes as a whole.

mod builds;
mod call;
mod options;
mod query;
mod retry;
mod snapshots;
mod templates;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use percent_encoding::utf8_percent_encode;
use sandhold_wire::{
    limits::DEFAULT_TIMEOUT_S,
    names,
    rest::{
        self, AutoResume, ConnectSandbox, LimitsReport, ListedSandbox, NetworkState, NewSandbox, SandboxDetail,
        SandboxMetric, SetTimeout, UpdateNetwork,
    },
};
use tower::Service;

use self::call::Call;
use crate::{
    Error, HttpConfig, Sandbox,
    files::QUERY,
    transport::{Body, BoxError, Codec, HttpTransport, InProcess, SharedTransport},
};

pub use options::{CreateOptions, ListPage, ListQuery};
pub use snapshots::{Back, SnapshotPage, SnapshotQuery};
pub use templates::{BuildEvent, BuildStep, StepFiles, TemplateBuilding, TemplateSource, TemplateSpec};

/// A client of one control plane. Cloning is cheap and shares connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: SharedTransport,
    /// `None` in process.
    http: Option<HttpConfig>,
    /// Of the sandboxes' URLs in process.
    scheme: &'static str,
    /// Base of the control plane's URLs, empty in process.
    base: String,
    api_key: Option<HeaderValue>,
    /// The server answered that it has no `/v2/sandboxes` to create or connect with.
    v1: AtomicBool,
    /// The server does not tell what sandboxes were refused.
    network_untold: AtomicBool,
    /// It has no call for the limits that were met.
    no_limits: AtomicBool,
}

impl Client {
    /// A client of a control plane over HTTP. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a key or a proxy that cannot be used, [`Error::Transport`] when TLS cannot be set up.
    pub fn http(config: HttpConfig) -> Result<Self, Error> {
        let api_key = config.api_key.as_deref().filter(|key| !key.is_empty()).map(|key| {
            let mut value = HeaderValue::from_str(key.trim())
                .map_err(|_| Error::InvalidArgument("the API key cannot stand in a header".into()))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        Ok(Self {
            inner: Arc::new(Inner {
                transport: Arc::new(HttpTransport::new(&config)?),
                base: config.api_base(),
                api_key: api_key.transpose()?,
                http: Some(config),
                scheme: "https",
                v1: AtomicBool::new(false),
                network_untold: AtomicBool::new(false),
                no_limits: AtomicBool::new(false),
            }),
        })
    }

    /// A client of a service in this process, in place of a socket. Requests for a sandbox carry the `E2b-Sandbox-Id` and
    /// `E2b-Sandbox-Port` headers, all others are control-plane requests.
    pub fn in_process<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::beside(service, "http")
    }

    /// The same where the sandboxes' host names are served over TLS: their URLs begin with `https`.
    pub fn in_process_behind_tls<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::beside(service, "https")
    }

    fn beside<S, B>(service: S, scheme: &'static str) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            inner: Arc::new(Inner {
                transport: Arc::new(InProcess(service)),
                http: None,
                scheme,
                base: String::new(),
                api_key: None,
                v1: AtomicBool::new(false),
                network_untold: AtomicBool::new(false),
                no_limits: AtomicBool::new(false),
            }),
        }
    }

    /// `local` or `e2b`, for messages.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        if self.inner.http.is_some() { "e2b" } else { "local" }
    }

    /// Creates a sandbox.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such template, [`Error::InvalidArgument`] for options that are refused,
    /// [`Error::RateLimited`] when there is no room for more.
    pub async fn create(&self, options: CreateOptions) -> Result<Sandbox, Error> {
        let mut body = NewSandbox {
            template_id: options.template.unwrap_or_else(|| names::DEFAULT_TEMPLATE.into()),
            timeout: options.timeout.map(seconds),
            allow_internet_access: options.allow_internet_access,
            network: options.network,
            metadata: Some(options.metadata).filter(|pairs| !pairs.is_empty()),
            env_vars: Some(options.envs).filter(|pairs| !pairs.is_empty()),
            auto_pause: options.pause_at_timeout.then_some(true),
            auto_resume: options.pause_at_timeout.then_some(AutoResume { enabled: true }),
            cpu_count: options.cpus,
            memory_mb: options.memory_mb,
            disk_size_mb: options.disk_mb,
            limits: Some(options.limits.to_rest()).filter(|limits| !limits.is_empty()),
            ..NewSandbox::default()
        };
        // A try that was answered with an error may have made the sandbox; with the same key it is found, not made twice.
        let key = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let key = HeaderValue::from_str(&key).ok();
        if !self.inner.v1.load(Ordering::Relaxed) {
            let call = Call::new(Method::POST, "/v2/sandboxes".into(), None).json(&body)?;
            if let Some(answer) = self
                .newest(Call {
                    idempotency_key: key.clone(),
                    ..call
                })
                .await?
            {
                return self.sandbox(answer);
            }
        }
        // v1 makes open sandboxes of 15 seconds unless told.
        body.secure = Some(true);
        body.timeout.get_or_insert(default_timeout());
        let call = Call::new(Method::POST, "/sandboxes".into(), None).json(&body)?;
        self.sandbox(
            self.read(Call {
                idempotency_key: key,
                ..call
            })
            .await?
            .1,
        )
    }

    /// Attaches to a sandbox; resumes it if it is paused; never shortens its life.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended or never was, [`Error::Conflict`] while its state changes.
    pub async fn connect(&self, id: &str, timeout: Option<Duration>) -> Result<Sandbox, Error> {
        let mut body = ConnectSandbox {
            timeout: timeout.map(seconds),
        };
        if !self.inner.v1.load(Ordering::Relaxed) {
            let call = Call::new(Method::POST, format!("/v2/sandboxes/{}/connect", segment(id)), Some(id));
            if let Some(answer) = self.newest(call.json(&body)?).await? {
                return self.sandbox(answer);
            }
        }
        body.timeout.get_or_insert(default_timeout());
        let call = Call::new(Method::POST, format!("/sandboxes/{}/connect", segment(id)), Some(id)).json(&body)?;
        self.sandbox(self.read(call).await?.1)
    }

    /// A handle to a sandbox that runs, which leaves its life as it is. One made from what is known of it: a provider that
    /// does not tell the daemon's token there is asked by connecting for one second, which shortens no life.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended or never was.
    pub async fn handle(&self, id: &str) -> Result<Sandbox, Error> {
        let detail = self.info(id).await?;
        if detail.envd_access_token.is_none() {
            return self.connect(id, Some(Duration::from_secs(1))).await;
        }
        self.sandbox(rest::Sandbox {
            template_id: detail.listed.template_id,
            sandbox_id: detail.listed.sandbox_id,
            client_id: detail.listed.client_id,
            envd_version: detail.listed.envd_version,
            alias: detail.listed.alias,
            envd_access_token: detail.envd_access_token,
            traffic_access_token: None,
            domain: detail.domain,
            resumed_from: None,
        })
    }

    /// One page of the sandboxes, newest first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a cursor or limit that is refused.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, Error> {
        let call = Call::new(Method::GET, format!("/v2/sandboxes{}", query::list(&query)), None);
        let (response, sandboxes) = self.read::<Vec<ListedSandbox>>(call).await?;
        let next = response
            .headers
            .get(names::NEXT_TOKEN_HEADER)
            .and_then(|token| token.to_str().ok());
        Ok(ListPage {
            sandboxes,
            next_cursor: next.filter(|token| !token.is_empty()).map(str::to_owned),
        })
    }

    /// What is known of a sandbox.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended or never was.
    pub async fn info(&self, id: &str) -> Result<SandboxDetail, Error> {
        Ok(self
            .read(Call::new(Method::GET, format!("/sandboxes/{}", segment(id)), Some(id)))
            .await?
            .1)
    }

    /// Ends a sandbox. False if there was none.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn kill(&self, id: &str) -> Result<bool, Error> {
        let call = Call::new(Method::DELETE, format!("/sandboxes/{}", segment(id)), Some(id));
        match self.done(call).await {
            Ok(()) => Ok(true),
            Err(Error::SandboxNotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets a sandbox end this long from now, sooner or later than before.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended, [`Error::InvalidArgument`] beyond what the server allows.
    pub async fn set_timeout(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        let call = Call::new(Method::POST, format!("/sandboxes/{}/timeout", segment(id)), Some(id));
        self.done(call.json(&SetTimeout {
            timeout: seconds(timeout),
        })?)
        .await
    }

    /// Pauses a sandbox. False if it was paused already.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended, [`Error::Unsupported`] where the engine cannot.
    pub async fn pause(&self, id: &str) -> Result<bool, Error> {
        let call = Call::new(Method::POST, format!("/sandboxes/{}/pause", segment(id)), Some(id));
        match self.done(call.json(&serde_json::Map::new())?).await {
            Ok(()) => Ok(true),
            Err(Error::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What a sandbox used over time, the oldest first; `start` is in Unix seconds. How far it goes back, and how often was
    /// looked, is the server's matter; there may be nothing yet.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended.
    pub async fn metrics(&self, id: &str, start: Option<i64>) -> Result<Vec<SandboxMetric>, Error> {
        let query = start.map_or_else(String::new, |at| format!("?start={at}"));
        let path = format!("/sandboxes/{}/metrics{query}", segment(id));
        Ok(self.read(Call::new(Method::GET, path, Some(id))).await?.1)
    }

    /// Replaces the rules on what a sandbox may reach; what is left out is cleared. Connections that the new rules forbid end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the rule that is refused, [`Error::SandboxNotFound`] when it has ended.
    pub async fn update_network(&self, id: &str, rules: &UpdateNetwork) -> Result<(), Error> {
        let call = Call::new(Method::PUT, format!("/sandboxes/{}/network", segment(id)), Some(id));
        self.done(call.json(rules)?).await
    }

    /// What a sandbox may reach, and what it was refused within this time, or ever. `None` where the server does not tell:
    /// E2B's does not.
    ///
    /// # Errors
    /// [`Error::Transport`] and the like.
    pub async fn network(&self, id: &str, within: Option<Duration>) -> Result<Option<NetworkState>, Error> {
        if self.inner.network_untold.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let query = within.map_or_else(String::new, |within| format!("?withinMs={}", within.as_millis()));
        let path = format!("/sandboxes/{}/network{query}", segment(id));
        match self.read(Call::new(Method::GET, path, Some(id))).await {
            Ok((_, state)) => Ok(Some(state)),
            Err(Error::SandboxNotFound { .. } | Error::NotFound(_) | Error::Unsupported(_)) => {
                // A sandbox that has ended looks the same; what it was refused is of no use then.
                if self.inner.http.is_some() && self.info(id).await.is_ok() {
                    self.inner.network_untold.store(true, Ordering::Relaxed);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What a sandbox may use, what it uses, and which limits its processes met within the last `time`, as far as it is
    /// known. `None` where the server does not tell, which is kept in mind.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn limits(&self, id: &str, time: Duration) -> Result<Option<LimitsReport>, Error> {
        if self.inner.no_limits.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let path = format!("/sandboxes/{}/limits?withinMs={}", segment(id), time.as_millis());
        match self.read(Call::new(Method::GET, path, Some(id))).await {
            Ok((_, report)) => Ok(Some(report)),
            // A server that knows the call answers it for sandboxes that have ended, too.
            Err(Error::SandboxNotFound { .. } | Error::NotFound(_) | Error::Unsupported(_)) => {
                self.inner.no_limits.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn sandbox(&self, answer: rest::Sandbox) -> Result<Sandbox, Error> {
        let Inner {
            transport,
            http,
            scheme,
            ..
        } = &*self.inner;
        Sandbox::new(self.clone(), transport.clone(), http.as_ref(), scheme, answer)
    }
}

/// A name as one part of a path.
fn segment(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, QUERY)
}

/// Whole seconds, never fewer than asked for.
fn seconds(time: Duration) -> i64 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// What v2 takes when no timeout is named.
fn default_timeout() -> i64 {
    i64::try_from(DEFAULT_TIMEOUT_S).unwrap_or(i64::MAX)
}

/// How RPC messages are written to the sandboxes of a client.
pub(crate) fn codec(http: Option<&HttpConfig>) -> Codec {
    http.map_or(Codec::Binary, |http| http.codec)
}
