//! First bytes of a connection that leaves a sandbox: TLS and its name, HTTP, or something else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_egress::fuzz::{First, head};
use sandhold_fuzz::within;

fuzz_target!(|data: &[u8]| {
    let whole = within((4 << 10) + 4 * data.len(), || head(data));
    if let First::Tls(Some(name)) = &whole {
        assert!(
            !name.is_empty() && name.is_ascii() && data.windows(name.len()).any(|part| part == name.as_bytes())
                || data.len() > 300
        );
    }
    // What comes in pieces is not taken for something else on the way: once told, it stays.
    let step = (data.len() / 64).max(1);
    for end in (0..data.len()).step_by(step) {
        let begun = head(&data[..end]);
        assert!(
            begun == First::More || begun == whole,
            "{begun:?} after {end} bytes, {whole:?} in the end"
        );
    }
    if whole != First::More {
        for more in [&b"\n"[..], b" / HTTP/1.1\r\n", b"\x16\x03\x01", b"\0"] {
            assert_eq!(head(&[data, more].concat()), whole, "what follows changes it");
        }
    }
});
