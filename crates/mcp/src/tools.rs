//! The tools, one file each. A new one is added here and nowhere else.

mod archive_work;
mod build_template;
mod close_shell;
mod connect_sandbox;
mod create_sandbox;
mod create_snapshot;
mod delete_snapshot;
mod delete_template;
mod diff_sandbox;
mod download_file;
mod edit_file;
mod entry;
mod file_url;
mod follow;
mod fork_sandbox;
mod get_job_status;
mod get_public_url;
mod get_watch_events;
mod http_probe;
mod job_report;
mod kill;
mod kill_job;
mod list_dir;
mod list_jobs;
mod list_processes;
mod list_sandboxes;
mod list_snapshots;
mod list_templates;
mod make_dir;
mod move_path;
mod open_shell;
mod path_info;
mod pause_sandbox;
mod prepare_project_download;
mod presigned_download_url;
mod presigned_upload_url;
mod read_file;
mod read_shell;
mod remove_path;
mod resize_shell;
mod rollback_sandbox;
mod run_command;
mod run_command_bg;
mod run_in_all_sandboxes;
pub(crate) mod sandbox_info;
mod sandbox_metrics;
mod sandbox_row;
mod search_files;
mod send_keys;
mod send_stdin;
mod service_diagnostics;
mod service_report;
mod set_sandbox_timeout;
mod shell_report;
mod shutdown_all_sandboxes;
mod shutdown_sandbox;
mod start_service;
mod unwatch_dir;
mod unzip_to;
mod update_network;
mod upload_file;
mod wait_for_service_ready;
mod watch_dir;
mod write_file;
mod write_files;
mod write_line;
mod zip_dir;

use crate::registry::{Entry, Spec, Tool};

/// Calls a macro with every tool, in the order of the tool list.
macro_rules! every_tool {
    ($each:ident) => {
        vec![
            $each!(run_command::RunCommand),
            $each!(run_command_bg::RunCommandBg),
            $each!(get_job_status::GetJobStatus),
            $each!(list_jobs::ListJobs),
            $each!(send_stdin::SendStdin),
            $each!(kill_job::KillJob),
            $each!(read_file::ReadFile),
            $each!(write_file::WriteFile),
            $each!(write_files::WriteFiles),
            $each!(edit_file::EditFile),
            $each!(list_dir::ListDir),
            $each!(search_files::SearchFiles),
            $each!(make_dir::MakeDir),
            $each!(path_info::PathInfo),
            $each!(move_path::MovePath),
            $each!(remove_path::RemovePath),
            $each!(start_service::StartService),
            $each!(wait_for_service_ready::WaitForServiceReady),
            $each!(get_public_url::GetPublicUrl),
            $each!(http_probe::HttpProbe),
            $each!(service_diagnostics::ServiceDiagnostics),
            $each!(upload_file::UploadFile),
            $each!(download_file::DownloadFile),
            $each!(zip_dir::ZipDir),
            $each!(unzip_to::UnzipTo),
            $each!(prepare_project_download::PrepareProjectDownload),
            $each!(presigned_download_url::PresignedDownloadUrl),
            $each!(presigned_upload_url::PresignedUploadUrl),
            $each!(create_sandbox::CreateSandbox),
            $each!(connect_sandbox::ConnectSandbox),
            $each!(list_sandboxes::ListSandboxes),
            $each!(sandbox_info::SandboxInfo),
            $each!(set_sandbox_timeout::SetSandboxTimeout),
            $each!(pause_sandbox::PauseSandbox),
            $each!(shutdown_sandbox::ShutdownSandbox),
            $each!(shutdown_all_sandboxes::ShutdownAllSandboxes),
            $each!(run_in_all_sandboxes::RunInAllSandboxes),
            $each!(create_snapshot::CreateSnapshot),
            $each!(list_snapshots::ListSnapshots),
            $each!(delete_snapshot::DeleteSnapshot),
            $each!(fork_sandbox::ForkSandbox),
            $each!(diff_sandbox::DiffSandbox),
            $each!(rollback_sandbox::RollbackSandbox),
            $each!(build_template::BuildTemplate),
            $each!(list_templates::ListTemplates),
            $each!(delete_template::DeleteTemplate),
            $each!(watch_dir::WatchDir),
            $each!(get_watch_events::GetWatchEvents),
            $each!(unwatch_dir::UnwatchDir),
            $each!(list_processes::ListProcesses),
            $each!(kill::Kill),
            $each!(sandbox_metrics::SandboxMetrics),
            $each!(open_shell::OpenShell),
            $each!(write_line::WriteLine),
            $each!(send_keys::SendKeys),
            $each!(read_shell::ReadShell),
            $each!(resize_shell::ResizeShell),
            $each!(close_shell::CloseShell),
            $each!(update_network::UpdateNetwork),
        ]
    };
}

macro_rules! entry {
    ($tool:ty) => {
        Entry::of::<$tool>()
    };
}

macro_rules! spec {
    ($tool:ty) => {
        <$tool as Tool>::SPEC
    };
}

/// All tools with their schemas.
pub(crate) fn all() -> Vec<Entry> {
    every_tool!(entry)
}

/// What is said of all tools.
pub(crate) fn specs() -> Vec<Spec> {
    every_tool!(spec)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::{registry::Toolset, schema};

    /// Arguments that their names and their tool's description explain: every word counts in every session.
    const SELF_EVIDENT: [&str; 38] = [
        "allow_internet_access",
        "append",
        "body",
        "close",
        "cmd",
        "code",
        "content",
        "context_lines",
        "cpus",
        "cwd",
        "deny_out",
        "dest_dir",
        "disk_mb",
        "envs",
        "from",
        "headers",
        "include_ignored",
        "job_id",
        "limit_lines",
        "memory_mb",
        "name",
        "new_text",
        "old_text",
        "overwrite",
        "path",
        "pattern",
        "port",
        "project_dir",
        "recursive",
        "replace_all",
        "sandbox_id",
        "set_as_default",
        "src_dir",
        "stdin",
        "timeout_s",
        "to",
        "value",
        "zip_path",
    ];

    fn listed() -> Vec<Value> {
        all().iter().map(|e| serde_json::to_value(&e.listed).unwrap()).collect()
    }

    #[test]
    fn every_tool_keeps_the_rules() {
        let mut names = BTreeSet::new();
        for tool in listed() {
            let name = tool["name"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(
                name.len() <= 30 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
            assert!(!tool["title"].as_str().unwrap().is_empty(), "{name}");
            let description = tool["description"].as_str().unwrap();
            assert!(
                (20..=300).contains(&description.chars().count()),
                "{name}: {}",
                description.len()
            );
            for hint in ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"] {
                assert!(tool["annotations"][hint].is_boolean(), "{name}: {hint}");
            }
            assert_eq!(tool["outputSchema"], json!({"type": "object"}), "{name}");
            let whole = all().into_iter().find(|e| e.spec.name == name).unwrap().output;
            for schema in [&tool["inputSchema"], &Value::Object(whole)] {
                let broken = schema::violations(schema);
                assert!(broken.is_empty(), "{name}: {broken:?}");
            }
            described(name, &tool["inputSchema"]);
        }
    }

    fn described(at: &str, node: &Value) {
        for (name, property) in node["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}.{name}");
            let described_itself = property["description"].as_str().is_some_and(|d| !d.is_empty());
            assert!(
                described_itself || SELF_EVIDENT.contains(&name.as_str()),
                "{at} is not described"
            );
            described(&at, property);
            described(&at, &property["items"]);
        }
    }

    #[test]
    fn the_lists_stay_small() {
        let size = |keep: &dyn Fn(&Entry) -> bool| {
            let tools: Vec<Value> = all()
                .iter()
                .filter(|e| keep(e))
                .map(|e| serde_json::to_value(&e.listed).unwrap())
                .collect();
            json!({ "tools": tools }).to_string().len()
        };
        for set in Toolset::ALL {
            println!("{}: {} bytes", set.name(), size(&|e| e.spec.toolset == set));
        }
        let default = size(&|e| e.spec.toolset.is_default());
        let all = size(&|_| true);
        println!("default: {default} bytes, all: {all} bytes");
        // The rest of 20 kB is for the fields around the list.
        assert!(default <= 19_900, "the default list is {default} bytes");
        assert!(all <= 48_000, "the whole list is {all} bytes");
    }
}
