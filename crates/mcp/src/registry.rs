//! What a tool is, and which tools a server offers.

mod invoke;

use std::{collections::BTreeSet, future::Future};

use futures::future::BoxFuture;
use rmcp::model::{CallToolResponse, JsonObject, Tool as Listed, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    answer::{Reply, ToolError},
    call::Call,
    schema, tools,
};

/// A group of tools that is switched on or off as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toolset {
    /// Making, finding and ending sandboxes.
    Sandbox,
    /// Reading and changing files.
    Files,
    /// Running commands and jobs.
    Commands,
    /// Servers inside a sandbox, and how they are reached.
    Services,
    /// Files and folders in and out of a sandbox.
    Transfer,
    /// Being told what changes in a folder.
    Watch,
    /// All processes of a sandbox, and what it uses.
    Processes,
    /// A terminal.
    Shell,
    /// What a sandbox may reach.
    Network,
    /// States of a sandbox that are kept, gone back to and gone on from.
    Snapshots,
    /// What sandboxes are made of.
    Templates,
}

impl Toolset {
    /// All of them, in the order of the tool list.
    pub const ALL: [Self; 11] = [
        Self::Sandbox,
        Self::Files,
        Self::Commands,
        Self::Services,
        Self::Transfer,
        Self::Watch,
        Self::Processes,
        Self::Shell,
        Self::Network,
        Self::Snapshots,
        Self::Templates,
    ];

    /// Its name in `--toolsets`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Files => "files",
            Self::Commands => "commands",
            Self::Services => "services",
            Self::Transfer => "transfer",
            Self::Watch => "watch",
            Self::Processes => "processes",
            Self::Shell => "shell",
            Self::Network => "network",
            Self::Snapshots => "snapshots",
            Self::Templates => "templates",
        }
    }

    /// Whether it is on when nothing is chosen.
    #[must_use]
    pub const fn is_default(self) -> bool {
        match self {
            Self::Sandbox | Self::Files | Self::Commands | Self::Services | Self::Transfer => true,
            Self::Watch | Self::Processes | Self::Shell | Self::Network | Self::Snapshots | Self::Templates => false,
        }
    }
}

/// The four hints about a tool that clients decide by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hints {
    pub(crate) read_only: bool,
    pub(crate) destructive: bool,
    pub(crate) idempotent: bool,
    pub(crate) open_world: bool,
}

impl Hints {
    /// Changes nothing.
    pub(crate) const READS: Self = Self {
        read_only: true,
        destructive: false,
        idempotent: true,
        open_world: false,
    };
    /// Adds something, anew with each call.
    pub(crate) const ADDS: Self = Self {
        read_only: false,
        destructive: false,
        idempotent: false,
        open_world: false,
    };
    /// Adds something; a second call adds nothing more.
    pub(crate) const ADDS_ONCE: Self = Self {
        idempotent: true,
        ..Self::ADDS
    };
    /// Adds something that comes from outside, or is made with what does.
    pub(crate) const FETCHES: Self = Self {
        open_world: true,
        ..Self::ADDS
    };
    /// Replaces or removes something, anew with each call.
    pub(crate) const CHANGES: Self = Self {
        destructive: true,
        ..Self::ADDS
    };
    /// Replaces or removes something; a second call changes nothing more.
    pub(crate) const CHANGES_ONCE: Self = Self {
        idempotent: true,
        ..Self::CHANGES
    };
    /// Does anything at all, with the network too.
    pub(crate) const RUNS: Self = Self {
        open_world: true,
        ..Self::CHANGES
    };
}

/// What a tool is called and what is said of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) toolset: Toolset,
    pub(crate) hints: Hints,
    /// False for a tool that keeps the time limit of answers by itself.
    pub(crate) limited: bool,
}

/// Tools that may do anything and yet change no file of a sandbox by themselves: with undo on, nothing is kept before them.
const LEAVE_FILES: [&str; 3] = ["build_template", "download_file", "http_probe"];

impl Spec {
    /// Whether a call may change files of a sandbox.
    pub(crate) fn changes_files(&self) -> bool {
        let writes = matches!(self.toolset, Toolset::Files | Toolset::Transfer | Toolset::Snapshots);
        (self.hints.open_world || (writes && !self.hints.read_only)) && !LEAVE_FILES.contains(&self.name)
    }
}

/// One tool; every file of `tools/` has one.
pub(crate) trait Tool: Send + Sync + 'static {
    /// Its arguments.
    type Params: DeserializeOwned + JsonSchema + Send + 'static;
    /// Its own fields of the structured result.
    type Output: Serialize + JsonSchema + Send + 'static;
    /// Its name and what is said of it.
    const SPEC: Spec;
    /// Does its work. Dropping the future cancels it.
    fn run(call: Call, params: Self::Params) -> impl Future<Output = Result<Reply<Self::Output>, ToolError>> + Send;
}

/// A tool whose types are forgotten.
pub(crate) struct Entry {
    pub(crate) spec: Spec,
    /// As clients see it.
    pub(crate) listed: Listed,
    /// The whole schema of its structured result.
    pub(crate) output: JsonObject,
    invoke: fn(Call, &JsonObject, JsonObject) -> BoxFuture<'static, CallToolResponse>,
}

impl Entry {
    /// The entry of `T`.
    pub(crate) fn of<T: Tool>() -> Self {
        let spec = T::SPEC;
        let hints = ToolAnnotations::from_raw(
            None,
            Some(spec.hints.read_only),
            Some(spec.hints.destructive),
            Some(spec.hints.idempotent),
            Some(spec.hints.open_world),
        );
        let listed = Listed::new(spec.name, spec.description, schema::input::<T::Params>())
            .with_title(spec.title)
            .with_raw_output_schema(schema::brief_output().into())
            .with_annotations(hints);
        Self {
            spec,
            listed,
            output: schema::output::<T::Output>(spec.changes_files()),
            invoke: invoke::invoke::<T>,
        }
    }

    /// Calls it.
    pub(crate) fn call(&self, call: Call, args: JsonObject) -> BoxFuture<'static, CallToolResponse> {
        (self.invoke)(call, &self.listed.input_schema, args)
    }
}

/// Which tools are offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names of toolsets, `all` or `default`; `None` is the default ones, or none at all where `tools` names some.
    pub toolsets: Option<Vec<String>>,
    /// Names of single tools, offered besides the toolsets.
    pub tools: Vec<String>,
    /// Names of tools that are left out.
    pub exclude_tools: Vec<String>,
    /// Only tools that change nothing.
    pub read_only: bool,
}

/// A selection that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A toolset of this name does not exist.
    #[error("there is no toolset {name:?}; there are {known}")]
    UnknownToolset {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A tool of this name does not exist.
    #[error("there is no tool {name:?}; there are {known}")]
    UnknownTool {
        /// The name.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// Nothing is left.
    #[error("the selection leaves no tool")]
    NoTools,
}

impl Selection {
    /// The names of the tools that are offered.
    pub(crate) fn names(&self) -> Result<BTreeSet<&'static str>, ConfigError> {
        let all = tools::specs();
        let one = |name: &str| {
            all.iter()
                .find(|s| s.name == name)
                .copied()
                .ok_or_else(|| ConfigError::UnknownTool {
                    name: name.to_owned(),
                    known: all.iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
                })
        };
        let mut chosen = BTreeSet::new();
        let none = Vec::new();
        let toolsets = match &self.toolsets {
            Some(names) => names,
            None if self.tools.is_empty() => &vec!["default".to_owned()],
            None => &none,
        };
        for name in toolsets {
            let sets = Self::toolsets_named(name)?;
            chosen.extend(all.iter().filter(|s| sets.contains(&s.toolset)).map(|s| s.name));
        }
        for name in &self.tools {
            chosen.insert(one(name)?.name);
        }
        for name in &self.exclude_tools {
            chosen.remove(one(name)?.name);
        }
        if self.read_only {
            chosen.retain(|name| all.iter().any(|s| s.name == *name && s.hints.read_only));
        }
        if chosen.is_empty() {
            Err(ConfigError::NoTools)
        } else {
            Ok(chosen)
        }
    }

    fn toolsets_named(name: &str) -> Result<Vec<Toolset>, ConfigError> {
        let of = |keep: &dyn Fn(&Toolset) -> bool| Toolset::ALL.into_iter().filter(|s| keep(s)).collect::<Vec<_>>();
        let sets = match name {
            "all" => of(&|_| true),
            "default" => of(&|s| s.is_default()),
            _ => of(&|s| s.name() == name),
        };
        if sets.is_empty() {
            let mut known: Vec<&str> = Toolset::ALL.iter().map(|s| s.name()).collect();
            known.extend(["all", "default"]);
            return Err(ConfigError::UnknownToolset {
                name: name.to_owned(),
                known: known.join(", "),
            });
        }
        Ok(sets)
    }

    /// The narrowing that the query of an endpoint asks for: `?toolsets=files,commands&read_only=true`.
    pub(crate) fn from_query(query: &str) -> Option<Self> {
        let mut selection = Self::default();
        let mut asked = false;
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let names = || {
                value
                    .split([','])
                    .flat_map(|v| v.split("%2C"))
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            match key {
                "toolsets" => selection.toolsets = Some(names()),
                "tools" => selection.tools = names(),
                "exclude_tools" => selection.exclude_tools = names(),
                "read_only" => selection.read_only = value == "true" || value == "1",
                _ => continue,
            }
            asked = true;
        }
        asked.then_some(selection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selection: &Selection) -> Vec<&'static str> {
        selection.names().unwrap().into_iter().collect()
    }

    #[test]
    fn selections() {
        let default = tools::specs().iter().filter(|s| s.toolset.is_default()).count();
        assert_eq!(names(&Selection::default()).len(), default);
        let files = Selection {
            toolsets: Some(vec!["files".into()]),
            ..Selection::default()
        };
        assert!(names(&files).contains(&"read_file") && !names(&files).contains(&"run_command"));
        let one = Selection {
            tools: vec!["run_command".into()],
            ..Selection::default()
        };
        assert_eq!(names(&one), ["run_command"]);
        let without = Selection {
            exclude_tools: vec!["run_command".into()],
            ..Selection::default()
        };
        assert!(!names(&without).contains(&"run_command"));
        let reading = Selection {
            read_only: true,
            ..Selection::default()
        };
        assert!(names(&reading).contains(&"read_file") && !names(&reading).contains(&"write_file"));
    }

    #[test]
    fn refusals_list_what_exists() {
        let bad = Selection {
            toolsets: Some(vec!["disk".into()]),
            ..Selection::default()
        };
        assert!(bad.names().unwrap_err().to_string().contains(
            "sandbox, files, commands, services, transfer, watch, processes, shell, network, snapshots, templates, all, default"
        ));
        let bad = Selection {
            exclude_tools: vec!["rm".into()],
            ..Selection::default()
        };
        assert!(bad.names().unwrap_err().to_string().contains("run_command"));
        let none = Selection {
            tools: vec!["run_command".into()],
            read_only: true,
            ..Selection::default()
        };
        assert_eq!(none.names(), Err(ConfigError::NoTools));
    }

    #[test]
    fn queries() {
        let selection = Selection::from_query("toolsets=files,commands&x=1&read_only=true").unwrap();
        assert_eq!(selection.toolsets, Some(vec!["files".into(), "commands".into()]));
        assert!(selection.read_only);
        assert_eq!(Selection::from_query("x=1"), None);
    }
}
