use serde::{Deserialize, Serialize};

/// How sandboxes are held: each level is another wall, with its own needs and gaps.
///
/// A level is asked for by name and had as asked for, or the engine does not start: no level ever stands in for another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Namespaces, cgroups and a system call filter. Needs user namespaces.
    #[default]
    Namespaces,
    /// Landlock, user ids and a system call filter, without any namespace: for containers that forbid them. It holds less.
    Landlock,
    /// A kernel of its own in user space: gVisor's `runsc`, which has to be installed.
    Gvisor,
}

impl Level {
    /// All levels, the default one first.
    pub const ALL: [Self; 3] = [Self::Namespaces, Self::Landlock, Self::Gvisor];

    /// The name that people use: `namespaces`, `landlock` or `gvisor`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::Gvisor => "gvisor",
        }
    }

    /// The level of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
