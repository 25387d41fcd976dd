//! `delete_template`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    consent::show,
    errors, limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct DeleteTemplate;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Id or name
    template: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    deleted: bool,
}

impl Tool for DeleteTemplate {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "delete_template",
        title: "Delete a template",
        description: "Delete a template with all its builds for good; sandboxes made of it live on.",
        toolset: Toolset::Templates,
        hints: Hints::CHANGES_ONCE,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::template("template", &p.template)?;
        if p.template.contains(':') {
            return Err(ToolError::invalid(format!(
                "template is {:?}; a template is deleted with all its tags",
                p.template
            ))
            .hint("Give its name or id without a tag."));
        }
        call.consent(format!("Delete the template {} for good?", show::path(&p.template)))
            .await?;
        let deleted = call.client().delete_template(&p.template).await;
        let deleted = deleted.map_err(|e| errors::explain(&e))?;
        let text = match deleted {
            true => format!("template {} is deleted", p.template),
            false => format!("there was no template {}", p.template),
        };
        Ok(Reply::new(Output { deleted }, text))
    }
}
