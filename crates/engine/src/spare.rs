//! Sandboxes that were made before anybody asked: their init program runs and waits for its boot message.
//!
//! A spare one has the engine's default limits. Nothing of a sandbox's own has reached it, so that who gets it can tell no
//! difference from one that was made anew, but for the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sandhold_runtime::{Resources, Root, SandboxSpec, Storage};

use crate::birth::{Newborn, Order};
use crate::engine::Shared;
use crate::limits::SPARE_PAUSE;

#[derive(Default)]
pub(crate) struct Spares {
    ready: Mutex<Vec<Newborn>>,
    made: AtomicU64,
    filling: AtomicBool,
    closed: AtomicBool,
}

impl Spares {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Newborn>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Ends those that are there, and takes no more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().clear();
    }
}

impl Shared {
    /// A spare sandbox that is what was asked for.
    pub(crate) fn spare(&self, order: &Order) -> Option<Newborn> {
        let fits = order.spec.root == Root::default()
            && order.limits == self.defaults
            && order.spec.hostname == self.config.spare_hostname
            && order.exec
            && !order.trace;
        if !fits {
            return None;
        }
        let mut ready = self.spares.lock();
        // One that has ended is gone with its launcher.
        std::iter::from_fn(|| ready.pop()).find(Newborn::is_alive)
    }

    /// Makes spare sandboxes until there are enough, in the background.
    pub(crate) fn refill(self: &Arc<Self>) {
        if self.config.spares == 0 || self.spares.filling.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(SPARE_PAUSE).await;
            while let Some(shared) = Weak::upgrade(&weak) {
                if shared.spares.len() >= shared.config.spares {
                    shared.spares.filling.store(false, Ordering::Release);
                    return;
                }
                let number = shared.spares.made.fetch_add(1, Ordering::Relaxed);
                match shared.bear(&shared.spare_order(number), None).await {
                    Ok(newborn) => {
                        let mut ready = shared.spares.lock();
                        // Looked at under the lock: `close` sets it before it takes the lock.
                        if !shared.spares.closed.load(Ordering::Acquire) {
                            ready.push(newborn);
                        }
                    }
                    Err(error) => {
                        // The machine is full, or it ends. Who asks for a sandbox is told.
                        tracing::debug!(%error, "no spare sandbox");
                        shared.spares.filling.store(false, Ordering::Release);
                        return;
                    }
                }
                if shared.spares.closed.load(Ordering::Acquire) {
                    return;
                }
            }
        });
    }

    fn spare_order(&self, number: u64) -> Order {
        Order {
            spec: SandboxSpec {
                id: format!("spare{number}"),
                root: Root::default(),
                storage: Storage::Memory,
                hostname: self.config.spare_hostname.clone(),
                resources: Resources::default(),
                boot: Vec::new(),
            },
            limits: self.defaults.clone(),
            exec: true,
            trace: false,
        }
    }
}
