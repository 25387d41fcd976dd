//! What builds need not do again, by what they did.

use rusqlite::{Connection, OptionalExtension, params};
use sandhold_runtime::{LayerId, StoredRoot};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{
    db::{Db, DbError, now},
    rows::text,
};
use crate::{
    entry::Start,
    error::Refusal,
    limits::{CACHED_KEPT, CACHED_MOST},
};

/// What a step left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) root: StoredRoot,
    pub(crate) start: Start,
}

/// A layer of an image that was unpacked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    pub(crate) layer: LayerId,
}

/// The key of something that was done: each part counts, and where it ends.
pub(crate) fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was kept under a key.
pub(crate) async fn look_up<T: DeserializeOwned + Send + 'static>(db: &Db, key: &str) -> Result<Option<T>, Refusal> {
    let key = key.to_owned();
    db.run(move |db| {
        let found: Option<String> = db
            .query_row(
                "UPDATE cached SET used_at = ?2 WHERE key = ?1 RETURNING value",
                params![key, now()],
                |row| row.get(0),
            )
            .optional()?;
        // What another version wrote is done anew.
        Ok(found.and_then(|value| serde_json::from_str(&value).ok()))
    })
    .await
}

/// Keeps something under a key.
pub(crate) async fn keep(db: &Db, key: &str, value: &(impl Serialize + Sync)) -> Result<(), Refusal> {
    let (key, value) = (key.to_owned(), text(value)?);
    db.run(move |db| {
        db.execute(
            "INSERT INTO cached (key, value, used_at) VALUES (?1, ?2, ?3) \
             ON CONFLICT (key) DO UPDATE SET value = ?2, used_at = ?3",
            params![key, value, now()],
        )?;
        Ok(())
    })
    .await
}

/// Forgets what was not used for long, and the oldest of too much.
pub(crate) fn prune(db: &Connection) -> Result<(), DbError> {
    let kept = i64::try_from(CACHED_KEPT.as_millis()).unwrap_or(i64::MAX);
    db.execute("DELETE FROM cached WHERE used_at < ?1", [now() - kept])?;
    db.execute(
        "DELETE FROM cached WHERE key IN (SELECT key FROM cached ORDER BY used_at DESC LIMIT -1 OFFSET ?1)",
        [CACHED_MOST],
    )?;
    Ok(())
}

/// The layers that are kept here.
pub(crate) fn layers(db: &Connection) -> rusqlite::Result<Vec<LayerId>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Done(Done),
        Unpacked(Unpacked),
    }
    let mut rows = db.prepare("SELECT value FROM cached")?;
    let values: Vec<String> = rows.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let kept = values
        .iter()
        .filter_map(|value| serde_json::from_str::<Kept>(value).ok());
    Ok(kept
        .flat_map(|kept| match kept {
            Kept::Done(done) => done.root.layers,
            Kept::Unpacked(unpacked) => vec![unpacked.layer],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_know_where_parts_end() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_ne!(key(&[b"a"]), key(&[b"a", b""]));
        assert_eq!(key(&[b"a"]).len(), 64);
    }

    #[tokio::test]
    async fn what_is_kept_is_found_and_pruned() {
        let home = tempfile::tempdir().unwrap();
        let db = Db::open(home.path()).unwrap();
        let layer = LayerId([3; 32]);
        keep(&db, "k", &Unpacked { layer }).await.unwrap();
        let found: Unpacked = look_up(&db, "k").await.unwrap().unwrap();
        assert_eq!(found.layer, layer);
        assert!(look_up::<Done>(&db, "k").await.unwrap().is_none());
        assert!(look_up::<Unpacked>(&db, "other").await.unwrap().is_none());
        assert_eq!(db.run_now(|db| Ok(layers(db)?)).unwrap(), [layer]);
        db.run_now(|db| {
            db.execute("UPDATE cached SET used_at = 0", [])?;
            prune(db)
        })
        .unwrap();
        assert!(look_up::<Unpacked>(&db, "k").await.unwrap().is_none());
    }
}
