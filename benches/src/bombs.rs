//! What a sandbox notices of another one that takes all it can get: the slowest calls of the one while the other's
//! programs run, beside the same calls with nothing else going on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sandhold_tests::mcp::Server;
use serde_json::{Value, json};

use crate::{Aim, envd::shown, stats::Times};

/// How long nothing goes on, and how long each bomb does.
const IDLE: Duration = Duration::from_secs(4);
const EACH: Duration = Duration::from_millis(2500);
/// A bomb gets so long to come to its full size.
const BEGIN: Duration = Duration::from_millis(300);
/// What a slowest call may take of the idle one's time.
const MOST: f64 = 3.0;
/// Limits of the sandbox that is bombed: those of a small machine.
const LIMITS: &str = "output_bytes_per_s=33554432";

/// Names and commands. Each goes on until it is ended from outside.
const BOMBS: [(&str, &str); 11] = [
    (
        "processors: 8 loops",
        "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait",
    ),
    (
        "processes: a fork bomb",
        "bomb() { bomb | bomb & }; while :; do bomb; sleep 0.1; done",
    ),
    (
        "threads",
        "while :; do python3 -c 'import threading, time
while True: threading.Thread(target=time.sleep, args=(5,), daemon=True).start()'; done",
    ),
    (
        "anonymous memory",
        "while :; do python3 -c 'held = []
while True: held.append(bytearray(b\"x\") * (4 << 20))'; done",
    ),
    (
        "memory in files of nobody",
        "while :; do python3 -c 'import os
while True: os.write(os.memfd_create(\"x\"), b\"x\" * (8 << 20))'; done",
    ),
    ("the disk", "while :; do head -c 2G /dev/zero > big; rm big; done"),
    (
        "files and folders",
        "while :; do python3 -c 'import os
os.makedirs(\"many\", exist_ok=True)
for n in range(300000): os.mkdir(f\"many/{n}\")'; rm -rf many; done",
    ),
    (
        "descriptors",
        "while :; do python3 -c 'import os
while True: os.open(\"/dev/null\", 0)'; done",
    ),
    (
        "sockets",
        "while :; do python3 -c 'import socket
held = []
while True:
    held.append(socket.socketpair()); held[-1][0].setblocking(False)
    try:
        while True: held[-1][0].send(b\"x\" * 65536)
    except BlockingIOError: pass'; done",
    ),
    ("output", "yes"),
    ("output, of many", "for i in 1 2 3 4 5 6 7 8; do yes & done; wait"),
];

/// The calls that are measured, and how long each took.
#[derive(Default)]
struct Calls {
    command: Times,
    read: Times,
}

impl Calls {
    fn measure(server: &mut Server, sandbox: &str, time: Duration) -> Result<Self> {
        let mut calls = Self::default();
        let end = Instant::now() + time;
        let command = json!({"sandbox_id": sandbox, "cmd": "true"});
        let read = json!({"sandbox_id": sandbox, "path": "small"});
        while Instant::now() < end {
            let said = calls.command.measure(|| server.call("run_command", &command))?;
            ensure!(said["exit_code"] == 0, "run_command answered {}", shown(&said));
            let said = calls.read.measure(|| server.call("read_file", &read))?;
            ensure!(said["ok"] == true, "read_file answered {}", shown(&said));
        }
        Ok(calls)
    }

    fn row(&self, name: &str) {
        let [a, b] = [&self.command, &self.read].map(|times| (times.median(), times.percentile(99)));
        println!(
            "  {name:<28} {:>6} {:>10.3} {:>10.3} {:>10.3} {:>10.3}",
            self.command.len(),
            a.0,
            a.1,
            b.0,
            b.1
        );
    }
}

fn id(made: &Value) -> Result<String> {
    Ok(made["sandbox_id"].as_str().context("no sandbox_id")?.to_owned())
}

/// Measures one after the other.
pub(crate) fn bombs(aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    let quiet = id(&server.call("create_sandbox", &json!({"timeout_s": 600}))?)?;
    server.call(
        "write_file",
        &json!({"sandbox_id": quiet, "path": "small", "content": "x".repeat(1024)}),
    )?;
    Calls::measure(&mut server, &quiet, Duration::from_millis(500))?;
    let idle = Calls::measure(&mut server, &quiet, IDLE)?;
    println!(
        "\nCalls in a sandbox while another one takes all it can get\n  {:<28} {:>6} {:>10} {:>10} {:>10} {:>10}",
        "", "n", "true p50", "p99 ms", "read p50", "p99 ms"
    );
    idle.row("nothing else goes on");
    let mut worst = [("", 0.0), ("", 0.0)];
    for (name, cmd) in BOMBS {
        let asked = json!({"timeout_s": 600, "memory_mb": 512, "limits": LIMITS});
        let bombed = id(&server.call("create_sandbox", &asked)?)?;
        server.call("run_command_bg", &json!({"sandbox_id": bombed, "cmd": cmd}))?;
        std::thread::sleep(BEGIN);
        let calls = Calls::measure(&mut server, &quiet, EACH)?;
        server.call("shutdown_sandbox", &json!({"sandbox_id": bombed}))?;
        calls.row(name);
        let ratios = [
            calls.command.percentile(99) / idle.command.percentile(99),
            calls.read.percentile(99) / idle.read.percentile(99),
        ];
        for (worst, ratio) in worst.iter_mut().zip(ratios) {
            if ratio > worst.1 {
                *worst = (name, ratio);
            }
        }
    }
    server.close()?;
    for ((bomb, got), what) in worst.into_iter().zip(["run_command `true`", "read_file of 1 KiB"]) {
        aims.push(Aim {
            what: format!("{what}, p99 beside the worst bomb ({bomb}), of idle"),
            got,
            most: MOST,
            unit: "×",
        });
    }
    Ok(())
}
