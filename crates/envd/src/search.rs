//! Stands in until its content is written.

use std::sync::Arc;

use crate::state::State;

/// The routes of this module.
pub(crate) fn router(state: Arc<State>) -> axum::Router {
    axum::Router::new().with_state(state)
}
