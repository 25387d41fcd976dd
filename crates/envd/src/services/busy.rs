//! The processes that use the processors most.

use std::collections::HashMap;
use std::time::Instant;

use sandhold_wire::services::Busy;

use super::ports::{command, processes};
use crate::beginning::beginning;

/// What all processes had used at one moment.
pub(crate) struct Look {
    at: Instant,
    ticks: HashMap<u32, u64>,
}

impl Look {
    /// Looks at all processes.
    pub(crate) fn take() -> Self {
        Self {
            at: Instant::now(),
            ticks: processes()
                .into_iter()
                .filter_map(|pid| Some((pid, used(pid)?.0)))
                .collect(),
        }
    }

    /// The `most` that used most since, then those with most memory.
    pub(crate) fn busiest(&self, most: usize) -> Vec<Busy> {
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        let per_second = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        let mut found: Vec<(u64, u64, u32)> = processes()
            .into_iter()
            .filter_map(|pid| {
                let (ticks, pages) = used(pid)?;
                let before = self.ticks.get(&pid).copied().unwrap_or_default();
                Some((ticks.saturating_sub(before), pages.saturating_mul(page), pid))
            })
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(most);
        let busy = |(ticks, memory, pid)| Busy {
            pid,
            cpu_pct: share(ticks, per_second, seconds),
            memory,
            command: command(pid),
        };
        found.into_iter().map(busy).collect()
    }
}

/// In percent of one processor, with one digit behind the point.
#[allow(clippy::cast_precision_loss, reason = "ticks of a moment")]
fn share(ticks: u64, per_second: u64, seconds: f64) -> f64 {
    let share = ticks as f64 * 100.0 / per_second as f64 / seconds;
    (share * 10.0).round() / 10.0
}

/// Processor time in ticks and resident memory in pages.
fn used(pid: u32) -> Option<(u64, u64)> {
    let stat = beginning(&format!("/proc/{pid}/stat"), 4096);
    let words: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Counted from the state, which is the third field: utime is the 14th, stime the 15th, rss the 24th.
    let field = |at: usize| words.get(at - 3)?.parse::<u64>().ok();
    Some((field(14)?.saturating_add(field(15)?), field(24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_used_is_read() {
        let (_, pages) = used(std::process::id()).unwrap();
        assert!(pages > 0);
        assert_eq!(used(0), None);
        assert!((share(10, 100, 0.2) - 50.0).abs() < 0.01);
    }
}
