//! `prepare_project_download`

use sandhold_client::{EntryType, ZipRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    archive_work::{done, missing, packed},
    file_url::{For, reach, sign},
    follow::{Followed, follow, goes_on},
};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct PrepareProjectDownload;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    project_dir: String,
    /// Default: in /tmp
    out_path: Option<String>,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Output {
    zip_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// What is not in it; the first of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

impl Tool for PrepareProjectDownload {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "prepare_project_download",
        title: "Hand over a project",
        description: "Pack a folder, without node_modules, virtual environments and caches, and get a URL where the user downloads it.",
        toolset: Toolset::Transfer,
        hints: Hints::CHANGES,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("project_dir", &p.project_dir)?;
        if let Some(path) = &p.out_path {
            limits::path("out_path", path)?;
        }
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let entry = target
            .files()
            .info(&p.project_dir, None)
            .await
            .map_err(|e| target.error(&e))?;
        if matches!(entry.kind, EntryType::File | EntryType::Other) {
            return Err(
                ToolError::invalid(format!("project_dir is {}, which is no folder", entry.path))
                    .hint("Use presigned_download_url for a single file.")
                    .within(target.id()),
            );
        }
        let name = Some(entry.name.trim_matches('/')).filter(|name| !name.is_empty());
        let dest = p
            .out_path
            .unwrap_or_else(|| format!("/tmp/{}.zip", name.unwrap_or("project")));
        let cmd = format!("prepare_project_download {} {dest}", entry.path);
        let request = ZipRequest {
            src: entry.path,
            dest: dest.clone(),
            leave_out: true,
            user: None,
        };
        let (files, within) = (target.files(), target.clone());
        let work = |say| async move { done(within, files.zip(request), say).await };
        let report = match follow(&call, &target, cmd, work, packed).await? {
            Followed::Done(report) => report,
            Followed::Job(id) => {
                let text = format!("{}; then presigned_download_url gives the URL of {dest}", goes_on(&id));
                let output = Output {
                    zip_path: dest,
                    job_id: Some(id),
                    ..Output::default()
                };
                return Ok(Reply::new(output, text).within(target.id()));
            }
        };
        let packed = packed(&report);
        let output = Output {
            zip_path: report.path.clone(),
            size: Some(report.size),
            missing: missing(report),
            ..Output::default()
        };
        let reply = match sign(&call, &target, &output.zip_path, For::Download, limits::PROJECT_URL_S).await {
            Ok(signed) => {
                let text = format!(
                    "{}\nvalid until {}. {}\n{packed}",
                    signed.url,
                    signed.expires_at,
                    reach(&call)
                );
                let output = Output {
                    url: Some(signed.url),
                    expires_at: Some(signed.expires_at),
                    ..output
                };
                Reply::new(output, text)
            }
            // The archive is there all the same.
            Err(error) => Reply::new(output, packed).failed(error),
        };
        Ok(reply.within(target.id()))
    }
}
