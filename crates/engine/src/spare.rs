//! Sandboxes that were made before anybody asked: their init program runs and waits for its boot message.
//!
//! Nothing of a sandbox's own has reached a spare one, so that who gets it can tell no difference from one that was made
//! anew, but for the time. There is a shelf for each shape that is asked for, that is for what such a sandbox stands on, its
//! limits and its host name. How many stand on a shelf follows the demand of the last seconds, never more than
//! [`EngineConfig::spares_most`](crate::EngineConfig::spares_most) on all of them, and none is made while memory is short.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sandhold_runtime::{Layer, LayerId, Resources, Root, SandboxSpec, Storage};
use tokio::sync::Notify;

use crate::birth::{Newborn, Order};
use crate::engine::Shared;
use crate::limits::{SHAPES, SPARE_DEMAND, SPARE_IDLE, SPARE_MEMORY_SHARE, SPARE_PAUSE};
use crate::spec::Limits;

/// What a spare sandbox must be to be what was asked for.
#[derive(Debug, Clone, PartialEq)]
struct Shape {
    root: Root,
    limits: Limits,
    hostname: String,
}

/// Spare sandboxes of one shape.
struct Shelf<T> {
    shape: Shape,
    /// Never left empty by a lack of demand.
    floor: usize,
    ready: Vec<T>,
    /// When it was asked for one, lately.
    asked: VecDeque<Instant>,
    last: Option<Instant>,
}

impl<T> Shelf<T> {
    /// How many should stand on it.
    fn target(&self, now: Instant, most: usize) -> usize {
        let recent = self.asked.iter().filter(|at| now - **at < SPARE_DEMAND).count();
        let used = self.last.is_some_and(|at| now - at < SPARE_IDLE);
        recent.max(self.floor).max(usize::from(used && most > 0)).min(most)
    }

    fn ask(&mut self, now: Instant, most: usize) {
        self.last = Some(now);
        self.asked.push_back(now);
        while self.asked.len() > most.max(1) {
            self.asked.pop_front();
        }
    }
}

#[derive(Default)]
pub(crate) struct Spares {
    shelves: Mutex<Vec<Shelf<Newborn>>>,
    made: AtomicU64,
    filling: AtomicBool,
    /// Somebody asked while the shelves were looked after.
    asked: Notify,
    closed: AtomicBool,
}

impl Spares {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Shelf<Newborn>>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().iter().map(|shelf| shelf.ready.len()).sum()
    }

    /// Ends those that are there, and takes no more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.asked.notify_one();
        self.lock().clear();
    }

    /// Lets go of those that stand on a layer.
    pub(crate) fn forget(&self, layer: &LayerId) {
        let layer = Layer::Stored(*layer);
        self.lock().retain(|shelf| !shelf.shape.root.layers.contains(&layer));
    }
}

/// The shelf of a shape, made if there is none, in the place of the one that was not asked for the longest.
fn shelf<'a, T>(shelves: &'a mut Vec<Shelf<T>>, shape: &Shape) -> &'a mut Shelf<T> {
    if let Some(index) = shelves.iter().position(|shelf| shelf.shape == *shape) {
        return &mut shelves[index];
    }
    if shelves.len() >= SHAPES {
        let oldest = shelves.iter().enumerate().filter(|(_, shelf)| shelf.floor == 0);
        if let Some((index, _)) = oldest.min_by_key(|(_, shelf)| shelf.last) {
            shelves.remove(index);
        }
    }
    shelves.push(Shelf {
        shape: shape.clone(),
        floor: 0,
        ready: Vec::new(),
        asked: VecDeque::new(),
        last: None,
    });
    let last = shelves.len() - 1;
    &mut shelves[last]
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Next {
    /// One of this shape is missing.
    Make(Shape),
    /// Nothing is missing; there is more than what always stands there, so look again.
    LookAgain,
    /// Nothing is missing, and nothing goes by itself.
    Rest,
}

/// Lets go of what is too many, and says what is next.
fn tend<T>(shelves: &mut Vec<Shelf<T>>, now: Instant, most: usize) -> Next {
    for shelf in shelves.iter_mut() {
        let target = shelf.target(now, most);
        // The oldest first: what was made last has its pages in the caches.
        let surplus = shelf.ready.len().saturating_sub(target);
        shelf.ready.drain(..surplus);
    }
    shelves.retain(|shelf| shelf.floor > 0 || !shelf.ready.is_empty() || shelf.target(now, most) > 0);
    let standing: usize = shelves.iter().map(|shelf| shelf.ready.len()).sum();
    let missing = |shelf: &Shelf<T>| shelf.target(now, most).saturating_sub(shelf.ready.len());
    let worst = shelves.iter().max_by_key(|shelf| missing(shelf));
    match worst.filter(|shelf| missing(shelf) > 0 && standing < most) {
        Some(shelf) => Next::Make(shelf.shape.clone()),
        None if shelves.iter().all(|shelf| shelf.target(now, most) <= shelf.floor) => Next::Rest,
        None => Next::LookAgain,
    }
}

impl Shared {
    /// A spare sandbox that is what was asked for.
    pub(crate) fn spare(&self, order: &Order) -> Option<Newborn> {
        let held = |layer: &Layer| matches!(layer, Layer::Held(_));
        let usual = order.exec && !order.trace && order.spec.storage == Storage::Memory;
        // What is held in memory is held by who asks, and no longer.
        if self.config.spares == 0 || !usual || order.spec.root.layers.iter().any(held) {
            return None;
        }
        let shape = Shape {
            root: order.spec.root.clone(),
            limits: order.limits.clone(),
            hostname: order.spec.hostname.clone(),
        };
        let mut shelves = self.spares.lock();
        if self.spares.closed.load(Ordering::Acquire) {
            return None;
        }
        let shelf = shelf(&mut shelves, &shape);
        shelf.ask(Instant::now(), self.config.spares_most);
        // One that has ended is gone with its launcher.
        std::iter::from_fn(|| shelf.ready.pop()).find(Newborn::is_alive)
    }

    /// Makes spare sandboxes until there are enough, in the background, and lets go of them when nobody asks any more.
    pub(crate) fn refill(self: &Arc<Self>) {
        if self.config.spares == 0 {
            return;
        }
        if self.spares.filling.swap(true, Ordering::AcqRel) {
            self.spares.asked.notify_one();
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(SPARE_PAUSE).await;
            loop {
                let Some(shared) = Weak::upgrade(&weak) else { return };
                match shared.fill().await {
                    None => return,
                    Some(Duration::ZERO) => {}
                    Some(wait) => {
                        let asked = shared.spares.asked.notified();
                        if tokio::time::timeout(wait, asked).await.is_ok() {
                            tokio::time::sleep(SPARE_PAUSE).await;
                        }
                    }
                }
            }
        });
    }

    /// Makes what is missing. How long to wait until the next look; `None`: none is needed.
    async fn fill(self: &Arc<Self>) -> Option<Duration> {
        let usual = self.usual();
        let short = is_memory_short();
        let next = {
            let mut shelves = self.spares.lock();
            if self.spares.closed.load(Ordering::Acquire) {
                return None;
            }
            shelf(&mut shelves, &usual).floor = self.config.spares;
            let most = self.config.spares_most.max(self.config.spares);
            let next = tend(
                &mut shelves,
                Instant::now(),
                if short { self.config.spares } else { most },
            );
            if next == Next::Rest {
                self.spares.filling.store(false, Ordering::Release);
            }
            next
        };
        let shape = match next {
            Next::Rest => return None,
            Next::LookAgain => return Some(SPARE_DEMAND / 4),
            Next::Make(shape) => shape,
        };
        let number = self.spares.made.fetch_add(1, Ordering::Relaxed);
        match self.bear(&spare_order(&shape, number), None).await {
            Ok(newborn) => {
                let mut shelves = self.spares.lock();
                // Looked at under the lock: `close` sets it before it takes the lock. A shelf that is gone needs none.
                if !self.spares.closed.load(Ordering::Acquire)
                    && let Some(shelf) = shelves.iter_mut().find(|shelf| shelf.shape == shape)
                {
                    shelf.ready.push(newborn);
                }
                Some(Duration::ZERO)
            }
            Err(error) => {
                // The machine is full, or it ends, or the layer is gone. Who asks for a sandbox is told.
                tracing::debug!(%error, "no spare sandbox");
                self.spares.filling.store(false, Ordering::Release);
                None
            }
        }
    }

    /// The shape of those who ask for nothing special.
    fn usual(&self) -> Shape {
        Shape {
            root: Root::default(),
            limits: self.defaults.clone(),
            hostname: self.config.spare_hostname.clone(),
        }
    }
}

fn spare_order(shape: &Shape, number: u64) -> Order {
    Order {
        spec: SandboxSpec {
            id: format!("spare{number}"),
            root: shape.root.clone(),
            storage: Storage::Memory,
            hostname: shape.hostname.clone(),
            resources: Resources::default(),
            boot: Vec::new(),
        },
        limits: shape.limits.clone(),
        exec: true,
        trace: false,
    }
}

/// Whether less than a [share](SPARE_MEMORY_SHARE) of the machine's memory is left.
fn is_memory_short() -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return false;
    };
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    match (value("MemAvailable:"), value("MemTotal:")) {
        (Some(left), Some(all)) => left < all / SPARE_MEMORY_SHARE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> Shape {
        Shape {
            root: Root::default(),
            limits: Limits::default(),
            hostname: name.to_owned(),
        }
    }

    #[test]
    fn a_shelf_follows_the_demand_and_empties_without() {
        let mut shelves: Vec<Shelf<u32>> = Vec::new();
        let begin = Instant::now();
        let usual = shape("usual");
        shelf(&mut shelves, &usual).floor = 1;
        assert_eq!(tend(&mut shelves, begin, 4), Next::Make(usual.clone()));
        shelf(&mut shelves, &usual).ready.push(0);
        assert_eq!(tend(&mut shelves, begin, 4), Next::Rest);
        // Six ask for another shape: as many as are allowed on all shelves are made.
        let other = shape("other");
        for _ in 0..6 {
            shelf(&mut shelves, &other).ask(begin, 4);
        }
        for number in 0..3 {
            assert_eq!(tend(&mut shelves, begin, 4), Next::Make(other.clone()));
            shelf(&mut shelves, &other).ready.push(number);
        }
        assert_eq!(
            tend(&mut shelves, begin, 4),
            Next::LookAgain,
            "all shelves together hold four"
        );
        // Nobody asks any more: one stays for a while, then none.
        assert_eq!(tend(&mut shelves, begin + SPARE_DEMAND, 4), Next::LookAgain);
        assert_eq!(shelf(&mut shelves, &other).ready, [2], "the oldest go first");
        assert_eq!(tend(&mut shelves, begin + SPARE_IDLE, 4), Next::Rest);
        assert_eq!(shelves.len(), 1);
        assert_eq!(shelf(&mut shelves, &usual).ready, [0]);
    }

    #[test]
    fn shelves_are_bounded_and_the_one_not_asked_for_goes() {
        let mut shelves: Vec<Shelf<u32>> = Vec::new();
        let begin = Instant::now();
        shelf(&mut shelves, &shape("usual")).floor = 1;
        for number in 0..SHAPES {
            let at = begin + Duration::from_millis(number as u64);
            shelf(&mut shelves, &shape(&number.to_string())).ask(at, 4);
        }
        assert_eq!(shelves.len(), SHAPES);
        let names: Vec<_> = shelves.iter().map(|shelf| shelf.shape.hostname.as_str()).collect();
        assert!(
            names.contains(&"usual") && !names.contains(&"0") && names.contains(&"1"),
            "{names:?}"
        );
    }
}
