//! How ids on disk relate to those inside.

use crate::limits::{LAST_ID, NOBODY};

/// How the ids on disk, as this process sees them, relate to the ids inside a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// They are the same. Ids of archives beyond 65535 become 65534.
    Exact,
    /// One user owns all. Nothing is given away; read, everything is root's (0), so that a digest does not depend on who
    /// the user is.
    One,
    /// `first` on disk is 0 inside, and so on. Ids out of range are 65534 inside.
    Shifted {
        /// Of users.
        uid: Ids,
        /// Of groups.
        gid: Ids,
    },
}

/// A range of ids on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The id on disk that is 0 inside.
    pub first: u32,
    /// How many follow, itself included.
    pub count: u32,
}

impl Ids {
    fn inside(self, disk: u32) -> u32 {
        match disk.checked_sub(self.first) {
            Some(id) if id < self.count => id,
            _ => NOBODY,
        }
    }

    fn disk(self, inside: u32) -> u32 {
        let id = if inside < self.count { inside } else { NOBODY };
        self.first.saturating_add(id.min(self.count.saturating_sub(1)))
    }
}

impl Owners {
    /// The ids inside of a file that belongs to these on disk.
    pub(crate) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Self::Exact => (uid, gid),
            Self::One => (0, 0),
            Self::Shifted {
                uid: users,
                gid: groups,
            } => (users.inside(uid), groups.inside(gid)),
        }
    }

    /// Whom a file is given to on disk; nobody else than who made it if none.
    pub(crate) fn disk(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let known = |id: u32| if id > LAST_ID { NOBODY } else { id };
        match self {
            Self::Exact => Some((known(uid), known(gid))),
            Self::One => None,
            Self::Shifted {
                uid: users,
                gid: groups,
            } => Some((users.disk(known(uid)), groups.disk(known(gid)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shifted_and_strange_ones_are_nobodys() {
        let ids = |first, count| Ids { first, count };
        let shifted = Owners::Shifted {
            uid: ids(100_000, 65_536),
            gid: ids(200_000, 65_536),
        };
        assert_eq!(shifted.inside(100_000, 200_005), (0, 5));
        assert_eq!(shifted.inside(99_999, 0), (65_534, 65_534));
        assert_eq!(shifted.inside(165_536, 265_535), (65_534, 65_535));
        assert_eq!(shifted.disk(0, 65_535), Some((100_000, 265_535)));
        assert_eq!(shifted.disk(1_000_700_000, 1), Some((165_534, 200_001)));
        assert_eq!(Owners::Exact.disk(70_000, 7), Some((65_534, 7)));
        assert_eq!((Owners::One.inside(1000, 7), Owners::One.disk(5, 5)), ((0, 0), None));
        let few = Owners::Shifted {
            uid: ids(5, 10),
            gid: ids(5, 10),
        };
        assert_eq!(few.disk(4000, 9), Some((14, 14)));
    }
}
