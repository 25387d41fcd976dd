//! What `/proc` says of processes, as text, and the answers of `/sandhold/processes` and `/sandhold/kill`, which are ours.

use serde::{Deserialize, Serialize};

use crate::limits::PROCESS_COMMAND;

/// Ticks of a second in `/proc/<pid>/stat`, on every architecture that Linux shows to programs.
pub const TICKS_PER_SECOND: u32 = 100;

/// One process of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its id inside the sandbox.
    pub pid: u32,
    /// The id of its parent; 0 when that is outside.
    pub ppid: u32,
    /// Name of its user, or the number where there is none.
    pub user: String,
    /// Percent of one processor, right now.
    pub cpu: f64,
    /// Bytes of memory that are its own or shared with others.
    pub memory: u64,
    /// When it was started, in Unix seconds.
    pub started: i64,
    /// Its command line, cut to [`PROCESS_COMMAND`] bytes; `[name]` of one that has none.
    pub command: String,
}

/// Answer of `GET /sandhold/processes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessList {
    /// The processes, by their ids.
    pub processes: Vec<ProcessRow>,
    /// Whether there were more than fit.
    pub truncated: bool,
}

/// A signal that a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Asks it to end.
    Term,
    /// Ends it.
    Kill,
    /// Interrupts it, as Ctrl+C does.
    Int,
    /// Its terminal is gone.
    Hup,
    /// Ends it with a core dump.
    Quit,
    /// Of its own meaning.
    Usr1,
    /// Of its own meaning.
    Usr2,
    /// Halts it.
    Stop,
    /// Lets it go on.
    Cont,
}

impl Signal {
    /// `TERM`, `KILL`, …, as `kill -s` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Int => "INT",
            Self::Hup => "HUP",
            Self::Quit => "QUIT",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }

    /// Whether a process that does not handle it ends.
    #[must_use]
    pub const fn ends(self) -> bool {
        !matches!(self, Self::Stop | Self::Cont)
    }
}

/// Body of `POST /sandhold/kill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Which process.
    pub pid: u32,
    /// What it is sent.
    pub signal: Signal,
    /// How long its end is waited for; at most [`crate::limits::KILL_WAIT_MS`].
    #[serde(default)]
    pub wait_ms: u64,
}

/// Answer of `POST /sandhold/kill`: the signal was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillAnswer {
    /// Whether the process had ended when the wait was over.
    pub ended: bool,
}

/// What is read from a `/proc/<pid>/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its id.
    pub pid: u32,
    /// The name of its program, at most 15 bytes.
    pub name: String,
    /// It has ended and its parent has not looked.
    pub zombie: bool,
    /// Its parent.
    pub ppid: u32,
    /// Ticks of processor time used so far.
    pub used: u64,
    /// Ticks from the start of the machine to its own.
    pub started: u64,
}

impl Stat {
    /// Reads one line. The name may hold anything, even a parenthesis.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(')')?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.trim().parse().ok()?,
            name: name.to_owned(),
            zombie: matches!(words.first(), Some(&"Z" | &"X")),
            ppid: words.get(1)?.parse().ok()?,
            used: number(11)?.saturating_add(number(12)?),
            started: number(19)?,
        })
    }

    /// Percent of one processor that it used between two looks, with one digit.
    #[must_use]
    pub fn cpu_since(&self, before: Option<&Self>, seconds: f64) -> f64 {
        // What took the same id since is another process.
        let before = before.filter(|b| b.started == self.started).map_or(0, |b| b.used);
        let ticks = u32::try_from(self.used.saturating_sub(before)).unwrap_or(u32::MAX);
        // In less than a tick nothing is counted, and what the sandbox says of the time may be no number.
        if !seconds.is_finite() || seconds < 1.0 / f64::from(TICKS_PER_SECOND) {
            return 0.0;
        }
        let percent = f64::from(ticks) / f64::from(TICKS_PER_SECOND) / seconds * 100.0;
        (percent * 10.0).round() / 10.0
    }

    /// When it was started, in Unix seconds; `boot` is when the machine was.
    #[must_use]
    pub fn started_at(&self, boot: i64) -> i64 {
        let seconds = self.started / u64::from(TICKS_PER_SECOND);
        boot.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// Its command line as people read it; `cmdline` is the file of this name.
    #[must_use]
    pub fn command(&self, cmdline: &[u8]) -> String {
        let words = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
        if self.zombie {
            return format!("[{}] <defunct>", printable(self.name.as_bytes()));
        }
        if words.is_empty() {
            return format!("[{}]", printable(self.name.as_bytes()));
        }
        printable(words)
    }
}

/// Text of one line: what parts arguments, and what moves cursors, is a space.
fn printable(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(PROCESS_COMMAND)];
    let text = String::from_utf8_lossy(cut);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// When the machine was started, in Unix seconds, from `/proc/stat`.
#[must_use]
pub fn boot_time(stat: &str) -> Option<i64> {
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

/// The user id and the bytes of memory from a `/proc/<pid>/status`.
#[must_use]
pub fn user_and_memory(status: &str) -> (Option<u32>, u64) {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name)?.split_whitespace().next())
    };
    // The second number is the one that counts: it is whom the kernel takes the process for.
    let uid = status
        .lines()
        .find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok());
    let kib: u64 = field("VmRSS:").and_then(|n| n.parse().ok()).unwrap_or(0);
    (uid, kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "17 (a) b (c) S 3 17 17 0 -1 4194560 1 0 0 0 150 50 7 7 20 0 1 0 12345 2338816 300 1844\n";

    #[test]
    fn a_line_of_stat() {
        let stat = Stat::parse(LINE).unwrap();
        assert_eq!(
            (stat.pid, stat.ppid, stat.name.as_str(), stat.zombie),
            (17, 3, "a) b (c", false)
        );
        assert_eq!((stat.used, stat.started), (200, 12345));
        assert_eq!(stat.started_at(1000), 1123);
        for broken in ["", "17", "17 (x) S", "x (x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"] {
            assert_eq!(Stat::parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn shares_of_a_processor() {
        let now = Stat::parse(LINE).unwrap();
        let before = Stat {
            used: 190,
            ..now.clone()
        };
        let close = |a: f64, b: f64| (a - b).abs() < 0.01;
        assert!(close(now.cpu_since(Some(&before), 0.2), 50.0));
        for none in [0.0, -1.0, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY] {
            assert!(close(now.cpu_since(Some(&before), none), 0.0), "{none}");
        }
        let other = Stat { started: 1, ..before };
        assert!(
            close(now.cpu_since(Some(&other), 2.0), 100.0),
            "another process of this id"
        );
    }

    #[test]
    fn command_lines_are_one_line() {
        let mut stat = Stat::parse(LINE).unwrap();
        assert_eq!(stat.command(b"sh\0-c\0echo a\nb\x1b[2J\0"), "sh -c echo a b [2J");
        assert_eq!(stat.command(b""), "[a) b (c]");
        assert_eq!(stat.command(&[b'x'; 5000]).len(), PROCESS_COMMAND);
        stat.zombie = true;
        assert_eq!(stat.command(b""), "[a) b (c] <defunct>");
    }

    #[test]
    fn other_files() {
        assert_eq!(
            boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"),
            Some(1_700_000_000)
        );
        let status = "Name:\tx\nUid:\t0\t1000\t1000\t1000\nVmHWM:\t9 kB\nVmRSS:\t 12 kB\n";
        assert_eq!(user_and_memory(status), (Some(1000), 12 << 10));
        assert_eq!(user_and_memory("Name:\tkthread\n"), (None, 0));
    }
}
