//! What the operator watches: numbers of the whole server in the text format of Prometheus. They name no sandbox and no
//! owner, so no key is asked for them.

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering},
};

use axum::{extract::State, response::IntoResponse};
use http::header;
use sandhold_wire::rest::State as SandboxState;

use crate::sandboxes::Sandboxes;

/// `GET /metrics`
pub(crate) async fn metrics(State(sandboxes): State<Arc<Sandboxes>>) -> impl IntoResponse {
    let all = sandboxes.all();
    let running = all.iter().filter(|e| e.state() == SandboxState::Running).count();
    let totals = &sandboxes.totals;
    let mut text = String::with_capacity(2048);
    let mut put = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    put(
        "sandhold_sandboxes",
        "gauge",
        "Sandboxes there are now.",
        &[
            ("{state=\"running\"}", count(running)),
            ("{state=\"paused\"}", count(all.len() - running)),
        ],
    );
    for (name, help, counter) in [
        ("sandhold_sandboxes_created_total", "Sandboxes made.", &totals.created),
        ("sandhold_sandboxes_ended_total", "Sandboxes ended.", &totals.ended),
        ("sandhold_sandboxes_paused_total", "Pauses.", &totals.paused),
        ("sandhold_sandboxes_resumed_total", "Resumes.", &totals.resumed),
        ("sandhold_api_requests_total", "Calls of the API.", &totals.calls),
        (
            "sandhold_forwarded_requests_total",
            "Requests for sandboxes.",
            &totals.forwarded,
        ),
    ] {
        put(name, "counter", help, &[("", counter.load(Ordering::Relaxed))]);
    }
    put(
        "sandhold_paused_bytes",
        "gauge",
        "Bytes that the files of paused sandboxes take.",
        &[("", sandboxes.archives.used())],
    );
    put(
        "sandhold_kept_layer_bytes",
        "gauge",
        "Bytes that the layers of paused sandboxes and snapshots take, as they were counted last.",
        &[("", sandboxes.layering.used())],
    );
    if let Some(bytes) = resident() {
        put(
            "process_resident_memory_bytes",
            "gauge",
            "Memory of this process.",
            &[("", bytes)],
        );
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
}

/// Memory of this process in bytes (proc_pid_status(5)).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
