//! Several layers as one.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::attributes::make_opaque;
use crate::copy::{Path, make_folder};
use crate::error::{At, Error};
use crate::file::{Copier, Source, make_whiteout};
use crate::trail::Trail;
use crate::view::View;
use crate::whole::OPEN;
use crate::{Limits, Owners, Summary};

/// Writes one layer into the empty folder `into` that shows over `below` what `layers` show over it, both the highest
/// first. What hides something of `below` stays; what hides nothing goes, so that over nothing (`below` is empty) it is a
/// plain tree. All belong to `owners`.
///
/// # Errors
/// There is more than allowed, or a file could not be read or written. What was copied by then stays in `into`.
pub fn merge(
    layers: &[BorrowedFd<'_>],
    below: &[BorrowedFd<'_>],
    into: BorrowedFd<'_>,
    owners: Owners,
    limits: &Limits,
) -> Result<Summary, Error> {
    let mut copier = Copier::new(owners, owners, *limits);
    copier.begin(into)?;
    let mut view = View::new(layers).at("open", b"")?;
    let mut below = View::new(below).at("open", b"")?;
    let mut into_trail = Trail::new(into, OPEN).at("open", b"")?;
    let mut path = Path::default();
    let attributes = match view.top() {
        Some(top) => copier.attributes(top, b"")?,
        None => Default::default(),
    };
    let mut open = vec![(list(&view, limits, b"")?, attributes)];
    while let Some((left, attributes)) = open.last_mut() {
        let Some(name) = left.pop() else {
            if view.depth() == 0 {
                copier.end(into)?;
            }
            std::mem::take(attributes).give(into_trail.here(), owners, path.bytes())?;
            open.pop();
            view.leave().at("leave", path.bytes())?;
            below.leave().at("leave", path.bytes())?;
            into_trail.leave().at("leave", path.bytes())?;
            path.pop();
            continue;
        };
        path.push(&name);
        let at = path.bytes();
        let Some(found) = view.lookup(&name).at("look at", at)? else {
            return Err(Errno::STALE).at("look at", at);
        };
        let shown_below = match view.closed() {
            true => None,
            false => below.shown_from(0, &name).at("look at", at)?,
        };
        if found.is_folder() {
            copier.count(at)?;
            let closed_above = view.closed();
            view.enter(&name).at("open", at)?;
            below.enter(&name).at("open", at)?;
            make_folder(&mut into_trail, &name, at)?;
            if view.closed() && !closed_above && shown_below.is_some_and(|found| found.is_folder()) {
                make_opaque(into_trail.here()).at("mark", at)?;
            }
            let attributes = copier.attributes(view.here(found.layer), at)?;
            open.push((list(&view, limits, at)?, attributes));
            continue;
        }
        if found.is_whiteout() {
            if shown_below.is_some() {
                copier.count(at)?;
                make_whiteout(into_trail.here(), &name).at("hide", at)?;
            }
        } else {
            let source = Source {
                parent: view.here(found.layer),
                name: &name,
                stat: &found.stat,
            };
            copier.copy(source, into_trail.here(), at)?;
        }
        path.pop();
    }
    Ok(copier.done())
}

/// The names of a folder, the last first.
pub(crate) fn list(view: &View, limits: &Limits, path: &[u8]) -> Result<Vec<Box<[u8]>>, Error> {
    match view.names(limits.files) {
        Ok(mut names) => {
            names.reverse();
            Ok(names)
        }
        Err(Errno::OVERFLOW) => Err(Error::too_much("files", limits.files, path)),
        Err(error) => Err(error).at("list", path),
    }
}
