//! What packing and unpacking say.

use std::fmt::Write as _;

use sandhold_client::{ArchiveEvent, ArchiveReport, ArchiveWork, Error, PathList};

use crate::{answer::ToolError, call::Target, jobs::Say};

/// Follows the work to its end.
pub(super) async fn done(
    target: Target,
    started: impl Future<Output = Result<ArchiveWork, Error>>,
    say: Say,
) -> Result<ArchiveReport, ToolError> {
    let mut work = started.await.map_err(|e| explain(&target, &e))?;
    loop {
        match work.next().await {
            Some(Ok(ArchiveEvent::Progress { entries, bytes })) => {
                say.say(format!("{entries} entries, {bytes} bytes so far"));
            }
            Some(Ok(ArchiveEvent::Done(report))) => return Ok(report),
            Some(Err(error)) => return Err(explain(&target, &error)),
            None => return Err(ToolError::new("internal", "the work on the archive broke off").within(target.id())),
        }
    }
}

fn explain(target: &Target, error: &Error) -> ToolError {
    let told = target.error(error);
    let denied = told.message.to_ascii_lowercase().contains("permission denied");
    match error {
        _ if denied => {
            told.hint("Archives are read and written as user; run_command with user root may do what user may not.")
        }
        Error::InvalidArgument(_) if of_archive(&told.message) => {
            told.hint("Unpack it with a program in the sandbox (run_command: unzip, tar) if you trust it.")
        }
        Error::InvalidArgument(_) => told.hint("Look at the paths with path_info or list_dir."),
        _ => told,
    }
}

/// Whether it is the archive itself that is refused, not a path of the call.
fn of_archive(message: &str) -> bool {
    ["the archive is ", "is damaged"]
        .iter()
        .any(|said| message.contains(said))
}

/// A line for a model on what was packed.
pub(super) fn packed(report: &ArchiveReport) -> String {
    let mut text = format!(
        "packed {} entries, {} bytes, into {} of {} bytes",
        report.entries, report.bytes, report.path, report.size
    );
    for (what, list) in [
        ("not readable for user, so not in it", &report.unreadable),
        ("left out, tools make them again", &report.left_out),
        ("sockets, pipes and devices are not in it", &report.special),
    ] {
        if list.count > 0 {
            let _ = write!(text, "\n{what}: {}", listed(list));
        }
    }
    text
}

/// A line for a model on what was unpacked.
pub(super) fn unpacked(report: &ArchiveReport) -> String {
    let mut text = format!(
        "unpacked {} entries, {} bytes, into {}",
        report.entries, report.bytes, report.path
    );
    if report.left_out.count > 0 {
        let _ = write!(
            text,
            "\nlinks that lead out of the folder, so not made: {}",
            listed(&report.left_out)
        );
    }
    text
}

fn listed(list: &PathList) -> String {
    let more = list.count.saturating_sub(list.paths.len() as u64);
    let mut text = list.paths.join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

/// What is missing in an archive, for programs.
pub(super) fn missing(report: ArchiveReport) -> Vec<String> {
    let lists = [report.unreadable, report.left_out, report.special];
    lists.into_iter().flat_map(|list| list.paths).collect()
}
