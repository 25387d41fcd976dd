//! The archive of a sandbox's files, for the fuzzer.

use super::format::{Entry, read_head, write_head};
use super::unpack;

/// Reads all heads, as long as each follows the one before at once. Each is written and read again, which must give the
/// same entry. The number of entries, and why it stopped where it did not end.
///
/// # Panics
/// An entry is another one after it was written.
pub fn entries(mut bytes: &[u8]) -> (usize, Option<String>) {
    let mut count = 0;
    loop {
        let entry = match read_head(&mut bytes) {
            Ok(Some(entry)) => entry,
            Ok(None) => return (count, None),
            Err(error) => return (count, Some(error.to_string())),
        };
        count += 1;
        if let Some(segments) = &entry.segments {
            assert!(segments.iter().all(|(at, len)| at + len <= entry.size), "{entry:?}");
        }
        if plain(&entry) {
            let mut again = Vec::new();
            write_head(&mut again, &entry).expect("memory takes it");
            let same = read_head(&mut &again[..]);
            assert_eq!(same.ok().flatten().as_ref(), Some(&entry));
        }
    }
}

/// Whether our own writer could have been asked to write it: paths are without the slash that marks a folder, and what the
/// system gives fits.
fn plain(entry: &Entry) -> bool {
    let text = |bytes: &[u8]| !bytes.contains(&0);
    !entry.path.is_empty()
        && !entry.path.ends_with(b"/")
        && text(&entry.path)
        && text(&entry.target)
        && entry.kind != super::format::Kind::Dir
        && entry.uid < 1 << 21
        && entry.gid < 1 << 21
        && entry.size < 1 << 33
        && (entry.kind == super::format::Kind::File || entry.segments.is_none())
        && entry.xattrs.iter().all(|(name, _)| !name.contains(&b'='))
}

/// Replaces what is below `root` by the archive.
///
/// # Errors
/// Why not.
pub fn restore(root: &str, mut bytes: &[u8], switches: bool) -> Result<(), String> {
    unpack::unpack(root, &mut bytes, switches).map_err(|error| error.to_string())
}
