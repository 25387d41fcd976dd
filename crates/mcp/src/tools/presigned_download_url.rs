//! `presigned_download_url`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file_url::{For, lifetime, reach, readable, sign};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct PresignedDownloadUrl;

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

impl Tool for PresignedDownloadUrl {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "presigned_download_url",
        title: "Download URL",
        description: "Get a URL by which anyone who has it downloads a file in a browser.",
        toolset: Toolset::Transfer,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        let seconds = lifetime(p.expires_in_s)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let entry = readable(&target, &p.path).await?;
        let signed = sign(&call, &target, &entry.path, For::Download, seconds).await?;
        let text = format!("{}\nvalid until {}. {}", signed.url, signed.expires_at, reach(&call));
        let output = Output {
            url: signed.url,
            expires_at: signed.expires_at,
        };
        Ok(Reply::new(output, text).within(target.id()))
    }
}
