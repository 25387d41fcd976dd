//! What conditional headers and `Range` make of a download, as Go's `http.ServeContent` answers them for a file that has
//! a time but no entity tag.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, header};

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// 200 with everything.
    Whole,
    /// 206 with these bytes.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    Failed,
    /// 416.
    Unsatisfiable,
}

/// Whether the request has headers that only make sense for the bytes as they are in the file.
pub(crate) fn present(headers: &HeaderMap) -> bool {
    [
        header::RANGE,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
    ]
    .iter()
    .any(|name| headers.contains_key(name))
}

/// Judges a request for a file of `size` bytes that was changed at `modified`.
pub(crate) fn judge(headers: &HeaderMap, modified: SystemTime, size: u64) -> Verdict {
    let modified = seconds(modified);
    // Whoever asks for a certain tag cannot mean this file, which has none.
    if let Some(tags) = text(headers, &header::IF_MATCH) {
        if tags.trim() != "*" {
            return Verdict::Failed;
        }
    } else if time(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|since| modified > seconds(since)) {
        return Verdict::Failed;
    }
    if let Some(tags) = text(headers, &header::IF_NONE_MATCH) {
        if tags.trim() == "*" {
            return Verdict::NotModified;
        }
    } else if time(headers, &header::IF_MODIFIED_SINCE).is_some_and(|since| modified <= seconds(since)) {
        return Verdict::NotModified;
    }
    let Some(range) = text(headers, &header::RANGE) else {
        return Verdict::Whole;
    };
    if headers.contains_key(header::IF_RANGE)
        && time(headers, &header::IF_RANGE).is_none_or(|at| seconds(at) != modified)
    {
        return Verdict::Whole;
    }
    judge_range(range, size)
}

fn judge_range(range: &str, size: u64) -> Verdict {
    let Some(spec) = range.strip_prefix("bytes=") else {
        return Verdict::Unsatisfiable;
    };
    // Several ranges would need a multipart answer; the whole file is allowed too.
    if spec.contains(',') {
        return Verdict::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Verdict::Unsatisfiable;
    };
    let number = |text: &str| {
        let text = text.trim();
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (Some(from), Some(to)) = (number_or_none(first, number), number_or_none(last, number)) else {
        return Verdict::Unsatisfiable;
    };
    // Some clients ask every file for its first bytes.
    if size == 0 {
        return Verdict::Whole;
    }
    match (from, to) {
        (Some(from), to) if from < size && to.is_none_or(|to| to >= from) => {
            Verdict::Part(from..to.map_or(size, |to| size.min(to.saturating_add(1))))
        }
        (None, Some(last)) if last > 0 => Verdict::Part(size - last.min(size)..size),
        _ => Verdict::Unsatisfiable,
    }
}

/// None for what is no number, `Some(None)` for nothing at all.
fn number_or_none(text: &str, number: impl Fn(&str) -> Option<u64>) -> Option<Option<u64>> {
    if text.trim().is_empty() {
        Some(None)
    } else {
        number(text).map(Some)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn time(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(text(headers, name)?).ok()
}

/// Headers know whole seconds only.
fn seconds(time: SystemTime) -> Duration {
    Duration::from_secs(time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn verdict(list: &[(HeaderName, &'static str)]) -> Verdict {
        let headers = list
            .iter()
            .map(|(n, v)| (n.clone(), http::HeaderValue::from_static(v)))
            .collect::<HeaderMap>();
        let modified = httpdate::parse_http_date(AT).unwrap() + Duration::from_millis(500);
        judge(&headers, modified, 10)
    }

    #[test]
    fn ranges() {
        for (range, wanted) in [
            ("bytes=0-3", Verdict::Part(0..4)),
            ("bytes=4-", Verdict::Part(4..10)),
            ("bytes=-3", Verdict::Part(7..10)),
            ("bytes=-30", Verdict::Part(0..10)),
            ("bytes=8-99", Verdict::Part(8..10)),
            ("bytes=0-18446744073709551615", Verdict::Part(0..10)),
            ("bytes=10-", Verdict::Unsatisfiable),
            ("bytes=-0", Verdict::Unsatisfiable),
            ("bytes=5-4", Verdict::Unsatisfiable),
            ("bytes=a-", Verdict::Unsatisfiable),
            ("bytes=-", Verdict::Unsatisfiable),
            ("lines=0-1", Verdict::Unsatisfiable),
            ("bytes=0-1,3-4", Verdict::Whole),
        ] {
            assert_eq!(verdict(&[(header::RANGE, range)]), wanted, "{range}");
        }
        assert_eq!(judge_range("bytes=0-", 0), Verdict::Whole);
    }

    #[test]
    fn conditions() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, AT)]), Verdict::NotModified);
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, BEFORE)]), Verdict::Whole);
        assert_eq!(verdict(&[(IF_MODIFIED_SINCE, "yesterday")]), Verdict::Whole);
        assert_eq!(verdict(&[(IF_NONE_MATCH, "*")]), Verdict::NotModified);
        // A tag that does not match settles it: the time is not looked at.
        assert_eq!(
            verdict(&[(IF_NONE_MATCH, "\"a\""), (IF_MODIFIED_SINCE, AT)]),
            Verdict::Whole
        );
        assert_eq!(verdict(&[(IF_MATCH, "\"a\"")]), Verdict::Failed);
        assert_eq!(verdict(&[(IF_MATCH, "*")]), Verdict::Whole);
        assert_eq!(verdict(&[(IF_UNMODIFIED_SINCE, BEFORE)]), Verdict::Failed);
        assert_eq!(verdict(&[(IF_UNMODIFIED_SINCE, AT)]), Verdict::Whole);
        assert_eq!(verdict(&[(RANGE, "bytes=1-2"), (IF_RANGE, AT)]), Verdict::Part(1..3));
        assert_eq!(verdict(&[(RANGE, "bytes=1-2"), (IF_RANGE, BEFORE)]), Verdict::Whole);
        assert_eq!(verdict(&[(RANGE, "bytes=1-2"), (IF_RANGE, "\"a\"")]), Verdict::Whole);
    }
}
