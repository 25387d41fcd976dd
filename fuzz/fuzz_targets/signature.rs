//! File URLs and their signatures, as the gateway and the daemon read them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_wire::signature::{Operation, SignatureError, sign, verify};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, user, given, expires) = sandhold_gateway::fuzz::file_query(text);
    let token = "0123456789abcdef";
    for operation in [Operation::Read, Operation::Write] {
        let signed = sign(&path, operation, &user, token, expires);
        let check =
            |signature: Option<&str>, path: &str, now| verify(signature, path, operation, &user, token, expires, now);
        assert_eq!(check(Some(&signed), &path, i64::MIN), Ok(()));
        let late = expires.filter(|at| *at < i64::MAX);
        let end = if late.is_some() {
            Err(SignatureError::Expired)
        } else {
            Ok(())
        };
        assert_eq!(check(Some(&signed), &path, i64::MAX), end);
        assert_eq!(check(None, &path, 0), Err(SignatureError::Missing));
        assert_eq!(
            check(Some(&signed), &format!("{path}x"), i64::MIN),
            Err(SignatureError::Invalid)
        );
        let given = given.as_deref().unwrap_or_default();
        assert_eq!(check(Some(given), &path, i64::MIN).is_ok(), given == signed);
        // One bit of it, or one letter more or less.
        let at = data.len() % signed.len();
        let mut changed = signed.clone().into_bytes();
        changed[at] ^= 1;
        let changed = String::from_utf8(changed).expect("it is ASCII");
        for wrong in [
            &changed,
            &signed[1..],
            &signed[..signed.len() - 1],
            &format!("{signed}A"),
        ] {
            assert_eq!(check(Some(wrong), &path, i64::MIN), Err(SignatureError::Invalid));
        }
    }
    // Written anew, it is read as the same by the gateway and by the daemon.
    let quoted = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut again = format!("path={}&username={}", quoted(&path), quoted(&user));
    if let Some(given) = &given {
        again.push_str(&format!("&signature={}", quoted(given)));
    }
    if let Some(at) = expires {
        again.push_str(&format!("&signature_expiration={at}"));
    }
    assert_eq!(
        sandhold_gateway::fuzz::file_query(&again),
        (path.clone(), user.clone(), given.clone(), expires)
    );
    if let Some(read) = sandhold_envd::fuzz::file_query(&again) {
        assert_eq!(read, [Some(path), Some(user), given, expires.map(|at| at.to_string())]);
    }
    let _ = sandhold_envd::fuzz::file_query(text);
});
