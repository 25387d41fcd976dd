//! All processes of a sandbox, also those that no client started.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use sandhold_wire::{
    limits::{KILL_WAIT_MS, PROCESSES},
    procfs::{KillAnswer, KillRequest, ProcessList, ProcessRow, Signal, Stat, boot_time, user_and_memory},
};

use super::{Commands, Helper, Printed};
use crate::{
    Error, limits,
    transport::{empty, full},
};

/// Exit codes of the script that signals.
const ABSENT: i32 = 44;
const REFUSED: i32 = 45;
const DAEMON: i32 = 46;
const REMAINS: i32 = 47;

/// Sections of [`LIST`]'s output before the command lines.
const SECTIONS: usize = 8;

/// Prints what `/proc` says, each part with a NUL after it: the script's own id, seconds, all `stat`s, then a moment later
/// seconds and `stat`s again, the machine's `stat`, the users, all `status`es. Last come pairs of a file's name and an argument.
const LIST: &str = r"printf '%s\0' $$
cat /proc/uptime; printf '\0'
grep -asH ^ /proc/[0-9]*/stat; printf '\0'
sleep 0.2
cat /proc/uptime; printf '\0'
grep -asH ^ /proc/[0-9]*/stat; printf '\0'
grep -a ^btime /proc/stat; printf '\0'
cat /etc/passwd; printf '\0'
grep -asHE '^(Uid|VmRSS):' /proc/[0-9]*/status; printf '\0'
grep -aszZH -m 64 '' /proc/[0-9]*/cmdline
exit 0";

/// Sends the signal `$2` to the process `$1` and looks `$3` times, a tenth of a second apart, whether it has ended.
const KILL: &str = r#"pid=$1 signal=$2 looks=$3
state() {
  state=
  while read -r name value rest; do [ "$name" = State: ] && state=$value; done 2>/dev/null < "/proc/$pid/status"
  case $state in ''|Z|X) return 1 ;; esac
}
state || exit 44
program=$(readlink "/proc/$pid/exe" 2>/dev/null)
case $pid,$program in 1,*|*/envd) exit 46 ;; esac
kill -s "$signal" "$pid" || exit 45
while [ "$looks" -gt 0 ]; do
  state || exit 0
  sleep 0.1
  looks=$((looks - 1))
done
exit 47"#;

impl Commands {
    /// All processes of the sandbox. Sandhold's envd reads `/proc` itself; elsewhere a script in the sandbox does.
    ///
    /// # Errors
    /// Those of the connection and of the sandbox; [`Error::Unsupported`] where the script's programs are missing.
    pub async fn processes(&self) -> Result<ProcessList, Error> {
        if !self.envd.no_processes.load(Ordering::Relaxed) {
            let request = self.envd.request(Method::GET, "/sandhold/processes", empty())?;
            if let Some(list) = self.envd.extension(request, limits::PROCESSES_ANSWER).await? {
                return Ok(list);
            }
            self.envd.no_processes.store(true, Ordering::Relaxed);
        }
        let Printed { stdout, stderr, .. } = self
            .help_as_root(|user| Helper {
                script: LIST,
                args: Vec::new(),
                user,
                input: Bytes::new(),
                timeout: limits::SCRIPT_TIMEOUT,
                max_stdout: limits::HELPER_STDOUT,
            })
            .await?;
        listed(&stdout).ok_or_else(|| Error::Unsupported(format!("the sandbox cannot list its processes: {stderr}")))
    }

    /// Sends a signal to any process of the sandbox and waits for its end, at most `wait`. Tells whether it has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such process, [`Error::InvalidArgument`] for the sandbox's first process and its
    /// daemon, [`Error::Server`] with status 403 where it belongs to a user that cannot be signalled.
    pub async fn kill(&self, pid: u32, signal: Signal, wait: Duration) -> Result<bool, Error> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).min(KILL_WAIT_MS);
        if !self.envd.no_processes.load(Ordering::Relaxed) {
            let body = serde_json::to_vec(&KillRequest { pid, signal, wait_ms })
                .map_err(|error| Error::InvalidArgument(format!("the request cannot be written as JSON: {error}")))?;
            let mut request = self.envd.request(Method::POST, "/sandhold/kill", full(body))?;
            request
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(KillAnswer { ended }) = self.envd.extension(request, limits::ERROR_BODY).await? {
                return Ok(ended);
            }
            self.envd.no_processes.store(true, Ordering::Relaxed);
        }
        let looks = if signal.ends() { wait_ms / 100 } else { 0 };
        let Printed { exit_code, stderr, .. } = self
            .help_as_root(|user| Helper {
                script: KILL,
                args: vec![pid.to_string(), signal.name().into(), looks.to_string()],
                user,
                input: Bytes::new(),
                timeout: limits::SCRIPT_TIMEOUT,
                max_stdout: limits::HELPER_STDERR,
            })
            .await?;
        match exit_code {
            0 => Ok(true),
            REMAINS => Ok(false),
            ABSENT => Err(Error::NotFound(format!("process with pid {pid} not found"))),
            DAEMON => Err(Error::InvalidArgument(format!(
                "process {pid} is the sandbox's first process or its daemon: with it the sandbox would end"
            ))),
            REFUSED if stderr.contains("No such process") => {
                Err(Error::NotFound(format!("process with pid {pid} not found")))
            }
            REFUSED => Err(Error::Server {
                status: 403,
                message: format!("process {pid} could not be signalled: {stderr}"),
            }),
            _ => Err(Error::Unsupported(format!(
                "the sandbox cannot signal processes: {stderr}"
            ))),
        }
    }

    /// Runs a script as root or, in a sandbox that has none, as its user.
    async fn help_as_root<'a>(&self, helper: impl Fn(Option<&'a str>) -> Helper<'a>) -> Result<Printed, Error> {
        match self.help(helper(Some("root"))).await {
            Err(Error::Unauthenticated(_)) => self.help(helper(None)).await,
            other => other,
        }
    }
}

/// Reads what [`LIST`] printed. `None` when it is not that.
pub(crate) fn listed(printed: &[u8]) -> Option<ProcessList> {
    let mut parts = printed.splitn(SECTIONS + 1, |b| *b == 0);
    let mut text = || parts.next().map(String::from_utf8_lossy);
    let own: u32 = text()?.trim().parse().ok()?;
    let mut look = || {
        let seconds: f64 = text()?.split_whitespace().next()?.parse().ok()?;
        let stats = lines(&text()?);
        let stats = stats
            .iter()
            .filter_map(|(pid, text)| Stat::parse(text).filter(|s| s.pid == *pid));
        Some((seconds, stats.collect::<Vec<_>>()))
    };
    let (first, before) = look()?;
    let (second, mut now) = look()?;
    let boot = boot_time(&text()?).unwrap_or(0);
    let users = users(&text()?);
    let statuses = lines(&text()?);
    let commands = commands(parts.next()?);

    let before: HashMap<u32, Stat> = before.into_iter().map(|s| (s.pid, s)).collect();
    // The script and what it runs are not part of the sandbox's work.
    now.retain(|s| s.pid != own && s.ppid != own);
    now.sort_unstable_by_key(|s| s.pid);
    let truncated = now.len() > PROCESSES;
    now.truncate(PROCESSES);
    let row = |stat: &Stat| {
        let (uid, memory) = statuses
            .get(&stat.pid)
            .map_or((None, 0), |status| user_and_memory(status));
        ProcessRow {
            pid: stat.pid,
            ppid: stat.ppid,
            user: uid.map_or_else(String::new, |uid| {
                users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
            }),
            cpu: stat.cpu_since(before.get(&stat.pid), second - first),
            memory,
            started: stat.started_at(boot),
            command: stat.command(commands.get(&stat.pid).map_or(b"", Vec::as_slice)),
        }
    };
    Some(ProcessList {
        processes: now.iter().map(row).collect(),
        truncated,
    })
}

fn users(passwd: &str) -> HashMap<u32, String> {
    let mut users = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(uid))) = (fields.next(), fields.nth(1).map(str::parse)) {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// `/proc/17/…` → 17.
fn pid_of(path: &str) -> Option<u32> {
    path.strip_prefix("/proc/")?.split('/').next()?.parse().ok()
}

/// What `grep -H` found in a file of each process: the name before every line shows where a name with a line break in it ends.
fn lines(found: &str) -> HashMap<u32, String> {
    let mut all: HashMap<u32, String> = HashMap::new();
    for line in found.lines() {
        if let Some((path, text)) = line.split_once(':')
            && let Some(pid) = pid_of(path)
        {
            let lines = all.entry(pid).or_default();
            lines.push_str(text);
            lines.push('\n');
        }
    }
    all
}

/// Arguments, each with a NUL after it as in the file `cmdline`, by process.
fn commands(mut found: &[u8]) -> HashMap<u32, Vec<u8>> {
    let mut all: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut take = || {
        let end = found.iter().position(|b| *b == 0)?;
        let part = &found[..end];
        found = &found[end + 1..];
        Some(part)
    };
    while let (Some(path), Some(argument)) = (take(), take()) {
        if let Some(pid) = std::str::from_utf8(path).ok().and_then(pid_of) {
            let command = all.entry(pid).or_default();
            command.extend_from_slice(argument);
            command.push(0);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn script(script: &str, args: &[&str]) -> std::process::Output {
        Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .args(args)
            .output()
            .unwrap()
    }

    #[test]
    fn the_script_lists_this_process() {
        let printed = script(LIST, &[]);
        let list = listed(&printed.stdout).unwrap();
        let own = list.processes.iter().find(|r| r.pid == std::process::id()).unwrap();
        let argument = std::env::args().next().unwrap();
        assert!(own.command.contains(argument.rsplit('/').next().unwrap()), "{own:?}");
        assert!(own.memory > 0 && own.started > 0 && !own.user.is_empty(), "{own:?}");
        assert!(
            !list.processes.iter().any(|r| r.command.contains("VmRSS")),
            "the script shows itself"
        );
    }

    #[test]
    fn the_script_ends_a_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().to_string();
        assert_eq!(script(KILL, &[&pid, "STOP", "0"]).status.code(), Some(REMAINS));
        assert_eq!(script(KILL, &[&pid, "CONT", "0"]).status.code(), Some(REMAINS));
        assert_eq!(script(KILL, &[&pid, "TERM", "50"]).status.code(), Some(0));
        let zombie = script(KILL, &[&pid, "TERM", "1"]);
        assert_eq!(zombie.status.code(), Some(ABSENT));
        child.wait().unwrap();
        assert_eq!(script(KILL, &[&pid, "TERM", "1"]).status.code(), Some(ABSENT));
        assert_eq!(script(KILL, &["1", "TERM", "1"]).status.code(), Some(DAEMON));
    }

    #[test]
    fn hostile_names_and_arguments_stay_in_their_place() {
        let line = |pid: u32, name: &str, used: u32| {
            let stat = format!("{pid} ({name}) S 1 1 1 0 -1 0 0 0 0 0 {used} 0 0 0 20 0 1 0 100 0 0");
            let lines = stat.lines().map(|l| format!("/proc/{pid}/stat:{l}\n"));
            lines.collect::<String>()
        };
        let printed = [
            "9",
            "10.0 5.0\n",
            &(line(5, "a", 0) + &line(6, "x", 0)),
            "10.5 5.0\n",
            &(line(5, "a", 25) + &line(6, "x) S\n5 (y", 50) + &line(9, "sh", 0)),
            "btime 1000\n",
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
            "/proc/5/status:Uid:\t0\t1000\t0\t0\n/proc/5/status:VmRSS:\t 2 kB\n/proc/6/status:Uid:\t7\t7\t7\t7\n",
            "/proc/5/cmdline\0sh\0/proc/5/cmdline\0/proc/6/cmdline\0/proc/5/cmdline\0rm\0",
        ]
        .join("\0");
        let list = listed(printed.as_bytes()).unwrap();
        assert_eq!(
            list.processes.iter().map(|r| r.pid).collect::<Vec<_>>(),
            [5, 6],
            "{list:?}"
        );
        let expected = ProcessRow {
            pid: 5,
            ppid: 1,
            user: "user".into(),
            cpu: 50.0,
            memory: 2048,
            started: 1001,
            command: "sh /proc/6/cmdline rm".into(),
        };
        assert_eq!(list.processes[0], expected);
        assert_eq!(list.processes[1].command, "[x) S 5 (y]");
        for broken in ["", "x", "1\x002"] {
            assert_eq!(listed(broken.as_bytes()), None, "{broken:?}");
        }
    }
}
