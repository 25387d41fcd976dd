//! Templates: what sandboxes are made of, by name, and how it is built.

mod api;
mod build;
mod cache;
mod db;
mod files;
mod image;
mod logs;
mod names;
mod resolve;
mod rows;
mod shown;
mod stop;
mod uploads;
pub(crate) mod verify;

use std::{collections::HashSet, path::Path, sync::Arc};

use futures::future::BoxFuture;
use sandhold_runtime::{LayerId, Layers};

pub use self::image::{ImageCredentials, ImageFailure, ImageLayer, ImageSource, OpenImage};
pub(crate) use self::{
    api::{
        alias, assign_tags, build_logs, build_status, defaults, delete, get, list, request, start_build, tags,
        unassign_tags, update, v1,
    },
    build::begin,
    files::{link, put},
    stop::cancel_build,
};
use self::{build::Builds, db::Db, uploads::Uploads};
use crate::{
    error::{Refusal, StoreError},
    layering::NamesLayers,
    limits::TEMPLATES_PRUNE_EVERY,
    sandboxes::Sandboxes,
    store::is_alive,
};

/// How templates are built.
#[derive(Clone, Default)]
pub struct TemplateConfig {
    /// Where images come from; without, templates are built from templates alone.
    pub images: Option<Arc<dyn ImageSource>>,
    /// Whether clients reach this server by `https`: the URLs that files are brought to begin so.
    pub https: bool,
}

impl std::fmt::Debug for TemplateConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateConfig")
            .field("images", &self.images.is_some())
            .field("https", &self.https)
            .finish()
    }
}

/// The templates of a home.
pub(crate) struct Templates {
    pub(crate) db: Db,
    pub(crate) uploads: Uploads,
    pub(crate) builds: Builds,
}

impl Templates {
    /// Opens what is in `home`. Builds of servers that are gone are noted as failed.
    pub(crate) fn open(home: &Path) -> Result<Self, StoreError> {
        let templates = Self {
            db: Db::open(home)?,
            uploads: Uploads::open(home)?,
            builds: Builds::default(),
        };
        let own = build::this_server();
        let given_up = templates.db.run_now(|db| {
            cache::prune(db)?;
            rows::abandon(db, |server| server == own || !is_alive(server))
        });
        match given_up {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "builds of a server that is gone are noted as failed"),
            Err(refusal) => tracing::warn!(
                error = refusal.message(),
                "builds of servers that are gone were not looked for"
            ),
        }
        templates.uploads.prune();
        Ok(templates)
    }
}

impl NamesLayers for Templates {
    /// Those of builds that are ready, and of what later builds find again. One that a build has just written is not named
    /// yet: the engine removes no layer that is young.
    fn named(&self) -> BoxFuture<'_, Result<HashSet<LayerId>, Refusal>> {
        let named = self.db.read(|db| {
            let mut named: HashSet<LayerId> = cache::layers(db)?.into_iter().collect();
            named.extend(rows::roots(db)?.into_iter().flat_map(|root| root.layers));
            Ok(named)
        });
        Box::pin(named)
    }
}

impl Sandboxes {
    /// Where layers are kept, or why no template can be built.
    pub(crate) fn template_layers(&self) -> Result<Arc<dyn Layers>, Refusal> {
        self.runtime.layers().ok_or_else(|| {
            let why = self.info().no_layers;
            let why = why.unwrap_or_else(|| "its engine keeps no layers".into());
            Refusal::new(
                http::StatusCode::NOT_IMPLEMENTED,
                format!("templates cannot be built here: {why}"),
            )
        })
    }
}

/// Looks through what builds left, for as long as the table is there.
pub(crate) async fn prune_always(sandboxes: std::sync::Weak<Sandboxes>) {
    loop {
        tokio::time::sleep(TEMPLATES_PRUNE_EVERY).await;
        let Some(sandboxes) = sandboxes.upgrade() else { return };
        let pruned = sandboxes.templates.db.run(|db| {
            cache::prune(db)?;
            let own = build::this_server();
            rows::abandon(db, |server| server != own && !is_alive(server))
        });
        if let Err(refusal) = pruned.await {
            tracing::warn!(
                error = refusal.message(),
                "what builds left could not be looked through"
            );
        }
        let _ = tokio::task::spawn_blocking(move || sandboxes.templates.uploads.prune()).await;
    }
}
