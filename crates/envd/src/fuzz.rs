//! What reads bytes of strangers, for the fuzzer in `fuzz/`; part of no other build.

pub use crate::archive::fuzz::{entries, restore};
pub use crate::bundle::fuzz::unzip;

/// Whether `bytes` are a request of `sudo`, and if so whether it is the same after it was written and read again.
#[must_use]
pub fn sudo_request(bytes: &[u8]) -> Option<bool> {
    crate::sudo::same_again(bytes)
}

/// The bytes of a file of `size` that a `Range` asks for: all, some, or none.
///
/// # Errors
/// The range cannot be given.
pub fn range(headers: &http::HeaderMap, size: u64) -> Result<Option<std::ops::Range<u64>>, ()> {
    crate::files::range(headers, size)
}

/// The user of `Authorization: Basic`.
#[must_use]
pub fn basic_user(headers: &http::HeaderMap) -> Option<String> {
    crate::auth::basic_user(headers)
}

/// The query of a file URL: path, user, signature, expiry.
#[must_use]
pub fn file_query(query: &str) -> Option<[Option<String>; 4]> {
    crate::files::file_query(query)
}
