//! Ending what is left of a shell's session: programs that go on although their terminal is gone.

use std::time::Duration;

use sandhold_client::{CommandEvent, CommandRequest, Commands, Error};

/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// What is kept of the script's answer: one number.
const ANSWER: usize = 32;
/// For how many tenths of a second programs may still end by themselves.
const LOOKS: &str = "10";

/// Waits until no process is left in the session `$1`, at most `$2` tenths of a second, and kills those that are. Prints how
/// many those were, and exits with 1 where some could not be killed.
const END: &str = r#"session=$1 looks=$2
left() {
  found=
  for file in /proc/[0-9]*/stat; do
    { read -r stat < "$file"; } 2>/dev/null || continue
    set -- ${stat##*) }
    [ "$4" = "$session" ] || continue
    case $1 in Z|X) continue ;; esac
    file=${file#/proc/}
    found="$found ${file%/stat}"
  done
  [ -n "$found" ]
}
while left && [ "$looks" -gt 0 ]; do
  sleep 0.1
  looks=$((looks - 1))
done
killed=0 failed=0
# Some may start others before they are killed themselves.
for round in 1 2 3; do
  left || break
  for pid in $found; do
    if kill -s KILL "$pid" 2>/dev/null; then killed=$((killed + 1)); else failed=1; fi
  done
  sleep 0.05
done
left || failed=0
echo $killed
exit $failed"#;

/// What became of the programs that did not end with their shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// So many were killed, and none is left.
    Killed(u32),
    /// Some may go on: they could not be looked for or not be killed.
    Unknown,
}

/// Ends what is left of the session that the process `leader` led.
pub(super) async fn end(commands: &Commands, leader: u32) -> Rest {
    // Session 0 is what the kernel calls all that are not the sandbox's own.
    if leader == 0 {
        return Rest::Unknown;
    }
    // Programs that were started with sudo are root's.
    let run = async {
        match ask(commands, leader, Some("root")).await {
            Err(Error::Unauthenticated(_)) => ask(commands, leader, None).await,
            other => other,
        }
    };
    match tokio::time::timeout(DEADLINE, run).await {
        Ok(Ok(rest)) => rest,
        // With the sandbox everything in it has ended.
        Ok(Err(Error::SandboxNotFound { .. })) => Rest::Killed(0),
        Ok(Err(error)) => {
            tracing::debug!(%error, "what is left of a shell's session could not be looked for");
            Rest::Unknown
        }
        Err(_) => Rest::Unknown,
    }
}

async fn ask(commands: &Commands, leader: u32, user: Option<&str>) -> Result<Rest, Error> {
    let mut process = commands.start(request(leader, user)).await?;
    let mut printed = Vec::new();
    while let Some(event) = process.next().await {
        match event? {
            CommandEvent::Stdout(data) if printed.len() + data.len() <= ANSWER => printed.extend_from_slice(&data),
            CommandEvent::Exited(exit) if exit.exited && exit.exit_code == 0 => return Ok(read(&printed)),
            CommandEvent::Exited(_) => break,
            _ => {}
        }
    }
    Ok(Rest::Unknown)
}

fn request(leader: u32, user: Option<&str>) -> CommandRequest {
    CommandRequest {
        cmd: "/bin/sh".into(),
        args: ["-c", END, "sh", &leader.to_string(), LOOKS].map(Into::into).into(),
        cwd: Some("/".into()),
        user: user.map(Into::into),
        timeout: Some(DEADLINE),
        ..CommandRequest::default()
    }
}

fn read(printed: &[u8]) -> Rest {
    let number = std::str::from_utf8(printed)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    number.map_or(Rest::Unknown, Rest::Killed)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    fn ended(leader: u32) -> Rest {
        let request = request(leader, None);
        let output = Command::new(request.cmd).args(request.args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        read(&output.stdout)
    }

    #[test]
    fn kills_what_ignores_the_end_of_its_terminal_and_nothing_else() {
        // A session of its own whose leader ends at once, and another that the same program began.
        let script = r#"(trap "" HUP; exec sleep 502) & echo $!
            setsid sleep 503 & echo $!
            echo $$"#;
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(leader.stdout.take().unwrap()).lines().take(3);
        let pids: Vec<u32> = lines.map(|line| line.unwrap().parse().unwrap()).collect();
        leader.wait().unwrap();
        let [ignoring, other, session] = pids[..] else {
            panic!("{pids:?}")
        };
        // Its parent may not look: a zombie has ended too.
        let runs = |pid: u32| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with(['Z', 'X']))
        };
        assert!(runs(ignoring) && runs(other));
        assert_eq!(ended(session), Rest::Killed(1));
        assert!(!runs(ignoring) && runs(other));
        assert_eq!(ended(session), Rest::Killed(0));
        Command::new("kill").arg(other.to_string()).status().unwrap();
    }

    #[test]
    fn only_a_number_is_an_answer() {
        assert_eq!(read(b"3\n"), Rest::Killed(3));
        for other in [&b""[..], b"x", b"-1", b"1 2", b"99999999999"] {
            assert_eq!(read(other), Rest::Unknown, "{other:?}");
        }
    }
}
