//! Signatures of file URLs, version 1.
//!
//! `v1_` and the unpadded base64 of SHA-256 over `path:operation:user:token`, with `:expiry` where the URL expires.
//! Verified against URLs that the official SDKs made.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

/// What a signed URL allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `GET /files`
    Read,
    /// `POST /files`
    Write,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Signs access to `path`, which is taken exactly as it stands in the URL, not resolved. `user` is empty where the URL
/// names none, `expires_at` is in Unix seconds.
#[must_use]
pub fn sign(path: &str, operation: Operation, user: &str, token: &str, expires_at: Option<i64>) -> String {
    let mut raw = format!("{path}:{}:{user}:{token}", operation.as_str());
    if let Some(at) = expires_at {
        raw.push_str(&format!(":{at}"));
    }
    format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(raw)))
}

/// Why a signature was refused. The texts are envd's own, SDK suites compare them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The URL has no signature and the request no token.
    #[error("missing signature query parameter")]
    Missing,
    /// The signature is not the one of these parameters.
    #[error("invalid signature")]
    Invalid,
    /// It was right once.
    #[error("signature is already expired")]
    Expired,
}

/// Checks a signature against its parameters; `now` is in Unix seconds.
///
/// # Errors
/// [`SignatureError`] says what is wrong.
pub fn verify(
    signature: Option<&str>,
    path: &str,
    operation: Operation,
    user: &str,
    token: &str,
    expires_at: Option<i64>,
    now: i64,
) -> Result<(), SignatureError> {
    let given = signature.ok_or(SignatureError::Missing)?;
    let wanted = sign(path, operation, user, token, expires_at);
    if !same(given.as_bytes(), wanted.as_bytes()) {
        return Err(SignatureError::Invalid);
    }
    match expires_at {
        Some(at) if at < now => Err(SignatureError::Expired),
        _ => Ok(()),
    }
}

/// Compares two secrets in time that does not depend on where they differ.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '%s' '/a b:read:user:tok:10' | openssl dgst -sha256 -binary | base64`, without its padding.
    const KNOWN: &str = "v1_Rpkb3AxFIT3WABIMmmR5+CyzNj1sDrBdzWrP92/mklk";

    #[test]
    fn signs_and_verifies() {
        let s = sign("/a b", Operation::Read, "user", "tok", Some(10));
        assert_eq!(s, KNOWN);
        let check = |sig, path, op, user, token, exp, now| verify(Some(sig), path, op, user, token, exp, now);
        assert_eq!(check(&s, "/a b", Operation::Read, "user", "tok", Some(10), 10), Ok(()));
        assert_eq!(
            check(&s, "/a b", Operation::Read, "user", "tok", Some(10), 11),
            Err(SignatureError::Expired)
        );
        for (path, op, user, token, exp) in [
            ("/a", Operation::Read, "user", "tok", Some(10)),
            ("/a b", Operation::Write, "user", "tok", Some(10)),
            ("/a b", Operation::Read, "", "tok", Some(10)),
            ("/a b", Operation::Read, "user", "other", Some(10)),
            ("/a b", Operation::Read, "user", "tok", None),
            ("/a b", Operation::Read, "user", "tok", Some(99)),
        ] {
            assert_eq!(check(&s, path, op, user, token, exp, 5), Err(SignatureError::Invalid));
        }
        assert_eq!(
            verify(None, "/a", Operation::Read, "", "t", None, 0),
            Err(SignatureError::Missing)
        );
    }
}
