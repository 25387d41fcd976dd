//! How fast all processes of the sandbox together may print. Nothing is lost: who prints more fills its pipe and waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sandhold_wire::limits::PIPE_CHUNK;
use tokio::time::Instant;

use crate::limits::OUTPUT_BURST;

/// A bucket that fills at the rate. Readers may take it below zero by what one read brings, and wait then.
#[derive(Debug)]
pub(crate) struct OutputRate {
    /// Bytes a second.
    rate: f64,
    /// What it holds at most.
    burst: f64,
    bucket: Mutex<Option<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    held: f64,
    at: Instant,
}

impl OutputRate {
    /// So many bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "rates are far below 52 bits")]
    pub(crate) fn new(rate: u64) -> Self {
        let rate = rate.max(1) as f64;
        Self {
            rate,
            burst: (rate * OUTPUT_BURST.as_secs_f64()).max(PIPE_CHUNK as f64),
            bucket: Mutex::new(None),
        }
    }

    /// Notes what was read.
    #[expect(clippy::cast_precision_loss, reason = "one read is a few kilobytes")]
    pub(crate) fn took(&self, bytes: usize) {
        self.with(|bucket| bucket.held -= bytes as f64);
    }

    /// When the next read may be; `None`: now.
    pub(crate) fn wait_until(&self) -> Option<Instant> {
        let rate = self.rate;
        self.with(|bucket| {
            (bucket.held < 0.0).then(|| bucket.at + Duration::from_secs_f64((-bucket.held / rate).min(1.0)))
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Bucket) -> T) -> T {
        let now = Instant::now();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.get_or_insert_with(|| Bucket {
            held: self.burst,
            at: now,
        });
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.held = (bucket.held + since * self.rate).min(self.burst);
        bucket.at = now;
        work(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_more_than_there_is_waits() {
        let rate = OutputRate::new(1 << 20);
        assert_eq!(rate.wait_until(), None);
        rate.took(1 << 20);
        // A quarter of a second's worth was there.
        let until = rate.wait_until().unwrap();
        let wait = until - Instant::now();
        assert!(
            (Duration::from_millis(740)..Duration::from_millis(760)).contains(&wait),
            "{wait:?}"
        );
        tokio::time::sleep_until(until).await;
        assert_eq!(rate.wait_until(), None);
        tokio::time::sleep(Duration::from_secs(60)).await;
        rate.took(1 << 18);
        assert_eq!(rate.wait_until(), None, "the burst is there again, and no more");
        rate.took(1);
        assert!(rate.wait_until().is_some());
    }
}
