//! What an archive wants to write, and whether it may. All of it is looked at before anything is written.
//!
//! The rules: every path stays below the folder by its letters alone; a name stands once, folders excepted, and in tar files,
//! which are written on at their end, what is of the same kind; nothing lies below something that is no folder; a link begins
//! with as many `..` as it is deep at most and has none further on, so that it stays inside whatever other links it leads
//! through, and one that does not is never made; there are only files, folders and links; what comes out fits the disk and is not
//! many times what went in.

use std::collections::HashMap;

use crate::filesystem::error::{FsError, Kind as Failure};
use crate::limits::{
    BUNDLE_DEPTH, BUNDLE_ENTRIES, BUNDLE_NAMES, BUNDLE_PATH, UNPACK_ENTRY, UNPACK_MEMORY_PART, UNPACK_RATIO,
    UNPACK_RATIO_FROM,
};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
    /// With what it points to.
    Link(Vec<u8>),
    /// Another name of a file that came before, with that file's path.
    Hard(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Dir,
    File,
    Link,
}

/// What there is for an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Bytes of the archive itself.
    pub(super) packed: u64,
    /// Bytes that the disk has left.
    pub(super) free: u64,
    /// Files that the disk has left; `None` where it does not count them.
    pub(super) files: Option<u64>,
    /// Bytes of memory of the sandbox, as far as it sees them.
    pub(super) memory: u64,
    /// Whether the last of the same name is the one that counts, as in tar files.
    pub(super) last_wins: bool,
}

/// The entries so far.
#[derive(Debug)]
pub(super) struct Plan {
    room: Room,
    tags: HashMap<Vec<u8>, Tag>,
    entries: usize,
    names: usize,
    /// Bytes of all files.
    pub(super) total: u64,
}

/// Why an archive is not touched.
pub(super) fn refused(why: impl std::fmt::Display) -> FsError {
    FsError::invalid(format!("the archive is refused and nothing was written: {why}"))
}

/// As text, not longer than a person reads.
pub(super) fn shown(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(200).collect();
    format!("{text:?}")
}

impl Plan {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            tags: HashMap::new(),
            entries: 0,
            names: 0,
            total: 0,
        }
    }

    /// Whether so many entries, with names of so many bytes, are not too many.
    pub(super) fn count(&self, entries: u64, names: u64) -> Result<(), FsError> {
        if entries > BUNDLE_ENTRIES as u64 {
            return Err(refused(format!("it has more than {BUNDLE_ENTRIES} entries")));
        }
        if names > BUNDLE_NAMES as u64 {
            return Err(refused(format!("its names have more than {} MiB", BUNDLE_NAMES >> 20)));
        }
        if self.room.files.is_some_and(|files| entries > files) {
            let files = self.room.files.unwrap_or_default();
            let text =
                format!("nothing was written: the archive holds more than the {files} files the disk has room for");
            return Err(FsError::new(Failure::NoSpace, text));
        }
        if entries * UNPACK_ENTRY + 2 * names > self.room.memory / UNPACK_MEMORY_PART {
            return Err(refused(format!(
                "it has too many entries for the {} MiB of memory of this sandbox",
                self.room.memory >> 20
            )));
        }
        Ok(())
    }

    /// Whether so many bytes of files may come out of it.
    fn fits(&self) -> Result<(), FsError> {
        let (total, Room { packed, free, .. }) = (self.total, self.room);
        if total > UNPACK_RATIO_FROM && total / UNPACK_RATIO > packed {
            return Err(refused(format!(
                "its {packed} bytes would become {total} or more, over {UNPACK_RATIO} times as many: it looks like a bomb"
            )));
        }
        if total > free {
            let text =
                format!("nothing was written: the archive holds {total} bytes or more, the disk has {free} left");
            return Err(FsError::new(Failure::NoSpace, text));
        }
        Ok(())
    }

    /// Takes one more entry, before its content is read. `path` is [`clean`].
    pub(super) fn add(&mut self, path: &[u8], kind: &Kind, size: u64) -> Result<(), FsError> {
        self.entries += 1;
        let target = match kind {
            Kind::Link(target) | Kind::Hard(target) => target.len(),
            Kind::Dir | Kind::File => 0,
        };
        self.names += path.len() + target;
        self.count(self.entries as u64, self.names as u64)?;
        self.total = self
            .total
            .checked_add(size)
            .ok_or_else(|| refused("its sizes are not possible"))?;
        self.fits()?;
        let tag = match kind {
            Kind::Dir => Tag::Dir,
            Kind::File => Tag::File,
            Kind::Link(target) => {
                possible(path, target)?;
                Tag::Link
            }
            Kind::Hard(target) => {
                if self.tags.get(target) != Some(&Tag::File) {
                    let (path, target) = (shown(path), shown(target));
                    return Err(refused(format!(
                        "entry {path} is another name of {target}, which is no file that came before it"
                    )));
                }
                Tag::File
            }
        };
        if path.is_empty() {
            return match tag {
                Tag::Dir => Ok(()),
                _ => Err(refused(
                    "an entry that is no folder takes the place of the folder itself",
                )),
            };
        }
        match self.tags.insert(path.to_vec(), tag) {
            None => Ok(()),
            Some(Tag::Dir) if tag == Tag::Dir => Ok(()),
            Some(before) if before == tag && self.room.last_wins => Ok(()),
            Some(_) => Err(refused(format!("entry {} stands twice in it", shown(path)))),
        }
    }

    /// The last look, at all entries together.
    pub(super) fn check(&self) -> Result<(), FsError> {
        for path in self.tags.keys() {
            let mut at = 0;
            while let Some(slash) = path[at..].iter().position(|b| *b == b'/') {
                at += slash;
                if self.tags.get(&path[..at]).is_some_and(|tag| *tag != Tag::Dir) {
                    let (path, above) = (shown(path), shown(&path[..at]));
                    return Err(refused(format!(
                        "entry {path} lies below {above}, which is no folder in it"
                    )));
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether an entry is as it was planned.
    pub(super) fn knows(&self, path: &[u8], kind: &Kind) -> bool {
        let tag = match kind {
            Kind::Dir => Tag::Dir,
            Kind::File | Kind::Hard(_) => Tag::File,
            Kind::Link(_) => Tag::Link,
        };
        path.is_empty() || self.tags.get(path) == Some(&tag)
    }
}

/// The path of an entry without empty parts and `.`. One that leads out is refused.
pub(super) fn clean(raw: &[u8]) -> Result<Vec<u8>, FsError> {
    if raw.starts_with(b"/") {
        return Err(refused(format!("entry {} has an absolute path", shown(raw))));
    }
    if raw.len() > BUNDLE_PATH {
        return Err(refused(format!(
            "entry {} has a path of {} bytes",
            shown(raw),
            raw.len()
        )));
    }
    if raw.contains(&0) {
        return Err(refused(format!("the path of entry {} holds a zero byte", shown(raw))));
    }
    let mut parts = Vec::new();
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(format!("entry {} leads out of the folder", shown(raw)))),
            part => parts.push(part),
        }
    }
    if parts.len() > BUNDLE_DEPTH {
        return Err(refused(format!("entry {} is {} folders deep", shown(raw), parts.len())));
    }
    Ok(parts.join(&b'/'))
}

/// The same for names in zip files, where programs of other systems write and read `\` and `C:`. On Unix these are letters of
/// a name like others.
pub(super) fn clean_zip(raw: &[u8], from_unix: bool) -> Result<Vec<u8>, FsError> {
    if let [letter, b':', ..] = raw
        && letter.is_ascii_alphabetic()
        && !from_unix
    {
        return Err(refused(format!("entry {} names a drive", shown(raw))));
    }
    let slashes: Vec<u8> = raw.iter().map(|b| if *b == b'\\' { b'/' } else { *b }).collect();
    // What leads out on another system is meant to.
    let as_elsewhere = clean(&slashes).map_err(|_| refused(format!("entry {} leads out of the folder", shown(raw))));
    match clean(raw) {
        Ok(plain) if from_unix => as_elsewhere.map(|_| plain),
        Ok(_) => as_elsewhere,
        refusal => refusal,
    }
}

/// Whether there can be a link at `path` with this target at all.
pub(super) fn possible(path: &[u8], target: &[u8]) -> Result<(), FsError> {
    if target.is_empty() || target.len() > BUNDLE_PATH || target.contains(&0) {
        return Err(refused(format!("link {} has no valid target", shown(path))));
    }
    Ok(())
}

/// Whether a link at `path` stays inside. One that does not is not made.
pub(super) fn stays(path: &[u8], target: &[u8]) -> bool {
    if possible(path, target).is_err() || target.starts_with(b"/") {
        return false;
    }
    let depth = path.iter().filter(|b| **b == b'/').count();
    let (mut up, mut named) = (0, false);
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            // What is named may be a link to somewhere else.
            b".." if named => return false,
            b".." => up += 1,
            _ => named = true,
        }
    }
    up <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (raw, wanted) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"./a//b/./", b"a/b"),
            (b"./", b""),
            (b"...", b"..."),
            (b"a..b", b"a..b"),
            (b"\xff", b"\xff"),
        ] {
            assert_eq!(clean(raw).unwrap(), wanted);
            assert_eq!(clean_zip(raw, true).unwrap(), wanted);
        }
        for raw in [&b"/a"[..], b"..", b"../a", b"a/../../b", b"a/..", b"a\0b", b"//x"] {
            clean(raw).unwrap_err();
            clean_zip(raw, true).unwrap_err();
        }
        for raw in [&b"..\\a"[..], b"\\a", b"a\\..\\..\\b", b"\\\\host\\share"] {
            clean_zip(raw, true).unwrap_err();
            clean_zip(raw, false).unwrap_err();
        }
        for raw in [&b"C:\\a"[..], b"c:a", b"C:"] {
            assert_eq!(clean_zip(raw, true).unwrap(), raw);
            clean_zip(raw, false).unwrap_err();
        }
        assert_eq!(clean_zip(b"a\\b", true).unwrap(), b"a\\b");
        assert_eq!(clean_zip(b"a\\b", false).unwrap(), b"a/b");
        clean(&[b'a'; BUNDLE_PATH + 1]).unwrap_err();
        clean(&b"a/".repeat(BUNDLE_DEPTH + 1)).unwrap_err();
    }

    #[test]
    fn links() {
        for (path, target) in [
            (&b"a"[..], &b"b"[..]),
            (b"a", b"./b/c"),
            (b"a/b", b"../c"),
            (b"a/b/c", b"../../d"),
            (b"a/b", b".."),
        ] {
            assert!(stays(path, target), "{path:?}");
        }
        for (path, target) in [
            (&b"a"[..], &b".."[..]),
            (b"a", b"/etc/passwd"),
            (b"a", b"../b"),
            (b"a/b", b"../../c"),
            (b"a/b", b"c/../../d"),
            (b"a/b/l", b"s/../../x"),
            (b"a", b""),
            (b"a", b"b\0c"),
        ] {
            assert!(!stays(path, target), "{path:?}");
        }
    }

    const ROOM: Room = Room {
        packed: 1000,
        free: 1000,
        files: None,
        memory: u64::MAX,
        last_wins: false,
    };

    #[test]
    fn entries_together() {
        let plan = |entries: &[(&[u8], Kind)]| {
            let mut plan = Plan::new(ROOM);
            entries.iter().try_for_each(|(path, kind)| plan.add(path, kind, 1))?;
            plan.check()
        };
        let link = |to: &[u8]| Kind::Link(to.to_vec());
        plan(&[
            (b"a", Kind::Dir),
            (b"a/b", Kind::File),
            (b"a", Kind::Dir),
            (b"c", link(b"a")),
            (b"d", Kind::Hard(b"a/b".to_vec())),
            (b"", Kind::Dir),
        ])
        .unwrap();
        for bad in [
            &[(&b"a"[..], Kind::File), (b"a", Kind::File)][..],
            &[(b"a", Kind::File), (b"a", Kind::Dir)],
            &[(b"a", link(b"b")), (b"a/x", Kind::File)],
            &[(b"a/x", Kind::File), (b"a", link(b"b"))],
            &[(b"a/x/y", Kind::File), (b"a", Kind::File)],
            &[(b"d", Kind::Hard(b"a".to_vec()))],
            &[(b"a", link(b"b")), (b"d", Kind::Hard(b"a".to_vec()))],
            &[(b"", Kind::File)],
        ] {
            assert!(plan(bad).unwrap_err().text().contains("nothing was written"), "{bad:?}");
        }
    }

    #[test]
    fn the_last_of_a_name_wins_in_tar_files() {
        let link = |to: &[u8]| Kind::Link(to.to_vec());
        let kinds = [Kind::Dir, Kind::File, link(b"x")];
        for first in &kinds {
            for second in &kinds {
                for last_wins in [false, true] {
                    let mut plan = Plan::new(Room { last_wins, ..ROOM });
                    plan.add(b"a", first, 0).unwrap();
                    let fine = first == second && (last_wins || *first == Kind::Dir);
                    assert_eq!(plan.add(b"a", second, 0).is_ok(), fine, "{first:?} {second:?}");
                }
            }
        }
    }

    #[test]
    fn sizes() {
        let room = Room {
            packed: 1,
            free: u64::MAX,
            ..ROOM
        };
        let mut plan = Plan::new(room);
        plan.add(b"a", &Kind::File, UNPACK_RATIO_FROM).unwrap();
        assert!(
            plan.add(b"b", &Kind::File, UNPACK_RATIO)
                .unwrap_err()
                .text()
                .contains("bomb")
        );
        let packed = UNPACK_RATIO_FROM / UNPACK_RATIO + 2;
        let mut plan = Plan::new(Room { packed, ..room });
        plan.add(b"a", &Kind::File, UNPACK_RATIO_FROM).unwrap();
        plan.add(b"b", &Kind::File, UNPACK_RATIO).unwrap();
        plan.check().unwrap();
        plan.add(b"c", &Kind::File, u64::MAX).unwrap_err();
        let mut plan = Plan::new(ROOM);
        plan.add(b"a", &Kind::File, 1000).unwrap();
        assert_eq!(plan.add(b"b", &Kind::File, 1).unwrap_err().status(), 507);
    }

    #[test]
    fn numbers() {
        let plan = Plan::new(Room { files: Some(2), ..ROOM });
        plan.count(2, 0).unwrap();
        assert_eq!(plan.count(3, 0).unwrap_err().status(), 507);
        let most = BUNDLE_ENTRIES as u64;
        Plan::new(ROOM).count(most, 0).unwrap();
        Plan::new(ROOM).count(most + 1, 0).unwrap_err();
        Plan::new(ROOM).count(1, BUNDLE_NAMES as u64 + 1).unwrap_err();
        let small = Plan::new(Room {
            memory: 256 << 20,
            ..ROOM
        });
        small.count(50_000, 5_000_000).unwrap();
        small.count(50_000, 10_000_000).unwrap_err();
        let text = small.count(499_000, 0).unwrap_err().text();
        assert!(text.contains("256 MiB of memory"), "{text}");
    }
}
