//! Smaller things that the daemon reads: requests of `sudo`, ranges and conditions of downloads, names of users. The first byte
//! says which.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use sandhold_envd::fuzz;
use sandhold_fuzz::within;

fuzz_target!(|data: &[u8]| {
    let Some((what, rest)) = data.split_first() else { return };
    within((64 << 10) + 64 * data.len(), || match what {
        b's' => assert_ne!(
            fuzz::sudo_request(rest),
            Some(false),
            "it is another one after it was written"
        ),
        b'b' => {
            let mut headers = HeaderMap::new();
            let Ok(value) = HeaderValue::from_bytes(rest) else {
                return;
            };
            headers.insert(header::AUTHORIZATION, value);
            if let Some(user) = fuzz::basic_user(&headers) {
                assert!(!user.contains(':') && user.len() <= rest.len());
            }
        }
        size => {
            let headers = headers(rest);
            for size in [0, 1, u64::from(*size), u64::MAX] {
                if let Ok(Some(part)) = fuzz::range(&headers, size) {
                    assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
                    assert!(headers.contains_key(header::RANGE));
                }
            }
        }
    });
});

/// `name: value` in each line.
fn headers(text: &[u8]) -> HeaderMap {
    let line = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?))
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}
