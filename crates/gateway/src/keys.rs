//! API keys: `e2b_` and 40 hexadecimal digits, kept as SHA-256. The keys are random, so a plain hash cannot be guessed.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, params};
use sandhold_wire::signature;
use sha2::{Digest, Sha256};

use crate::{create::random_text, error::StoreError, limits::STORE_BUSY};

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
    known: Mutex<(Instant, HashSet<[u8; 32]>)>,
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
            known: Mutex::new((Instant::now(), HashSet::new())),
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

    /// Whether a key works now.
    pub(crate) fn works(&self, key: &str) -> bool {
        let wanted = hash(key);
        let (read_at, fresh) = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            (known.0, known.1.iter().any(|h| signature::same(h, &wanted)))
        };
        if read_at.elapsed() < REREAD && fresh {
            return true;
        }
        if let Err(error) = self.reread() {
            tracing::warn!(error = %crate::error::chain(&error), "the API keys cannot be read");
            return false;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.1.iter().any(|h| signature::same(h, &wanted))
    }

    fn reread(&self) -> Result<(), StoreError> {
        let hashes = self.with(|c| {
            c.prepare_cached("SELECT hash FROM api_keys WHERE revoked_at IS NULL")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<HashSet<[u8; 32]>>>()
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
        assert!(server.works(&key));
        assert!(!server.works("e2b_0000000000000000000000000000000000000000") && !server.works(""));
        let listed = &cli.list().unwrap()[0];
        assert_eq!((listed.name.as_str(), listed.revoked), ("laptop", false));
        assert!(key.starts_with(&listed.start));
        assert!(cli.revoke(listed.id).unwrap() && !cli.revoke(listed.id).unwrap());
        std::thread::sleep(REREAD);
        assert!(!server.works(&key));
        let stored = std::fs::read(home.path().join("keys.db")).unwrap();
        assert!(
            !stored.windows(key.len()).any(|w| w == key.as_bytes()),
            "the key itself is not stored"
        );
    }
}
