//! `presigned_upload_url`

use sandhold_client::{EntryType, Error};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file_url::{For, lifetime, reach, sign};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct PresignedUploadUrl;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
    /// Default 600
    expires_in_s: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    url: String,
    expires_at: String,
}

impl Tool for PresignedUploadUrl {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "presigned_upload_url",
        title: "Upload URL",
        description: "Get a URL to which the user can POST a file for path: curl -F file=@NAME URL",
        toolset: Toolset::Transfer,
        hints: Hints::CHANGES,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let seconds = lifetime(p.expires_in_s)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let path = match target.files().info(&p.path, None).await {
            Ok(entry) if entry.kind == EntryType::Dir => {
                return Err(ToolError::invalid(format!("path is {}, which is a folder", entry.path))
                    .hint("Name the file that is to be made in it.")
                    .within(target.id()));
            }
            Ok(entry) => entry.path,
            Err(Error::NotFound(_)) => p.path,
            Err(error) => return Err(target.error(&error)),
        };
        let signed = sign(&call, &target, &path, For::Upload, seconds).await?;
        let text = format!(
            "{}\nvalid until {}. {} POST the file as a form field named file, or as application/octet-stream.",
            signed.url,
            signed.expires_at,
            reach(&call)
        );
        let output = Output {
            url: signed.url,
            expires_at: signed.expires_at,
        };
        Ok(Reply::new(output, text).within(target.id()))
    }
}
