//! Times and what is told of them.

use std::time::{Duration, Instant};

/// Times of one thing, in the order they were measured.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Measures `what` once. A first round that warms caches up is the caller's business.
    pub(crate) fn measure<T>(&mut self, what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        let result = what()?;
        self.0.push(began.elapsed());
        Ok(result)
    }

    /// Keeps a time that was measured elsewhere.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds another's.
    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Forgets everything: what came so far was to warm up.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Number of measurements.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of the measurements stayed below, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    /// Their sum by their number, in milliseconds.
    pub(crate) fn mean(&self) -> f64 {
        let sum: Duration = self.0.iter().sum();
        sum.as_secs_f64() * 1000.0 / self.0.len() as f64
    }

    /// Half of the measurements stayed below it, in milliseconds.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut times = Times::default();
        for ms in (1..=100).rev() {
            times.push(Duration::from_millis(ms));
        }
        assert_eq!(
            (times.median(), times.percentile(95), times.percentile(100)),
            (50.0, 95.0, 100.0)
        );
        assert_eq!(times.mean(), 50.5);
        times.clear();
        assert!(times.median().is_nan());
    }
}
