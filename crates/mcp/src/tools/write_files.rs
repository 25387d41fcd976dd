//! `write_files`

use futures::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::write_file::{decode, write};
use crate::{
    answer::{Reply, ToolError},
    args::Encoding,
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

/// Files written at the same time.
const SIDE_BY_SIDE: usize = 8;

pub(super) struct WriteFiles;

/// One file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    path: String,
    content: String,
    encoding: Option<Encoding>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// At most 100, together 8 MiB
    files: Vec<File>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Row {
    path: String,
    ok: bool,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    results: Vec<Row>,
}

impl Tool for WriteFiles {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "write_files",
        title: "Write files",
        description: "Write several whole files with their parent folders. The answer has one row a file.",
        toolset: Toolset::Files,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        if p.files.is_empty() {
            return Err(ToolError::invalid("files is empty; at least one file is needed"));
        }
        limits::count("files", p.files.len(), limits::FILES)?;
        let mut decoded = Vec::with_capacity(p.files.len());
        let mut total = 0;
        // Everything is checked before anything is written.
        for (at, file) in p.files.into_iter().enumerate() {
            limits::path(&format!("files[{at}].path"), &file.path)?;
            let data = decode(&format!("files[{at}].content"), file.content, file.encoding)?;
            total += data.len();
            decoded.push((file.path, data));
        }
        limits::at_most("content of all files", total, limits::CONTENT_TOTAL)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let target_ref = &target;
        let writes = decoded.into_iter().map(|(path, data)| async move {
            let size = data.len() as u64;
            match write(target_ref, &path, data).await {
                Ok(path) => Row {
                    path,
                    ok: true,
                    size,
                    message: None,
                },
                Err(error) => Row {
                    path,
                    ok: false,
                    size: 0,
                    message: Some(error.message),
                },
            }
        });
        let results: Vec<Row> = stream::iter(writes).buffered(SIDE_BY_SIDE).collect().await;
        let failed = results.iter().filter(|r| !r.ok).count();
        let lines: Vec<String> = results
            .iter()
            .map(|r| match &r.message {
                Some(message) => format!("{}: NOT written: {message}", r.path),
                None => format!("{}: {} bytes", r.path, r.size),
            })
            .collect();
        let count = results.len();
        let reply = Reply::new(Output { results }, lines.join("\n")).within(target.id());
        if failed == 0 {
            return Ok(reply);
        }
        let error = ToolError::new("partly_failed", format!("{failed} of {count} files were not written"));
        Ok(reply.failed(error.hint("Mend the rows that failed and write those again.")))
    }
}
