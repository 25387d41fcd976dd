//! The sandboxes of one caller: the default one, those in use, those made here.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use sandhold_client::Sandbox;

use crate::limits;

/// A sandbox in use.
pub(crate) struct Handle {
    pub(crate) sandbox: Sandbox,
    /// Whether calls extend its life; a lifetime that was asked for is kept to the letter.
    keep_alive: AtomicBool,
    extended: std::sync::Mutex<Instant>,
    /// Held while its life is extended or it is paused: the two must not cross.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Set once it was paused or ended from here.
    pub(crate) gone: AtomicBool,
}

impl Handle {
    /// `keep_alive`: whether calls extend its life.
    pub(crate) fn new(sandbox: Sandbox, keep_alive: bool) -> Self {
        Self {
            sandbox,
            keep_alive: AtomicBool::new(keep_alive),
            extended: std::sync::Mutex::new(Instant::now()),
            gate: tokio::sync::Mutex::new(()),
            gone: AtomicBool::new(false),
        }
    }

    /// From now on its lifetime is what was asked for.
    pub(crate) fn fixed(&self) {
        self.keep_alive.store(false, Ordering::Relaxed);
    }

    /// Whether its life should be extended now; true at most once in [`limits::KEEP_ALIVE_EVERY`].
    pub(crate) fn is_due(&self) -> bool {
        if !self.keep_alive.load(Ordering::Relaxed) || self.gone.load(Ordering::Relaxed) {
            return false;
        }
        let mut extended = crate::lock(&self.extended);
        if extended.elapsed() < limits::KEEP_ALIVE_EVERY {
            return false;
        }
        *extended = Instant::now();
        true
    }
}

/// Which sandboxes a caller has.
#[derive(Default)]
pub(crate) struct Table {
    handles: HashMap<String, std::sync::Arc<Handle>>,
    default: Option<String>,
    made: BTreeSet<String>,
}

impl Table {
    /// The sandbox of this id, if it is in use.
    pub(crate) fn get(&self, id: &str) -> Option<std::sync::Arc<Handle>> {
        self.handles.get(id).cloned()
    }

    /// The default sandbox, if it is in use.
    pub(crate) fn default_handle(&self) -> Option<std::sync::Arc<Handle>> {
        self.get(self.default.as_deref()?)
    }

    /// The id of the default sandbox; a paused one is not in use and still the default.
    pub(crate) fn default_id(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// Those made here that are not known to have ended.
    pub(crate) fn made(&self) -> Vec<String> {
        self.made.iter().cloned().collect()
    }

    /// Those in use, and those made here that are not known to have ended.
    pub(crate) fn all(&self) -> Vec<String> {
        self.made
            .iter()
            .chain(self.handles.keys())
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Notes one that was made here.
    pub(crate) fn note_made(&mut self, id: &str) {
        self.made.insert(id.to_owned());
    }

    /// Takes one into use.
    pub(crate) fn insert(&mut self, handle: std::sync::Arc<Handle>) {
        self.handles.insert(handle.sandbox.id().to_owned(), handle);
    }

    /// Makes it the default.
    pub(crate) fn set_default(&mut self, id: &str) {
        self.default = Some(id.to_owned());
    }

    /// It stands still and is no longer in use.
    pub(crate) fn paused(&mut self, id: &str) {
        if let Some(handle) = self.handles.remove(id) {
            handle.gone.store(true, Ordering::Relaxed);
        }
    }

    /// It has ended. True if it was the default.
    pub(crate) fn ended(&mut self, id: &str) -> bool {
        self.paused(id);
        self.made.remove(id);
        let was_default = self.default.as_deref() == Some(id);
        if was_default {
            self.default = None;
        }
        was_default
    }
}
