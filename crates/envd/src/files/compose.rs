//! `POST /files/compose`: one file out of several.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::target::Target;
use super::written;
use crate::auth;
use crate::error::{HttpError, json};
use crate::filesystem::error::{FsError, Kind, blocking};
use crate::filesystem::limits::COMPOSE_SOURCES;
use crate::filesystem::resolve;
use crate::state::State;
use crate::users::User;

#[derive(Debug, Deserialize)]
struct Compose {
    #[serde(default)]
    source_paths: Vec<String>,
    #[serde(default)]
    destination: String,
    username: Option<String>,
}

/// Writes the sources one after another to the destination, which is replaced at once, then removes the sources.
pub(crate) async fn compose(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, HttpError> {
    let request: Compose = super::json_body(body).await?;
    if request.source_paths.is_empty() {
        return Err(HttpError::bad_request("source_paths must not be empty"));
    }
    if request.source_paths.len() > COMPOSE_SOURCES {
        let text = format!(
            "source_paths has {} entries, {COMPOSE_SOURCES} are allowed",
            request.source_paths.len()
        );
        return Err(HttpError::bad_request(text));
    }
    if request.destination.is_empty() {
        return Err(HttpError::bad_request("destination is required"));
    }
    let user = auth::user_named(&state, request.username.as_deref())?;
    let destination = resolve(&state, &request.destination, &user)?;
    let mut sources = Vec::with_capacity(request.source_paths.len());
    for source in request.source_paths {
        let path = resolve(&state, &source, &user)?;
        sources.push((source, path));
    }
    let file = written(&destination, None);
    blocking(move || join(&sources, &destination, &user)).await?;
    Ok(json(StatusCode::OK, &file))
}

fn join(sources: &[(String, PathBuf)], destination: &Path, user: &User) -> Result<(), FsError> {
    for (name, path) in sources {
        if path == destination {
            let text = format!("source path \"{name}\" cannot be the same as destination");
            return Err(FsError::invalid(text));
        }
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => return Err(FsError::invalid(format!("source path is not a regular file: {name}"))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(FsError::new(Kind::NotFound, format!("source file not found: {name}")));
            }
            Err(e) => return Err(FsError::io(format!("error looking at source '{name}'"), e)),
        }
    }
    let mut target = Target::open(destination, user, true, &BTreeMap::new())?;
    for (name, path) in sources {
        let mut source = File::open(path).map_err(|e| FsError::io(format!("error opening source file '{name}'"), e))?;
        // Between two files the kernel copies by itself.
        io::copy(&mut source, &mut target.file).map_err(|e| target.failed(e))?;
    }
    target.finish()?;
    for (name, path) in sources {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(FsError::io(
                    format!("the file was composed, but its source '{name}' stays"),
                    e,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
