//! Layers over each other, as overlayfs shows them.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::attributes::{is_opaque, is_whiteout, kind};
use crate::limits::OPEN;
use crate::trail::{Trail, names};

/// A folder as several layers show it together, and the way up from it.
#[derive(Debug)]
pub(crate) struct View {
    trails: Vec<Trail>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// The layers that have a part in this folder, the highest first.
    members: Vec<usize>,
    /// Whether nothing below all of these layers shows here.
    closed: bool,
}

/// The highest layer's entry of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) layer: usize,
    pub(crate) stat: Stat,
}

impl Found {
    /// What it is.
    pub(crate) fn kind(&self) -> FileType {
        kind(&self.stat)
    }

    /// Whether it is one.
    pub(crate) fn is_folder(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether it hides what is below.
    pub(crate) fn is_whiteout(&self) -> bool {
        is_whiteout(&self.stat)
    }
}

fn stat_if_there(folder: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl View {
    /// The top folder of these layers, the highest first.
    pub(crate) fn new(layers: &[BorrowedFd<'_>]) -> Result<Self, Errno> {
        let trails = layers.iter().map(|layer| Trail::new(*layer, OPEN));
        Ok(Self {
            trails: trails.collect::<Result<_, _>>()?,
            // Overlayfs joins the top folders of all layers, whatever marks they bear.
            levels: vec![Level {
                members: (0..layers.len()).collect(),
                closed: false,
            }],
        })
    }

    fn level(&self) -> &Level {
        self.levels.last().expect("the top folder is never left")
    }

    /// Whether nothing that lies below all of these layers shows in this folder.
    pub(crate) fn closed(&self) -> bool {
        self.level().closed
    }

    /// How many folders below the top it is.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// The highest layer's part of this folder.
    pub(crate) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.level().members.first().map(|layer| self.trails[*layer].here())
    }

    /// One layer's part of this folder, which it must have.
    pub(crate) fn here(&self, layer: usize) -> BorrowedFd<'_> {
        self.trails[layer].here()
    }

    /// What the highest of the layers from `first` on says of a name: maybe that it is hidden.
    pub(crate) fn lookup_from(&self, first: usize, name: &[u8]) -> Result<Option<Found>, Errno> {
        for layer in self.level().members.iter().copied().filter(|layer| *layer >= first) {
            if let Some(stat) = stat_if_there(self.trails[layer].here(), name)? {
                return Ok(Some(Found { layer, stat }));
            }
        }
        Ok(None)
    }

    /// The same of all layers.
    pub(crate) fn lookup(&self, name: &[u8]) -> Result<Option<Found>, Errno> {
        self.lookup_from(0, name)
    }

    /// What the layers from `first` on show at a name.
    pub(crate) fn shown_from(&self, first: usize, name: &[u8]) -> Result<Option<Found>, Errno> {
        Ok(self.lookup_from(first, name)?.filter(|found| !found.is_whiteout()))
    }

    /// Goes into the folder `name`. Where it is none, nothing is seen until it is left again.
    pub(crate) fn enter(&mut self, name: &[u8]) -> Result<(), Errno> {
        let mut closed = self.closed();
        let mut members = Vec::new();
        for layer in self.level().members.clone() {
            let Some(stat) = stat_if_there(self.trails[layer].here(), name)? else {
                continue;
            };
            if kind(&stat) != FileType::Directory {
                closed = true;
                break;
            }
            self.trails[layer].enter(name)?;
            members.push(layer);
            if is_opaque(self.trails[layer].here())? {
                closed = true;
                break;
            }
        }
        self.levels.push(Level { members, closed });
        Ok(())
    }

    /// Goes back up; not further than the top.
    pub(crate) fn leave(&mut self) -> Result<(), Errno> {
        if self.levels.len() == 1 {
            return Ok(());
        }
        for layer in self.levels.pop().map(|level| level.members).unwrap_or_default() {
            self.trails[layer].leave()?;
        }
        Ok(())
    }

    /// The names in this folder in any layer, whiteouts too, in order. At most `most`: more is [`Errno::OVERFLOW`].
    pub(crate) fn names(&self, most: u64) -> Result<Vec<Box<[u8]>>, Errno> {
        let mut found = Vec::new();
        for layer in &self.level().members {
            let left = most.saturating_sub(found.len() as u64);
            found.append(&mut names(self.trails[*layer].here(), left)?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
