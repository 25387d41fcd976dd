//! Watchers that are asked for their events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use sandhold_wire::proto::filesystem::FilesystemEvent;
use tokio::task::AbortHandle;

use super::super::error::{FsError, Kind};
use super::super::{limits, random_id};
use super::{Options, Watch};

/// All watchers of the sandbox, by id.
#[derive(Debug, Default)]
pub(crate) struct Registry(Arc<Watchers>);

#[derive(Debug)]
struct Watcher {
    kept: Arc<Mutex<Kept>>,
    used: Instant,
    task: AbortHandle,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a watcher saw and nobody fetched.
#[derive(Debug, Default)]
struct Kept {
    events: Vec<FilesystemEvent>,
    /// Events there was no room for.
    lost: usize,
    error: Option<FsError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Starts a watcher and gives its id.
    pub(crate) async fn create(&self, options: Options) -> Result<String, FsError> {
        self.room()?;
        let watch = Watch::new(options).await?;
        let kept = Arc::new(Mutex::new(Kept::default()));
        let id = format!("w{}", random_id());
        let mut watchers = lock(&self.0);
        Self::check(&mut watchers)?;
        let task = tokio::spawn(collect(watch, Arc::clone(&kept), id.clone(), Arc::downgrade(&self.0))).abort_handle();
        watchers.insert(
            id.clone(),
            Watcher {
                kept,
                used: Instant::now(),
                task,
            },
        );
        Ok(id)
    }

    /// Refuses before anything is started when there are too many.
    fn room(&self) -> Result<(), FsError> {
        Self::check(&mut lock(&self.0))
    }

    /// Drops what nobody uses; an error when too many are left.
    fn check(watchers: &mut HashMap<String, Watcher>) -> Result<(), FsError> {
        watchers.retain(|_, watcher| watcher.used.elapsed() < limits::WATCHER_IDLE);
        if watchers.len() < limits::WATCHERS {
            return Ok(());
        }
        let text = format!("{} watchers exist already; remove some first", limits::WATCHERS);
        Err(FsError::new(Kind::Exhausted, text))
    }

    /// Takes the events that were seen since the last time.
    pub(crate) fn events(&self, id: &str) -> Result<Vec<FilesystemEvent>, FsError> {
        let kept = {
            let mut watchers = lock(&self.0);
            let watcher = watchers.get_mut(id).ok_or_else(|| unknown(id))?;
            watcher.used = Instant::now();
            Arc::clone(&watcher.kept)
        };
        let mut kept = lock(&kept);
        if !kept.events.is_empty() {
            return Ok(std::mem::take(&mut kept.events));
        }
        if kept.lost > 0 {
            let lost = std::mem::take(&mut kept.lost);
            let text = format!(
                "{lost} events were lost: the watcher keeps {} until they are fetched; look at the folder, then go on",
                limits::WATCHER_EVENTS
            );
            return Err(FsError::new(Kind::Exhausted, text));
        }
        match &kept.error {
            None => Ok(Vec::new()),
            Some(error) => Err(FsError::new(error.kind, error.text())),
        }
    }

    /// Ends a watcher.
    pub(crate) fn remove(&self, id: &str) -> Result<(), FsError> {
        lock(&self.0).remove(id).map(drop).ok_or_else(|| unknown(id))
    }
}

fn unknown(id: &str) -> FsError {
    FsError::new(Kind::NotFound, format!("watcher with id {id} not found"))
}

type Watchers = Mutex<HashMap<String, Watcher>>;

/// Keeps what `watch` sees until the watcher is removed or unused for long.
async fn collect(mut watch: Watch, kept: Arc<Mutex<Kept>>, id: String, registry: Weak<Watchers>) {
    loop {
        match watch.next(limits::WATCHER_IDLE).await {
            Ok(events) => lock(&kept).add(events.unwrap_or_default()),
            Err(error) => {
                lock(&kept).error = Some(error);
                return;
            }
        }
        let Some(registry) = registry.upgrade() else { return };
        let mut watchers = lock(&registry);
        if watchers
            .get(&id)
            .is_none_or(|w| w.used.elapsed() >= limits::WATCHER_IDLE)
        {
            watchers.remove(&id);
            return;
        }
    }
}

impl Kept {
    fn add(&mut self, mut events: Vec<FilesystemEvent>) {
        let room = limits::WATCHER_EVENTS.saturating_sub(self.events.len());
        if events.len() > room {
            self.lost += events.len() - room;
            events.truncate(room);
        }
        self.events.append(&mut events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn too_many_unfetched_events_are_counted_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::default();
        let options = Options {
            path: folder.path().to_owned(),
            recursive: false,
            include_entry: false,
            allow_network_mounts: false,
        };
        let id = registry.create(options).await.unwrap();
        {
            let watchers = lock(&registry.0);
            let mut kept = lock(&watchers[&id].kept);
            kept.events = vec![FilesystemEvent::default(); limits::WATCHER_EVENTS];
        }
        std::fs::write(folder.path().join("a"), "").unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(registry.events(&id).unwrap().len(), limits::WATCHER_EVENTS);
        let error = registry.events(&id).unwrap_err();
        assert_eq!(error.kind, Kind::Exhausted);
        assert!(error.text().starts_with("1 events were lost"), "{}", error.text());
        assert!(registry.events(&id).unwrap().is_empty());
    }

    #[tokio::test]
    async fn unused_watchers_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::default();
        let options = || Options {
            path: folder.path().to_owned(),
            recursive: false,
            include_entry: false,
            allow_network_mounts: false,
        };
        for _ in 0..limits::WATCHERS {
            registry.create(options()).await.unwrap();
        }
        let error = registry.create(options()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Exhausted);
        let old = Instant::now().checked_sub(limits::WATCHER_IDLE).unwrap();
        lock(&registry.0).values_mut().take(1).for_each(|w| w.used = old);
        registry.create(options()).await.unwrap();
    }
}
