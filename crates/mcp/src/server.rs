//! The server: one handler for every transport and both eras of the protocol.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::*,
    service::{NotificationContext, RequestContext},
};
use sandhold_client::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    budget,
    call::{Call, Progress},
    cancelled::{Asked, Reasons},
    consent::{Confirm, Desk},
    dockerfiles::Dockerfiles,
    guide,
    host_files::{Host, HostFolder},
    http::{Principal, sse::SessionEnd},
    keeping::Keeping,
    lock, prompts,
    registry::{ConfigError, Entry, Selection, Spec},
    resources,
    tenant::Tenant,
    tools,
};

/// How long a client may keep the lists: they never change while a server runs.
const LIST_TTL_MS: u64 = 300_000;
/// The tool that takes checkpoints.
const ROLLBACK: &str = "rollback_sandbox";

/// Who makes the sandboxes, as `sandbox_info` tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provider {
    /// `local`, `e2b`.
    pub name: String,
    /// One line on it.
    pub description: String,
    /// What it cannot do, one line each.
    pub cannot: Vec<String>,
}

/// What a server is made from.
pub struct ServerConfig {
    /// The control plane.
    pub client: Client,
    /// Who makes the sandboxes.
    pub provider: Provider,
    /// Which tools are offered.
    pub selection: Selection,
    /// What has to be opened before the URLs of sandboxes answer; `None` where they always do.
    pub door: Option<Arc<dyn Door>>,
    /// Folders of this machine that `upload_file` and `download_file` may use. Over HTTP they may use none: the caller may
    /// be somebody else.
    pub folders: Vec<HostFolder>,
    /// When the user is asked before something is destroyed.
    pub confirm: Confirm,
    /// Who reads Dockerfiles for `build_template`; without, it takes none.
    pub dockerfiles: Option<Arc<dyn Dockerfiles>>,
    /// Whether sandboxes outlive the server.
    pub keeping: Keeping,
    /// Whether a checkpoint is taken before each call that may change files. `rollback_sandbox` is offered then, too.
    pub checkpoint: bool,
}

/// The way in for browsers of this machine, where nobody else serves the host names of sandboxes.
pub trait Door: Send + Sync {
    /// Lets them in, if it does not yet. An error says why that cannot be.
    fn open(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// The MCP server. Cloning is cheap and shares everything.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    provider: Arc<Provider>,
    door: Option<Arc<dyn Door>>,
    dockerfiles: Option<Arc<dyn Dockerfiles>>,
    folders: Arc<[HostFolder]>,
    desk: Arc<Desk>,
    keeping: Keeping,
    checkpoint: bool,
    /// All that may be offered, in the order of the tool list.
    entries: Vec<Entry>,
    /// Those that are offered where the endpoint asks for no others.
    usual: BTreeSet<&'static str>,
    tenants: Mutex<HashMap<Principal, Arc<Tenant>>>,
    closing: CancellationToken,
    cancelled: Reasons,
}

impl Server {
    /// A server that offers the selected tools.
    ///
    /// # Errors
    ///
    /// The selection names something that does not exist, or leaves no tool.
    pub fn new(config: ServerConfig) -> Result<Self, ConfigError> {
        let mut usual = config.selection.names()?;
        // Where nobody chose, an endpoint may choose from all.
        let mut most = match &config.selection {
            chosen if chosen.toolsets.is_some() || !chosen.tools.is_empty() => usual.clone(),
            open => Selection {
                toolsets: Some(vec!["all".to_owned()]),
                ..open.clone()
            }
            .names()?,
        };
        // What answers name must be there.
        if config.checkpoint
            && !config.selection.read_only
            && !config.selection.exclude_tools.iter().any(|t| t == ROLLBACK)
        {
            usual.insert(ROLLBACK);
            most.insert(ROLLBACK);
        }
        let entries = tools::all()
            .into_iter()
            .filter(|e| most.contains(e.spec.name))
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                client: config.client,
                provider: Arc::new(config.provider),
                door: config.door,
                dockerfiles: config.dockerfiles,
                folders: config.folders.into(),
                desk: Arc::new(Desk::new(config.confirm)),
                keeping: config.keeping,
                checkpoint: config.checkpoint,
                entries,
                usual,
                tenants: Mutex::default(),
                closing: CancellationToken::new(),
                cancelled: Reasons::default(),
            }),
        })
    }

    /// Ids of the sandboxes that were made through this server and are not known to have ended, for whoever ends them.
    #[must_use]
    pub fn sandboxes_created(&self) -> Vec<String> {
        lock(&self.inner.tenants).values().flat_map(|t| t.made()).collect()
    }

    /// Ends every sandbox that was made through this server, side by side. Returns how many could not be ended within
    /// `limit`.
    pub async fn end_sandboxes(&self, limit: Duration) -> usize {
        let tenants: Vec<Arc<Tenant>> = lock(&self.inner.tenants).values().cloned().collect();
        let ends = tenants.iter().flat_map(|t| {
            t.made()
                .into_iter()
                .map(move |id| async move { t.kill(&id).await.is_ok() })
        });
        let ends: Vec<_> = ends.collect();
        let all = ends.len();
        match tokio::time::timeout(limit, futures::future::join_all(ends)).await {
            Ok(done) => done.iter().filter(|ok| !**ok).count(),
            Err(_) => self.sandboxes_created().len().min(all),
        }
    }

    /// Set once the server ends; what calls started is left alone from then on.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    fn tenant(&self, principal: Principal) -> Arc<Tenant> {
        let mut tenants = lock(&self.inner.tenants);
        Arc::clone(
            tenants
                .entry(principal)
                .or_insert_with(|| Arc::new(Tenant::new(self.inner.client.clone(), self.inner.keeping.clone()))),
        )
    }

    /// The tools that a request's endpoint asks for over HTTP: `/mcp?toolsets=files`.
    fn chosen(&self, cx: &RequestContext<RoleServer>) -> Result<Option<BTreeSet<&'static str>>, ErrorData> {
        let query = cx.extensions.get::<http::request::Parts>().and_then(|p| p.uri.query());
        let Some(selection) = query.and_then(Selection::from_query) else {
            return Ok(None);
        };
        selection
            .names()
            .map(Some)
            .map_err(|e| ErrorData::invalid_params(e.to_string(), None))
    }

    fn entries(&self, cx: &RequestContext<RoleServer>) -> Result<Vec<&Entry>, ErrorData> {
        let names = self.chosen(cx)?;
        let names = names.as_ref().unwrap_or(&self.inner.usual);
        let offered = |e: &&Entry| names.contains(e.spec.name);
        Ok(self.inner.entries.iter().filter(offered).collect())
    }

    /// Those that are offered where the endpoint asks for no others.
    fn usual(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.inner
            .entries
            .iter()
            .filter(|e| self.inner.usual.contains(e.spec.name))
    }

    fn call_of(
        &self,
        cx: &RequestContext<RoleServer>,
        request: &CallToolRequestParams,
        spec: &Spec,
    ) -> Result<Call, ErrorData> {
        let progress = cx.meta.get_progress_token().map(|token| Progress {
            peer: cx.peer.clone(),
            token,
        });
        let parts = cx.extensions.get::<http::request::Parts>();
        let session_end = parts
            .and_then(|p| p.extensions.get::<SessionEnd>())
            .map(|end| &end.token);
        Ok(Call {
            host: match parts.is_some() {
                true => Host::OverHttp,
                false => Host::Folders(Arc::clone(&self.inner.folders)),
            },
            tenant: self.tenant(Principal::of(cx)),
            provider: Arc::clone(&self.inner.provider),
            door: self.inner.door.clone(),
            dockerfiles: self.inner.dockerfiles.clone(),
            closing: session_end.unwrap_or(&self.inner.closing).child_token(),
            started: Instant::now(),
            links: cx
                .protocol_version()
                .is_some_and(|v| v >= ProtocolVersion::V_2025_06_18),
            progress,
            consent: Arc::new(self.inner.desk.consent(cx, request)?),
            undo: (self.inner.checkpoint && spec.changes_files()).then_some(spec.name),
            notes: Arc::default(),
        })
    }
}

/// Whether a request is of the stateless revision.
pub(crate) fn is_modern(cx: &RequestContext<RoleServer>) -> bool {
    cx.protocol_version()
        .is_some_and(|v| v >= ProtocolVersion::V_2026_07_28)
}

/// The cache hints of a list that never changes, where the era has them.
macro_rules! cached {
    ($list:expr, $cx:expr) => {{
        let list = $list;
        if is_modern(&$cx) {
            list.with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Public)
        } else {
            list
        }
    }};
}

impl ServerHandler for Server {
    fn get_info(&self) -> InitializeResult {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .build();
        InitializeResult::new(capabilities)
            .with_server_info(
                Implementation::new("sandhold", env!("CARGO_PKG_VERSION"))
                    .with_title("Sandhold")
                    .with_description("A computer for an agent: files and commands in isolated sandboxes"),
            )
            .with_instructions(guide::instructions(self.usual()))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let listed = self.entries(&cx)?.into_iter().map(|e| e.listed.clone()).collect();
        Ok(cached!(ListToolsResult::with_all_items(listed), cx))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.inner
            .entries
            .iter()
            .find(|e| e.spec.name == name)
            .map(|e| e.listed.clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = self.entries(&cx)?.into_iter().find(|e| e.spec.name == request.name) else {
            return Err(ErrorData::invalid_params(
                format!("Unknown tool: {}", request.name),
                None,
            ));
        };
        let call = self.call_of(&cx, &request, &entry.spec)?;
        let closing = call.closing.clone();
        let mut work = entry.call(call, request.arguments.unwrap_or_default());
        tokio::select! {
            biased;
            response = &mut work => Ok(response),
            // The client cancelled it: dropping the work ends what it started.
            () = cx.ct.cancelled() => {
                // Neither the end of a session nor a client that stopped waiting is a wish of the user: what the call
                // started goes on as a job. In the stateless revision closing the stream of an answer is how a client
                // cancels.
                let session_ended = !is_modern(&cx) && cx.peer.is_transport_closed();
                let asked = Asked::of(&cx.extensions, cx.id.clone());
                if session_ended || self.inner.cancelled.timed_out(&asked).await {
                    closing.cancel();
                }
                Err(ErrorData::internal_error("the call was cancelled", None))
            }
        }
    }

    async fn on_cancelled(&self, cancelled: CancelledNotificationParam, cx: NotificationContext<RoleServer>) {
        if let Some(id) = cancelled.request_id {
            let asked = Asked::of(&cx.extensions, id);
            self.inner.cancelled.note(asked, cancelled.reason.as_deref());
        }
    }

    /// Requests that have not the shape of any method: rmcp says of them that there is no such method.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _cx: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        let params = params.unwrap_or_default();
        let cause = match method.as_str() {
            CallToolRequestMethod::VALUE => serde_json::from_value::<CallToolRequestParams>(params).err(),
            GetPromptRequestMethod::VALUE => serde_json::from_value::<GetPromptRequestParams>(params).err(),
            ReadResourceRequestMethod::VALUE => serde_json::from_value::<ReadResourceRequestParams>(params).err(),
            _ => None,
        };
        Err(match cause {
            Some(cause) => {
                let message = format!("the params of {method} are not what the protocol says: {cause}");
                // The cause quotes what came, whole.
                ErrorData::invalid_params(budget::line(&message, budget::LINE), None)
            }
            None => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method, None),
        })
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(cached!(ListPromptsResult::with_all_items(prompts::all()), cx))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _cx: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request).map(Into::into)
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = resources::list(&self.tenant(Principal::of(&cx)).made());
        let list = ListResourcesResult::with_all_items(resources);
        // The sandboxes come and go and are the caller's own.
        Ok(if is_modern(&cx) {
            list.with_ttl_ms(0).with_cache_scope(CacheScope::Private)
        } else {
            list
        })
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        cx: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(cached!(
            ListResourceTemplatesResult::with_all_items(resources::templates()),
            cx
        ))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let tenant = self.tenant(Principal::of(&cx));
        resources::read(&request.uri, self.usual(), &self.inner.provider, &tenant)
            .await
            .map(Into::into)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }
}
