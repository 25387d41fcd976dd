//! `schemas/tools/*.json`: every tool as clients see it, so that a change of one is seen in a review, and
//! `schemas/<format>.json`: what `sandhold tools --format <format>` prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sandhold_mcp::{Format, Selection};
use serde_json::{Value, json};

fn folder(root: &Path) -> PathBuf {
    root.join("schemas/tools")
}

/// The files of the formats, as they should be.
fn exports(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let selection = Selection {
        toolsets: Some(vec!["all".into()]),
        ..Selection::default()
    };
    let one = |format: Format| {
        let tools = sandhold_mcp::export(format, &selection)?;
        let text = serde_json::to_string_pretty(&tools).context("the tools cannot be written down")?;
        Ok((
            root.join(format!("schemas/{}.json", format.name())),
            format!("{text}\n"),
        ))
    };
    Format::ALL.into_iter().map(one).collect()
}

/// File names and contents as they should be.
fn wanted() -> Result<BTreeMap<String, String>> {
    let render = |tool: sandhold_mcp::ToolInfo| {
        let mut value = json!({ "toolset": tool.toolset.name() });
        if let (Value::Object(all), Value::Object(listed)) = (&mut value, tool.listed) {
            all.extend(listed);
            all.insert("outputSchema".into(), tool.output);
        }
        let text = serde_json::to_string_pretty(&value).context("a schema cannot be written down")?;
        Ok((format!("{}.json", tool.name), format!("{text}\n")))
    };
    sandhold_mcp::tools().into_iter().map(render).collect()
}

/// Names of the files that are there.
fn present(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", folder.display())),
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect()
}

/// Writes the files that differ and removes those that should not be. Returns how many.
pub(crate) fn generate(root: &Path) -> Result<usize> {
    let (folder, wanted) = (folder(root), wanted()?);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut changed = 0;
    let tools = wanted.iter().map(|(name, text)| (folder.join(name), text.clone()));
    for (path, text) in tools.chain(exports(root)?) {
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            changed += 1;
        }
    }
    for name in present(&folder)?.into_iter().filter(|name| !wanted.contains_key(name)) {
        let path = folder.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        changed += 1;
    }
    Ok(changed)
}

/// What is not as `generate` would write it.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let (folder, wanted) = (folder(root), wanted()?);
    let present = present(&folder)?;
    let mut faults = Vec::new();
    for (path, text) in exports(root)? {
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            let path = path.strip_prefix(root).unwrap_or(&path).display();
            faults.push(format!("{path} is not up to date: run `cargo xtask generate`"));
        }
    }
    for (name, text) in &wanted {
        if fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text) {
            faults.push(format!(
                "schemas/tools/{name} is not up to date: run `cargo xtask generate`"
            ));
        }
    }
    let extra = present.iter().filter(|name| !wanted.contains_key(*name));
    faults.extend(extra.map(|name| format!("schemas/tools/{name} belongs to no tool: run `cargo xtask generate`")));
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_generate_writes_passes_the_check_and_nothing_else_does() {
        let root = std::env::temp_dir().join(format!("sandhold-xtask-{}", std::process::id()));
        fs::create_dir_all(folder(&root)).unwrap();
        fs::write(folder(&root).join("gone.json"), "{}").unwrap();
        let files = sandhold_mcp::tools().len() + Format::ALL.len();
        assert_eq!(check(&root).unwrap().len(), files + 1);
        assert_eq!(generate(&root).unwrap(), files + 1);
        assert_eq!(check(&root).unwrap(), Vec::<String>::new());
        assert_eq!(generate(&root).unwrap(), 0);
        fs::write(folder(&root).join("run_command.json"), "{}").unwrap();
        assert!(check(&root).unwrap()[0].contains("run_command.json is not up to date"));
        fs::remove_dir_all(&root).unwrap();
    }
}
