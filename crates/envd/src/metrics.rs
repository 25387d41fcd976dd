//! `GET /metrics`: what the sandbox uses, as far as it can be seen from inside.
//!
//! Where the sandbox sees its own cgroup the numbers are the cgroup's, else the machine's.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State as Shared;
use axum::response::Response;
use http::StatusCode;
use sandhold_wire::rest::EnvdMetrics;

use crate::error::json;
use crate::state::State;

/// Processor time at the last look, so that the next one can tell the share used since.
#[derive(Debug, Default)]
pub(crate) struct LastLook(Mutex<Option<(Instant, u64)>>);

/// The handler.
pub(crate) async fn get(Shared(state): Shared<Arc<State>>) -> Response {
    json(StatusCode::OK, &look(&state))
}

fn look(state: &State) -> EnvdMetrics {
    let cpu_count = cpu_count();
    let (mem_total, mem_used, mem_cache) = memory();
    let (disk_used, disk_total) = disk();
    let (inodes_used, inodes_total) = inodes();
    let shm_free = rustix::fs::statvfs("/dev/shm")
        .ok()
        .map(|fs| fs.f_bfree.saturating_mul(fs.f_frsize));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EnvdMetrics {
        ts: now.as_secs().try_into().unwrap_or(i64::MAX),
        cpu_count,
        cpu_used_pct: cpu_used(state, cpu_count),
        mem_total,
        mem_used,
        mem_cache,
        disk_used,
        disk_total,
        inodes_used,
        inodes_total,
        shm_free,
        jobs: state.processes.running_jobs() as u64,
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// A line `name 123` or `name: 123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix([' ', ':']))?;
    let mut words = line.split_whitespace();
    let n: u64 = words.next()?.parse().ok()?;
    Some(if words.next() == Some("kB") { n << 10 } else { n })
}

fn cpu_count() -> f64 {
    let quota = read("/sys/fs/cgroup/cpu.max").and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    let all =
        std::thread::available_parallelism().map_or(1.0, |n| f64::from(u32::try_from(n.get()).unwrap_or(u32::MAX)));
    quota.map_or(all, |q| q.min(all))
}

/// Microseconds of processor time used so far.
fn cpu_micros() -> Option<u64> {
    if let Some(text) = read("/sys/fs/cgroup/cpu.stat") {
        return field(&text, "usage_usec");
    }
    let text = read("/proc/stat")?;
    let ticks: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms wherever /proc/stat is read.
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(ticks.iter().take(8).sum::<u64>().saturating_sub(idle) * 10_000)
}

fn cpu_used(state: &State, count: f64) -> f64 {
    let Some(used) = cpu_micros() else { return 0.0 };
    let now = Instant::now();
    let before = state
        .cpu
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace((now, used));
    // The first look has nothing to compare with.
    let (since, used) = match before {
        Some((then, before)) => (now - then, used.saturating_sub(before)),
        None => return 0.0,
    };
    let available = since.as_secs_f64() * 1e6 * count;
    if available < 1.0 {
        return 0.0;
    }
    let percent = micros(used) / available * 100.0;
    (percent.clamp(0.0, 100.0) * 100.0).round() / 100.0
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds since a look fit 52 bits for a century"
)]
fn micros(n: u64) -> f64 {
    n as f64
}

/// Bytes of memory that all of the sandbox may use: what the daemon was `told`, or what it sees, where that is less;
/// `None`: neither is known.
pub(crate) fn memory_limit(told: Option<u64>) -> Option<u64> {
    let seen = Some(memory().0).filter(|limit| *limit > 0);
    told.into_iter().chain(seen).min()
}

/// Total, used and cached bytes.
fn memory() -> (u64, u64, u64) {
    let machine = read("/proc/meminfo").unwrap_or_default();
    let total = field(&machine, "MemTotal").unwrap_or_default();
    if let Some(current) = number("/sys/fs/cgroup/memory.current") {
        let limit = number("/sys/fs/cgroup/memory.max").map_or(total, |max| max.min(total));
        let cache = read("/sys/fs/cgroup/memory.stat")
            .and_then(|s| field(&s, "file"))
            .unwrap_or_default();
        return (limit, current.saturating_sub(cache), cache);
    }
    let free = field(&machine, "MemFree").unwrap_or_default();
    let cache = field(&machine, "Cached").unwrap_or_default() + field(&machine, "Buffers").unwrap_or_default();
    (total, total.saturating_sub(free).saturating_sub(cache), cache)
}

/// Used and total bytes of the root file system.
fn disk() -> (u64, u64) {
    rustix::fs::statvfs("/").map_or((0, 0), |fs| {
        let size = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
        (size(fs.f_blocks.saturating_sub(fs.f_bfree)), size(fs.f_blocks))
    })
}

/// What the root file system holds at most, to be told when it is full.
pub(crate) fn room() -> String {
    let ((_, bytes), (_, files)) = (disk(), inodes());
    match files {
        0 => format!(" (the disk holds {} MiB)", bytes >> 20),
        _ => format!(" (the disk holds {} MiB and {files} files and folders)", bytes >> 20),
    }
}

/// Used and total files and folders of the root file system.
fn inodes() -> (u64, u64) {
    rustix::fs::statvfs("/").map_or((0, 0), |fs| (fs.f_files.saturating_sub(fs.f_ffree), fs.f_files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "MemTotal:       16 kB\nMemFree: 2 kB\nusage_usec 77\nfile_mapped 1\nfile 5\n";
        assert_eq!(field(text, "MemTotal"), Some(16 << 10));
        assert_eq!(field(text, "usage_usec"), Some(77));
        assert_eq!(field(text, "file"), Some(5));
        assert_eq!(field(text, "Mem"), None);
    }

    #[test]
    fn a_look_is_plausible() {
        let state = State::new(sandhold_wire::boot::BootSpec::default());
        look(&state);
        let seen = look(&state);
        assert!(
            seen.cpu_count > 0.0 && (0.0..=100.0).contains(&seen.cpu_used_pct),
            "{seen:?}"
        );
        assert!(seen.mem_used > 0 && seen.mem_used <= seen.mem_total, "{seen:?}");
        assert!(seen.disk_used <= seen.disk_total && seen.disk_total > 0, "{seen:?}");
    }
}
