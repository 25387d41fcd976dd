//! The same by programs of the sandbox, where the server cannot: `sh`, and for HTTP `python3` or `curl`.

mod curl;

use std::{collections::HashMap, time::Instant};

use bytes::Bytes;
use sandhold_wire::services::{
    Busy, FailureKind, Listener, Ports, Probe, ProbeAnswer, ProbeFailure, Probed, Readiness, listening_sockets,
};

use super::{HttpRequest, ReadyQuery, Services, either, millis};
use crate::{
    Commands, Error,
    commands::{Helper, Printed},
    limits,
};

/// Prints the tables of sockets, then three lines for each process that has sockets: its state, their inodes, its command;
/// then the busiest processes. The parts are divided by `---`.
const PORTS: &str = r#"cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
echo ---
for d in /proc/[0-9]*; do
  s=$(ls -l "$d/fd" 2>/dev/null | sed -n 's/.*-> socket:\[\([0-9]*\)\]$/\1/p' | tr '\n' ' ')
  [ -n "$s" ] || continue
  tr '\n' ' ' <"$d/stat" 2>/dev/null
  printf '\n%s\n' "$s"
  tr '\0\n' '  ' <"$d/cmdline" 2>/dev/null | head -c 300
  echo
done
echo ---
[ "$1" = 0 ] || ps -eo pid,pcpu,rss,args --sort=-pcpu 2>/dev/null | sed 1d | head -n "$1" | cut -c 1-400"#;

/// Ends with 0 once something listens on the port (`$1`, in hexadecimal), with 45 after so many whole seconds (`$2`).
const LISTENS: &str = r#"end=$(($(date +%s)+$2+1))
until grep -qE "^ *[0-9]+: [0-9A-F]+:$1 [0-9A-F:]+ 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null; do
  [ "$(date +%s)" -lt "$end" ] || exit 45
  sleep 0.02
done"#;

/// Exit code of the script without the program.
const ABSENT: i32 = 44;
const PYTHON: &str = r#"command -v python3 >/dev/null || exit 44
exec python3 -c "$2" "$1""#;
const PROGRAM: &str = include_str!("probe.py");

impl Services {
    async fn run(&self, helper: Helper<'_>) -> Result<Printed, Error> {
        Commands {
            envd: self.envd.clone(),
        }
        .help(helper)
        .await
    }

    pub(super) async fn ports_by_command(&self, only: Option<u16>, busiest: usize) -> Result<Ports, Error> {
        let mut ports = match self.ports_as(Some("root"), only, busiest).await {
            // There may be no way to become root.
            Err(Error::Unauthenticated(_)) => self.ports_as(None, only, busiest).await?,
            ports => ports?,
        };
        // Descriptors are shown to their owner, and to a root that has not given up that right.
        if ports.listening.iter().any(|listener| listener.pid.is_none()) {
            let shown = self.ports_as(None, only, 0).await?.listening;
            for listener in ports.listening.iter_mut().filter(|listener| listener.pid.is_none()) {
                if let Some(found) = shown.iter().find(|found| found.port == listener.port) {
                    listener.clone_from(found);
                }
            }
        }
        Ok(ports)
    }

    async fn ports_as(&self, user: Option<&str>, only: Option<u16>, busiest: usize) -> Result<Ports, Error> {
        let printed = self
            .run(Helper {
                script: PORTS,
                args: vec![busiest.to_string()],
                user,
                input: Bytes::new(),
                timeout: limits::SEARCH_TIMEOUT,
                max_stdout: limits::PORTS_ANSWER,
            })
            .await?;
        let mut ports = read_ports(&String::from_utf8_lossy(&printed.stdout));
        if let Some(port) = only {
            ports.listening.retain(|listener| listener.port == port);
        }
        Ok(ports)
    }

    pub(super) async fn ready_by_command(&self, query: &ReadyQuery) -> Result<Readiness, Error> {
        let start = Instant::now();
        let waited = |ready| Readiness {
            waited_ms: millis(start.elapsed()),
            ..ready
        };
        let helper = Helper {
            script: LISTENS,
            args: vec![format!("{:04X}", query.port), query.timeout.as_secs().to_string()],
            user: None,
            input: Bytes::new(),
            timeout: query.timeout + limits::HEALTH_TIMEOUT,
            max_stdout: limits::ERROR_BODY,
        };
        // One look takes a while from afar; the script ends by itself.
        let patience = query.timeout.max(limits::HEALTH_TIMEOUT);
        match tokio::time::timeout(patience, self.run(helper)).await {
            Ok(printed) if printed.as_ref().is_ok_and(|printed| printed.exit_code == 0) => {}
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) | Err(_) => return Ok(waited(Readiness::default())),
        }
        let left = patience.saturating_sub(start.elapsed());
        let time = query.patience.min(left);
        let request = HttpRequest {
            method: "GET".into(),
            url: format!("http://localhost:{}{}", query.port, query.path),
            headers: Vec::new(),
            body: String::new(),
            timeout: time,
            max_body: 1,
        };
        let (ready, http_status) = match self.http(&request).await? {
            Ok(answer) => (true, Some(answer.status)),
            Err(failure) if failure.kind == FailureKind::Invalid => {
                return Err(Error::InvalidArgument(failure.message));
            }
            // All the patience that was asked for, and not only what was left of the time.
            Err(failure) if failure.kind == FailureKind::Timeout => (time < left, None),
            // It listens, and does not speak HTTP, or there is nothing to speak it with.
            Err(_) => (true, None),
        };
        Ok(waited(Readiness {
            ready,
            accepts: true,
            http_status,
            waited_ms: 0,
        }))
    }

    pub(super) async fn http_by_command(&self, probe: &Probe) -> Result<Result<ProbeAnswer, ProbeFailure>, Error> {
        let asked = serde_json::to_vec(probe)
            .map_err(|error| Error::InvalidArgument(format!("the request cannot be written as JSON: {error}")))?;
        let printed = self
            .run(Helper {
                script: PYTHON,
                args: vec![asked.len().to_string(), PROGRAM.into()],
                user: None,
                input: asked.into(),
                timeout: limits::SERVICE_TIME + limits::HEALTH_TIMEOUT,
                max_stdout: limits::PROBE_ANSWER,
            })
            .await?;
        if printed.exit_code == ABSENT {
            return self.http_by_curl(probe).await;
        }
        let probed: Probed = serde_json::from_slice(&printed.stdout).map_err(|error| {
            Error::Protocol(format!(
                "python3 in the sandbox did not make the request: {error}: {}",
                printed.stderr
            ))
        })?;
        either(probed)
    }
}

pub(crate) fn read_ports(text: &str) -> Ports {
    let mut parts = text.split("---\n");
    let mut part = || parts.next().unwrap_or_default();
    let (tables, processes, busiest) = (part(), part(), part());
    let mut holders: HashMap<u64, (&str, &str)> = HashMap::new();
    let lines: Vec<&str> = processes.lines().collect();
    for process in lines.chunks_exact(3) {
        for inode in process[1].split_whitespace().filter_map(|word| word.parse().ok()) {
            holders.entry(inode).or_insert((process[0], process[2].trim()));
        }
    }
    let mut sockets = listening_sockets(tables, limits::PORTS);
    sockets.sort_by_key(|socket| (socket.port, socket.address));
    let mut listening: Vec<Listener> = Vec::new();
    for socket in sockets {
        let address = socket.address.to_string();
        match listening.last_mut().filter(|last| last.port == socket.port) {
            Some(last) if last.addresses.contains(&address) => {}
            Some(last) => last.addresses.push(address),
            None => {
                let (stat, command) = holders.get(&socket.inode).copied().unwrap_or_default();
                listening.push(Listener {
                    port: socket.port,
                    addresses: vec![address],
                    pid: stat.split(' ').next().and_then(|pid| pid.parse().ok()),
                    session: stat
                        .rsplit_once(')')
                        .and_then(|(_, rest)| rest.split_whitespace().nth(3)?.parse().ok()),
                    command: command.to_owned(),
                });
            }
        }
    }
    Ports {
        listening,
        busiest: busiest.lines().filter_map(busy).collect(),
    }
}

/// `pid pcpu rss args`
fn busy(line: &str) -> Option<Busy> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(word)
    };
    let (pid, cpu, rss) = (word()?, word()?, word()?);
    Some(Busy {
        pid: pid.parse().ok()?,
        // "inf" and "NaN" are read as numbers too, which JSON has none for.
        cpu_pct: cpu.parse().ok().filter(|pct: &f64| pct.is_finite())?,
        memory: rss.parse::<u64>().ok()?.saturating_mul(1024),
        command: rest.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_prints_is_read() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0  1000 0 4711 1\n\
            \x20  0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0  1000 0 4712 1\n\
            \x20  1: 00000000:0050 00000000:0000 0A 0:0 0:0 0 0 0 99 1\n\
            ---\n\
            12 (a (b) S 1 12 7 0 -1 4194560 \n4000 4711 4712 \npython3 -m http.server \n\
            ---\n\
            \x20  12  3.5 10240 python3 -m http.server 8080\n    1  0.0   100 [init]\nnot a line\n\
            \x20  13  inf 1 a b\n  14  NaN 1 a b\n";
        let ports = read_ports(text);
        let seen = |l: &Listener| (l.port, l.addresses.len(), l.pid, l.session, l.command.clone());
        let found: Vec<_> = ports.listening.iter().map(seen).collect();
        assert_eq!(
            found,
            [
                (80, 1, None, None, String::new()),
                (8080, 2, Some(12), Some(7), "python3 -m http.server".into())
            ]
        );
        assert_eq!(ports.busiest.len(), 2);
        assert_eq!(
            ports.busiest[0],
            Busy {
                pid: 12,
                cpu_pct: 3.5,
                memory: 10 << 20,
                command: "python3 -m http.server 8080".into()
            }
        );
        assert_eq!(read_ports(""), Ports::default());
    }
}
