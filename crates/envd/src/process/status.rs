//! How an end is told: in the words of Go's `os.ProcessState`, which envd's clients know.

use rustix::process::WaitStatus;
use sandhold_wire::proto::process::process_event::EndEvent;

/// Bit of a wait status that tells of a core file.
const CORE: i32 = 0x80;

/// The end event of a wait status.
pub(crate) fn end_event(status: WaitStatus) -> EndEvent {
    let (exit_code, exited, status) = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, true, format!("exit status {code}")),
        (None, Some(signal)) => {
            let core = if status.as_raw() & CORE != 0 {
                " (core dumped)"
            } else {
                ""
            };
            (-1, false, format!("signal: {}{core}", signal_name(signal)))
        }
        (None, None) => (-1, false, format!("wait status {:#x}", status.as_raw())),
    };
    EndEvent {
        exit_code,
        exited,
        error: (exit_code != 0).then(|| status.clone()),
        status,
        ..EndEvent::default()
    }
}

/// Go's names of Linux's signals.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        16 => "stack fault",
        17 => "child exited",
        18 => "continued",
        19 => "stopped (signal)",
        20 => "stopped",
        21 => "stopped (tty input)",
        22 => "stopped (tty output)",
        23 => "urgent I/O condition",
        24 => "CPU time limit exceeded",
        25 => "file size limit exceeded",
        26 => "virtual timer expired",
        27 => "profiling timer expired",
        28 => "window changed",
        29 => "I/O possible",
        30 => "power failure",
        31 => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_gos() {
        assert_eq!(signal_name(9), "killed");
        assert_eq!(signal_name(31), "bad system call");
        assert_eq!(signal_name(40), "signal 40");
    }
}
