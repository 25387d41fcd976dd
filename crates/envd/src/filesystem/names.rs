//! Names of owners and groups, from `/etc/passwd` and `/etc/group`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Names by id. An id without a name is shown as its number.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    pub(crate) fn user(&self, id: u32) -> String {
        self.users.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    pub(crate) fn group(&self, id: u32) -> String {
        self.groups.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

/// Keeps the names for as long as the two files stay as they are.
#[derive(Debug, Default)]
pub(crate) struct NameCache(Mutex<Option<(Stamp, Arc<Names>)>>);

/// Size, change time and inode of both files: changes when either is written or replaced.
type Stamp = [(u64, i64, i64, u64); 2];

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

impl NameCache {
    /// The current names. Reads files when they changed.
    pub(crate) fn get(&self) -> Arc<Names> {
        let stamp = [PASSWD, GROUP].map(stamp);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, names)) if *at == stamp => Arc::clone(names),
            _ => {
                let names = Arc::new(Names { users: read(PASSWD), groups: read(GROUP) });
                *kept = Some((stamp, Arc::clone(&names)));
                names
            }
        }
    }
}

fn stamp(path: &str) -> (u64, i64, i64, u64) {
    std::fs::metadata(path).map_or((0, 0, 0, 0), |m| (m.len(), m.ctime(), m.ctime_nsec(), m.ino()))
}

fn read(path: &str) -> HashMap<u32, String> {
    parse(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()))
}

/// `name:x:id:…`; the first name of an id counts, as for the C library.
fn parse(text: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_both_files_alike() {
        let names = parse("root:x:0:0:root:/root:/bin/sh\nadm:x:4:a,b\ntoor:x:0:0::/:/bin/sh\nbroken\nbad:x:y\n");
        assert_eq!(names.len(), 2);
        assert_eq!(names[&0], "root");
        assert_eq!(names[&4], "adm");
        assert_eq!(Names::default().user(77), "77");
        assert_eq!(NameCache::default().get().user(0), "root");
    }
}
