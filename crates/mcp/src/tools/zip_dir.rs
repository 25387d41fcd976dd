//! `zip_dir`

use sandhold_client::ZipRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    archive_work::{done, missing, packed},
    follow::{Followed, follow, goes_on},
};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct ZipDir;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    src_dir: String,
    /// .zip, .tar.gz or .tgz
    dest_zip: String,
}

#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    /// What could not be packed; the first of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

impl Tool for ZipDir {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "zip_dir",
        title: "Pack a folder",
        description: "Pack a folder into an archive, replacing one that is there. Keeps modes and links.",
        toolset: Toolset::Transfer,
        hints: Hints::CHANGES_ONCE,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("src_dir", &p.src_dir)?;
        limits::path("dest_zip", &p.dest_zip)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let cmd = format!("zip_dir {} {}", p.src_dir, p.dest_zip);
        let request = ZipRequest {
            src: p.src_dir,
            dest: p.dest_zip,
            ..ZipRequest::default()
        };
        let (files, within) = (target.files(), target.clone());
        let work = |say| async move { done(within, files.zip(request), say).await };
        let reply = match follow(&call, &target, cmd, work, packed).await? {
            Followed::Done(report) => {
                let text = packed(&report);
                let output = Output {
                    size: Some(report.size),
                    entries: Some(report.entries),
                    missing: missing(report),
                    job_id: None,
                };
                Reply::new(output, text)
            }
            Followed::Job(id) => {
                let text = goes_on(&id);
                let output = Output {
                    job_id: Some(id),
                    ..Output::default()
                };
                Reply::new(output, text)
            }
        };
        Ok(reply.within(target.id()))
    }
}
