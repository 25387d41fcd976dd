//! Giving a build up: an addition of Sandhold to E2B's API.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
};
use http::StatusCode;
use sandhold_wire::templates::TemplateBuildStatus;

use super::rows;
use crate::{error::Refusal, owner::Owner, sandboxes::Sandboxes};

/// `POST /templates/{id}/builds/{build}/cancel`: the build fails soon after. One that has ended stays as it is.
pub(crate) async fn cancel_build(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path((template, build)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let found = sandboxes.templates.db.read(move |db| {
        let template = rows::own(db, owner, &template)?;
        rows::build(db, &template.id, &build)
    });
    let build = found.await?;
    let under_way = matches!(
        build.status,
        TemplateBuildStatus::Waiting | TemplateBuildStatus::Building
    );
    if under_way && !sandboxes.templates.builds.cancel(&build.id) {
        let message = format!("build {} is not one that this server does", build.id);
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    }
    Ok(StatusCode::NO_CONTENT)
}
