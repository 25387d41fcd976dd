//! Name queries, what SOCKS clients say, and the kernel's answers about flows. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_egress::fuzz::{authority, conntrack, one_form, query, socks};
use sandhold_fuzz::{wait, within};

fuzz_target!(|data: &[u8]| {
    let Some((what, bytes)) = data.split_first() else {
        return;
    };
    // A query that announces many records gets room for them before the first is read.
    within((32 << 20) + 256 * data.len(), || match what {
        b'c' => conntrack(bytes),
        b's' => said(bytes),
        _ => asked(bytes),
    });
});

fn asked(bytes: &[u8]) {
    let answer = match query(bytes) {
        Ok((name, answer)) => {
            assert_eq!(
                one_form(&name).as_deref(),
                Some(name.as_str()),
                "a name in another form"
            );
            answer
        }
        Err(Some(answer)) => answer,
        Err(None) => return,
    };
    // It answers that query, is an answer, and is not many times as large.
    assert!(
        answer.len() >= 12 && answer.len() <= bytes.len() + 64,
        "{} for {}",
        answer.len(),
        bytes.len()
    );
    assert_eq!(answer[..2], bytes[..2]);
    assert!(answer[2] & 0x80 != 0 && bytes[2] & 0x80 == 0);
    assert_eq!(query(&answer), Err(None), "an answer is answered");
}

fn said(bytes: &[u8]) {
    let (wanted, answer) = wait(socks(bytes));
    assert!(
        answer.is_empty() || answer == [5, 0] || answer == [5, 0xff],
        "{answer:?}"
    );
    let Some((host, port)) = wanted else { return };
    assert!(port > 0 && answer == [5, 0]);
    if let Err(name) = &host {
        assert_eq!(authority(name), Some((host.clone(), None)));
    }
    // Less is no other request, and what follows belongs to the target.
    let more = [bytes, b"more"].concat();
    assert_eq!(wait(socks(&more)).0, Some((host.clone(), port)));
    for end in 0..bytes.len() {
        let less = wait(socks(&bytes[..end])).0;
        assert!(
            less.is_none() || less == Some((host.clone(), port)),
            "{less:?} after {end} bytes"
        );
    }
}
