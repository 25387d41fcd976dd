//! Streams of a sandbox's daemon as the client reads them. The first byte says in which pieces they come.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sandhold_client::fuzz::{End, messages, output};
use sandhold_fuzz::{wait, within};
use sandhold_wire::limits::RPC_MESSAGE;

fuzz_target!(|data: &[u8]| {
    let Some((size, rest)) = data.split_first() else { return };
    let bytes = Bytes::copy_from_slice(rest);
    let read = |size: usize| {
        // A message that is announced has its room at once.
        within(RPC_MESSAGE + (64 << 10) + 256 * data.len(), || {
            wait(messages(&bytes, size))
        })
    };
    let (whole, end) = read(usize::MAX >> 1);
    let taken: usize = whole.iter().map(|message| 5 + message.len()).sum();
    assert!(taken <= rest.len());
    match &end {
        End::Regular | End::Refused(..) => assert!(taken + 5 <= rest.len()),
        End::Lost => assert!(rest.len() - taken < 5 + RPC_MESSAGE),
        End::Malformed(text) => assert!(!text.is_empty()),
    }
    assert_eq!(read(usize::from(*size).max(1)), (whole.clone(), end));
    for message in &whole {
        within((16 << 10) + 512 * data.len(), || {
            for json in [false, true] {
                assert!(output(message, json).is_none_or(|len| len <= message.len()));
            }
        });
    }
});
