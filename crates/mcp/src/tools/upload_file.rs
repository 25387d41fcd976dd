//! `upload_file`

use futures::StreamExt;
use sandhold_client::WriteOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::follow::{Followed, follow, goes_on};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    jobs::Say,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct UploadFile;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// On the user's machine
    local_path: String,
    /// In the sandbox
    path: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    path: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

impl Tool for UploadFile {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "upload_file",
        title: "Upload a file",
        description: "Copy a file of any size from the user's machine, out of folders the user allowed.",
        toolset: Toolset::Transfer,
        hints: Hints::CHANGES_ONCE,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let (file, size) = call.host.read(&p.local_path)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let cmd = format!("upload_file {} {}", p.local_path, p.path);
        let (files, within, path) = (target.files(), target.clone(), p.path.clone());
        let work = |say: Say| async move {
            let mut sent = 0;
            let content = file.stream().inspect(move |piece| {
                sent += piece.as_ref().map_or(0, |p| p.len() as u64);
                say.say(format!("{sent} of {size} bytes so far"));
            });
            let options = WriteOptions {
                atomic: true,
                ..WriteOptions::default()
            };
            let written = files.write_stream(&path, content.boxed(), options).await;
            let path = written.map_err(|e| within.error(&e))?;
            // What the daemon has, should the file have changed on its way.
            let entry = files.info(&path, None).await.map_err(|e| within.error(&e))?;
            Ok((path, entry.size))
        };
        let text = |(path, size): &(String, u64)| format!("uploaded {size} bytes to {path}");
        let (output, text) = match follow(&call, &target, cmd, work, text).await? {
            Followed::Done(done) => {
                let text = text(&done);
                let (path, size) = done;
                let job_id = None;
                (Output { path, size, job_id }, text)
            }
            Followed::Job(id) => {
                let text = goes_on(&id);
                let path = p.path;
                let job_id = Some(id);
                (Output { path, size, job_id }, text)
            }
        };
        Ok(Reply::new(output, text).within(target.id()))
    }
}
