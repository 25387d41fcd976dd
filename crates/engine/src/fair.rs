//! Who takes much of the processors waits for those who take little: a sandbox that keeps a processor busy is run when no
//! other one wants to, until it has been calm for a while. Without that, whoever wants little waits behind it for a whole
//! time slice at each of its steps.
//!
//! Nobody starves: one that gets no processor is calm, and takes its turn among the others again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::engine::Shared;
use crate::limits::{FAIR_BUSY, FAIR_CALM, FAIR_CALM_LOOKS, FAIR_EVERY};
use crate::sandbox::Inner;

/// What is known of all sandboxes.
#[derive(Debug, Default)]
struct All {
    /// Processor time of all together at the last look, in microseconds, and when that was.
    total: Option<(Instant, u64)>,
    /// By the name of its cgroup.
    each: HashMap<String, Known>,
}

/// What is known of one sandbox.
#[derive(Debug)]
struct Known {
    /// When it was looked at last.
    at: Instant,
    /// Processor time then, in microseconds.
    cpu_us: u64,
    /// Whether it waits for the others.
    waits: bool,
    /// Looks in a row at which it was calm.
    calm: u32,
}

impl Known {
    fn new(at: Instant, cpu_us: u64) -> Self {
        Self {
            at,
            cpu_us,
            waits: false,
            calm: 0,
        }
    }

    /// Takes a look; says whether it waits from now on, if that changes.
    fn look(&mut self, at: Instant, cpu_us: u64) -> Option<bool> {
        let share = share(
            at - std::mem::replace(&mut self.at, at),
            cpu_us.saturating_sub(std::mem::replace(&mut self.cpu_us, cpu_us)),
        );
        self.calm = if share < FAIR_CALM { self.calm + 1 } else { 0 };
        let waits = match self.waits {
            false => share > FAIR_BUSY,
            true => self.calm < FAIR_CALM_LOOKS,
        };
        (waits != std::mem::replace(&mut self.waits, waits)).then_some(waits)
    }
}

/// How much of one processor so much time of it is.
fn share(since: Duration, used_us: u64) -> f64 {
    used_us as f64 / since.as_micros().max(1) as f64
}

/// Looks after the sandboxes of an engine for as long as it lives.
pub(crate) async fn look_after(engine: Weak<Shared>) {
    let mut all = All::default();
    loop {
        tokio::time::sleep(FAIR_EVERY).await;
        let Some(shared) = engine.upgrade() else { return };
        let looked = tokio::task::spawn_blocking(move || {
            look(&shared, &mut all);
            all
        });
        match looked.await {
            Ok(now) => all = now,
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}

fn look(shared: &Shared, all: &mut All) {
    let now = Instant::now();
    // Many sandboxes that do little cost one look.
    if let Some(total) = shared.cgroups.cpu_us() {
        let calm = all
            .total
            .is_some_and(|(at, before)| share(now - at, total.saturating_sub(before)) < FAIR_BUSY);
        all.total = Some((now, total));
        if calm && !all.each.values().any(|known| known.waits) {
            return;
        }
    }
    let known = &mut all.each;
    let live: Vec<Arc<Inner>> = {
        let live = shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.values().filter_map(Weak::upgrade).collect()
    };
    known.retain(|folder, _| live.iter().any(|inner| inner.folder == *folder));
    for inner in live {
        let Some(cpu_us) = inner.cgroups().cpu_us() else {
            continue;
        };
        let Some(state) = known.get_mut(&inner.folder) else {
            known.insert(inner.folder.clone(), Known::new(now, cpu_us));
            continue;
        };
        if let Some(waits) = state.look(now, cpu_us) {
            inner.cgroups().set_waiting(waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_busy_waits_until_it_was_calm_for_a_while() {
        let mut at = Instant::now();
        let mut known = Known::new(at, 0);
        let mut used = 0;
        let mut look = |more| {
            at += Duration::from_secs(1);
            used += more;
            known.look(at, used)
        };
        assert_eq!(look(300_000), None);
        assert_eq!(look(1_900_000), Some(true));
        assert_eq!(look(2_000_000), None);
        for _ in 1..FAIR_CALM_LOOKS {
            assert_eq!(look(10_000), None);
        }
        assert_eq!(look(600_000), None, "not calm: it begins anew");
        for _ in 1..FAIR_CALM_LOOKS {
            assert_eq!(look(10_000), None);
        }
        assert_eq!(look(10_000), Some(false));
        assert_eq!(look(600_000), None, "not so busy that it has to wait");
    }
}
