use std::any::Any;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the root file system of a sandbox is made of: what it stands on, and the layers over that, the lowest first.
///
/// A layer holds files, and what it removes of those below it: it never changes. What a sandbox writes comes over all of
/// them and is its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Root {
    /// What is below the lowest layer.
    pub base: Base,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// What the lowest layer lies on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The host's programs, read-only, and the folders that a system needs.
    #[default]
    Host,
    /// Nothing: the layers bring everything.
    Empty,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Layer {
    /// One that is on disk until it is removed.
    Stored(LayerId),
    /// One that is there while somebody holds it, at longest as long as the engine.
    Held(Held),
}

/// The name of a stored layer: the SHA-256 of what it holds. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(pub [u8; 32]);

impl std::fmt::Display for LayerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for LayerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerId({self})")
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.to_string()
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a layer: 64 lower-case hexadecimal digits")]
pub struct NotALayerId(pub String);

impl std::str::FromStr for LayerId {
    type Err = NotALayerId;

    fn from_str(text: &str) -> Result<Self, NotALayerId> {
        let bad = || NotALayerId(text.chars().take(80).collect());
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut id = [0; 32];
        if pairs.len() != id.len() || !rest.is_empty() {
            return Err(bad());
        }
        for (byte, [high, low]) in id.iter_mut().zip(pairs) {
            *byte = (digit(*high).ok_or_else(bad)? << 4) | digit(*low).ok_or_else(bad)?;
        }
        Ok(Self(id))
    }
}

impl TryFrom<String> for LayerId {
    type Error = NotALayerId;

    fn try_from(text: String) -> Result<Self, NotALayerId> {
        text.parse()
    }
}

/// A layer that goes when its last holder does.
#[derive(Clone)]
pub struct Held {
    number: u64,
    keep: Arc<dyn Any + Send + Sync>,
}

impl Held {
    /// The engine's layer `number`, which is let go when `keep` is dropped.
    #[must_use]
    pub fn new(number: u64, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { number, keep }
    }

    /// The engine's number of it; no two of one engine have the same.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What the engine holds it by.
    #[must_use]
    pub fn keep(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.keep
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({})", self.number)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Held {}

impl std::hash::Hash for Held {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// A root whose layers are all stored: it can be written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredRoot {
    /// What is below the lowest layer.
    pub base: Base,
    /// The layers, the lowest first.
    pub layers: Vec<LayerId>,
}

impl From<StoredRoot> for Root {
    fn from(root: StoredRoot) -> Self {
        Self {
            base: root.base,
            layers: root.layers.into_iter().map(Layer::Stored).collect(),
        }
    }
}

impl Root {
    /// The same, if all of its layers are stored.
    #[must_use]
    pub fn stored(&self) -> Option<StoredRoot> {
        let stored = |layer: &Layer| match layer {
            Layer::Stored(id) => Some(*id),
            Layer::Held(_) => None,
        };
        Some(StoredRoot {
            base: self.base,
            layers: self.layers.iter().map(stored).collect::<Option<_>>()?,
        })
    }

    /// Whether `self` is `lower` with further layers over it, or `lower` itself.
    #[must_use]
    pub fn stands_on(&self, lower: &Self) -> bool {
        self.base == lower.base && self.layers.starts_with(&lower.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_layer_is_its_digits() {
        let id = LayerId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(
            serde_json::from_str::<LayerId>(&serde_json::to_string(&id).unwrap()).unwrap(),
            id
        );
        for bad in [
            "",
            "0g",
            &"A".repeat(64),
            &"0".repeat(63),
            &"0".repeat(65),
            &"0".repeat(66),
        ] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_root_is_written_down_when_all_of_it_is_stored() {
        let id = LayerId([7; 32]);
        let stored = StoredRoot {
            base: Base::Empty,
            layers: vec![id],
        };
        let mut root = Root::from(stored.clone());
        assert_eq!(root.stored(), Some(stored));
        let below = root.clone();
        root.layers.push(Layer::Held(Held::new(1, Arc::new(()))));
        assert_eq!(root.stored(), None);
        assert!(root.stands_on(&below) && root.stands_on(&root) && !below.stands_on(&root));
    }
}
