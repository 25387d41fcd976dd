//! The transport over HTTP: HTTP/2 where TLS agrees on it, HTTP/1.1 otherwise, with pooled connections.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{Body, BoxError, Codec, Download, Transport};
use crate::{
    Error,
    limits::{BACKOFF_BASE, CONNECT_RETRIES, CONNECT_TIMEOUT, HTTP2_PING, POOL_IDLE},
};

/// Domain of E2B's cloud.
const DEFAULT_DOMAIN: &str = "e2b.app";

/// Domains whose sandboxes share one host, `sandbox.<domain>`; the list stands in E2B's SDKs.
const SHARED_HOST_DOMAINS: [&str; 7] = [
    "e2b.app",
    "e2b.dev",
    "e2b.pro",
    "e2b-staging.dev",
    "e2b-tango.dev",
    "e2b-juliett.dev",
    "foxtrot-2.e2b.dev",
];

/// Where a control plane and its sandboxes are. Nothing is read from the environment.
#[derive(Clone)]
pub struct HttpConfig {
    /// Sent as `X-API-KEY` to the control plane.
    pub api_key: Option<String>,
    /// The domain of the control plane (`api.<domain>`) and of the sandboxes; `None` is `e2b.app`. The domain that the
    /// control plane names for a sandbox goes before it.
    pub domain: Option<String>,
    /// Base of the control plane in place of `https://api.<domain>`.
    pub api_url: Option<String>,
    /// Base of every sandbox's daemon in place of `https://sandbox.<domain>` or `https://<port>-<id>.<domain>`.
    pub sandbox_url: Option<String>,
    /// A proxy for what goes over HTTPS, this machine excepted, e.g. `http://10.0.0.1:3128`. What goes over plain HTTP is
    /// readable for a proxy, the key too, so it takes none.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy, as `NO_PROXY` lists them.
    pub no_proxy: Option<String>,
    /// Certificates (PEM) of authorities that are trusted beside the system's.
    pub authorities: Option<Vec<u8>>,
    /// How RPC messages are written; JSON is what the official SDKs use.
    pub codec: Codec,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            domain: None,
            api_url: None,
            sandbox_url: None,
            proxy: None,
            no_proxy: None,
            authorities: None,
            codec: Codec::Json,
        }
    }
}

impl std::fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the key nor a password inside the proxy's URL may reach a log.
        f.debug_struct("HttpConfig")
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("domain", &self.domain)
            .field("api_url", &self.api_url)
            .field("sandbox_url", &self.sandbox_url)
            .field("proxy", &self.proxy.as_ref().map(|_| "…"))
            .field("authorities", &self.authorities.as_ref().map(Vec::len))
            .field("codec", &self.codec)
            .finish()
    }
}

impl HttpConfig {
    /// E2B's cloud with this key.
    #[must_use]
    pub fn new(api_key: impl Into<String>) -> Self {
        Self {
            api_key: Some(api_key.into()),
            ..Self::default()
        }
    }

    /// The domain of sandboxes for which the control plane names none.
    pub(crate) fn domain(&self) -> &str {
        non_empty(&self.domain).unwrap_or(DEFAULT_DOMAIN)
    }

    /// Base of the control plane, without a slash at its end.
    pub(crate) fn api_base(&self) -> String {
        match non_empty(&self.api_url) {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://api.{}", self.domain()),
        }
    }

    /// Base of a port of a sandbox for this client's requests, which name the sandbox in their headers too.
    pub(crate) fn sandbox_base(&self, id: &str, port: u16, domain: &str) -> String {
        match non_empty(&self.sandbox_url) {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None if SHARED_HOST_DOMAINS.contains(&domain) => format!("https://sandbox.{domain}"),
            None => format!("https://{port}-{id}.{domain}"),
        }
    }

    /// Base of a port of a sandbox for requests that carry no headers of ours; without a path.
    pub(crate) fn direct_base(&self, id: &str, port: u16, domain: &str) -> String {
        match non_empty(&self.sandbox_url) {
            Some(url) => origin(url).to_owned(),
            None => format!("https://{port}-{id}.{domain}"),
        }
    }
}

fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// `scheme://host:port` of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Sends over sockets.
pub(crate) struct HttpTransport {
    client: reqwest::Client,
    /// For [`Download`]s: HTTP/1.1 only.
    downloads: reqwest::Client,
}

impl HttpTransport {
    pub(crate) fn new(config: &HttpConfig) -> Result<Self, Error> {
        // reqwest takes the provider of the process; whoever installed one before us has chosen, and that is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let build = |http1: bool| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("sandhold/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(POOL_IDLE)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(HTTP2_PING)
                .http2_adaptive_window(true)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy();
            if http1 {
                builder = builder.http1_only();
            }
            if let Some(url) = non_empty(&config.proxy) {
                let proxy = reqwest::Proxy::https(url)
                    .map_err(|error| Error::InvalidArgument(format!("the proxy's URL is not valid: {error}")))?;
                let direct = format!(
                    "localhost,127.0.0.1,::1,{}",
                    config.no_proxy.as_deref().unwrap_or_default()
                );
                builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
            }
            if let Some(pem) = &config.authorities {
                builder = builder.tls_certs_merge(authorities(pem)?);
            }
            builder.build().map_err(|error| Error::Transport {
                what: "could not set up HTTPS".into(),
                source: error.into(),
            })
        };
        Ok(Self {
            client: build(false)?,
            downloads: build(true)?,
        })
    }
}

fn authorities(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, Error> {
    let refused = |why: &str| Error::InvalidArgument(format!("the certificates to trust cannot be used: {why}"));
    let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| refused(&error.to_string()))?;
    if found.is_empty() {
        return Err(refused("there is none"));
    }
    Ok(found)
}

impl Transport for HttpTransport {
    fn send(&self, request: http::Request<Body>) -> BoxFuture<'static, Result<http::Response<Body>, BoxError>> {
        let download = request.extensions().get::<Download>().is_some();
        let client = if download { &self.downloads } else { &self.client }.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            if body.size_hint().exact().is_none() {
                let body = reqwest::Body::wrap_stream(body.into_data_stream());
                return execute(&client, http::Request::from_parts(head, body)).await;
            }
            // A body of known size is in memory already: handed over as bytes it gets a Content-Length and can be sent again.
            let bytes: Bytes = body.collect().await?.to_bytes();
            let mut wait = BACKOFF_BASE;
            for _ in 0..CONNECT_RETRIES {
                match execute(&client, http::Request::from_parts(head.clone(), bytes.clone().into())).await {
                    Err(error) if never_sent(&error) => tokio::time::sleep(wait).await,
                    result => return result,
                }
                wait *= 2;
            }
            execute(&client, http::Request::from_parts(head, bytes.into())).await
        })
    }
}

/// Whether the request cannot have reached the server.
fn never_sent(error: &BoxError) -> bool {
    error
        .downcast_ref::<reqwest::Error>()
        .is_some_and(reqwest::Error::is_connect)
}

async fn execute(
    client: &reqwest::Client,
    request: http::Request<reqwest::Body>,
) -> Result<http::Response<Body>, BoxError> {
    // URLs hold paths and names of the user, which do not belong into an error's text twice.
    let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
    let response = client.execute(request).await.map_err(reqwest::Error::without_url)?;
    let response = http::Response::<reqwest::Body>::from(response);
    Ok(response.map(|body| body.map_err(|error| BoxError::from(error.without_url())).boxed_unsync()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let cloud = HttpConfig::new("k");
        assert_eq!(cloud.api_base(), "https://api.e2b.app");
        assert_eq!(cloud.sandbox_base("i1", 49983, "e2b.app"), "https://sandbox.e2b.app");
        assert_eq!(cloud.direct_base("i1", 49983, "e2b.app"), "https://49983-i1.e2b.app");
        assert_eq!(
            cloud.sandbox_base("i1", 49983, "sbx.example.org"),
            "https://49983-i1.sbx.example.org"
        );
        let own = HttpConfig {
            domain: Some("example.org".into()),
            ..HttpConfig::new("k")
        };
        assert_eq!(own.api_base(), "https://api.example.org");
        let urls = HttpConfig {
            api_url: Some("http://127.0.0.1:3000/e2b/".into()),
            sandbox_url: Some("http://127.0.0.1:3000/envd/".into()),
            ..own
        };
        assert_eq!(urls.api_base(), "http://127.0.0.1:3000/e2b");
        assert_eq!(urls.sandbox_base("i1", 49983, "e2b.app"), "http://127.0.0.1:3000/envd");
        assert_eq!(urls.direct_base("i1", 49983, "e2b.app"), "http://127.0.0.1:3000");
    }

    #[test]
    fn an_empty_setting_is_none() {
        let config = HttpConfig {
            domain: Some(String::new()),
            api_url: Some(String::new()),
            ..HttpConfig::default()
        };
        assert_eq!(config.api_base(), "https://api.e2b.app");
    }

    #[test]
    fn debug_hides_the_key() {
        let config = HttpConfig {
            proxy: Some("http://u:sesame@h".into()),
            ..HttpConfig::new("e2b_secret")
        };
        let text = format!("{config:?}");
        assert!(!text.contains("secret") && !text.contains("sesame"), "{text}");
    }
}
