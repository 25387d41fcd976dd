//! What a model is told besides the tools: instructions, a prompt, resources.

use std::{collections::BTreeSet, fmt::Write as _};

use rmcp::{ErrorData, model::*};
use serde_json::json;

use crate::{
    limits,
    registry::{Entry, Toolset},
    server::Provider,
    tenant::Tenant,
};

const HELP_URI: &str = "sandhold://help";
const SANDBOX_URI: &str = "sandhold://sandbox/";
const PROMPT: &str = "work_in_sandbox";

/// The instructions of a server with these tools.
pub(crate) fn instructions(entries: &[Entry]) -> String {
    let sets: BTreeSet<Toolset> = entries.iter().map(|e| e.spec.toolset).collect();
    let has = |name: &str| entries.iter().any(|e| e.spec.name == name);
    let mut text = format!(
        "Sandhold gives you a Linux computer in an isolated sandbox. Leave sandbox_id out to use your default sandbox, \
         which is made at first use. A sandbox ends after its lifetime ({} s, extended by every call unless timeout_s was given).",
        limits::SANDBOX_LIFETIME.as_secs()
    );
    if sets.contains(&Toolset::Sandbox) && has("create_sandbox") {
        text.push_str("\nUse create_sandbox for further or differently sized sandboxes.");
    }
    if sets.contains(&Toolset::Files) && has("write_file") {
        text.push_str(
            "\nFiles: write_file and edit_file rather than shell redirection; relative paths start at the user's home.",
        );
    }
    if sets.contains(&Toolset::Commands) && has("run_command") {
        let _ = write!(
            text,
            "\nCommands: run_command answers within {} s; what lasts longer goes on as a job, read with get_job_status. \
             Start servers and long work with run_command_bg.",
            limits::ANSWER_WITHIN.as_secs()
        );
    }
    text
}

/// The prompt that is offered.
pub(crate) fn prompt() -> Prompt {
    let task = PromptArgument::new("task")
        .with_description("What to do, in a sentence or more")
        .with_required(true);
    Prompt::new(
        PROMPT,
        Some("Do a task in a sandbox and report what was done"),
        Some(vec![task]),
    )
    .with_title("Work in a sandbox")
}

/// The prompt, filled in.
pub(crate) fn get_prompt(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    if request.name != PROMPT {
        return Err(ErrorData::invalid_params(
            format!("Unknown prompt: {}", request.name),
            None,
        ));
    }
    let task = request
        .arguments
        .as_ref()
        .and_then(|a| a.get("task"))
        .and_then(|v| v.as_str())
        .unwrap_or_default();
    if task.trim().is_empty() {
        return Err(ErrorData::invalid_params(
            "argument task of work_in_sandbox is missing",
            None,
        ));
    }
    let text = format!(
        "Do this in a sandbox, with Sandhold's tools: {task}\n\nLook at what is there first, work in small steps, run what \
         you wrote, and tell at the end what was done and how it was checked."
    );
    Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]))
}

/// The manual.
pub(crate) fn help_resource() -> Resource {
    Resource::new(HELP_URI, "help")
        .with_title("How to use Sandhold")
        .with_description("Sandboxes, files, commands and jobs, and the limits of the tools")
        .with_mime_type("text/markdown")
}

/// A sandbox that was made here.
pub(crate) fn sandbox_resource(id: &str) -> Resource {
    Resource::new(format!("{SANDBOX_URI}{id}"), id)
        .with_description("State and resources of this sandbox")
        .with_mime_type("application/json")
}

/// Any sandbox by its id.
pub(crate) fn sandbox_template() -> ResourceTemplate {
    ResourceTemplate::new(format!("{SANDBOX_URI}{{id}}"), "sandbox")
        .with_title("A sandbox")
        .with_description("State and resources of a sandbox")
        .with_mime_type("application/json")
}

/// Reads a resource.
pub(crate) async fn read(
    uri: &str,
    entries: &[Entry],
    provider: &Provider,
    tenant: &Tenant,
) -> Result<ReadResourceResult, ErrorData> {
    if uri == HELP_URI {
        let text = ResourceContents::text(help(entries, provider), uri).with_mime_type("text/markdown");
        return Ok(ReadResourceResult::new(vec![text]));
    }
    let missing = || ErrorData::resource_not_found(format!("there is no resource {uri}"), Some(json!({ "uri": uri })));
    let id = uri
        .strip_prefix(SANDBOX_URI)
        .filter(|id| crate::errors::sandbox_id(id).is_ok())
        .ok_or_else(missing)?;
    let detail = match tenant.client().info(id).await {
        Ok(detail) => detail,
        Err(sandhold_client::Error::SandboxNotFound { .. }) => return Err(missing()),
        Err(error) => {
            return Err(ErrorData::internal_error(
                crate::errors::explain(&error).message,
                Some(json!({ "uri": uri })),
            ));
        }
    };
    let text =
        serde_json::to_string_pretty(&crate::tools::sandbox_info::describe(&detail, provider)).unwrap_or_default();
    Ok(ReadResourceResult::new(vec![
        ResourceContents::text(text, uri).with_mime_type("application/json"),
    ]))
}

fn help(entries: &[Entry], provider: &Provider) -> String {
    let mut text = format!(
        "# Sandhold\n\n{}\n\nSandboxes come from: {} — {}\n",
        instructions(entries),
        provider.name,
        provider.description
    );
    for line in &provider.cannot {
        let _ = writeln!(text, "- not possible here: {line}");
    }
    for set in Toolset::ALL {
        let of_set: Vec<&Entry> = entries.iter().filter(|e| e.spec.toolset == set).collect();
        if of_set.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## {}\n", set.name());
        for entry in of_set {
            let _ = writeln!(text, "- `{}`: {}", entry.spec.name, entry.spec.description);
        }
    }
    let _ = write!(
        text,
        "\n## Limits\n\n- a command line: {} bytes, standard input of one call: {} bytes\n- content of one written file: {} bytes\n\
         - output in one answer: {} bytes; longer output of a command is written to a file in the sandbox that the answer names\n\
         - jobs that run at the same time: {}\n",
        limits::CMD,
        limits::STDIN,
        limits::CONTENT,
        crate::budget::ANSWER,
        limits::JOBS_RUNNING
    );
    text
}
