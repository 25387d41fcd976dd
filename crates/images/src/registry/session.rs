//! One image of one registry: where it is asked for, and as whom.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode, Url,
    header::{self, HeaderValue},
    redirect,
};
use tokio::sync::Mutex;

use super::{answer, auth};
use crate::{ImageError, OutOfReach, Reach, Reference, Settings, credentials::Login, limits, manifest};

/// docker.io's registry is at another name.
const DOCKER_IO: &str = "registry-1.docker.io";

pub(crate) struct Session {
    pub(super) http: reqwest::Client,
    pub(super) reference: Reference,
    pub(super) login: Option<Login>,
    /// Whether it is spoken to without TLS.
    pub(super) plain: bool,
    pub(super) reach: Option<Reach>,
    base: String,
    /// What was accepted last.
    header: Mutex<Option<HeaderValue>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.reference)
    }
}

/// The client of all sessions.
pub(super) fn client(settings: &Settings) -> Result<reqwest::Client, ImageError> {
    // reqwest takes the provider of the process; whoever installed one before us has chosen, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fault = |what: &str, source: reqwest::Error| ImageError::Settings {
        what: what.to_owned(),
        source: Some(source.into()),
    };
    let reach = settings.reach.clone();
    let secure = redirect::Policy::custom(move |attempt| {
        let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > limits::REDIRECTS {
            attempt.error("too many redirections")
        } else if from_tls && attempt.url().scheme() != "https" {
            attempt.error("a redirection to a connection that is not secure")
        } else if let Some(Err(error)) = reach.as_ref().map(|reach| reach.check(attempt.url())) {
            attempt.error(error)
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("sandhold/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limits::CONNECT_TIME)
        .read_timeout(limits::IDLE_TIME)
        .tcp_nodelay(true)
        .redirect(secure)
        .referer(false)
        .no_proxy();
    if let Some(reach) = &settings.reach {
        builder = builder.dns_resolver(Arc::new(reach.clone()));
    }
    if let Some(url) = settings.proxy.as_deref().filter(|url| !url.is_empty()) {
        let proxy = reqwest::Proxy::https(url).map_err(|error| fault("the proxy's URL", error))?;
        let direct = format!(
            "localhost,127.0.0.1,::1,{}",
            settings.no_proxy.as_deref().unwrap_or_default()
        );
        builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&direct)));
    }
    if let Some(pem) = &settings.authorities {
        let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| fault("the authorities", error))?;
        if found.is_empty() {
            return Err(ImageError::Settings {
                what: "the authorities: there is no certificate in PEM among them".to_owned(),
                source: None,
            });
        }
        builder = builder.tls_certs_merge(found);
    }
    builder.build().map_err(|error| fault("HTTPS", error))
}

impl Session {
    pub(super) async fn new(
        http: reqwest::Client,
        reference: Reference,
        settings: &Settings,
    ) -> Result<Arc<Self>, ImageError> {
        let registry = reference.registry().to_owned();
        let login = settings.credentials.login(&registry).await?;
        let host = if registry == "docker.io" { DOCKER_IO } else { &registry };
        if let (Some(reach), Ok(url)) = (&settings.reach, Url::parse(&format!("https://{host}"))) {
            let unreachable = |error: OutOfReach| ImageError::Unreachable {
                registry: registry.clone(),
                source: error.into(),
            };
            reach.check(&url).map_err(unreachable)?;
        }
        let allowed = is_loopback(host) || settings.insecure.iter().any(|one| one.eq_ignore_ascii_case(&registry));
        let plain = allowed && speaks_http(&http, host).await;
        Ok(Arc::new(Self {
            base: format!(
                "{}://{host}/v2/{}",
                if plain { "http" } else { "https" },
                reference.repository()
            ),
            http,
            reach: settings.reach.clone(),
            reference,
            login,
            plain,
            header: Mutex::new(None),
        }))
    }

    pub(super) fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// A whole document, of at most `most` bytes.
    pub(super) async fn document(&self, kind: &str, name: &str, most: u64) -> Result<Bytes, ImageError> {
        let what = format!("{} ({kind}/{name})", self.reference);
        let read = async {
            let response = self.get(kind, name, 0).await?;
            answer::read(response, most, &what, self.registry()).await
        };
        tokio::time::timeout(limits::REQUEST_TIME, read)
            .await
            .unwrap_or_else(|_| {
                Err(ImageError::Timeout {
                    what: what.clone(),
                    after: limits::REQUEST_TIME,
                })
            })
    }

    /// Asks for a document or layer, from a byte of it on, and shows who asks if that is wanted. The answer's status is
    /// 200 or 206.
    pub(super) async fn get(&self, kind: &str, name: &str, from: u64) -> Result<Response, ImageError> {
        let mut shown = self.header.lock().await.clone();
        let mut asked = false;
        loop {
            let mut request = self.http.get(format!("{}/{kind}/{name}", self.base));
            if kind == "manifests" {
                request = request.header(header::ACCEPT, manifest::ACCEPTED);
            }
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            if let Some(shown) = &shown {
                request = request.header(header::AUTHORIZATION, shown);
            }
            let response = request
                .send()
                .await
                .map_err(|error| answer::network(error, self.registry()))?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(response),
                // A token may also have grown too old.
                StatusCode::UNAUTHORIZED if !asked => {
                    asked = true;
                    let answer = match auth::challenge(response.headers()) {
                        Some(challenge) => self.answer_to(challenge).await?,
                        None => None,
                    };
                    let Some(answer) = answer else {
                        return Err(self.unauthorized());
                    };
                    self.header.lock().await.replace(answer.clone());
                    shown = Some(answer);
                }
                _ => return Err(self.refusal(response, &format!("{kind}/{name}")).await),
            }
        }
    }

    fn unauthorized(&self) -> ImageError {
        ImageError::Unauthorized {
            registry: self.registry().to_owned(),
            image: self.reference.to_string(),
            known: self.login.is_some(),
        }
    }

    /// The error of an answer that is not what was asked for.
    pub(super) async fn refusal(&self, response: Response, what: &str) -> ImageError {
        let registry = self.registry().to_owned();
        match response.status().as_u16() {
            401 | 403 => self.unauthorized(),
            404 if what.starts_with("manifests/") => ImageError::Unknown {
                registry,
                image: self.reference.to_string(),
            },
            429 => ImageError::RateLimited {
                registry,
                wait: answer::wait(&response),
            },
            status => ImageError::Answer {
                registry,
                status,
                what: what.to_owned(),
                told: answer::told(response).await,
            },
        }
    }
}

/// Whether a registry is on this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a registry that may be spoken to without TLS wants that. Nothing secret is sent.
async fn speaks_http(http: &reqwest::Client, host: &str) -> bool {
    let asked = http
        .get(format!("http://{host}/v2/"))
        .timeout(limits::CONNECT_TIME)
        .send()
        .await;
    match asked {
        // What Go's server says when it is asked for HTTP where it has TLS.
        Ok(response) => response.status() != StatusCode::BAD_REQUEST,
        // What else goes wrong (nobody is there, or nobody answers) the real request meets again, and tells of. Only bytes
        // that are not HTTP's mean something else.
        Err(error) => error.is_connect() || error.is_timeout() || error.is_redirect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.x.io",
            "10.0.0.1",
            "128.0.0.1:5000",
            "127.0.0.1.x.io",
            "[::2]:5000",
            "x.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
