//! Stored layers: written for a row that will name them, counted, and removed once no row names them any more.
//!
//! Every kind of row that names layers is a [`NamesLayers`]; one that is left out loses its layers.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::BoxFuture;
use http::StatusCode;
use sandhold_runtime::{LayerId, Layers, Root, RuntimeError, StoredRoot};
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use crate::{
    error::{Refusal, chain},
    limits::{COLLECT_EVERY, LAYER_TIME, PAUSED_TOTAL},
    sandboxes::Sandboxes,
};

/// Rows that name stored layers, those of other servers of the same home too.
pub(crate) trait NamesLayers: Send + Sync {
    /// All layers that are named now. An error leaves every layer where it is.
    fn named(&self) -> BoxFuture<'_, Result<HashSet<LayerId>, Refusal>>;
}

/// What guards the stored layers of this server.
#[derive(Default)]
pub(crate) struct Layering {
    /// Shared from before layers are written until a row names them, alone while unnamed ones are removed.
    gate: RwLock<()>,
    /// Told when a row is gone.
    gone: Notify,
    /// Bytes of the layers of snapshots and paused sandboxes, as they were counted last.
    used: AtomicU64,
}

impl Layering {
    /// Has unnamed layers looked for soon.
    pub(crate) fn collect_soon(&self) {
        self.gone.notify_one();
    }

    /// Bytes of the layers of snapshots and paused sandboxes, as they were counted last.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Layers that are on disk and stay there while this is held, named or not.
pub(crate) struct Written<'a> {
    pub(crate) root: StoredRoot,
    /// What they were said to stand on.
    pub(crate) origin: StoredRoot,
    /// Bytes of those of its layers that `origin` does not have.
    pub(crate) bytes: u64,
    _gate: RwLockReadGuard<'a, ()>,
}

impl Sandboxes {
    /// Refuses what needs layers where there are none.
    pub(crate) fn check_layers(&self) -> Result<(), Refusal> {
        self.info().no_layers.map_or(Ok(()), |why| Err(no_layers(&why)))
    }

    /// Where layers are kept, or why there are none.
    pub(crate) fn layers(&self) -> Result<Arc<dyn Layers>, Refusal> {
        self.check_layers()?;
        self.runtime.layers().ok_or_else(|| no_layers("its engine stores none"))
    }

    /// Writes a root, and what it stands on, to disk for a row to name.
    pub(crate) async fn write_layers(&self, root: &Root, origin: &Root) -> Result<Written<'_>, Refusal> {
        let layers = self.layers()?;
        let gate = self.layering.gate.read().await;
        let writing = async {
            // What both have in common is written once.
            Ok::<_, RuntimeError>((layers.keep(origin).await?, layers.keep(root).await?))
        };
        let (origin, root) =
            in_time("writing the layers of a sandbox", writing)
                .await
                .map_err(|error| match error {
                    RuntimeError::Exhausted(_) => Refusal::new(StatusCode::INSUFFICIENT_STORAGE, chain(&error)),
                    error => error.into(),
                })?;
        let named = self.kept_layers().await?;
        let stored = in_time("counting layers", layers.stored()).await?;
        let below: HashSet<_> = origin.layers.iter().collect();
        // Another server may have removed one while nothing named it.
        let there: HashSet<_> = stored.iter().map(|layer| layer.id).collect();
        if let Some(lost) = root.layers.iter().chain(&origin.layers).find(|id| !there.contains(*id)) {
            return Err(RuntimeError::UnknownLayer(*lost).into());
        }
        let (mut bytes, mut all) = (0u64, self.archives.used());
        for layer in &stored {
            if root.layers.contains(&layer.id) && !below.contains(&layer.id) {
                bytes = bytes.saturating_add(layer.bytes);
            }
            if named.contains(&layer.id) || (root.layers.contains(&layer.id) && !below.contains(&layer.id)) {
                all = all.saturating_add(layer.bytes);
            }
        }
        self.layering
            .used
            .store(all.saturating_sub(self.archives.used()), Ordering::Relaxed);
        if all > PAUSED_TOTAL {
            drop(gate);
            self.layering.collect_soon();
            return Err(Refusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                format!(
                    "snapshots and paused sandboxes may take {PAUSED_TOTAL} bytes together and would take {all}: delete some first"
                ),
            ));
        }
        Ok(Written {
            root,
            origin,
            bytes,
            _gate: gate,
        })
    }

    /// The layers of snapshots and paused sandboxes.
    async fn kept_layers(&self) -> Result<HashSet<LayerId>, Refusal> {
        let mut named = self.snapshots.named().await?;
        named.extend(self.store.named().await?);
        Ok(named)
    }

    /// Every layer that must stay.
    async fn named_layers(&self) -> Result<HashSet<LayerId>, Refusal> {
        let mut named = self.kept_layers().await?;
        named.extend(self.templates.named().await?);
        for entry in self.all() {
            // What runs is held by the engine; what it may go back to is not.
            for root in entry.roots() {
                named.extend(root.layers.iter().filter_map(|layer| match layer {
                    sandhold_runtime::Layer::Stored(id) => Some(*id),
                    sandhold_runtime::Layer::Held(_) => None,
                }));
            }
        }
        Ok(named)
    }

    /// Removes layers that nothing names. Those in use and those that are young stay for another time.
    pub(crate) async fn collect(&self) -> Result<usize, Refusal> {
        let layers = self.layers()?;
        let _alone = self.layering.gate.write().await;
        // In this order: what another server writes meanwhile is not in the first list, or named in the second.
        let stored = in_time("listing layers", layers.stored()).await?;
        let named = self.named_layers().await?;
        let mut removed = 0;
        for layer in stored.iter().filter(|layer| !named.contains(&layer.id)) {
            match in_time("removing a layer", layers.remove(&layer.id)).await {
                Ok(true) => removed += 1,
                // Another server may have been faster.
                Ok(false) | Err(RuntimeError::UnknownLayer(_)) => {}
                Err(error) => tracing::warn!(layer = %layer.id, error = %chain(&error), "a layer could not be removed"),
            }
        }
        let kept = self.kept_layers().await?;
        let used = stored.iter().filter(|layer| kept.contains(&layer.id));
        self.layering
            .used
            .store(used.map(|layer| layer.bytes).sum(), Ordering::Relaxed);
        Ok(removed)
    }
}

fn no_layers(why: &str) -> Refusal {
    let message = format!("there are no snapshots, forks and checkpoints here: {why}");
    Refusal::new(StatusCode::NOT_IMPLEMENTED, message)
}

/// Removes unnamed layers from time to time and after rows went, for as long as the table is there.
pub(crate) async fn collect_always(sandboxes: std::sync::Weak<Sandboxes>) {
    loop {
        let Some(now) = sandboxes.upgrade() else { return };
        if now.layers().is_err() {
            return;
        }
        match now.collect().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "layers that nothing names were removed"),
            Err(refusal) => tracing::warn!(error = refusal.message(), "unnamed layers were not looked for"),
        }
        let layering = now.layering.clone();
        drop(now);
        // A timeout is the usual case.
        let _ = tokio::time::timeout(COLLECT_EVERY, layering.gone.notified()).await;
    }
}

/// An engine's work on files, which takes no longer than [`LAYER_TIME`].
pub(crate) async fn in_time<T>(
    what: &str,
    work: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let late = || {
        RuntimeError::failed(
            format!("{what} took longer than {} s", LAYER_TIME.as_secs()),
            "given up",
        )
    };
    tokio::time::timeout(LAYER_TIME, work)
        .await
        .unwrap_or_else(|_| Err(late()))
}
