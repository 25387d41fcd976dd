//! When a control-plane call is tried again, as the official Python SDK does.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::limits::{BACKOFF_BASE, BACKOFF_MAX};

/// The server's word on whether to try again; it goes before the status.
const SHOULD_RETRY: &str = "should-retry";

/// How long to wait before the next try; `None`: there is none. `attempt` counts from 0.
pub(super) fn delay(status: StatusCode, headers: &HeaderMap, attempt: u32) -> Option<Duration> {
    let again = match headers.get(SHOULD_RETRY) {
        Some(word) => word.as_bytes().trim_ascii().eq_ignore_ascii_case(b"true"),
        None => matches!(status.as_u16(), 429 | 502 | 503 | 504),
    };
    again.then(|| retry_after(headers).unwrap_or_else(|| backoff(attempt, fastrand::f64())))
}

/// Whole seconds only, as the SDKs read it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let digits = !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Duration::from_secs))?
}

/// Doubles from [`BACKOFF_BASE`] up to [`BACKOFF_MAX`]; `random` in 0..1 takes up to half of it away.
fn backoff(attempt: u32, random: f64) -> Duration {
    let full = BACKOFF_BASE
        .saturating_mul(2u32.saturating_pow(attempt))
        .min(BACKOFF_MAX);
    full.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn statuses() {
        for status in [429, 502, 503, 504] {
            assert!(
                delay(StatusCode::from_u16(status).unwrap(), &headers(&[]), 0).is_some(),
                "{status}"
            );
        }
        for status in [200, 400, 401, 404, 409, 500, 507] {
            assert_eq!(
                delay(StatusCode::from_u16(status).unwrap(), &headers(&[]), 0),
                None,
                "{status}"
            );
        }
    }

    #[test]
    fn the_servers_word_goes_first() {
        let forbidden = headers(&[("should-retry", "false"), ("retry-after", "1")]);
        assert_eq!(delay(StatusCode::TOO_MANY_REQUESTS, &forbidden, 0), None);
        let asked = headers(&[("should-retry", " True "), ("retry-after", "2")]);
        assert_eq!(
            delay(StatusCode::INTERNAL_SERVER_ERROR, &asked, 0),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn waits() {
        assert_eq!(backoff(0, 1.0), Duration::from_millis(100));
        assert_eq!(backoff(0, 0.0), Duration::from_millis(50));
        assert_eq!(backoff(3, 1.0), Duration::from_millis(800));
        assert_eq!(backoff(40, 1.0), Duration::from_secs(10));
        for word in ["", "-1", "1.5", "soon", "99999999999"] {
            assert_eq!(
                retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, word.parse().unwrap())])),
                None,
                "{word}"
            );
        }
    }
}
