//! What a model is told besides the tools: instructions for the toolsets that are on, and the manual.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    budget, limits,
    registry::{Entry, Toolset},
    server::Provider,
};

/// What a model should know of a toolset; each line stands with the tool that it is about.
fn lines(set: Toolset) -> Vec<(&'static str, String)> {
    let line = |tool, text: &str| (tool, text.to_owned());
    match set {
        Toolset::Sandbox => vec![line(
            "create_sandbox",
            "Sandboxes: create_sandbox makes further or differently sized ones.",
        )],
        Toolset::Files => vec![line(
            "write_file",
            "Files: write_file and edit_file rather than shell redirection; relative paths start at the user's home.",
        )],
        Toolset::Commands => vec![(
            "run_command",
            format!(
                "Commands: run_command answers within {} s; what lasts longer goes on as a job, read with get_job_status. \
                 Start long work with run_command_bg.",
                limits::ANSWER_WITHIN.as_secs()
            ),
        )],
        Toolset::Services => vec![
            line(
                "start_service",
                "Servers: start_service answers once the port does; http_probe asks it from inside.",
            ),
            line(
                "get_public_url",
                "The user opens a server by the link of get_public_url.",
            ),
        ],
        Toolset::Transfer => vec![line(
            "prepare_project_download",
            "Results: hand them to the user as a link of prepare_project_download or presigned_download_url.",
        )],
        Toolset::Watch => vec![line(
            "watch_dir",
            "Watching: watch_dir once, then get_watch_events as often as needed.",
        )],
        Toolset::Processes => vec![line(
            "list_processes",
            "Processes: list_processes shows all of a sandbox, list_jobs only what you started.",
        )],
        Toolset::Shell => vec![line(
            "open_shell",
            "Terminal: for programs that need one. After write_line or send_keys look with read_shell; screen shows \
             full-screen programs as they look.",
        )],
        Toolset::Network => vec![line(
            "update_network",
            "Network: an answer names what was blocked; update_network opens it, by a list that replaces the old one.",
        )],
        Toolset::Templates => vec![line(
            "build_template",
            "Templates: build_template makes what create_sandbox takes as template, programs installed; it is a job.",
        )],
        Toolset::Snapshots => vec![
            line(
                "create_snapshot",
                "Snapshots: create_snapshot before something risky. Files are kept, processes are not.",
            ),
            line(
                "fork_sandbox",
                "fork_sandbox gives you copies to try things side by side.",
            ),
        ],
    }
}

/// The instructions of a server with these tools.
pub(crate) fn instructions<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> String {
    let sets: BTreeSet<Toolset> = entries.clone().map(|e| e.spec.toolset).collect();
    let mut text = format!(
        "Sandhold gives you a Linux computer in an isolated sandbox. Leave sandbox_id out to use your default sandbox, \
         which is made at first use. A sandbox ends after its lifetime ({} s, extended by every call unless timeout_s was given).",
        limits::SANDBOX_LIFETIME.as_secs()
    );
    for (tool, line) in sets.into_iter().flat_map(lines) {
        if entries.clone().any(|entry| entry.spec.name == tool) {
            text.push('\n');
            text.push_str(&line);
        }
    }
    text
}

/// The manual.
pub(crate) fn help<'a>(entries: impl Iterator<Item = &'a Entry> + Clone, provider: &Provider) -> String {
    let mut text = format!(
        "# Sandhold\n\n{}\n\nSandboxes come from: {} — {}\n",
        instructions(entries.clone()),
        provider.name,
        provider.description
    );
    for line in &provider.cannot {
        let _ = writeln!(text, "- not possible here: {line}");
    }
    text.push_str(ANSWERS);
    for set in Toolset::ALL {
        let of_set: Vec<&Entry> = entries.clone().filter(|e| e.spec.toolset == set).collect();
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
         - jobs that run at the same time: {}, shells: {}, watched folders: {}\n- a file read as a resource: {} bytes\n\
         - unread output of a shell that is kept: {} bytes; unread changes of a folder: {}\n",
        limits::CMD,
        limits::STDIN,
        limits::CONTENT,
        budget::ANSWER,
        limits::JOBS_RUNNING,
        limits::SHELLS,
        limits::WATCHES,
        limits::RESOURCE,
        limits::SHELL_UNREAD,
        limits::WATCH_EVENTS
    );
    text
}

/// What the list of tools does not repeat with every tool.
const ANSWERS: &str = "
## Answers

Each has a short text, and structured content with the tool's own fields and these:

- `ok`: whether the tool did its work. A command that ends with another code than 0 is `ok`: see its `exit_code`.
- `sandbox_id`: the sandbox it worked in.
- `error`: `code`, `message` and, where there is one, a `hint` that says what to do next. Only if `ok` is false.
- `checkpoint_id`: where undo is on, the state of the files before the call; `rollback_sandbox` takes it.
- `artifacts`: files that hold what is too long for an answer, each with the `uri` of a resource, `path` and `size`.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registry::Selection, tools};

    fn of(selection: &Selection) -> String {
        let names = selection.names().unwrap();
        let entries: Vec<Entry> = tools::all()
            .into_iter()
            .filter(|e| names.contains(e.spec.name))
            .collect();
        instructions(entries.iter())
    }

    #[test]
    fn instructions_are_those_of_the_toolsets_that_are_on() {
        let files = of(&Selection {
            toolsets: Some(vec!["files".into()]),
            ..Selection::default()
        });
        assert!(files.contains("edit_file") && !files.contains("run_command"), "{files}");
        let reading = of(&Selection {
            read_only: true,
            ..Selection::default()
        });
        assert!(!reading.contains("write_file"), "{reading}");
    }

    #[test]
    fn lines_stand_with_tools_of_their_toolset() {
        let specs = tools::specs();
        for set in Toolset::ALL {
            for (tool, _) in lines(set) {
                let spec = specs.iter().find(|spec| spec.name == tool);
                assert!(spec.is_some_and(|spec| spec.toolset == set), "{tool}");
            }
        }
    }
}
