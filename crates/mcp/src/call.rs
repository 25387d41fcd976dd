//! What a tool is given besides its arguments: whose call it is, the sandbox it means, and a way to tell progress.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rmcp::{
    RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::Peer,
};
use sandhold_client::{BlockedConnection, Client, Commands, Files, Services};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::ToolError,
    budget,
    consent::Consent,
    dockerfiles::Dockerfiles,
    errors,
    host_files::Host,
    jobs::Jobs,
    limits,
    sandboxes::Handle,
    server::{Door, Provider},
    tenant::Tenant,
    undo::Notes,
};

/// One call of a tool.
pub(crate) struct Call {
    /// Whose it is.
    pub(crate) tenant: Arc<Tenant>,
    /// Who makes the sandboxes, for messages.
    pub(crate) provider: Arc<Provider>,
    /// What has to be opened before URLs of sandboxes answer.
    pub(crate) door: Option<Arc<dyn Door>>,
    /// Who reads Dockerfiles.
    pub(crate) dockerfiles: Option<Arc<dyn Dockerfiles>>,
    /// Which files of this machine it may use.
    pub(crate) host: Host,
    /// Set when the server or the caller's session ends: what the call started is left alone then.
    pub(crate) closing: CancellationToken,
    /// When it came in.
    pub(crate) started: Instant,
    /// Whether the client's revision of the protocol has links to resources.
    pub(crate) links: bool,
    /// Where progress goes.
    pub(crate) progress: Option<Progress>,
    /// How the user is asked.
    pub(crate) consent: Arc<Consent>,
    /// The tool's name, where a checkpoint is to be taken before it changes files.
    pub(crate) undo: Option<&'static str>,
    /// What the answer says beside what the tool says.
    pub(crate) notes: Arc<Notes>,
}

impl Call {
    /// The control plane.
    pub(crate) fn client(&self) -> &Client {
        self.tenant.client()
    }

    /// The sandbox that `sandbox_id` names, or the caller's default one, made now if there is none.
    pub(crate) async fn target(&self, sandbox_id: Option<&str>) -> Result<Target, ToolError> {
        let handle = match sandbox_id {
            Some(id) => self.tenant.attach(id).await?,
            None => self.tenant.default_or_new().await?,
        };
        self.tenant.touch(&handle);
        self.tenant
            .take_news()
            .into_iter()
            .for_each(|line| self.notes.line(line));
        let target = Target::of(&self.tenant, handle);
        self.checkpoint(&target).await;
        Ok(target)
    }

    /// When it has to be answered at the latest. Time that the user was asked does not count.
    pub(crate) fn answer_at(&self) -> Instant {
        self.started + limits::ANSWER_WITHIN + self.consent.waited()
    }

    /// Asks the user before the tool destroys something, by a question that names it: `Remove the folder /x?`. Must be
    /// called before the tool changes anything: the call may end here and be made again. One yes is for the whole call.
    pub(crate) async fn consent(&self, question: impl AsRef<str>) -> Result<(), ToolError> {
        self.consent.ask(question.as_ref(), self.progress.as_ref()).await
    }

    /// The id that `sandbox_id` names, or that of the default sandbox; an error if there is none.
    pub(crate) fn existing(&self, sandbox_id: Option<&str>) -> Result<String, ToolError> {
        match sandbox_id {
            Some(id) => errors::sandbox_id(id).map(|()| id.to_owned()),
            None => self.tenant.default_id().ok_or_else(|| {
                ToolError::new("no_default_sandbox", "there is no default sandbox yet")
                    .hint("Give a sandbox_id; list_sandboxes shows them.")
            }),
        }
    }

    /// Sees to it that the URLs of sandboxes answer on this machine; before a tool hands one out.
    pub(crate) async fn open_door(&self) -> Result<(), ToolError> {
        let Some(door) = &self.door else { return Ok(()) };
        door.open().await.map_err(|why| {
            ToolError::new(
                "unsupported",
                format!("sandboxes cannot be reached from outside: {why}"),
            )
            .hint("Use http_probe or run_command to reach it from inside the sandbox.")
        })
    }

    /// The URL of a port, and for how long and for whom it answers; without one, why there is none.
    pub(crate) async fn url(&self, target: &Target, port: u16) -> Result<(String, &'static str), ToolError> {
        self.open_door().await?;
        let Some(url) = target.handle.sandbox.url(port) else {
            return Err(ToolError::new("unsupported", "sandboxes of this provider have no URLs")
                .hint("Use http_probe or run_command to reach it from inside the sandbox."));
        };
        let reach = match self.door {
            _ if target.handle.sandbox.needs_traffic_token() => {
                "No browser can open it: the sandbox was made with allow_public_traffic off, so requests need its token in a \
                 header. Make one without that."
            }
            Some(_) => {
                "Opens in a browser on the machine that this server runs on, until the sandbox or this server ends."
            }
            None => "Opens in the user's browser until the sandbox ends.",
        };
        Ok((url, reach))
    }

    /// An error of the control plane about the sandbox `id`.
    pub(crate) fn error(&self, id: &str, error: &sandhold_client::Error) -> ToolError {
        self.tenant.error(id, error)
    }
}

/// The sandbox that a call acts on.
#[derive(Clone)]
pub(crate) struct Target {
    tenant: Arc<Tenant>,
    pub(crate) handle: Arc<Handle>,
}

impl Target {
    /// A sandbox of a caller.
    pub(crate) fn of(tenant: &Arc<Tenant>, handle: Arc<Handle>) -> Self {
        Self {
            tenant: Arc::clone(tenant),
            handle,
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        self.handle.sandbox.id()
    }

    /// The control plane.
    pub(crate) fn client(&self) -> &Client {
        self.tenant.client()
    }

    /// The jobs of the caller.
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.tenant.jobs
    }

    /// Its files.
    pub(crate) fn files(&self) -> Files {
        self.handle.sandbox.files()
    }

    /// Its processes.
    pub(crate) fn commands(&self) -> Commands {
        self.handle.sandbox.commands()
    }

    /// Whether its provider is in this process: a question costs next to nothing.
    pub(crate) fn is_near(&self) -> bool {
        self.tenant.client().provider() == "local"
    }

    /// What its network refused within this time, where the provider tells. Never an error, never long: it is an aside.
    pub(crate) async fn blocked(&self, within: Duration) -> Vec<BlockedConnection> {
        let client = self.tenant.client();
        let asked = client.network(self.id(), Some(within + limits::BLOCKED_GRACE));
        match tokio::time::timeout(limits::BLOCKED_WAIT, asked).await {
            Ok(Ok(Some(state))) => state.blocked,
            _ => Vec::new(),
        }
    }

    /// Its servers.
    pub(crate) fn services(&self) -> Services {
        self.handle.sandbox.services()
    }

    /// An error of something done in it.
    pub(crate) fn error(&self, error: &sandhold_client::Error) -> ToolError {
        let told = self.tenant.error(self.id(), error);
        match error {
            // The daemon refused the user, not the key that the server was started with.
            sandhold_client::Error::Unauthenticated(_) => {
                told.hint("Leave user out: the sandbox cannot run it as that one.")
            }
            _ => told,
        }
    }
}

/// Tells a client how a call goes on.
pub(crate) struct Progress {
    pub(crate) peer: Peer<RoleServer>,
    pub(crate) token: ProgressToken,
}

impl Progress {
    /// Sends the seconds since the start and a line of output.
    pub(crate) async fn tell(&self, seconds: f64, line: &str) {
        let mut param = ProgressNotificationParam::new(self.token.clone(), seconds);
        if !line.is_empty() {
            param = param.with_message(budget::line(line, budget::LINE));
        }
        // A client that no longer listens is not an error of the tool.
        let _ = self.peer.notify_progress(param).await;
    }
}
