//! `download_file`

use sandhold_client::ReadOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    file_url::readable,
    follow::{Followed, follow, goes_on},
};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    consent::show,
    host_files::{FillError, NewFile},
    jobs::Say,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct DownloadFile;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// In the sandbox
    path: String,
    /// On the user's machine
    local_path: String,
    overwrite: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    local_path: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

impl Tool for DownloadFile {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "download_file",
        title: "Download a file",
        description: "Copy a file of any size to the user's machine, into folders the user allowed.",
        toolset: Toolset::Transfer,
        hints: Hints::CHANGES,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let overwrite = p.overwrite.unwrap_or(false);
        call.host.allows(&p.local_path)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let entry = readable(&target, &p.path).await?;
        let file = call.host.write(&p.local_path, overwrite)?;
        if file.replaces() {
            let question = format!(
                "Replace {} of this machine with {} of sandbox {}?",
                show::path(&p.local_path),
                show::path(&entry.path),
                target.id()
            );
            call.consent(question).await?;
        }
        let size = entry.size;
        let cmd = format!("download_file {} {}", entry.path, p.local_path);
        let (files, within, local) = (target.files(), target.clone(), p.local_path.clone());
        let work = |say: Say| async move {
            let content = files.read_stream(&entry.path, ReadOptions::default()).await;
            let content = content.map_err(|e| within.error(&e))?;
            let moved = move |sent| say.say(format!("{sent} of {size} bytes so far"));
            match file.fill(content, moved).await {
                Ok(size) => Ok((local, size)),
                Err(FillError::Content(error)) => Err(within.error(&error)),
                Err(error @ FillError::TooLarge) => {
                    Err(ToolError::invalid(format!("{} is not downloaded: {error}", entry.path)).within(within.id()))
                }
                Err(FillError::Host(error)) => Err(NewFile::explain(&local, &error).within(within.id())),
            }
        };
        let text = |(path, size): &(String, u64)| format!("downloaded {size} bytes to {path}");
        let (output, text) = match follow(&call, &target, cmd, work, text).await? {
            Followed::Done(done) => {
                let text = text(&done);
                let (local_path, size) = done;
                let job_id = None;
                (
                    Output {
                        local_path,
                        size,
                        job_id,
                    },
                    text,
                )
            }
            Followed::Job(id) => {
                let text = goes_on(&id);
                let output = Output {
                    local_path: p.local_path,
                    size,
                    job_id: Some(id),
                };
                (output, text)
            }
        };
        Ok(Reply::new(output, text).within(target.id()))
    }
}
