//! `get_public_url`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::service_report;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct GetPublicUrl;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    port: u64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    url: String,
    listening: bool,
}

impl Tool for GetPublicUrl {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "get_public_url",
        title: "URL of a port",
        description: "Get the URL that opens a port in the user's browser.",
        toolset: Toolset::Services,
        hints: Hints::READS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let port = limits::port(p.port)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let (url, reach) = call.url(&target, port).await.map_err(|e| e.within(target.id()))?;
        let ports = target
            .services()
            .ports(Some(port), 0)
            .await
            .map_err(|e| target.error(&e))?;
        let who = match ports.listening.first() {
            Some(listener) => format!(
                "Port {port} is served by {}.",
                service_report::holder(&target, listener)
            ),
            None => format!("Nothing listens on port {port} yet: start it with start_service."),
        };
        let output = Output {
            listening: !ports.listening.is_empty(),
            url,
        };
        let text = format!("{}\n{who} {reach}", output.url);
        Ok(Reply::new(output, text).within(target.id()))
    }
}
