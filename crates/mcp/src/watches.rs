//! Watched folders: what changed in them is kept until it is fetched.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sandhold_client::{Error, Watch as Stream, WatchEvent, WatchKind};
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    answer::ToolError,
    budget,
    call::Target,
    limits, lock,
    reattach::{Gone, reattach},
};

/// What one change costs beyond its name, in an answer.
const EVENT_OVERHEAD: usize = 32;

/// A watched folder.
pub(crate) struct Watch {
    pub(crate) id: String,
    pub(crate) target: Target,
    /// Absolute.
    pub(crate) path: String,
    recursive: bool,
    kept: Mutex<Kept>,
    changed: watch::Sender<()>,
}

/// What happened and nobody fetched.
#[derive(Default)]
struct Kept {
    events: VecDeque<WatchEvent>,
    /// Bytes of their names.
    names: usize,
    lost: u64,
    note: Option<String>,
    ended: Option<String>,
}

/// What a reader gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) events: Vec<WatchEvent>,
    /// Whether there are more already.
    pub(crate) more: bool,
    /// Changes after these that there was no room for.
    pub(crate) lost: u64,
    pub(crate) note: Option<String>,
    /// Why there will be no more.
    pub(crate) ended: Option<String>,
}

impl Kept {
    fn add(&mut self, event: WatchEvent) {
        // A file that is written in many pieces changed once as far as a reader knows.
        if self.lost == 0 && self.events.back() == Some(&event) {
            return;
        }
        if self.lost > 0
            || self.events.len() >= limits::WATCH_EVENTS
            || self.names + event.name.len() > limits::WATCH_NAMES
        {
            self.lost += 1;
            return;
        }
        self.names += event.name.len();
        self.events.push_back(event);
    }

    fn is_worth_reading(&self) -> bool {
        !self.events.is_empty() || self.lost > 0 || self.note.is_some() || self.ended.is_some()
    }

    /// The oldest changes that fit an answer.
    fn fetch(&mut self, prefix: usize) -> Fetched {
        let mut fetched = Fetched::default();
        let mut room = budget::ANSWER;
        while let Some(event) = self.events.front() {
            let cost = event.name.len() + prefix + EVENT_OVERHEAD;
            if (cost > room && !fetched.events.is_empty()) || fetched.events.len() >= budget::ROWS {
                fetched.more = true;
                return fetched;
            }
            room = room.saturating_sub(cost);
            self.names -= event.name.len();
            fetched.events.extend(self.events.pop_front());
        }
        fetched.lost = std::mem::take(&mut self.lost);
        fetched.note = self.note.take();
        fetched.ended = self.ended.clone();
        fetched
    }
}

impl Watch {
    fn update(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut lock(&self.kept));
        self.changed.send_replace(());
    }

    /// Waits until there is something to tell, at most `wait`, and takes it.
    pub(crate) async fn fetch(&self, wait: Duration) -> Fetched {
        let deadline = Instant::now() + wait;
        let mut changed = self.changed.subscribe();
        let something = async {
            while !lock(&self.kept).is_worth_reading() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(limits::WATCH_TOGETHER).await;
        };
        if !wait.is_zero() {
            // Nothing happened: that is told too.
            let _ = tokio::time::timeout_at(deadline.into(), something).await;
        }
        lock(&self.kept).fetch(self.path.len())
    }

    /// The absolute path of what changed.
    pub(crate) fn path_of(&self, event: &WatchEvent) -> String {
        match event.name.as_str() {
            "" | "." => self.path.clone(),
            name => format!("{}/{name}", self.path.trim_end_matches('/')),
        }
    }
}

/// Keeps what a watch tells until it ends.
async fn collect(watch: Arc<Watch>, mut stream: Stream) {
    let why = loop {
        let broken: Option<Error> = match stream.next().await {
            Some(Ok(event)) => {
                watch.update(|k| k.add(event));
                continue;
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        let why = broken
            .as_ref()
            .map_or_else(|| "the stream ended".to_owned(), ToString::to_string);
        let files = watch.target.files();
        match reattach(broken, || files.watch(&watch.path, watch.recursive, None)).await {
            Ok(again) => {
                stream = again;
                let note = format!("The watch broke and was set up anew; what changed meanwhile is not known ({why}).");
                watch.update(|k| k.note = Some(note));
            }
            Err(Gone::Sandbox(said)) => break said,
            Err(Gone::Object) => break format!("{} is gone", watch.path),
            Err(Gone::Unreachable(why)) => break format!("the connection is lost: {why}"),
        }
    };
    watch.update(|k| k.ended = Some(why));
}

/// The watches of one caller.
#[derive(Default)]
pub(crate) struct Watches {
    table: Mutex<HashMap<String, Held>>,
}

struct Held {
    watch: Arc<Watch>,
    task: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watches {
    /// The watch of this id.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Watch>, ToolError> {
        let table = lock(&self.table);
        table.get(id).map(|h| Arc::clone(&h.watch)).ok_or_else(|| unknown(id))
    }

    /// Starts to watch. `path` is absolute.
    pub(crate) async fn add(&self, target: Target, path: String, recursive: bool) -> Result<Arc<Watch>, ToolError> {
        self.room()?;
        let stream = target
            .files()
            .watch(&path, recursive, None)
            .await
            .map_err(|e| explain(&target, &e))?;
        let watch = Arc::new(Watch {
            id: format!("w{}", &uuid::Uuid::new_v4().simple().to_string()[..10]),
            target,
            path,
            recursive,
            kept: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let task = tokio::spawn(collect(Arc::clone(&watch), stream)).abort_handle();
        let held = Held {
            watch: Arc::clone(&watch),
            task,
        };
        // Others may have come first meanwhile; then dropping it ends the watch again.
        self.room()?;
        lock(&self.table).insert(watch.id.clone(), held);
        Ok(watch)
    }

    /// Ends a watch.
    pub(crate) fn remove(&self, id: &str) -> Result<Arc<Watch>, ToolError> {
        let held = lock(&self.table).remove(id).ok_or_else(|| unknown(id))?;
        Ok(Arc::clone(&held.watch))
    }

    /// Refuses when there are too many; those that have ended by themselves make room.
    fn room(&self) -> Result<(), ToolError> {
        let mut table = lock(&self.table);
        if table.len() >= limits::WATCHES {
            table.retain(|_, held| lock(&held.watch.kept).ended.is_none());
        }
        if table.len() < limits::WATCHES {
            return Ok(());
        }
        let message = format!("{} folders are watched already; more are not allowed", table.len());
        Err(ToolError::new("too_many_watches", message)
            .hint("End some with unwatch_dir, or watch a folder above with recursive."))
    }
}

fn explain(target: &Target, error: &Error) -> ToolError {
    let told = target.error(error);
    match error {
        Error::InvalidArgument(text) if text.contains("network") => {
            told.hint("Changes on a network mount are not told to anybody here: look with list_dir instead.")
        }
        Error::RateLimited(_) => {
            told.hint("Watch a smaller folder, without recursive, or end watches with unwatch_dir.")
        }
        _ => told,
    }
}

fn unknown(id: &str) -> ToolError {
    ToolError::new(
        "watch_not_found",
        format!("there is no watch {:?}", budget::line(id, 80)),
    )
    .hint("Call watch_dir to watch a folder.")
}

/// `create`, `write`, …
pub(crate) fn name(event: &WatchEvent) -> &'static str {
    match event.kind {
        WatchKind::Create => "create",
        WatchKind::Write => "write",
        WatchKind::Remove => "remove",
        WatchKind::Rename => "rename",
        WatchKind::Chmod => "chmod",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> WatchEvent {
        WatchEvent {
            name: name.into(),
            kind: WatchKind::Write,
        }
    }

    #[test]
    fn repeated_changes_are_one() {
        let mut kept = Kept::default();
        ["a", "a", "b", "a"].into_iter().for_each(|n| kept.add(event(n)));
        let names: Vec<String> = kept.fetch(1).events.into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!((kept.fetch(1), kept.names), (Fetched::default(), 0));
    }

    #[test]
    fn memory_is_bounded_and_the_loss_is_told_at_the_end() {
        let mut kept = Kept::default();
        for i in 0..limits::WATCH_EVENTS + 7 {
            kept.add(event(&i.to_string()));
        }
        let (mut seen, mut lost, mut reads) = (0, 0, 0);
        loop {
            let fetched = kept.fetch(10);
            seen += fetched.events.len();
            lost += fetched.lost;
            reads += 1;
            if !fetched.more {
                break;
            }
        }
        assert_eq!((seen, lost, reads > 1), (limits::WATCH_EVENTS, 7, true));
        assert!(!kept.is_worth_reading());
        let long = "x".repeat(4000);
        for i in 0..2 * limits::WATCH_NAMES / long.len() {
            kept.add(event(&format!("{long}{i}")));
        }
        assert!(kept.names <= limits::WATCH_NAMES && kept.lost > 0);
    }
}
