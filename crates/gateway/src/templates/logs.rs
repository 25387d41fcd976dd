//! The log of a build: written in batches while it goes on, read from any server of the home.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::{Connection, params};
use sandhold_wire::templates::BuildLogEntry;
use tokio::{sync::Notify, task::JoinHandle};

use super::db::{Db, DbError, now, shown};
use crate::limits::{BUILD_LOG_EVERY, BUILD_LOG_LINE, BUILD_LOG_LINES};

/// How important a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    #[default]
    Info,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Error => "error",
        }
    }

    /// The levels that are at least as important as one of this name; all for a name that is none.
    pub(crate) fn from(name: &str) -> &'static [&'static str] {
        const ALL: [&str; 4] = ["debug", "info", "warn", "error"];
        let at = ALL.iter().position(|level| *level == name).unwrap_or(0);
        &ALL[at..]
    }
}

struct Line {
    at: i64,
    level: Level,
    step: Option<String>,
    message: String,
}

#[derive(Default)]
struct Pending {
    lines: Vec<Line>,
    written: usize,
    full: bool,
}

struct Shared {
    db: Db,
    build: String,
    pending: Mutex<Pending>,
    more: Notify,
    closed: AtomicBool,
}

/// Writes the log of one build.
pub(crate) struct Log {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

impl Log {
    pub(crate) fn open(db: Db, build: String) -> Self {
        let shared = Arc::new(Shared {
            db,
            build,
            pending: Mutex::default(),
            more: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let writer = tokio::spawn(write_always(shared.clone()));
        Self { shared, writer }
    }

    /// Adds a line. Lines beyond what a log may hold are dropped, the last of those that fit says so.
    pub(crate) fn line(&self, level: Level, step: Option<&str>, message: impl Into<String>) {
        let mut message: String = message.into();
        if message.len() > BUILD_LOG_LINE {
            let end = (0..=BUILD_LOG_LINE).rev().find(|at| message.is_char_boundary(*at));
            message.truncate(end.unwrap_or(0));
            message.push('…');
        }
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // How a build ended is always told.
        if pending.full && level < Level::Error {
            return;
        }
        if pending.written + pending.lines.len() + 1 == BUILD_LOG_LINES {
            pending.full = true;
            "the log is full: what follows is not kept".clone_into(&mut message);
        }
        pending.lines.push(Line {
            at: now(),
            level,
            step: step.map(str::to_owned),
            message,
        });
        drop(pending);
        self.shared.more.notify_one();
    }

    /// Writes what is left.
    pub(crate) async fn close(self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.more.notify_one();
        // It can fail by a panic only.
        let _ = self.writer.await;
    }
}

async fn write_always(shared: Arc<Shared>) {
    loop {
        shared.more.notified().await;
        if !shared.closed.load(Ordering::Acquire) {
            // More may come: one write of many lines costs what one of one line does.
            let closing = async {
                while !shared.closed.load(Ordering::Acquire) {
                    shared.more.notified().await;
                }
            };
            let _ = tokio::time::timeout(BUILD_LOG_EVERY, closing).await;
        }
        let closed = shared.closed.load(Ordering::Acquire);
        let (first, lines) = {
            let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut pending.lines);
            let first = pending.written;
            pending.written += lines.len();
            (first, lines)
        };
        if !lines.is_empty() {
            let build = shared.build.clone();
            // Whoever deleted the template needs no log; the reason of any other failure was told.
            let _ = shared.db.run(move |db| write(db, &build, first, &lines)).await;
        }
        if closed {
            return;
        }
    }
}

fn write(db: &Connection, build: &str, first: usize, lines: &[Line]) -> Result<(), DbError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO logs (build, line, at, level, step, message) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM builds WHERE id = ?1)",
    )?;
    for (number, line) in (i64::try_from(first).unwrap_or(i64::MAX)..).zip(lines) {
        insert.execute(params![
            build,
            number,
            line.at,
            line.level.name(),
            line.step,
            line.message
        ])?;
    }
    Ok(())
}

/// Which lines are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The number of the first, of those that are shown.
    pub(crate) offset: u32,
    /// Lines from this time on; before it when read backward.
    pub(crate) from: Option<i64>,
    pub(crate) most: u32,
    pub(crate) backward: bool,
    /// The levels that are shown.
    pub(crate) levels: &'static [&'static str],
}

/// Lines of a build's log.
pub(crate) fn read(db: &Connection, build: &str, wanted: Wanted) -> rusqlite::Result<Vec<BuildLogEntry>> {
    let (bound, order) = if wanted.backward { ("<=", "DESC") } else { (">=", "ASC") };
    let levels = serde_json::to_string(wanted.levels).unwrap_or_default();
    let mut rows = db.prepare_cached(&format!(
        "SELECT at, level, step, message FROM logs WHERE build = ?1 AND level IN (SELECT value FROM json_each(?2)) \
         AND (?3 IS NULL OR at {bound} ?3) ORDER BY line {order} LIMIT ?4 OFFSET ?5"
    ))?;
    rows.query_map(params![build, levels, wanted.from, wanted.most, wanted.offset], |row| {
        Ok(BuildLogEntry {
            timestamp: shown(row.get(0)?),
            level: row.get(1)?,
            step: row.get(2)?,
            message: row.get(3)?,
        })
    })?
    .collect()
}
