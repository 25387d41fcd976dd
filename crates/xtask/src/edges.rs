//! Which crate may use which. Tests and development dependencies are free.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Each crate of the workspace and the crates of the workspace that it may use.
const EDGES: [(&str, &[&str]); 16] = [
    (
        "sandhold",
        &[
            "sandhold-mcp",
            "sandhold-client",
            "sandhold-gateway",
            "sandhold-egress",
            "sandhold-engine",
            "sandhold-envd",
            "sandhold-images",
            "sandhold-prove",
            "sandhold-runtime",
            "sandhold-wire",
        ],
    ),
    ("sandhold-mcp", &["sandhold-client"]),
    ("sandhold-client", &["sandhold-wire"]),
    ("sandhold-wire", &[]),
    (
        "sandhold-gateway",
        &["sandhold-egress", "sandhold-wire", "sandhold-runtime"],
    ),
    ("sandhold-egress", &["sandhold-netlink", "sandhold-runtime"]),
    ("sandhold-images", &["sandhold-runtime"]),
    ("sandhold-runtime", &[]),
    ("sandhold-prove", &[]),
    (
        "sandhold-engine",
        &["sandhold-layers", "sandhold-netlink", "sandhold-runtime"],
    ),
    ("sandhold-layers", &["sandhold-runtime"]),
    ("sandhold-netlink", &[]),
    ("sandhold-envd", &["sandhold-wire"]),
    ("sandhold-xtask", &["sandhold-mcp"]),
    ("sandhold-tests", &[]),
    (
        "sandhold-benches",
        &[
            "sandhold-client",
            "sandhold-engine",
            "sandhold-runtime",
            "sandhold-wire",
            "sandhold-tests",
        ],
    ),
];

/// The one crate that may name rmcp.
const RMCP: (&str, &str) = ("rmcp", "sandhold-mcp");

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// The uses that are not allowed.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .context("cargo cannot be started")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("the answer of cargo metadata is unknown")?;
    Ok(faults(&metadata))
}

fn faults(metadata: &Metadata) -> Vec<String> {
    let members: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut faults = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            faults.push(format!(
                "{} is not among the crates of crates/xtask/src/edges.rs",
                package.name
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
            let name = dependency.name.as_str();
            let foreign = members.contains(name) && !allowed.contains(&name);
            if foreign || (name == RMCP.0 && package.name != RMCP.1) {
                faults.push(format!("{} uses {name}, which it may not", package.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(text: &str) -> Metadata {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn forbidden_uses_are_found() {
        let found = faults(&metadata(
            r#"{"packages": [
                {"name": "sandhold-mcp", "dependencies": [{"name": "sandhold-client"}, {"name": "sandhold-engine"}, {"name": "serde"}]},
                {"name": "sandhold-engine", "dependencies": [{"name": "rmcp"}, {"name": "sandhold-mcp", "kind": "dev"}]},
                {"name": "sandhold-client", "dependencies": []},
                {"name": "new", "dependencies": []}]}"#,
        ));
        assert_eq!(
            found,
            [
                "sandhold-mcp uses sandhold-engine, which it may not",
                "sandhold-engine uses rmcp, which it may not",
                "new is not among the crates of crates/xtask/src/edges.rs"
            ]
        );
    }
}
