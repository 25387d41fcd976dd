//! Whether the stored layers are what their names say, and who needs them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sandhold_runtime::{LayerId, StoredLayer, StoredRoot};

use super::{cache, rows};
use crate::{
    Gateway,
    error::{Refusal, chain},
    layering::{NamesLayers, in_time},
    owner::Owner,
};

/// What was found of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// Its name.
    pub id: LayerId,
    /// Bytes of its files; none if it is missing.
    pub bytes: Option<u64>,
    /// Who needs it, in words: `template web`. Nobody: it is removed some time after.
    pub used_by: Vec<String>,
    /// How it is.
    pub state: LayerState,
}

/// How a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerState {
    /// It holds what its name says.
    Whole,
    /// It does not, or cannot be read: why.
    Damaged(String),
    /// It is not there.
    Missing,
}

/// The store could not be looked through at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(String);

impl From<Refusal> for VerifyError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.message().to_owned())
    }
}

/// What the layers of a finished build may be asked for: its template's name, and the root.
type Built = (String, StoredRoot);

impl Gateway {
    /// Reads every layer of the store, or those of one template (an id or a name) of the user of this machine, holds each
    /// against its name and tells of it. It takes as long as reading them does.
    ///
    /// # Errors
    /// There is no such template, or no store, or it cannot be listed.
    pub async fn verify_layers(
        &self,
        template: Option<&str>,
        mut tell: impl FnMut(LayerReport) + Send,
    ) -> Result<(), VerifyError> {
        let sandboxes = &self.sandboxes;
        let layers = sandboxes.template_layers()?;
        let needed = self.needed(template).await?;
        let stored = in_time("listing layers", layers.stored()).await;
        let stored = stored.map_err(|error| VerifyError(format!("the layers cannot be listed: {}", chain(&error))))?;
        let stored: HashMap<LayerId, StoredLayer> = stored.into_iter().map(|layer| (layer.id, layer)).collect();
        let mut all: BTreeSet<LayerId> = needed.keys().copied().collect();
        if template.is_none() {
            all.extend(stored.keys());
            // Builds look themselves whether these are still there.
            let cached = sandboxes.templates.db.read(|db| Ok(cache::layers(db)?)).await?;
            all.extend(cached.into_iter().filter(|layer| stored.contains_key(layer)));
        }
        for id in all {
            let state = match stored.get(&id) {
                None => LayerState::Missing,
                Some(_) => match in_time("reading a layer", layers.verify(&id)).await {
                    Ok(()) => LayerState::Whole,
                    Err(sandhold_runtime::RuntimeError::UnknownLayer(_)) if !needed.contains_key(&id) => continue,
                    Err(sandhold_runtime::RuntimeError::UnknownLayer(_)) => LayerState::Missing,
                    Err(error) => LayerState::Damaged(chain(&error)),
                },
            };
            tell(LayerReport {
                id,
                bytes: stored.get(&id).map(|layer| layer.bytes),
                used_by: needed
                    .get(&id)
                    .map(|users| users.iter().cloned().collect())
                    .unwrap_or_default(),
                state,
            });
        }
        Ok(())
    }

    /// The layers that must be there, and for whom.
    async fn needed(&self, template: Option<&str>) -> Result<BTreeMap<LayerId, BTreeSet<String>>, VerifyError> {
        let sandboxes = &self.sandboxes;
        let mut needed: BTreeMap<LayerId, BTreeSet<String>> = BTreeMap::new();
        let mut need = |layers: &mut dyn Iterator<Item = LayerId>, who: &str| {
            for layer in layers {
                needed.entry(layer).or_default().insert(who.to_owned());
            }
        };
        let wanted = template.map(str::to_owned);
        let built: Vec<Built> = sandboxes
            .templates
            .db
            .read(move |db| {
                let Some(wanted) = wanted else { return Ok(built(db)?) };
                let row = rows::get(db, Owner::LOCAL, &wanted)?;
                let name = row.names.first().unwrap_or(&row.id).clone();
                let builds = rows::builds(db, &row.id)?;
                let roots = builds.into_iter().filter_map(|build| build.root);
                Ok(roots.map(|root| (name.clone(), root)).collect())
            })
            .await?;
        for (name, root) in built {
            need(&mut root.layers.into_iter(), &format!("template {name}"));
        }
        if template.is_none() {
            need(&mut sandboxes.snapshots.named().await?.into_iter(), "a snapshot");
            need(&mut sandboxes.store.named().await?.into_iter(), "a paused sandbox");
        }
        Ok(needed)
    }
}

/// All finished builds, of all owners.
fn built(db: &rusqlite::Connection) -> Result<Vec<Built>, rusqlite::Error> {
    let mut rows = db.prepare(
        "SELECT coalesce((SELECT min(name) FROM names WHERE names.template = builds.template), template), root \
         FROM builds WHERE root IS NOT NULL",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let root: String = row.get(1)?;
        let root = serde_json::from_str(&root).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
        })?;
        Ok((row.get(0)?, root))
    };
    rows.query_map([], read)?.collect()
}
