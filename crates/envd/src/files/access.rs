//! Who may read and write files: the header's token, or a signature in the URL.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use sandhold_wire::signature::{self, Operation};
use serde::Deserialize;

use crate::auth::{self, Token};
use crate::error::HttpError;
use crate::state::State;

/// The query of `/files`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Query {
    pub(crate) path: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) signature: Option<String>,
    pub(crate) signature_expiration: Option<i64>,
    /// Ours: the old content stays until the new one is whole.
    #[serde(default)]
    pub(crate) atomic: bool,
}

/// Checks a request to `/files`.
pub(crate) fn check(state: &State, headers: &HeaderMap, query: &Query, operation: Operation) -> Result<(), HttpError> {
    let Some(token) = &state.access_token else {
        return Ok(());
    };
    match auth::token(state, headers) {
        Token::Right => return Ok(()),
        Token::Wrong => {
            let text = "access token present in header but does not match";
            return Err(HttpError::unauthorized(text));
        }
        Token::Missing => {}
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    signature::verify(
        query.signature.as_deref(),
        query.path.as_deref().unwrap_or_default(),
        operation,
        query.username.as_deref().unwrap_or_default(),
        token,
        query.signature_expiration,
        i64::try_from(now).unwrap_or(i64::MAX),
    )
    .map_err(|e| HttpError::unauthorized(e.to_string()))
}
