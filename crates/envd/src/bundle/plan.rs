//! What an archive wants to write, and whether it may. All of it is looked at before anything is written.
//!
//! The rules: every path stays below the folder by its letters alone; a name stands once, folders excepted; nothing lies
//! below something that is no folder; a link begins with as many `..` as it is deep at most and has none further on, so that it
//! stays inside whatever other links it leads through; there are only files, folders and links; what comes out fits the disk and
//! is not many times what went in.

use std::collections::HashMap;

use crate::filesystem::error::{FsError, Kind as Failure};
use crate::limits::{BUNDLE_DEPTH, BUNDLE_ENTRIES, BUNDLE_NAMES, BUNDLE_PATH, UNPACK_RATIO, UNPACK_RATIO_FROM};

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

/// The entries so far.
#[derive(Debug, Default)]
pub(super) struct Plan {
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
    /// Takes one more entry. `path` is [`clean`].
    pub(super) fn add(&mut self, path: &[u8], kind: &Kind, size: u64) -> Result<(), FsError> {
        self.entries += 1;
        if self.entries > BUNDLE_ENTRIES {
            return Err(refused(format!("it has more than {BUNDLE_ENTRIES} entries")));
        }
        let target = match kind {
            Kind::Link(target) | Kind::Hard(target) => target.len(),
            Kind::Dir | Kind::File => 0,
        };
        self.names += path.len() + target;
        if self.names > BUNDLE_NAMES {
            return Err(refused(format!("its names have more than {} MiB", BUNDLE_NAMES >> 20)));
        }
        self.total = self
            .total
            .checked_add(size)
            .ok_or_else(|| refused("its sizes are not possible"))?;
        let tag = match kind {
            Kind::Dir => Tag::Dir,
            Kind::File => Tag::File,
            Kind::Link(target) => {
                stays(path, target)?;
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
            Some(_) => Err(refused(format!("entry {} stands twice in it", shown(path)))),
        }
    }

    /// The last look, at all entries together. `packed`: bytes of the archive; `free`: what the disk has left.
    pub(super) fn check(&self, packed: u64, free: u64) -> Result<(), FsError> {
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
        if self.total > UNPACK_RATIO_FROM && self.total / UNPACK_RATIO > packed {
            return Err(refused(format!(
                "its {packed} bytes would become {}, more than {UNPACK_RATIO} times as many: it looks like a bomb",
                self.total
            )));
        }
        if self.total > free {
            return Err(FsError::new(
                Failure::NoSpace,
                format!(
                    "nothing was written: the archive holds {} bytes, the disk has {free} left",
                    self.total
                ),
            ));
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

/// The same for names in zip files, where programs of other systems write and read `\` and `C:`.
pub(super) fn clean_zip(raw: &[u8], from_unix: bool) -> Result<Vec<u8>, FsError> {
    if let [letter, b':', ..] = raw
        && letter.is_ascii_alphabetic()
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

/// Whether a link at `path` stays inside.
fn stays(path: &[u8], target: &[u8]) -> Result<(), FsError> {
    let leads = |why: &str| refused(format!("link {} {why}: it points to {}", shown(path), shown(target)));
    if target.is_empty() || target.len() > BUNDLE_PATH || target.contains(&0) {
        return Err(leads("has no valid target"));
    }
    if target.starts_with(b"/") {
        return Err(leads("leads out of the folder"));
    }
    let depth = path.iter().filter(|b| **b == b'/').count();
    let (mut up, mut named) = (0, false);
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return Err(leads("goes down and up again, which may lead out of the folder")),
            b".." => up += 1,
            _ => named = true,
        }
    }
    if up > depth {
        return Err(leads("leads out of the folder"));
    }
    Ok(())
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
        for raw in [
            &b"..\\a"[..],
            b"\\a",
            b"C:\\a",
            b"c:a",
            b"C:",
            b"a\\..\\..\\b",
            b"\\\\host\\share",
        ] {
            clean_zip(raw, true).unwrap_err();
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
            stays(path, target).unwrap();
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
            stays(path, target).unwrap_err();
        }
    }

    #[test]
    fn entries_together() {
        let plan = |entries: &[(&[u8], Kind)]| {
            let mut plan = Plan::default();
            entries.iter().try_for_each(|(path, kind)| plan.add(path, kind, 1))?;
            plan.check(1000, 1000)
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
    fn sizes() {
        let mut plan = Plan::default();
        plan.add(b"a", &Kind::File, UNPACK_RATIO_FROM).unwrap();
        plan.check(1, u64::MAX).unwrap();
        plan.add(b"b", &Kind::File, UNPACK_RATIO).unwrap();
        assert!(plan.check(1, u64::MAX).unwrap_err().text().contains("bomb"));
        plan.check(UNPACK_RATIO_FROM / UNPACK_RATIO + 2, u64::MAX).unwrap();
        let full = plan.check(UNPACK_RATIO_FROM, UNPACK_RATIO_FROM).unwrap_err();
        assert_eq!(full.status(), 507);
        plan.add(b"c", &Kind::File, u64::MAX).unwrap_err();
    }
}
