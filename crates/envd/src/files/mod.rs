//! File contents over HTTP: `GET` and `POST /files`, `POST /files/compose`.

mod access;
mod body;
mod compose;
mod conditions;
mod content;
mod download;
mod encoding;
pub(crate) mod incoming;
mod target;
mod upload;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection as QueryError;
use axum::routing::{get, post};
use sandhold_wire::rest::WrittenFile;
use serde::de::DeserializeOwned;

use crate::error::HttpError;
use crate::filesystem::limits::JSON_BODY;
use crate::state::State;

/// The routes of this module.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/files", get(download::download).post(upload::upload))
        .route("/files/compose", post(compose::compose))
        .with_state(state)
}

/// For the fuzzer: what conditions and `Range` of a request make of a file that was changed when time began.
#[cfg(fuzzing)]
pub(crate) fn range(headers: &http::HeaderMap, size: u64) -> Result<Option<std::ops::Range<u64>>, ()> {
    match conditions::judge(headers, std::time::UNIX_EPOCH, size) {
        conditions::Verdict::Part(part) => Ok(Some(part)),
        conditions::Verdict::Whole => Ok(None),
        _ => Err(()),
    }
}

/// For the fuzzer: the query of a file URL.
#[cfg(fuzzing)]
pub(crate) fn file_query(query: &str) -> Option<[Option<String>; 4]> {
    let uri: http::Uri = format!("/files?{query}").parse().ok()?;
    let query: axum::extract::Query<access::Query> = axum::extract::Query::try_from_uri(&uri).ok()?;
    let access::Query {
        path,
        username,
        signature,
        signature_expiration,
        ..
    } = query.0;
    Some([path, username, signature, signature_expiration.map(|at| at.to_string())])
}

/// The answer for a file at `path`.
fn written(path: &Path, metadata: Option<BTreeMap<String, String>>) -> WrittenFile {
    WrittenFile {
        path: path.to_string_lossy().into_owned(),
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kind: "file".to_owned(),
        metadata,
    }
}

fn bad_query(error: QueryError) -> HttpError {
    HttpError::bad_request(error.body_text())
}

/// The JSON of a request, whatever its content type says.
pub(crate) async fn json_body<T: DeserializeOwned>(body: Body) -> Result<T, HttpError> {
    let bytes = axum::body::to_bytes(body, JSON_BODY).await.map_err(|_| {
        HttpError::bad_request(format!(
            "the request body could not be read or has more than {JSON_BODY} bytes"
        ))
    })?;
    serde_json::from_slice(&bytes).map_err(|e| HttpError::bad_request(format!("invalid request body: {e}")))
}
