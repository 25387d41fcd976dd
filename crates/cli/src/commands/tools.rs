//! `sandhold tools`

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result};
use sandhold_mcp::Format;

use crate::args::ToolsArgs;

pub(crate) fn run(args: ToolsArgs) -> Result<ExitCode> {
    let format = Format::ALL.into_iter().find(|format| format.name() == args.format);
    let format = format.context("there is no such format")?;
    let mut selection = args.selection.selection();
    if selection.toolsets.is_none() && selection.tools.is_empty() {
        selection.toolsets = Some(vec!["all".into()]);
    }
    let tools = sandhold_mcp::export(format, &selection)?;
    let mut text = serde_json::to_string_pretty(&tools).context("the tools cannot be written down")?;
    text.push('\n');
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}
