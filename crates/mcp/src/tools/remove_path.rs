//! `remove_path`

use sandhold_client::{EntryType, Error};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::{Call, Target},
    consent::show,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct RemovePath;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
    recursive: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    path: String,
    removed: bool,
}

impl Tool for RemovePath {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "remove_path",
        title: "Remove",
        description: "Remove a file, link or folder for good; a folder with something in it only with recursive.",
        toolset: Toolset::Files,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let files = target.files();
        let entry = match files.info(&p.path, None).await {
            Ok(entry) => entry,
            Err(Error::NotFound(_)) => {
                let text = format!("{} was not there", p.path);
                return Ok(Reply::new(
                    Output {
                        path: p.path,
                        removed: false,
                    },
                    text,
                )
                .within(target.id()));
            }
            Err(error) => return Err(target.error(&error)),
        };
        if entry.kind == EntryType::Dir {
            may_remove_folder(&call, &target, &entry.path, p.recursive.unwrap_or(false)).await?;
        }
        files.remove(&entry.path, None).await.map_err(|e| target.error(&e))?;
        let text = format!("removed {}", entry.path);
        Ok(Reply::new(
            Output {
                path: entry.path,
                removed: true,
            },
            text,
        )
        .within(target.id()))
    }
}

async fn may_remove_folder(call: &Call, target: &Target, path: &str, recursive: bool) -> Result<(), ToolError> {
    let files = target.files();
    let home = files.info("~", None).await.map_err(|e| target.error(&e))?.path;
    if is_kept(path, &home) {
        return Err(ToolError::invalid(format!(
            "path is {path}, which holds the user's home or the whole system; it is not removed"
        ))
        .hint("Remove what is inside by its own path.")
        .within(target.id()));
    }
    if recursive && !call.consent.would_ask() {
        return Ok(());
    }
    let inside = match files.list(path, 1, None).await {
        Ok(entries) if entries.is_empty() => return Ok(()),
        Ok(entries) => format!("{path} has {} entries", entries.len()),
        // More of them than a listing holds.
        Err(Error::RateLimited(_)) => format!("{path} has a great many entries"),
        Err(error) => return Err(target.error(&error)),
    };
    if recursive {
        let question = format!(
            "Remove the folder {} of sandbox {} with all that is in it?",
            show::path(path),
            target.id()
        );
        return call.consent(question).await;
    }
    Err(ToolError::new("not_empty", inside)
        .hint("Set recursive to remove it with all that is in it.")
        .within(target.id()))
}

/// Whether `path` is the home or a folder around it.
fn is_kept(path: &str, home: &str) -> bool {
    let path = path.trim_end_matches('/');
    path.is_empty() || home == path || home.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::is_kept;

    #[test]
    fn root_and_home_are_kept() {
        for path in ["/", "//", "/home", "/home/", "/home/user", "/home/user/"] {
            assert!(is_kept(path, "/home/user"), "{path}");
        }
        for path in ["/home/user/x", "/home/use", "/tmp", "/home/user2"] {
            assert!(!is_kept(path, "/home/user"), "{path}");
        }
    }
}
