//! What happened to a sandbox, as E2B's logs show it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use humantime::format_rfc3339_millis;
use sandhold_wire::rest::LogEntry;

use crate::limits::EVENTS_KEPT;

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: SystemTime,
    /// One word.
    kind: &'static str,
    pub(crate) message: String,
    warning: bool,
}

impl Event {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            at: SystemTime::now(),
            kind,
            message: message.into(),
            warning: false,
        }
    }

    pub(crate) fn warning(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn level(&self) -> &'static str {
        if self.warning { "warn" } else { "info" }
    }

    /// Milliseconds since 1970: where a page of logs goes on.
    pub(crate) fn millis(&self) -> u128 {
        self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
    }

    pub(crate) fn timestamp(&self) -> String {
        format_rfc3339_millis(self.at).to_string()
    }

    pub(crate) fn entry(&self) -> LogEntry {
        LogEntry {
            timestamp: self.timestamp(),
            message: self.message.clone(),
            level: self.level().into(),
            fields: BTreeMap::from([("event".to_owned(), self.kind.to_owned())]),
        }
    }
}

/// The last events, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<VecDeque<Event>>);

impl Events {
    pub(crate) fn note(&self, event: Event) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS_KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The last `most` of them.
    pub(crate) fn last(&self, most: usize) -> Vec<Event> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().skip(events.len().saturating_sub(most)).cloned().collect()
    }
}
