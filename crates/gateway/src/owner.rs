use serde::{Deserialize, Serialize};

/// Whose a sandbox is: the API key that made it, or this process itself. Nobody sees what another owner has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(Option<i64>);

impl Owner {
    /// The callers in this process.
    pub const LOCAL: Self = Self(None);

    /// The holder of the API key of this number.
    pub(crate) fn key(number: i64) -> Self {
        Self(Some(number))
    }

    /// The number of the API key, where there is one.
    pub(crate) fn number(self) -> Option<i64> {
        self.0
    }
}
