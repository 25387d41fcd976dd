//! Watching folders: as a stream, or by asking.

mod registry;
mod tree;

pub(crate) use registry::Registry;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectrpc::{ConnectError, ServiceStream};
use futures::stream;
use sandhold_wire::proto::filesystem::{EventType, FilesystemEvent, WatchDirResponse, watch_dir_response};
use tokio::io::unix::AsyncFd;

use super::error::{FsError, Kind, blocking};
use super::{entry, mounts};
use crate::process::DEADLINE_EXCEEDED;
use crate::users::Names;
use tree::{Change, Tree};

/// What is to be watched.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) recursive: bool,
    pub(crate) include_entry: bool,
    pub(crate) allow_network_mounts: bool,
}

/// A watch that stands.
pub(crate) struct Watch {
    /// Always there between two calls of [`Watch::next`].
    tree: Option<Tree>,
    ready: Arc<AsyncFd<OwnedFd>>,
    root: Arc<Path>,
    include_entry: bool,
    /// The last read left something in the queue.
    more: bool,
}

impl Watch {
    /// Starts to watch: what happens after this returned is told.
    pub(crate) async fn new(options: Options) -> Result<Self, FsError> {
        let include_entry = options.include_entry;
        let root: Arc<Path> = options.path.as_path().into();
        let tree = blocking(move || start(&options)).await?;
        Ok(Self {
            ready: tree.fd(),
            tree: Some(tree),
            root,
            include_entry,
            more: false,
        })
    }

    /// Waits for the next changes, but not longer than `within`; none when nothing happened. Not to be called again after
    /// an error.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<Option<Vec<FilesystemEvent>>, FsError> {
        loop {
            if !self.more {
                // Only the wait may be cut short: reading moves the tree to another thread and back.
                let Ok(ready) = tokio::time::timeout(within, self.ready.readable()).await else {
                    return Ok(None);
                };
                // Cleared before reading: what comes meanwhile sets it again.
                ready
                    .map_err(|e| FsError::io("error waiting for changes", e))?
                    .clear_ready();
            }
            let mut tree = self.tree.take().ok_or_else(ended)?;
            let (root, include_entry) = (Arc::clone(&self.root), self.include_entry);
            let (tree, more, events) = blocking(move || {
                let (changes, more) = tree.read()?;
                let names = if include_entry && !changes.is_empty() {
                    Names::read()
                } else {
                    Names::default()
                };
                let events = changes
                    .into_iter()
                    .map(|c| event(&root, c, include_entry, &names))
                    .collect::<Vec<_>>();
                Ok((tree, more, events))
            })
            .await?;
            self.tree = Some(tree);
            self.more = more;
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }
}

fn ended() -> FsError {
    FsError::new(Kind::Internal, "the watcher has ended")
}

fn start(options: &Options) -> Result<Tree, FsError> {
    let path = &options.path;
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => FsError::io(format!("path {} not found", path.display()), e),
        _ => FsError::io(format!("error statting path {}", path.display()), e),
    })?;
    if !meta.is_dir() {
        return Err(FsError::invalid(format!("path {} not a directory", path.display())));
    }
    if !options.allow_network_mounts && mounts::is_network(path)? {
        return Err(FsError::invalid(format!(
            "cannot watch path on network filesystem: {}",
            path.display()
        )));
    }
    Tree::new(path, options.recursive)
}

fn event(root: &Path, change: Change, include_entry: bool, names: &Names) -> FilesystemEvent {
    let has_entry = matches!(
        change.kind,
        EventType::EVENT_TYPE_CREATE | EventType::EVENT_TYPE_WRITE | EventType::EVENT_TYPE_CHMOD
    );
    // It may be gone again; then the event goes without.
    let entry = (include_entry && has_entry).then(|| {
        let path = if change.name == Path::new(".") {
            root.to_owned()
        } else {
            root.join(&change.name)
        };
        entry::at(&path, names).ok()
    });
    FilesystemEvent {
        name: change.name.to_string_lossy().into_owned(),
        r#type: change.kind.into(),
        entry: entry.flatten().into(),
        ..FilesystemEvent::default()
    }
}

/// The events of a watch as a stream: a start event first, and after every `keepalive` of silence a sign of life. It ends
/// at `deadline`.
pub(crate) async fn stream(
    options: Options,
    keepalive: Duration,
    deadline: Option<Instant>,
) -> Result<ServiceStream<WatchDirResponse>, FsError> {
    struct Feed {
        watch: Watch,
        waiting: VecDeque<watch_dir_response::Event>,
        ended: bool,
    }
    let watch = Watch::new(options).await?;
    let waiting = VecDeque::from([watch_dir_response::StartEvent::default().into()]);
    let feed = Feed {
        watch,
        waiting,
        ended: false,
    };
    Ok(Box::pin(stream::unfold(feed, move |mut feed| async move {
        if feed.ended {
            return None;
        }
        if feed.waiting.is_empty() {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let next = match left {
                Some(Duration::ZERO) => Err(ConnectError::deadline_exceeded(DEADLINE_EXCEEDED)),
                left => {
                    let within = left.map_or(keepalive, |left| left.min(keepalive));
                    feed.watch.next(within).await.map_err(ConnectError::from)
                }
            };
            match next {
                Ok(Some(events)) => feed.waiting.extend(events.into_iter().map(Into::into)),
                Ok(None) => feed.waiting.push_back(watch_dir_response::KeepAlive::default().into()),
                Err(error) => {
                    feed.ended = true;
                    return Some((Err(error), feed));
                }
            }
        }
        let event = feed.waiting.pop_front()?;
        let response = WatchDirResponse {
            event: Some(event),
            ..WatchDirResponse::default()
        };
        Some((Ok(response), feed))
    })))
}
