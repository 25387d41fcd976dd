//! What a sandbox used over the last hour.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;
use sandhold_runtime::{Met, Resources, RuntimeError, Sandbox, Usage};
use sandhold_wire::rest::{EnvdMetrics, SandboxMetric};
use tokio::time::Instant;

use crate::{
    daemon,
    limits::{MET_KEPT, METRICS_EVERY, METRICS_KEPT, METRICS_WATCHED},
};

/// One look, kept small: there are many.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    at: SystemTime,
    cpu_percent: f32,
    memory: u64,
    total: u64,
    cache: u64,
    disk: u64,
}

#[derive(Default)]
struct Inner {
    looks: VecDeque<Look>,
    /// Processor time at the last look, in microseconds, and when that was.
    cpu: Option<(Instant, u64)>,
    disk: u64,
    asked: Option<Instant>,
    looked: Option<Instant>,
    /// How often limits had been met at the last look.
    met: Met,
    /// When they were met more often than the look before, and how much more often: memory, processes.
    rises: VecDeque<(Instant, [u64; 2])>,
}

impl Inner {
    fn note_met(&mut self, now: Instant, met: Met) {
        let rise = |now: Option<u64>, before: Option<u64>| now.unwrap_or(0).saturating_sub(before.unwrap_or(0));
        let rises = [rise(met.memory, self.met.memory), rise(met.pids, self.met.pids)];
        self.met = met;
        if rises == [0, 0] {
            return;
        }
        if self.rises.len() == MET_KEPT {
            self.rises.pop_front();
        }
        self.rises.push_back((now, rises));
    }
}

/// What is known of the limits of a sandbox.
pub(crate) struct Pressure {
    /// What its processes use; `None` where nothing counts it.
    pub(crate) usage: Option<Usage>,
    /// What its daemon sees.
    pub(crate) seen: Option<EnvdMetrics>,
    /// How often memory and processes were used up in the time that was asked about.
    pub(crate) met: [u64; 2],
}

/// The looks at one sandbox.
#[derive(Default)]
pub(crate) struct History {
    inner: Mutex<Inner>,
    /// Held while one looks.
    looking: tokio::sync::Mutex<()>,
}

impl History {
    /// Looks at a sandbox. Its daemon is asked only while somebody watches: what the engine counts wakes nobody.
    pub(crate) async fn look(&self, sandbox: &dyn Sandbox, token: Option<&str>, resources: &Resources) {
        let _alone = self.looking.lock().await;
        let watched = self.with(|i| i.asked.is_some_and(|at| at.elapsed() < METRICS_WATCHED));
        let usage = match sandbox.usage().await {
            Ok(usage) => Some(usage),
            // Nothing counts it: the daemon knows a little.
            Err(RuntimeError::Unsupported(_)) => None,
            Err(_) => return,
        };
        let seen = if watched {
            daemon::metrics(sandbox, token).await.ok()
        } else {
            None
        };
        if usage.is_none() && seen.is_none() {
            return;
        }
        let now = Instant::now();
        let cpus = resources.cpus.unwrap_or(1.0);
        self.with(|inner| {
            if let Some(usage) = &usage {
                inner.note_met(now, usage.met);
            }
            if let Some(seen) = &seen {
                inner.disk = seen.disk_used;
            }
            let cpu_percent = match (&usage, &seen) {
                (Some(usage), _) => {
                    let before = inner.cpu.replace((now, usage.cpu_us));
                    before.map_or(0.0, |(then, used)| {
                        percent(usage.cpu_us.saturating_sub(used), (now - then).as_secs_f64(), cpus)
                    })
                }
                (None, Some(seen)) => seen.cpu_used_pct,
                (None, None) => 0.0,
            };
            let limit = resources.memory_bytes.unwrap_or_default();
            let (memory, total, cache) = match (&usage, &seen) {
                (Some(usage), _) => (
                    usage.memory_bytes.saturating_sub(usage.cache_bytes),
                    limit,
                    usage.cache_bytes,
                ),
                // What the daemon sees is the machine's memory where nothing counts the sandbox's.
                (None, Some(seen)) => (seen.mem_used, seen.mem_total, seen.mem_cache),
                (None, None) => (0, limit, 0),
            };
            inner.looked = Some(now);
            if inner.looks.len() == METRICS_KEPT {
                inner.looks.pop_front();
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a percentage with two digits behind the point"
            )]
            inner.looks.push_back(Look {
                at: SystemTime::now(),
                cpu_percent: cpu_percent as f32,
                memory,
                total,
                cache,
                disk: inner.disk,
            });
        });
    }

    /// Notes that somebody asks. True if the last look is too old to answer with.
    pub(crate) fn ask(&self) -> bool {
        self.with(|inner| {
            let first = inner
                .asked
                .replace(Instant::now())
                .is_none_or(|at| at.elapsed() >= METRICS_WATCHED);
            first || inner.looked.is_none_or(|at| at.elapsed() >= METRICS_EVERY)
        })
    }

    /// The looks from `start` to `end`, in Unix seconds, the oldest first.
    pub(crate) fn between(&self, start: Option<i64>, end: Option<i64>, resources: &Resources) -> Vec<SandboxMetric> {
        self.with(|inner| {
            inner
                .looks
                .iter()
                .map(|look| metric(look, resources))
                .filter(|m| start.is_none_or(|s| m.timestamp_unix >= s) && end.is_none_or(|e| m.timestamp_unix <= e))
                .collect()
        })
    }

    /// The last look.
    pub(crate) fn last(&self, resources: &Resources) -> Option<SandboxMetric> {
        self.with(|inner| inner.looks.back().map(|look| metric(look, resources)))
    }

    /// Looks at a sandbox now, for the limits that were met within the last `time`: as exactly as it was looked at before.
    pub(crate) async fn pressure(&self, sandbox: &dyn Sandbox, token: Option<&str>, time: Duration) -> Pressure {
        let (usage, seen) = tokio::join!(sandbox.usage(), daemon::metrics(sandbox, token));
        let usage = usage.ok();
        let met = self.with(|inner| {
            let now = Instant::now();
            if let Some(usage) = &usage {
                inner.note_met(now, usage.met);
            }
            let within = inner.rises.iter().filter(|(at, _)| now - *at <= time);
            within.fold([0, 0], |[memory, pids], (_, rise)| [memory + rise[0], pids + rise[1]])
        });
        Pressure {
            usage,
            seen: seen.ok(),
            met,
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Of all processors together, with two digits.
fn percent(used_us: u64, seconds: f64, cpus: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of an hour fit 52 bits")]
    let used = used_us as f64;
    let available = seconds * 1e6 * cpus;
    if available < 1.0 {
        return 0.0;
    }
    ((used / available * 100.0).clamp(0.0, 100.0) * 100.0).round() / 100.0
}

fn metric(look: &Look, resources: &Resources) -> SandboxMetric {
    let since = look.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    SandboxMetric {
        timestamp: format_rfc3339_seconds(look.at).to_string(),
        timestamp_unix: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        cpu_count: resources.cpus.unwrap_or_default(),
        cpu_used_pct: (f64::from(look.cpu_percent) * 100.0).round() / 100.0,
        mem_used: look.memory,
        mem_total: look.total,
        mem_cache: look.cache,
        disk_used: look.disk,
        disk_total: resources.disk_bytes.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_is_known_by_its_time() {
        let met = |memory, pids| Met {
            memory: Some(memory),
            pids: Some(pids),
            throttled_us: None,
        };
        let mut inner = Inner::default();
        let now = Instant::now();
        for (memory, pids) in [(0, 0), (1, 0), (1, 0), (3, 7)] {
            inner.note_met(now, met(memory, pids));
        }
        inner.note_met(now, Met::default());
        let rises: Vec<_> = inner.rises.iter().map(|(_, rise)| *rise).collect();
        assert_eq!(rises, [[1, 0], [2, 7]]);
    }

    #[test]
    fn percentages() {
        assert!((percent(500_000, 1.0, 1.0) - 50.0).abs() < 0.01);
        assert!((percent(500_000, 1.0, 2.0) - 25.0).abs() < 0.01);
        assert!((percent(9_000_000, 1.0, 2.0) - 100.0).abs() < 0.01);
        assert!(percent(1, 0.0, 2.0).abs() < 0.01);
    }
}
