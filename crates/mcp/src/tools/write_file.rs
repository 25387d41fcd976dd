//! `write_file`

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sandhold_client::WriteOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    args::Encoding,
    call::{Call, Target},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct WriteFile;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
    /// What, at most 4 MiB
    content: String,
    encoding: Option<Encoding>,
    append: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    path: String,
    size: u64,
}

impl Tool for WriteFile {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "write_file",
        title: "Write a file",
        description: "Write a whole file with its parent folders, replacing what was there, or append. edit_file changes a part.",
        toolset: Toolset::Files,
        hints: Hints::CHANGES,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let data = decode("content", p.content, p.encoding)?;
        let written = data.len() as u64;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        if p.append.unwrap_or(false) {
            let files = target.files();
            files
                .append(&p.path, data, None)
                .await
                .map_err(|e| refused(&target, &p.path, &e))?;
            let entry = files.info(&p.path, None).await.map_err(|e| target.error(&e))?;
            let text = format!("added {written} bytes to {}, {} bytes now", entry.path, entry.size);
            return Ok(Reply::new(
                Output {
                    path: entry.path,
                    size: entry.size,
                },
                text,
            )
            .within(target.id()));
        }
        let path = write(&target, &p.path, data).await?;
        let text = format!("wrote {written} bytes to {path}");
        Ok(Reply::new(Output { path, size: written }, text).within(target.id()))
    }
}

/// The bytes of `content`.
pub(super) fn decode(argument: &str, content: String, encoding: Option<Encoding>) -> Result<Bytes, ToolError> {
    let too_large =
        |error: ToolError| error.hint("Write it in parts with append, or make it inside the sandbox with run_command.");
    match encoding.unwrap_or(Encoding::Utf8) {
        Encoding::Utf8 => {
            limits::at_most(argument, content.len(), limits::CONTENT).map_err(too_large)?;
            Ok(content.into())
        }
        Encoding::Base64 => {
            limits::at_most(argument, content.len() / 4 * 3, limits::CONTENT).map_err(too_large)?;
            let compact: Vec<u8> = content
                .into_bytes()
                .into_iter()
                .filter(|b| !b.is_ascii_whitespace())
                .collect();
            let data = STANDARD
                .decode(compact)
                .map_err(|e| ToolError::invalid(format!("{argument} is not base64: {e}")))?;
            Ok(data.into())
        }
    }
}

/// Writes a whole file. Returns its absolute path.
pub(super) async fn write(target: &Target, path: &str, data: Bytes) -> Result<String, ToolError> {
    let options = WriteOptions {
        atomic: true,
        ..WriteOptions::default()
    };
    target
        .files()
        .write(path, data, options)
        .await
        .map_err(|e| refused(target, path, &e))
}

/// An error of writing, with what may help.
pub(super) fn refused(target: &Target, path: &str, error: &sandhold_client::Error) -> ToolError {
    let told = target.error(error);
    if told.code == "invalid_argument" || told.code == "not_found" {
        return told.hint(format!("Look at {path} and its parent with path_info."));
    }
    told
}
