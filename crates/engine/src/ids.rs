//! Where the ids of sandboxes come from.
//!
//! As root each sandbox has a range of its own, so that not even a process that gets out is anybody to the host or to
//! another sandbox. Ranges come in blocks; a server owns a block while an abstract Unix socket of the block's name is
//! bound, by it or by its launcher: the kernel gives the name back when both are gone, however they ended.
//!
//! An ordinary user's sandboxes share that user's sub-ids, or have only the user's own id.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use sandhold_runtime::RuntimeError;

use crate::launcher::message::{IdMap, IdSource};
use crate::limits::{BLOCKS, IDS_FIRST, IDS_PER_SANDBOX, RANGES_PER_BLOCK, USER_ID};

/// Where the helpers of the `uidmap` package are found.
const HELPER_DIRS: &[&str] = &["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/run/wrappers/bin"];

/// The ids of this server's sandboxes.
#[derive(Debug)]
pub(crate) struct IdPool {
    pub(crate) source: IdSource,
    pub(crate) sub_ids: Option<SubIds>,
    blocks: Mutex<Vec<Block>>,
}

#[derive(Debug)]
struct Block {
    number: u32,
    name: OwnedFd,
    /// One bit a range.
    used: u64,
    /// The launcher that holds a copy of `name`.
    told: u64,
}

/// The ids of one sandbox.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) uids: IdMap,
    pub(crate) gids: IdMap,
    range: Option<(u32, u32)>,
    /// The block's socket, for a launcher that does not hold it yet.
    pub(crate) claim: Option<OwnedFd>,
}

/// What an ordinary user may map.
#[derive(Debug, Clone)]
pub(crate) struct SubIds {
    pub(crate) uid: (u32, u32),
    pub(crate) gid: (u32, u32),
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

impl IdPool {
    /// Finds out what this process has.
    pub(crate) fn detect() -> (Self, Vec<String>) {
        let pool = |source, sub_ids| Self {
            source,
            sub_ids,
            blocks: Mutex::default(),
        };
        if rustix::process::geteuid().is_root() {
            return (pool(IdSource::Ranges, None), Vec::new());
        }
        match SubIds::find() {
            Ok(sub_ids) => (pool(IdSource::SubIds, Some(sub_ids)), Vec::new()),
            Err(missing) => (pool(IdSource::Single, None), vec![single_warning(&missing)]),
        }
    }

    /// For sandboxes without namespaces: root gives each an id of its own, anybody else has one id to give.
    pub(crate) fn plain() -> Self {
        let source = if rustix::process::geteuid().is_root() {
            IdSource::Ranges
        } else {
            IdSource::Single
        };
        Self {
            source,
            sub_ids: None,
            blocks: Mutex::default(),
        }
    }

    /// Falls back to the user's one id.
    pub(crate) fn into_single(self) -> Self {
        Self {
            source: IdSource::Single,
            sub_ids: None,
            blocks: Mutex::default(),
        }
    }

    /// Whether processes inside can be of several users.
    pub(crate) fn can_switch_user(&self) -> bool {
        self.source != IdSource::Single
    }

    /// In a few words.
    pub(crate) fn describe(&self) -> &'static str {
        match self.source {
            IdSource::Ranges => "a private range of 65536 ids each",
            IdSource::SubIds => "the user's sub-ids",
            IdSource::Single => "the user's own id",
        }
    }

    /// Ids for one sandbox, for the launcher of this number.
    ///
    /// # Errors
    /// [`RuntimeError::Exhausted`] when all ranges are taken.
    pub(crate) fn lease(&self, launcher: u64) -> Result<Lease, RuntimeError> {
        match (self.source, &self.sub_ids) {
            (IdSource::Ranges, _) => self.lease_range(launcher),
            (IdSource::SubIds, Some(sub_ids)) => {
                // In the launcher's namespace 0 is the user and the sub-ids begin at 1.
                let map = |count: u32| IdMap {
                    inside: 0,
                    outside: 1,
                    count: count.min(IDS_PER_SANDBOX),
                };
                Ok(Lease {
                    uids: map(sub_ids.uid.1),
                    gids: map(sub_ids.gid.1),
                    range: None,
                    claim: None,
                })
            }
            _ => {
                let map = IdMap {
                    inside: USER_ID,
                    outside: 0,
                    count: 1,
                };
                Ok(Lease {
                    uids: map,
                    gids: map,
                    range: None,
                    claim: None,
                })
            }
        }
    }

    fn lease_range(&self, launcher: u64) -> Result<Lease, RuntimeError> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match blocks.iter().position(|block| block.used != u64::MAX) {
            Some(index) => index,
            None => {
                let block = claim_block(&blocks)?;
                blocks.push(block);
                blocks.len() - 1
            }
        };
        let block = &mut blocks[index];
        let range = block.used.trailing_ones();
        block.used |= 1 << range;
        let mut claim = None;
        if block.told != launcher {
            let copy = block.name.try_clone();
            claim = Some(copy.map_err(|error| RuntimeError::failed("copying the claim of an id block", error))?);
            block.told = launcher;
        }
        let outside = IDS_FIRST + (block.number * RANGES_PER_BLOCK + range) * IDS_PER_SANDBOX;
        let map = IdMap {
            inside: 0,
            outside,
            count: IDS_PER_SANDBOX,
        };
        Ok(Lease {
            uids: map,
            gids: map,
            range: Some((block.number, range)),
            claim,
        })
    }

    /// Gives the ids back. Only when no process has them any more.
    pub(crate) fn release(&self, lease: &Lease) {
        let Some((number, range)) = lease.range else { return };
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks.iter_mut().find(|block| block.number == number) {
            block.used &= !(1 << range);
        }
    }
}

/// Why the user's own id has to do.
pub(crate) fn single_warning(missing: &str) -> String {
    format!(
        "sandboxes run under your own user id and have no root user: {missing}. Install the package `uidmap` and run \
         `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`"
    )
}

/// Binds the name of a block that nobody has.
fn claim_block(own: &[Block]) -> Result<Block, RuntimeError> {
    for number in (0..BLOCKS).filter(|number| !own.iter().any(|block| block.number == *number)) {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| RuntimeError::failed("making the socket that claims ids", error))?;
        let address = SocketAddrUnix::new_abstract_name(format!("sandhold-ids-{number}").as_bytes())
            .map_err(|error| RuntimeError::failed("naming a block of ids", error))?;
        match bind(&socket, &address) {
            Ok(()) => {
                return Ok(Block {
                    number,
                    name: socket,
                    used: 0,
                    told: 0,
                });
            }
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(RuntimeError::failed(format!("claiming block {number} of ids"), error)),
        }
    }
    Err(RuntimeError::Exhausted(format!(
        "all {BLOCKS} blocks of ids are in use by Sandhold servers on this machine"
    )))
}

impl SubIds {
    /// Reads the user's sub-ids and finds the helpers; the error says what is missing.
    fn find() -> Result<Self, String> {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&passwd, uid);
        let range = |file: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            largest_range(&text, name, uid).ok_or_else(|| format!("{file} has no range of yours"))
        };
        let helper = |name: &str| {
            let found = HELPER_DIRS
                .iter()
                .map(|dir| PathBuf::from(dir).join(name))
                .find(|path| path.is_file());
            found.ok_or_else(|| format!("the program {name} is missing"))
        };
        Ok(Self {
            uid: range("/etc/subuid")?,
            gid: range("/etc/subgid")?,
            newuidmap: helper("newuidmap")?,
            newgidmap: helper("newgidmap")?,
        })
    }

    /// Writes the maps of the launcher `pid`: 0 is the user, from 1 on the sub-ids. Blocks for some milliseconds.
    ///
    /// # Errors
    /// What the helper said.
    pub(crate) fn write_maps(&self, pid: i32) -> Result<(), String> {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let maps = [(&self.newuidmap, own.0, self.uid), (&self.newgidmap, own.1, self.gid)];
        for (helper, own, (first, count)) in maps {
            let count = count.min(IDS_PER_SANDBOX);
            let output = std::process::Command::new(helper)
                .args([pid.to_string(), "0".into(), own.to_string(), "1".into()])
                .args(["1".to_owned(), first.to_string(), count.to_string()])
                .output()
                .map_err(|error| format!("{} cannot be run: {error}", helper.display()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{} refused: {}", helper.display(), said.trim()));
            }
        }
        Ok(())
    }
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The largest range of a user in a file like /etc/subuid that is big enough to hold `user`.
fn largest_range(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let uid = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(owner) == name || owner == uid).then_some(range)
    });
    ranges
        .filter(|(_, count)| *count > USER_ID)
        .max_by_key(|(_, count)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_ids_are_read_by_name_and_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nana:x:1500:1500::/home/ana:/bin/sh\n";
        assert_eq!(user_name(passwd, 1500), Some("ana"));
        let text = "bob:1:65536\nana:100000:1000\nana:200000:65536\n1500:300000:70000\nbroken\n";
        assert_eq!(largest_range(text, Some("ana"), 1500), Some((300_000, 70_000)));
        assert_eq!(largest_range(text, None, 7), None);
        assert_eq!(
            largest_range("ana:100000:1000\n", Some("ana"), 1500),
            None,
            "too small to hold the user's id"
        );
    }

    #[test]
    fn ranges_do_not_overlap_and_come_back() {
        let pool = IdPool {
            source: IdSource::Ranges,
            sub_ids: None,
            blocks: Mutex::default(),
        };
        let leases: Vec<Lease> = (0..130).map(|_| pool.lease(1).unwrap()).collect();
        let mut starts: Vec<u32> = leases.iter().map(|lease| lease.uids.outside).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= IDS_PER_SANDBOX));
        assert!(starts[0] >= IDS_FIRST);
        assert_eq!(
            leases.iter().filter(|lease| lease.claim.is_some()).count(),
            3,
            "one claim a block"
        );
        pool.release(&leases[7]);
        assert_eq!(pool.lease(1).unwrap().uids, leases[7].uids);
        assert!(
            pool.lease(2).unwrap().claim.is_some(),
            "another launcher gets the claim anew"
        );
    }

    #[test]
    fn another_server_gets_other_blocks() {
        let pool = || IdPool {
            source: IdSource::Ranges,
            sub_ids: None,
            blocks: Mutex::default(),
        };
        let (one, two) = (pool(), pool());
        assert_ne!(one.lease(1).unwrap().uids.outside, two.lease(1).unwrap().uids.outside);
    }
}
