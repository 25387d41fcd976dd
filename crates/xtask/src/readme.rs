//! The table of tools in README.md, between its two marks.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- tools:begin -->\n";
const END: &str = "<!-- tools:end -->";

/// Bytes of a tool's entry in the list that clients load, rounded to tenths of a kB.
fn cost(tools: &[&sandhold_mcp::ToolInfo]) -> f64 {
    let bytes: usize = tools.iter().map(|tool| tool.listed.to_string().len()).sum();
    bytes as f64 / 1000.0
}

fn table() -> Result<String> {
    let tools = sandhold_mcp::tools();
    let mut names: Vec<&str> = Vec::new();
    for tool in &tools {
        if !names.contains(&tool.toolset.name()) {
            names.push(tool.toolset.name());
        }
    }
    let mut text = String::from(
        "\nWhat each toolset adds to the list that clients load into a session; a token is about 4 bytes.\n\n\
         | toolset | on by default | tools | kB | tokens |\n|---|---|---|---|---|\n",
    );
    let mut rows: Vec<(String, &str, Vec<&sandhold_mcp::ToolInfo>)> = Vec::new();
    for name in &names {
        let of: Vec<_> = tools.iter().filter(|tool| tool.toolset.name() == *name).collect();
        let on = of.first().is_some_and(|tool| tool.toolset.is_default());
        rows.push((format!("`{name}`"), if on { "yes" } else { "" }, of));
    }
    let default = tools.iter().filter(|tool| tool.toolset.is_default()).collect();
    rows.push(("by default".into(), "", default));
    rows.push(("all".into(), "", tools.iter().collect()));
    for (name, on, of) in rows {
        let (cost, count) = (cost(&of), of.len());
        writeln!(text, "| {name} | {on} | {count} | {cost:.1} | {:.0} |", cost * 250.0)?;
    }
    for name in names {
        let of: Vec<_> = tools.iter().filter(|tool| tool.toolset.name() == name).collect();
        writeln!(text, "\n**{name}**\n\n| tool | what it does |\n|---|---|")?;
        for tool in of {
            let description = tool.listed["description"].as_str().unwrap_or_default();
            writeln!(text, "| `{}` | {} |", tool.name, description.replace('|', "\\|"))?;
        }
    }
    text.push('\n');
    Ok(text)
}

/// The README as it is and as it should be.
fn both(root: &Path) -> Result<(String, String)> {
    let path = root.join("README.md");
    let now = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, rest) = now
        .split_once(BEGIN)
        .context("README.md has lost its mark tools:begin")?;
    let (_, after) = rest.split_once(END).context("README.md has lost its mark tools:end")?;
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table()?);
    Ok((now, wanted))
}

/// Writes the table. Returns whether it changed.
pub(crate) fn generate(root: &Path) -> Result<bool> {
    let (now, wanted) = both(root)?;
    if now != wanted {
        fs::write(root.join("README.md"), &wanted).context("cannot write README.md")?;
    }
    Ok(now != wanted)
}

/// What is not as `generate` would write it.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let (now, wanted) = both(root)?;
    let fault = "the table of tools in README.md is not up to date: run `cargo xtask generate`";
    Ok(if now == wanted { Vec::new() } else { vec![fault.into()] })
}
