//! `edit_file`

use sandhold_client::ReadOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::write_file::write;
use crate::{
    answer::{Reply, ToolError},
    call::Call,
    edit::{self, Refused},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct EditFile;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    path: String,
    old_text: String,
    new_text: String,
    replace_all: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    path: String,
    replacements: usize,
    diff: String,
}

impl Tool for EditFile {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "edit_file",
        title: "Edit a file",
        description: "Replace old_text, which must be there exactly once, or each time with replace_all. Answers with a diff.",
        toolset: Toolset::Files,
        hints: Hints::CHANGES,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        limits::path("path", &p.path)?;
        limits::at_most("old_text", p.old_text.len(), limits::CONTENT)?;
        limits::at_most("new_text", p.new_text.len(), limits::CONTENT)?;
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let data = target
            .files()
            .read(&p.path, ReadOptions::default(), limits::EDIT)
            .await
            .map_err(|e| {
                let told = target.error(&e);
                if told.code == "not_found" {
                    told.hint("Make it with write_file, or find it with search_files.")
                } else {
                    told
                }
            })?;
        let text = std::str::from_utf8(&data).map_err(|_| {
            ToolError::new(
                "not_text",
                format!("{} is not UTF-8 text, {} bytes", p.path, data.len()),
            )
            .hint("Change it with run_command.")
            .within(target.id())
        })?;
        let all = p.replace_all.unwrap_or(false);
        // Comparing long texts takes a while, and other calls should not wait for it.
        let (path, owned) = (p.path.clone(), text.to_owned());
        let edited = tokio::task::spawn_blocking(move || edit::replace(&path, &owned, &p.old_text, &p.new_text, all))
            .await
            .map_err(|_| ToolError::new("internal", "editing failed"))?
            .map_err(|refused| explain(&p.path, &refused).within(target.id()))?;
        let grown = usize::try_from(limits::EDIT).unwrap_or(usize::MAX);
        limits::at_most("the edited file", edited.text.len(), grown.saturating_mul(2))?;
        let path = write(&target, &p.path, edited.text.into()).await?;
        let many = if edited.replacements == 1 {
            "1 replacement".to_owned()
        } else {
            format!("{} replacements", edited.replacements)
        };
        let text = format!("{many} in {path}\n{}", edited.diff);
        let output = Output {
            path,
            replacements: edited.replacements,
            diff: edited.diff,
        };
        Ok(Reply::new(output, text.trim_end()).within(target.id()))
    }
}

fn explain(path: &str, refused: &Refused) -> ToolError {
    match refused {
        Refused::Empty => ToolError::invalid("old_text is empty; the exact text to replace is needed")
            .hint("Use write_file to write a whole file, or write_file with append to add to its end."),
        Refused::Same => ToolError::invalid("old_text and new_text are the same; nothing would change"),
        Refused::Ambiguous { lines } => {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            ToolError::new(
                "ambiguous",
                format!("old_text is several times in {path}, on lines {}", lines.join(", ")),
            )
            .hint("Give more of the lines around it, or set replace_all.")
        }
        Refused::Absent {
            nearest: Some((line, text)),
        } => ToolError::new(
            "no_match",
            format!("old_text is not in {path}. Nearest, from line {line}:\n{text}"),
        )
        .hint("Copy the text exactly as it is there, with its spaces and tabs."),
        Refused::Absent { nearest: None } => {
            ToolError::new("no_match", format!("old_text is not in {path}, and nothing like it"))
                .hint("Read the file with read_file first.")
        }
    }
}
