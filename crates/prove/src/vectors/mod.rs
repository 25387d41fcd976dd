//! The vectors: what is tried, and by what it is shown that the trial is sound.

mod calls;
mod devices;
mod ipc;
mod kernel_files;
mod network;
mod privileges;
mod resources;
mod runtime;
pub(crate) mod serve;

use crate::attempt::Attempt;
use crate::facts::Facts;

/// What attempts work with.
pub(crate) struct Tried {
    /// What the program was told.
    pub(crate) facts: Facts,
    /// Whom attempts on other processes go to.
    pub(crate) victim: Option<i32>,
    /// Descriptors that were open at the start, besides the standard streams.
    pub(crate) inherited: Vec<i32>,
}

/// Where and when a vector is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As `user` and as root.
    Plain,
    /// Against the other sandbox: once here, once there.
    Neighbour,
    /// It uses up what there is: in a small sandbox of its own, once.
    Bomb,
}

/// By what it is shown that the attempt itself is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The same attempt on the host gets through.
    Outside,
    /// The same attempt in the other sandbox, at home there, gets through.
    Neighbour,
    /// A harmless relative gets through in the same place.
    Here,
}

/// One vector.
#[expect(missing_debug_implementations, reason = "it holds what it does")]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// Its group, from 1.
    pub group: usize,
    /// What it tries.
    pub title: String,
    /// What must come of it.
    pub expected: &'static str,
    /// Where it is tried.
    pub kind: Kind,
    /// Its control.
    pub control: Control,
    pub(crate) attempt: Box<dyn Fn(&Tried) -> Attempt>,
    /// The relative of [`Control::Here`].
    pub(crate) relative: Option<fn(&Tried) -> Attempt>,
}

impl Listed {
    pub(crate) fn new(
        group: usize,
        id: impl Into<String>,
        title: impl Into<String>,
        expected: &'static str,
        attempt: impl Fn(&Tried) -> Attempt + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            group,
            title: title.into(),
            expected,
            kind: Kind::Plain,
            control: Control::Outside,
            attempt: Box::new(attempt),
            relative: None,
        }
    }

    pub(crate) fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn with(self, control: Control) -> Self {
        Self { control, ..self }
    }

    pub(crate) fn shown_by(self, relative: fn(&Tried) -> Attempt) -> Self {
        Self {
            control: Control::Here,
            relative: Some(relative),
            ..self
        }
    }
}

/// All vectors that the program tries, in the order of their groups.
#[must_use]
pub fn all() -> Vec<Listed> {
    let mut all = kernel_files::vectors();
    all.extend(devices::vectors());
    all.extend(calls::vectors());
    all.extend(runtime::vectors());
    all.extend(ipc::vectors());
    all.extend(resources::vectors());
    all.extend(network::vectors());
    all.extend(privileges::vectors());
    // Stable: within a group the order stays.
    all.sort_by_key(|vector| vector.group);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_is_named_once_and_every_group_but_the_hosts_has_some() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|vector| vector.id.as_str()).collect();
        assert_eq!(names.len(), all.len());
        // The twelfth is tried by the host itself.
        let groups: BTreeSet<usize> = all.iter().map(|vector| vector.group).collect();
        assert_eq!(groups, (1..=11).collect());
        assert!(all.len() > 120, "{}", all.len());
    }
}
