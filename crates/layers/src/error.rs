//! What can go wrong.

use std::io;

use rustix::io::Errno;

/// A file operation on layers failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a step.
    #[error("cannot {step} {path}")]
    Io {
        /// What was tried, as it is said: "make the folder".
        step: &'static str,
        /// On what, within the layer.
        path: Shown,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The archive is not a tar, or ends early.
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    /// The archive could not be read or decompressed.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// An entry of an archive that is not taken.
    #[error("the entry {path} of the archive is refused: {reason}")]
    Refused {
        /// Its name.
        path: Shown,
        /// Why.
        reason: &'static str,
    },
    /// More than is allowed.
    #[error("more than the {most} {what} that are allowed, at {path}")]
    TooMuch {
        /// What there is too much of: "bytes of files".
        what: &'static str,
        /// How many there may be.
        most: u64,
        /// Where it was noticed.
        path: Shown,
    },
    /// The tree changed while it was walked.
    #[error("{path} was moved while it was read")]
    Moved {
        /// Where it was.
        path: Shown,
    },
}

impl Error {
    /// Whether the material is at fault, not this machine.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Refused { .. } | Self::TooMuch { .. })
    }

    pub(crate) fn refused(path: &[u8], reason: &'static str) -> Self {
        Self::Refused {
            path: Shown::of(path),
            reason,
        }
    }

    pub(crate) fn too_much(what: &'static str, most: u64, path: &[u8]) -> Self {
        Self::TooMuch {
            what,
            most,
            path: Shown::of(path),
        }
    }
}

/// A path of a stranger, fit to be shown: what is not printable is escaped, what is long is cut in its middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

/// Bytes of a path that are shown of its beginning, and of its end.
const SHOWN: usize = 160;

impl Shown {
    pub(crate) fn of(path: &[u8]) -> Self {
        let escaped = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .chars()
                .flat_map(|c| {
                    // Whatever turns the direction of text or breaks a line is no name that a reader could check.
                    let plain = !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
                    let (as_is, escape) = if plain {
                        (Some(c), None)
                    } else {
                        (None, Some(c.escape_default()))
                    };
                    as_is.into_iter().chain(escape.into_iter().flatten())
                })
                .collect::<String>()
        };
        let path = if path.is_empty() { b"/" } else { path };
        if path.len() <= 2 * SHOWN {
            return Self(escaped(path));
        }
        let (begin, end) = (&path[..SHOWN], &path[path.len() - SHOWN..]);
        Self(format!("{}[...]{}", escaped(begin), escaped(end)))
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says of a kernel's answer what was tried and on what.
pub(crate) trait At<T> {
    fn at(self, step: &'static str, path: &[u8]) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: &'static str, path: &[u8]) -> Result<T, Error> {
        self.map_err(|errno| match errno {
            Errno::STALE => Error::Moved { path: Shown::of(path) },
            _ => Error::Io {
                step,
                path: Shown::of(path),
                source: errno.into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_name_is_shown_on_one_short_line() {
        assert_eq!(Shown::of(b"a/b c").to_string(), "a/b c");
        assert_eq!(Shown::of(b"").to_string(), "/");
        assert_eq!(Shown::of(b"a\n\x1b[2J\xff").to_string(), "a\\n\\u{1b}[2J\u{fffd}");
        assert_eq!(Shown::of("\u{202e}x".as_bytes()).to_string(), "\\u{202e}x");
        let long = Shown::of(&[b'x'; 100_000]).to_string();
        assert!(long.len() < 400 && long.contains("[...]"), "{long}");
    }
}
