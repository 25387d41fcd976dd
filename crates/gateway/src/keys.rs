//! API keys: `e2b_` and 40 hexadecimal digits, kept as SHA-256. The keys are random, so a plain hash cannot be guessed.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, params};
use sandhold_wire::signature;
use sha2::{Digest, Sha256};

use crate::{create::random_text, error::StoreError, limits::STORE_BUSY, owner::Owner};

/// The shape that E2B's older SDKs insist on.
const PREFIX: &str = "e2b_";
const DIGITS: usize = 40;
/// How long a server goes on with the keys it read: a revoked key works no longer than this.
const REREAD: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS api_keys (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  start TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  revoked_at INTEGER
) STRICT;
";

/// A key as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its number, for revoking.
    pub id: i64,
    /// The name it was given.
    pub name: String,
    /// Its first characters, to recognize it by.
    pub start: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// The API keys of one home folder. Several processes may use them at once.
pub struct Keys {
    file: PathBuf,
    connection: Mutex<Connection>,
    /// When they were read, and the number of each hash.
    known: Mutex<(Instant, HashMap<[u8; 32], i64>)>,
}

impl Keys {
    /// Opens the keys of a home folder, which is made if it is absent.
    ///
    /// # Errors
    /// The folder or the file cannot be made or read.
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(home).map_err(|source| StoreError::Folder {
            path: home.display().to_string(),
            source,
        })?;
        let file = home.join("keys.db");
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&file)?;
            connection.busy_timeout(STORE_BUSY)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        let connection = open().map_err(|source| StoreError::Open {
            path: file.display().to_string(),
            source,
        })?;
        let keys = Self {
            known: Mutex::new((Instant::now(), HashMap::new())),
            connection: Mutex::new(connection),
            file,
        };
        keys.reread()?;
        Ok(keys)
    }

    /// Makes a key and returns it. It is not shown again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(&self, name: &str) -> Result<String, StoreError> {
        let key = format!(
            "{PREFIX}{}",
            random_text(DIGITS, b"0123456789abcdef").map_err(StoreError::Random)?
        );
        let start = &key[..PREFIX.len() + 6];
        self.with(|c| {
            c.execute(
                "INSERT INTO api_keys (name, hash, start, created_at) VALUES (?1, ?2, ?3, ?4)",
                params![name, hash(&key), start, now()],
            )
        })?;
        Ok(key)
    }

    /// All keys, the oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self) -> Result<Vec<KeyInfo>, StoreError> {
        self.with(|c| {
            c.prepare("SELECT id, name, start, created_at, revoked_at IS NOT NULL FROM api_keys ORDER BY id")?
                .query_map([], |row| {
                    let created: i64 = row.get(3)?;
                    Ok(KeyInfo {
                        id: row.get(0)?,
                        name: row.get(1)?,
                        start: row.get(2)?,
                        created_at: UNIX_EPOCH + Duration::from_secs(u64::try_from(created).unwrap_or_default()),
                        revoked: row.get(4)?,
                    })
                })?
                .collect()
        })
    }

    /// Revokes a key. False if there is none of this number that still works.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn revoke(&self, id: i64) -> Result<bool, StoreError> {
        self.with(|c| {
            c.execute(
                "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
                params![id, now()],
            )
        })
        .map(|changed| changed > 0)
    }

    /// Whose a key is; `None` for one that does not work now.
    #[must_use]
    pub fn owner_of(&self, key: &str) -> Option<Owner> {
        let wanted = hash(key);
        let (read_at, found) = self.look_up(&wanted);
        if read_at.elapsed() < REREAD && found.is_some() {
            return found;
        }
        if let Err(error) = self.reread() {
            tracing::warn!(error = %crate::error::chain(&error), "the API keys cannot be read");
            return None;
        }
        self.look_up(&wanted).1
    }

    fn look_up(&self, wanted: &[u8; 32]) -> (Instant, Option<Owner>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.1.iter().find(|(hash, _)| signature::same(*hash, wanted));
        (known.0, found.map(|(_, number)| Owner::key(*number)))
    }

    fn reread(&self) -> Result<(), StoreError> {
        let hashes = self.with(|c| {
            c.prepare_cached("SELECT hash, id FROM api_keys WHERE revoked_at IS NULL")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<HashMap<[u8; 32], i64>>>()
        })?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), hashes);
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection).map_err(|source| StoreError::Open {
            path: self.file.display().to_string(),
            source,
        })
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_works_until_it_is_revoked_also_by_another_process() {
        let home = tempfile::tempdir().unwrap();
        let (server, cli) = (Keys::open(home.path()).unwrap(), Keys::open(home.path()).unwrap());
        let key = cli.create("laptop").unwrap();
        assert!(key.len() == 44 && key.starts_with("e2b_"));
        let owner = server.owner_of(&key).unwrap();
        assert_ne!(owner, Owner::LOCAL);
        assert_ne!(server.owner_of(&cli.create("other").unwrap()), Some(owner));
        for bad in ["e2b_0000000000000000000000000000000000000000", ""] {
            assert_eq!(server.owner_of(bad), None);
        }
        let listed = &cli.list().unwrap()[0];
        assert_eq!((listed.name.as_str(), listed.revoked), ("laptop", false));
        assert!(key.starts_with(&listed.start));
        assert!(cli.revoke(listed.id).unwrap() && !cli.revoke(listed.id).unwrap());
        std::thread::sleep(REREAD);
        assert_eq!(server.owner_of(&key), None);
        let stored = std::fs::read(home.path().join("keys.db")).unwrap();
        assert!(
            !stored.windows(key.len()).any(|w| w == key.as_bytes()),
            "the key itself is not stored"
        );
    }
}
