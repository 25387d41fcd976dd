//! Which limit of its sandbox a command met, told once it failed: a command that ends well costs no question.

use std::time::Duration;

use sandhold_client::{Cap, Caps, ExitStatus, LimitsReport, shown_cap};

use crate::{
    answer::{LimitMet, ToolError},
    call::Target,
    jobs::{Progress, Status},
    limits,
};

/// What a command ended with.
pub(crate) struct End {
    /// Its exit, unless its deadline ended it.
    exit: Option<ExitStatus>,
    /// The newest of what it printed, in small letters.
    said: String,
    /// Bytes it printed.
    printed: u64,
    ran: Duration,
}

impl End {
    /// Of a job that ended so; `None` if there is nothing to explain.
    pub(crate) fn of(progress: &Progress, status: &Status, ran: Duration) -> Option<Self> {
        let exit = match status {
            Status::Done(exit) if exit.exited && exit.exit_code == 0 => return None,
            Status::Done(exit) => Some(exit.clone()),
            Status::TimedOut => None,
            Status::Running | Status::Cancelled | Status::Lost(_) => return None,
        };
        let [out, err] = [&progress.stdout, &progress.stderr];
        let said = [out, err]
            .map(|output| output.end(limits::MET_SAID).to_lowercase())
            .join("\n");
        Some(Self {
            exit,
            said,
            printed: out.total() + err.total(),
            ran,
        })
    }

    /// Ended by this signal, itself or as a shell tells it of a program.
    fn by_signal(&self, number: i32, name: &str) -> bool {
        self.exit.as_ref().is_some_and(|exit| {
            exit.exit_code == 128 + number || (!exit.exited && exit.status.starts_with(&format!("signal: {name}")))
        })
    }

    fn says(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.said.contains(text))
    }
}

/// Asks which limits were met while a command ran. Nothing where nobody can tell.
pub(crate) async fn find(target: &Target, end: &End) -> Option<ToolError> {
    let asked = tokio::time::timeout(limits::MET_ASK, target.client().limits(target.id(), end.ran)).await;
    let report = asked.ok()?.ok()??;
    explain(&report, end)
}

fn explain(report: &LimitsReport, end: &End) -> Option<ToolError> {
    let (limits, used) = (Caps::of_rest(&report.limits), Caps::of_rest(&report.used));
    let met = |cap: Cap| report.met.get(cap.rest_name()).copied();
    let value = |cap: Cap| limits.get(cap).map_or_else(|| "?".to_owned(), shown_cap);
    let full = |cap: Cap, spare: f64| matches!((limits.get(cap), used.get(cap)), (Some(most), Some(now)) if now + spare >= most);
    let larger = |cap: Cap| {
        format!(
            "Use less, or make a sandbox with a larger {} (create_sandbox).",
            cap.name()
        )
    };
    let tell = |cap: Cap, message: String, hint: String| {
        let limit = LimitMet::new(cap.name(), limits.get(cap).unwrap_or_default());
        Some(ToolError::new("limit_reached", message).hint(hint).limit(limit))
    };
    let further = |cap: Cap| format!("Use fewer, or make a sandbox with limits of more {}.", cap.name());

    let memory = || {
        let times = met(Cap::MemoryMb).filter(|times| *times > 0)?;
        let who = if times == 1 {
            "a process was".to_owned()
        } else {
            format!("{times} processes were")
        };
        let message = format!(
            "{who} ended: the sandbox's memory limit of {} MiB was reached; files in it count, too",
            value(Cap::MemoryMb)
        );
        tell(Cap::MemoryMb, message, larger(Cap::MemoryMb))
    };
    // Whatever else was met: this is what it died of.
    if end.by_signal(9, "killed")
        && let Some(told) = memory()
    {
        return Some(told);
    }
    let bus = end.by_signal(7, "bus error");
    if bus || end.says(&["no space left on device", "enospc"]) {
        if full(Cap::Inodes, 0.0) {
            let message = format!(
                "the sandbox's disk is full: all its {} files and folders are in use",
                value(Cap::Inodes)
            );
            return tell(
                Cap::Inodes,
                message,
                "Remove some with remove_path, or make a sandbox with limits of more inodes.".into(),
            );
        }
        if report.shm_free.is_some_and(|free| free < limits::MET_SHM_LEFT) && !full(Cap::DiskMb, 1.0) {
            let message = format!(
                "/dev/shm is full: it holds a part of the sandbox's memory of {} MiB",
                value(Cap::MemoryMb)
            );
            return tell(
                Cap::MemoryMb,
                message,
                "Remove files there, or make a sandbox with a larger memory_mb.".into(),
            );
        }
        if !bus || full(Cap::DiskMb, 1.0) {
            let now = used
                .get(Cap::DiskMb)
                .map_or_else(String::new, |mb| format!(" ({:.0} MiB are in use now)", mb.ceil()));
            let message = format!(
                "the sandbox's disk limit of {} MiB was reached{now}",
                value(Cap::DiskMb)
            );
            return tell(
                Cap::DiskMb,
                message,
                "Free space with remove_path, or make a sandbox with a larger disk_mb.".into(),
            );
        }
    }
    if end.by_signal(25, "file size limit exceeded") {
        let message = format!(
            "a file grew beyond the sandbox's disk limit of {} MiB",
            value(Cap::DiskMb)
        );
        return tell(Cap::DiskMb, message, larger(Cap::DiskMb));
    }
    let refused = ["resource temporarily unavailable", "can't start new thread", "eagain"];
    let pids = match met(Cap::Pids) {
        Some(times) => times > 0,
        // Nothing counts it: what programs say when they get no process.
        None => end.says(&refused) && end.says(&["fork", "thread", "spawn", "clone"]),
    };
    if pids {
        let message = format!(
            "the sandbox's limit of {} processes and threads was reached",
            value(Cap::Pids)
        );
        return tell(Cap::Pids, message, further(Cap::Pids));
    }
    if end.says(&["too many open files", "emfile"]) {
        let message = format!("a process met its limit of {} open files", value(Cap::OpenFiles));
        return tell(Cap::OpenFiles, message, further(Cap::OpenFiles));
    }
    if let Some(message) = output(&limits, end) {
        let hint = "Print less, or write into a file in the sandbox.";
        return tell(Cap::OutputBytesPerS, message, hint.to_owned());
    }
    // One of its processes, and it failed for that or for something else.
    memory()
}

/// A command that did not end in time because it printed as fast as it may.
fn output(limits: &Caps, end: &End) -> Option<String> {
    let rate = limits.get(Cap::OutputBytesPerS)?;
    #[expect(clippy::cast_precision_loss, reason = "no command prints 52 bits of bytes")]
    let printed = end.printed as f64;
    let slowed = end.exit.is_none() && printed > rate * end.ran.as_secs_f64() * limits::MET_RATE;
    slowed.then(|| {
        format!(
            "it printed {} MiB, as fast as the sandbox's limit of {} bytes a second lets it",
            end.printed >> 20,
            shown_cap(rate)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn map<V: Copy>(pairs: &[(Cap, V)]) -> BTreeMap<String, V> {
        pairs
            .iter()
            .map(|(cap, value)| (cap.rest_name().to_owned(), *value))
            .collect()
    }

    fn report(used: &[(Cap, f64)], met: &[(Cap, u64)]) -> LimitsReport {
        LimitsReport {
            limits: map(&[
                (Cap::MemoryMb, 64.0),
                (Cap::DiskMb, 40.0),
                (Cap::Inodes, 1000.0),
                (Cap::Pids, 32.0),
                (Cap::OpenFiles, 99.0),
                (Cap::OutputBytesPerS, 1000.0),
            ]),
            used: map(used),
            met: map(met),
            ..LimitsReport::default()
        }
    }

    fn exit(code: i32, said: &str) -> End {
        End {
            exit: Some(ExitStatus {
                exit_code: code,
                exited: code >= 0,
                status: if code < 0 {
                    "signal: killed".into()
                } else {
                    format!("exit status {code}")
                },
                error: None,
            }),
            said: said.to_lowercase(),
            printed: 10,
            ran: Duration::from_secs(1),
        }
    }

    fn named(report: &LimitsReport, end: &End) -> Option<&'static str> {
        explain(report, end).map(|error| error.limit.map_or("", |limit| limit.name))
    }

    #[test]
    fn what_was_counted_is_named() {
        let counted = |memory, pids| report(&[], &[(Cap::MemoryMb, memory), (Cap::Pids, pids)]);
        assert_eq!(named(&counted(1, 0), &exit(137, "")), Some("memory_mb"));
        assert_eq!(named(&counted(1, 0), &exit(2, "make: Killed")), Some("memory_mb"));
        assert_eq!(
            named(&counted(1, 0), &exit(1, "No space left on device")),
            Some("disk_mb"),
            "that is why"
        );
        assert_eq!(named(&counted(0, 3), &exit(-1, "")), Some("pids"));
        assert_eq!(
            named(&counted(0, 0), &exit(1, "fork: Resource temporarily unavailable")),
            None,
            "counted: not so"
        );
        let error = explain(&counted(2, 0), &exit(137, "")).unwrap();
        assert!(
            error.message.contains("2 processes were ended") && error.message.contains("64 MiB"),
            "{error:?}"
        );
        assert!(error.hint.unwrap().contains("memory_mb"));
    }

    #[test]
    fn what_is_not_counted_is_named_by_what_programs_say() {
        let nothing = report(&[], &[]);
        let said = |text| named(&nothing, &exit(1, text));
        assert_eq!(
            said("bash: fork: retry: Resource temporarily unavailable"),
            Some("pids")
        );
        assert_eq!(said("RuntimeError: can't start new thread"), Some("pids"));
        assert_eq!(said("read: Resource temporarily unavailable"), None);
        assert_eq!(said("OSError: [Errno 24] Too many open files"), Some("open_files"));
        assert_eq!(said("no such file"), None);
        assert_eq!(named(&nothing, &exit(153, "")), Some("disk_mb"));
    }

    #[test]
    fn a_full_disk_is_told_from_full_inodes_and_shared_memory() {
        let full = |disk, inodes| report(&[(Cap::DiskMb, disk), (Cap::Inodes, inodes)], &[]);
        let nospace = exit(1, "cp: No space left on device");
        assert_eq!(named(&full(40.0, 5.0), &nospace), Some("disk_mb"));
        assert_eq!(named(&full(1.0, 5.0), &nospace), Some("disk_mb"), "it was freed again");
        assert_eq!(named(&full(1.0, 1000.0), &nospace), Some("inodes"));
        let shm = LimitsReport {
            shm_free: Some(0),
            ..full(1.0, 5.0)
        };
        assert_eq!(named(&shm, &nospace), Some("memory_mb"));
        assert_eq!(
            named(&full(40.0, 5.0), &exit(135, "")),
            Some("disk_mb"),
            "a mapped file that found no room"
        );
        assert_eq!(named(&full(1.0, 5.0), &exit(135, "")), None);
        assert_eq!(
            named(&full(40.0, 1000.0), &exit(1, "no match")),
            None,
            "full, but not why it failed"
        );
    }

    #[test]
    fn a_flood_is_told_where_it_took_the_time() {
        let flood = |printed, exit: Option<i32>| End {
            printed,
            exit: exit.map(|code| self::exit(code, "").exit.unwrap()),
            ..self::exit(0, "")
        };
        assert_eq!(named(&report(&[], &[]), &flood(990, None)), Some("output_bytes_per_s"));
        assert_eq!(named(&report(&[], &[]), &flood(100, None)), None);
        assert_eq!(named(&report(&[], &[]), &flood(990, Some(1))), None);
    }
}
