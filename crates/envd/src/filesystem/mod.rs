//! `filesystem.Filesystem`.

use std::sync::Arc;

use connectrpc::{ConnectError, RequestContext, ServiceRequest, ServiceResult, ServiceStream};
use sandhold_wire::proto::filesystem::*;

use crate::state::State;

/// The service. Stands in until its content is written.
pub(crate) struct Service {
    _state: Arc<State>,
}

impl Service {
    /// The service over `state`.
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { _state: state }
    }
}

impl Filesystem for Service {
    async fn stat(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, StatRequest>,
    ) -> ServiceResult<StatResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn make_dir(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, MakeDirRequest>,
    ) -> ServiceResult<MakeDirResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn r#move(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, MoveRequest>,
    ) -> ServiceResult<MoveResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn list_dir(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, ListDirRequest>,
    ) -> ServiceResult<ListDirResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn remove(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, RemoveRequest>,
    ) -> ServiceResult<RemoveResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn create_watcher(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, CreateWatcherRequest>,
    ) -> ServiceResult<CreateWatcherResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn get_watcher_events(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, GetWatcherEventsRequest>,
    ) -> ServiceResult<GetWatcherEventsResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn remove_watcher(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, RemoveWatcherRequest>,
    ) -> ServiceResult<RemoveWatcherResponse> {
        Err(ConnectError::unimplemented("not yet"))
    }
    async fn watch_dir(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, WatchDirRequest>,
    ) -> ServiceResult<ServiceStream<WatchDirResponse>> {
        Err(ConnectError::unimplemented("not yet"))
    }
}
