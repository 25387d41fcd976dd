//! `unzip_to`

use sandhold_client::UnzipRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    archive_work::{done, missing, unpacked},
    follow::{Followed, follow, goes_on},
};
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct UnzipTo;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    zip_path: String,
    dest_dir: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    /// Links that lead out, not made; the first
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<String>,
}

impl Tool for UnzipTo {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "unzip_to",
        title: "Unpack an archive",
        description: "Unpack a zip, tar or tar.gz file, replacing files of the same names.",
        toolset: Toolset::Transfer,
        hints: Hints::CHANGES_ONCE,
        limited: false,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("zip_path", &p.zip_path)?;
        limits::path("dest_dir", &p.dest_dir)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let cmd = format!("unzip_to {} {}", p.zip_path, p.dest_dir);
        let request = UnzipRequest {
            archive: p.zip_path,
            dest: p.dest_dir,
            user: None,
        };
        let (files, within) = (target.files(), target.clone());
        let work = |say| async move { done(within, files.unzip(request), say).await };
        let (entries, missing, job_id, text) = match follow(&call, &target, cmd, work, unpacked).await? {
            Followed::Done(report) => {
                let text = unpacked(&report);
                (Some(report.entries), missing(report), None, text)
            }
            Followed::Job(id) => {
                let text = goes_on(&id);
                (None, Vec::new(), Some(id), text)
            }
        };
        Ok(Reply::new(
            Output {
                entries,
                missing,
                job_id,
            },
            text,
        )
        .within(target.id()))
    }
}
