//! The newest output of a job, kept for readers who come later: a client that was away, or another one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sandhold_wire::limits::{LOG_BYTES, PIPE_CHUNK};

use super::hub::{Item, Source};
use crate::limits::RETAINED_TOTAL;

/// Bytes that all jobs keep together, and that each may keep.
#[derive(Debug)]
pub(crate) struct Budget {
    held: AtomicUsize,
    /// Of each stream of a job.
    stream: usize,
}

impl Budget {
    /// So many bytes of each stream of a job.
    pub(super) fn new(stream: u64) -> Self {
        Self {
            held: AtomicUsize::new(0),
            stream: usize::try_from(stream).unwrap_or(RETAINED_TOTAL).min(RETAINED_TOTAL),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(LOG_BYTES)
    }
}

/// Where readers stand in the two streams of a job, in bytes since its start. A terminal counts as the first.
pub(crate) type Offsets = [u64; 2];

/// The output of one job.
#[derive(Debug)]
pub(super) struct Kept {
    streams: [Ring; 2],
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    /// Bytes that ever came.
    total: u64,
    /// Of a terminal.
    pty: bool,
}

impl Kept {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            streams: Default::default(),
            budget,
        }
    }

    /// Adds output. The oldest goes when there is too much.
    pub(super) fn push(&mut self, source: Source, data: &[u8]) {
        let most = self.budget.stream;
        let ring = &mut self.streams[usize::from(source == Source::Stderr)];
        ring.pty = source == Source::Pty;
        ring.total += data.len() as u64;
        let data = &data[data.len().saturating_sub(most)..];
        let excess = (ring.bytes.len() + data.len()).saturating_sub(most);
        ring.bytes.drain(..excess);
        ring.bytes.extend(data);
        let before = self.budget.held.fetch_add(data.len(), Ordering::Relaxed);
        let over = (before + data.len() - excess).saturating_sub(RETAINED_TOTAL);
        let given = over.min(ring.bytes.len());
        ring.bytes.drain(..given);
        self.budget.held.fetch_sub(excess + given, Ordering::Relaxed);
    }

    /// What is kept from `from` on, and where that begins.
    pub(super) fn since(&self, from: Offsets) -> (Offsets, Vec<Item>) {
        let mut starts = from;
        let mut items = Vec::new();
        for (at, ring) in self.streams.iter().enumerate() {
            let oldest = ring.total - ring.bytes.len() as u64;
            starts[at] = from[at].clamp(oldest, ring.total);
            let source = match (at, ring.pty) {
                (0, true) => Source::Pty,
                (0, false) => Source::Stdout,
                _ => Source::Stderr,
            };
            let skipped = usize::try_from(starts[at] - oldest).unwrap_or(usize::MAX);
            let bytes: Vec<u8> = ring.bytes.iter().skip(skipped).copied().collect();
            let bytes = Bytes::from(bytes);
            let pieces = (0..bytes.len()).step_by(PIPE_CHUNK);
            items.extend(pieces.map(|i| Item::Data(source, bytes.slice(i..bytes.len().min(i + PIPE_CHUNK)))));
        }
        (starts, items)
    }

    /// Bytes that ever came.
    pub(super) fn totals(&self) -> Offsets {
        [self.streams[0].total, self.streams[1].total]
    }

    /// Bytes that are kept.
    pub(super) fn held(&self) -> usize {
        self.streams.iter().map(|ring| ring.bytes.len()).sum()
    }

    /// Nothing will follow.
    pub(super) fn settle(&mut self) {
        self.streams.iter_mut().for_each(|ring| ring.bytes.shrink_to_fit());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: usize = LOG_BYTES as usize;

    fn text(items: &[Item]) -> Vec<u8> {
        let data = items.iter().map(|item| match item {
            Item::Data(_, bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        data.flatten().collect()
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let mut kept = Kept::new(Arc::default());
        kept.push(Source::Stdout, b"hello ");
        kept.push(Source::Stderr, b"oops");
        kept.push(Source::Stdout, b"world");
        let (starts, items) = kept.since([0, 0]);
        assert_eq!((starts, text(&items)), ([0, 0], b"hello worldoops".to_vec()));
        let (starts, items) = kept.since([6, 4]);
        assert_eq!((starts, text(&items)), ([6, 4], b"world".to_vec()));
        assert_eq!(kept.since([99, 99]).0, [11, 4], "nobody is ahead of the job");
    }

    #[test]
    fn the_oldest_goes_first() {
        let budget = Arc::new(Budget::default());
        let mut kept = Kept::new(Arc::clone(&budget));
        for byte in 0..=u8::MAX {
            kept.push(Source::Pty, &[byte; STREAM / 100]);
        }
        kept.push(Source::Pty, b"end");
        assert_eq!(kept.held(), STREAM);
        let (starts, items) = kept.since([0, 0]);
        assert_eq!(starts[0], kept.totals()[0] - STREAM as u64);
        assert!(text(&items).ends_with(b"\xff\xffend"));
        kept.push(Source::Pty, &vec![b'x'; STREAM * 2]);
        assert_eq!(kept.held(), STREAM);
        assert_eq!(budget.held.load(Ordering::Relaxed), STREAM);
        drop(kept);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_sandbox_may_keep_less() {
        let mut kept = Kept::new(Arc::new(Budget::new(4)));
        kept.push(Source::Stdout, b"0123456789");
        assert_eq!(
            (text(&kept.since([0, 0]).1), kept.totals()),
            (b"6789".to_vec(), [10, 0])
        );
    }

    #[test]
    fn all_jobs_share_one_budget() {
        let budget = Arc::new(Budget::default());
        let mut many: Vec<Kept> = (0..RETAINED_TOTAL / STREAM + 3)
            .map(|_| Kept::new(Arc::clone(&budget)))
            .collect();
        for kept in &mut many {
            kept.push(Source::Stdout, &vec![b'x'; STREAM]);
        }
        assert!(budget.held.load(Ordering::Relaxed) <= RETAINED_TOTAL);
        let last = many.last().unwrap();
        assert_eq!((last.held(), last.totals()[0]), (0, STREAM as u64));
    }
}
