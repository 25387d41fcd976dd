//! The engine's side of layers: what a root is made of, in the launcher's words.

use sandhold_runtime::{Base, Layer, Root};

use crate::engine::Shared;
use crate::launcher::message::{LayerName, Stack};

impl Shared {
    /// What the launcher is told of a root. `None`: there are no overlays here.
    pub(crate) fn stack(&self, root: &Root) -> Option<Stack> {
        self.no_layers.get().is_none().then(|| Stack {
            host: root.base == Base::Host,
            layers: root.layers.iter().map(name).collect(),
            folder: None,
        })
    }
}

fn name(layer: &Layer) -> LayerName {
    match layer {
        Layer::Stored(id) => LayerName::Stored(id.to_string()),
        Layer::Held(held) => LayerName::Held(held.number()),
    }
}
