//! Who takes much of the processors waits for those who take little: a sandbox that keeps a processor busy is run when no
//! other one wants to, until it has been calm for a while. Without that, whoever wants little waits behind it for a whole
//! time slice at each of its steps.
//!
//! Nobody starves: one that gets no processor is calm, and takes its turn among the others again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::engine::Shared;
use crate::limits::{FAIR_BUSY, FAIR_CALM, FAIR_CALM_LOOKS, FAIR_EVERY, FAIR_REST};
use crate::sandbox::Inner;

/// What is known of one sandbox.
#[derive(Debug, Default)]
struct Known {
    /// Processor time at the last look, in microseconds.
    cpu_us: u64,
    /// Whether it waits for the others.
    waits: bool,
    /// Looks in a row at which it was calm.
    calm: u32,
}

impl Known {
    /// Takes a look; says whether it waits from now on, if that changes.
    fn look(&mut self, cpu_us: u64, since: Duration) -> Option<bool> {
        let used = cpu_us.saturating_sub(std::mem::replace(&mut self.cpu_us, cpu_us));
        let share = used as f64 / since.as_micros().max(1) as f64;
        self.calm = if share < FAIR_CALM { self.calm + 1 } else { 0 };
        let waits = match self.waits {
            false => share > FAIR_BUSY,
            true => self.calm < FAIR_CALM_LOOKS,
        };
        (waits != std::mem::replace(&mut self.waits, waits)).then_some(waits)
    }
}

/// Looks after the sandboxes of an engine for as long as it lives.
pub(crate) async fn look_after(engine: Weak<Shared>) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut last = Instant::now();
    loop {
        let pause = if known.is_empty() { FAIR_REST } else { FAIR_EVERY };
        tokio::time::sleep(pause).await;
        let Some(shared) = engine.upgrade() else { return };
        let since = last.elapsed();
        last = Instant::now();
        let looked = tokio::task::spawn_blocking(move || {
            look(&shared, &mut known, since);
            known
        });
        match looked.await {
            Ok(now) => known = now,
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}

fn look(shared: &Shared, known: &mut HashMap<String, Known>, since: Duration) {
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
            let state = Known {
                cpu_us,
                ..Known::default()
            };
            known.insert(inner.folder.clone(), state);
            continue;
        };
        if let Some(waits) = state.look(cpu_us, since) {
            inner.cgroups().set_waiting(waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_busy_waits_until_it_was_calm_for_a_while() {
        let second = Duration::from_secs(1);
        let mut known = Known::default();
        let mut at = 0;
        let mut look = |used| {
            at += used;
            known.look(at, second)
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
