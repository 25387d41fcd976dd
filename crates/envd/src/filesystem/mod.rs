//! `filesystem.Filesystem`: entries, folders and watches. File contents are in [`crate::files`].
//!
//! The daemon works with its own rights, as E2B's does, and gives what it makes to the user the request is for.

mod dirs;
pub(crate) mod entry;
pub(crate) mod error;
pub(crate) mod limits;
pub(crate) mod metadata;
mod mounts;
mod moving;
mod watch;

#[cfg(test)]
mod tests;

pub(crate) use dirs::{ensure as ensure_dir, settle_owner};
pub(crate) use moving::sibling;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use http::HeaderMap;
use sandhold_wire::limits::KEEPALIVE_S;
use sandhold_wire::names::KEEPALIVE_HEADER;
use sandhold_wire::proto::filesystem::{
    CreateWatcherRequest, CreateWatcherResponse, EntryInfo, Filesystem, GetWatcherEventsRequest,
    GetWatcherEventsResponse, ListDirRequest, ListDirResponse, MakeDirRequest, MakeDirResponse, MoveRequest,
    MoveResponse, RemoveRequest, RemoveResponse, RemoveWatcherRequest, RemoveWatcherResponse, StatRequest,
    StatResponse, WatchDirRequest, WatchDirResponse,
};

use self::error::{FsError, blocking};
use self::watch::Options;
use crate::auth;
use crate::paths;
use crate::state::State;
use crate::users::{Names, User};

/// The service.
pub(crate) struct Service {
    state: Arc<State>,
    watchers: watch::Registry,
}

impl Service {
    /// The service over `state`.
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            watchers: watch::Registry::default(),
        }
    }

    fn path(&self, path: &str, user: &User) -> Result<PathBuf, FsError> {
        resolve(&self.state, path, user)
    }
}

#[expect(refining_impl_trait, reason = "the answers are the plain messages")]
impl Filesystem for Service {
    async fn stat(&self, ctx: RequestContext, request: ServiceRequest<'_, StatRequest>) -> ServiceResult<StatResponse> {
        let user = auth::user(&self.state, ctx.headers())?;
        let path = self.path(request.path, &user)?;
        let entry = blocking(move || entry::at(&path, &Names::read())).await?;
        Response::ok(StatResponse {
            entry: for_client(ctx.headers(), entry).into(),
            ..Default::default()
        })
    }

    async fn make_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, MakeDirRequest>,
    ) -> ServiceResult<MakeDirResponse> {
        let user = auth::user(&self.state, ctx.headers())?;
        let path = self.path(request.path, &user)?;
        let entry = blocking(move || dirs::make(&path, &user, &Names::read())).await?;
        Response::ok(MakeDirResponse {
            entry: for_client(ctx.headers(), entry).into(),
            ..Default::default()
        })
    }

    async fn r#move(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, MoveRequest>,
    ) -> ServiceResult<MoveResponse> {
        let user = auth::user(&self.state, ctx.headers())?;
        let source = self.path(request.source, &user)?;
        let destination = self.path(request.destination, &user)?;
        let entry = blocking(move || moving::rename(&source, &destination, &user, &Names::read())).await?;
        Response::ok(MoveResponse {
            entry: for_client(ctx.headers(), entry).into(),
            ..Default::default()
        })
    }

    async fn list_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, ListDirRequest>,
    ) -> ServiceResult<ListDirResponse> {
        let user = auth::user(&self.state, ctx.headers())?;
        let path = self.path(request.path, &user)?;
        let depth = request.depth.max(1);
        let entries = blocking(move || dirs::list(&path, depth, &Names::read())).await?;
        let entries = entries.into_iter().map(|e| for_client(ctx.headers(), e)).collect();
        Response::ok(ListDirResponse {
            entries,
            ..Default::default()
        })
    }

    async fn remove(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, RemoveRequest>,
    ) -> ServiceResult<RemoveResponse> {
        let user = auth::user(&self.state, ctx.headers())?;
        let path = self.path(request.path, &user)?;
        blocking(move || dirs::remove(&path)).await?;
        Response::ok(RemoveResponse::default())
    }

    async fn watch_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, WatchDirRequest>,
    ) -> ServiceResult<ServiceStream<WatchDirResponse>> {
        let user = auth::user(&self.state, ctx.headers())?;
        let options = Options {
            path: self.path(request.path, &user)?,
            recursive: request.recursive,
            include_entry: request.include_entry,
            allow_network_mounts: request.allow_network_mounts,
        };
        let stream = watch::stream(options, keepalive(ctx.headers()), ctx.deadline()).await?;
        // Proxies must not hold events back to fill a buffer.
        Ok(Response::<ServiceStream<WatchDirResponse>>::new(stream).with_header("x-accel-buffering", "no"))
    }

    async fn create_watcher(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, CreateWatcherRequest>,
    ) -> ServiceResult<CreateWatcherResponse> {
        let user = auth::user(&self.state, ctx.headers())?;
        let options = Options {
            path: self.path(request.path, &user)?,
            recursive: request.recursive,
            include_entry: request.include_entry,
            allow_network_mounts: request.allow_network_mounts,
        };
        let watcher_id = self.watchers.create(options).await?;
        Response::ok(CreateWatcherResponse {
            watcher_id,
            ..Default::default()
        })
    }

    async fn get_watcher_events(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, GetWatcherEventsRequest>,
    ) -> ServiceResult<GetWatcherEventsResponse> {
        let events = self.watchers.events(request.watcher_id)?;
        Response::ok(GetWatcherEventsResponse {
            events,
            ..Default::default()
        })
    }

    async fn remove_watcher(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, RemoveWatcherRequest>,
    ) -> ServiceResult<RemoveWatcherResponse> {
        self.watchers.remove(request.watcher_id)?;
        Response::ok(RemoveWatcherResponse::default())
    }
}

/// The absolute path that `path` means for `user`.
pub(crate) fn resolve(state: &State, path: &str, user: &User) -> Result<PathBuf, FsError> {
    paths::resolve(path, user, state.workdir.as_deref())
        .map_err(|e| FsError::invalid(format!("error resolving path '{path}': {e}")))
}

/// An entry as the client can read it: E2B's SDKs of 1.5 and before break off at every field that they do not know. They
/// are those that call themselves nothing but `connect-python`; later ones add a name of their own.
fn for_client(headers: &HeaderMap, entry: EntryInfo) -> EntryInfo {
    let mut names = headers.get_all(http::header::USER_AGENT).iter().peekable();
    if names.peek().is_none() || names.any(|name| name != "connect-python") {
        return entry;
    }
    EntryInfo {
        name: entry.name,
        r#type: entry.r#type,
        path: entry.path,
        ..EntryInfo::default()
    }
}

/// The silence after which a stream says that it is alive.
fn keepalive(headers: &HeaderMap) -> Duration {
    let asked = headers
        .get(KEEPALIVE_HEADER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok());
    Duration::from_secs(asked.filter(|s| *s > 0).unwrap_or(KEEPALIVE_S))
}

/// Twenty hexadecimal digits that nobody guesses.
pub(crate) fn random_id() -> String {
    let mut bytes = [0_u8; 10];
    // The kernel's generator is ready long before any sandbox starts, and never fails after.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
