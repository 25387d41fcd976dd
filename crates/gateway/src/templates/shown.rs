//! Templates and builds as the API shows them.

use std::collections::HashMap;

use sandhold_runtime::{Base, LayerId, StoredRoot};
use sandhold_wire::{
    names,
    templates::{Template, TemplateBuild, TemplateBuildStatus, TemplateSetup},
};

use super::{
    db::shown,
    rows::{BuildRow, TemplateRow},
};
use crate::{error::chain, layering::in_time, sandboxes::Sandboxes};

const MIB: u64 = 1 << 20;

/// Bytes of the layers that are there.
#[derive(Default)]
pub(crate) struct Sizes(HashMap<LayerId, u64>);

impl Sizes {
    /// Those of this store. Where they cannot be had nothing is known: they are an aside.
    pub(crate) async fn of(sandboxes: &Sandboxes) -> Self {
        let Ok(layers) = sandboxes.template_layers() else {
            return Self::default();
        };
        match in_time("listing layers", layers.stored()).await {
            Ok(stored) => Self(stored.into_iter().map(|layer| (layer.id, layer.bytes)).collect()),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the sizes of templates are not known");
                Self::default()
            }
        }
    }

    fn bytes(&self, layer: &LayerId) -> Option<u64> {
        self.0.get(layer).copied()
    }

    /// Of all layers of a root, if all are there.
    fn total(&self, root: &StoredRoot) -> Option<u64> {
        let bytes = root.layers.iter().map(|layer| self.bytes(layer));
        bytes.sum()
    }
}

/// What a list shows of a template. `builds` begin with the newest.
pub(crate) fn template_of(sandboxes: &Sandboxes, row: TemplateRow, builds: &[BuildRow], sizes: &Sizes) -> Template {
    let ready = builds.iter().find(|build| build.status == TemplateBuildStatus::Ready);
    let shown_build = ready.or(builds.first());
    let info = sandboxes.info();
    Template {
        template_id: row.id,
        build_id: shown_build.map_or_else(String::new, |build| build.id.clone()),
        cpu_count: cpus(sandboxes, shown_build.and_then(|build| build.cpus)),
        memory_mb: memory(sandboxes, shown_build.and_then(|build| build.memory_mb)),
        disk_size_mb: info.defaults.disk_bytes.unwrap_or_default() / MIB,
        public: row.public,
        aliases: row.names.clone(),
        names: row.names,
        created_at: shown(row.created_at),
        updated_at: shown(row.updated_at),
        created_by: None,
        last_spawned_at: row.spawned_at.map(shown),
        spawn_count: row.spawned,
        build_count: u64::try_from(builds.len()).unwrap_or(u64::MAX),
        envd_version: names::ENVD_VERSION.into(),
        build_status: builds
            .first()
            .map_or(TemplateBuildStatus::Waiting, |build| build.status),
        size_bytes: ready.and_then(|build| sizes.total(build.root.as_ref()?)),
    }
}

/// One of its builds.
pub(crate) fn build_of(sandboxes: &Sandboxes, build: &BuildRow, sizes: &Sizes) -> TemplateBuild {
    let setup = build.root.as_ref().map(|root| TemplateSetup {
        base: match root.base {
            Base::Host => "host",
            Base::Empty => "empty",
        }
        .into(),
        layers: root.layers.iter().map(ToString::to_string).collect(),
        layer_bytes: root.layers.iter().map(|layer| sizes.bytes(layer)).collect(),
        envs: build.start.envs.clone(),
        user: build.start.user.clone(),
        workdir: build.start.workdir.clone(),
        start_cmd: build.start.command.clone(),
        ready_cmd: build.start.ready.clone(),
    });
    TemplateBuild {
        build_id: build.id.clone(),
        status: build.status,
        created_at: shown(build.created_at),
        updated_at: shown(build.updated_at),
        finished_at: build.finished_at.map(shown),
        cpu_count: cpus(sandboxes, build.cpus),
        memory_mb: memory(sandboxes, build.memory_mb),
        setup,
    }
}

fn cpus(sandboxes: &Sandboxes, asked: Option<f64>) -> f64 {
    asked.or(sandboxes.info().defaults.cpus).unwrap_or_default()
}

fn memory(sandboxes: &Sandboxes, asked: Option<u64>) -> u64 {
    asked.unwrap_or_else(|| sandboxes.info().defaults.memory_bytes.unwrap_or_default() / MIB)
}
