//! One sandbox.

use std::sync::Arc;

use http::Method;
use sandhold_wire::{
    names::ENVD_PORT,
    rest::{self, EnvdMetrics, SandboxDetail},
};

use crate::{
    Client, Commands, Error, Files, HttpConfig, Services,
    client::codec,
    envd::{Address, Envd},
    limits,
    transport::{SharedTransport, empty},
};

/// A sandbox that was created or connected to. Cloning is cheap. Dropping it does not end the sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    template: String,
    /// Domain of its host names, where it has any.
    domain: Option<String>,
    /// `http` or `https`.
    scheme: &'static str,
    needs_token: bool,
    resumed_from: Option<String>,
    envd: Arc<Envd>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("id", &self.id())
            .field("template", &self.template())
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    pub(crate) fn new(
        client: Client,
        transport: SharedTransport,
        http: Option<&HttpConfig>,
        scheme: &'static str,
        answer: rest::Sandbox,
    ) -> Result<Self, Error> {
        let id = answer.sandbox_id;
        // The id becomes a part of host names.
        if id.is_empty()
            || !id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err(Error::Protocol(format!(
                "the server named a sandbox {id:?}, which is no valid id"
            )));
        }
        let named = answer.domain.filter(|domain| !domain.is_empty());
        let (base, direct, domain, scheme) = match http {
            Some(http) => {
                let domain = named.unwrap_or_else(|| http.domain().to_owned());
                let base = http.sandbox_base(&id, ENVD_PORT, &domain);
                let direct = http.direct_base(&id, ENVD_PORT, &domain);
                let scheme = if direct.starts_with("http://") { "http" } else { "https" };
                (base, Some(direct), Some(domain), scheme)
            }
            None => {
                let direct = named
                    .as_ref()
                    .map(|domain| format!("{scheme}://{ENVD_PORT}-{id}.{domain}"));
                (String::new(), direct, named, scheme)
            }
        };
        let envd = Envd::new(
            transport,
            Address {
                id,
                base,
                direct,
                token: answer.envd_access_token.filter(|token| !token.is_empty()),
                codec: codec(http),
                version: answer.envd_version,
            },
        )?;
        let needs_token = answer.traffic_access_token.is_some_and(|token| !token.is_empty());
        let resumed_from = answer.resumed_from;
        let template = answer
            .alias
            .filter(|alias| !alias.is_empty())
            .unwrap_or(answer.template_id);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                template,
                domain,
                scheme,
                needs_token,
                resumed_from,
                envd: Arc::new(envd),
            }),
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.envd.id
    }

    /// The name of its template, or the template's id where it has no name.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.inner.template
    }

    /// Its file system.
    #[must_use]
    pub fn files(&self) -> Files {
        Files {
            envd: self.inner.envd.clone(),
        }
    }

    /// Its processes.
    #[must_use]
    pub fn commands(&self) -> Commands {
        Commands {
            envd: self.inner.envd.clone(),
        }
    }

    /// Its servers.
    #[must_use]
    pub fn services(&self) -> Services {
        Services {
            envd: self.inner.envd.clone(),
        }
    }

    /// `https://<port>-<id>.<domain>`, or what the provider has instead; `None` where nothing outside this process can reach a
    /// port.
    #[must_use]
    pub fn url(&self, port: u16) -> Option<String> {
        let Inner { domain, scheme, .. } = &*self.inner;
        domain
            .as_ref()
            .map(|domain| format!("{scheme}://{port}-{}.{domain}", self.id()))
    }

    /// Whether its ports ask for a token in a header, which no browser sends: it was made without public traffic.
    #[must_use]
    pub fn needs_traffic_token(&self) -> bool {
        self.inner.needs_token
    }

    /// Of a handle that a connect made by resuming the sandbox: `full` if its processes went on, `filesystem` if only its files
    /// came back. `None` where it ran, and where the provider does not say.
    #[must_use]
    pub fn resumed_from(&self) -> Option<&str> {
        self.inner.resumed_from.as_deref()
    }

    /// Whether envd answers.
    ///
    /// # Errors
    /// Those of the connection: then nobody knows.
    pub async fn is_running(&self) -> Result<bool, Error> {
        self.inner.envd.health().await
    }

    /// What it uses of its processors, memory and disk right now.
    ///
    /// # Errors
    /// Those of the connection and of the sandbox.
    pub async fn metrics(&self) -> Result<EnvdMetrics, Error> {
        let envd = &self.inner.envd;
        let request = envd.request(Method::GET, "/metrics", empty())?;
        let metrics = envd.extension(request, limits::ERROR_BODY).await?;
        metrics.ok_or_else(|| Error::Unsupported("the daemon of this sandbox is too old for metrics".into()))
    }

    /// Ends it. False if it had ended.
    ///
    /// # Errors
    /// As [`Client::kill`].
    pub async fn kill(&self) -> Result<bool, Error> {
        self.inner.client.kill(self.id()).await
    }

    /// What is known of it.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub async fn info(&self) -> Result<SandboxDetail, Error> {
        self.inner.client.info(self.id()).await
    }
}
