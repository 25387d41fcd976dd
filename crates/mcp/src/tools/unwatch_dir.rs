//! `unwatch_dir`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct UnwatchDir;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Which
    watch_id: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    path: String,
}

impl Tool for UnwatchDir {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "unwatch_dir",
        title: "Stop watching",
        description: "End a watch; changes that were not fetched are forgotten.",
        toolset: Toolset::Watch,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let watch = call.tenant.watches.remove(&p.watch_id)?;
        let text = format!("{} is no longer watched", watch.path);
        let output = Output {
            path: watch.path.clone(),
        };
        Ok(Reply::new(output, text).within(watch.target.id()))
    }
}
