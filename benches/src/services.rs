//! Servers in a sandbox: how soon `start_service` tells that one listens, and what a request from inside costs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use sandhold_tests::mcp::Server;
use serde_json::json;

use crate::{Aim, Rounds, heading, row, stats::Times};

const PORT: u16 = 9000;
/// Says when it listens, on the clock that the sandbox and the host share.
const SERVER: &str = "exec python3 -c \"import http.server, time
s = http.server.ThreadingHTTPServer(('127.0.0.1', 9000), http.server.SimpleHTTPRequestHandler)
print(time.time_ns(), flush=True)
s.serve_forever()\"";

/// Measures both.
pub(crate) fn services(rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    let [mut ready, mut known, mut probe, mut curl] = std::array::from_fn(|_| Times::default());
    let with_curl = server.call("run_command", &json!({"cmd": "command -v curl"}))?["exit_code"] == 0;
    for round in 0..rounds.warm + rounds.create {
        if round == rounds.warm {
            for times in [&mut ready, &mut known, &mut probe, &mut curl] {
                times.clear();
            }
        }
        let started = server.call("start_service", &json!({"cmd": SERVER, "port": PORT}))?;
        let answered = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let job = started["job_id"].as_str().context("no job_id")?.to_owned();
        let printed = server.call("get_job_status", &json!({"job_id": job}))?;
        let printed = printed["stdout"].as_str().context("no stdout")?;
        let listened: u64 = printed
            .trim()
            .parse()
            .context("the server did not say when it listened")?;
        ready.push(answered.saturating_sub(Duration::from_nanos(listened)));
        known.measure(|| server.call("wait_for_service_ready", &json!({"port": PORT})))?;
        probe.measure(|| server.call("http_probe", &json!({"port": PORT})))?;
        if with_curl {
            let cmd = format!("curl -sS -i http://127.0.0.1:{PORT}/");
            curl.measure(|| server.call("run_command", &json!({"cmd": cmd})))?;
        }
        server.call("kill_job", &json!({"job_id": job}))?;
    }
    server.close()?;
    heading("Servers in a sandbox, over MCP");
    row("start_service: from listening to the answer", &ready);
    row("wait_for_service_ready, of one that listens", &known);
    row("http_probe of a page", &probe);
    if with_curl {
        row("run_command `curl` of the same", &curl);
    }
    aims.push(Aim {
        what: "start_service, after the server listens (p95)".to_owned(),
        got: ready.percentile(95),
        most: 20.0,
        unit: "ms",
    });
    Ok(())
}
