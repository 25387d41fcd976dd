//! What snapshots are called: `name:tag` or `id:tag`, as E2B has them.

use crate::error::Refusal;

/// The tag that is meant where none is said.
pub(crate) const DEFAULT_TAG: &str = "default";
/// Length of a name and of a tag.
const LEN: usize = 128;

/// A name or id with its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) tag: String,
}

impl Name {
    /// Reads `name` or `name:tag`; the tag is `default` where it is left out. A project in front, as E2B has it, is dropped.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = || {
            let shown: String = text.chars().take(LEN).collect();
            Refusal::bad_request(format!(
                "name is {shown:?}; a name is up to {LEN} lower-case letters, digits, `-`, `_` and `.`, begins with a letter or \
                 digit, and may be followed by `:` and a tag"
            ))
        };
        let last = text.rsplit('/').next().unwrap_or(text);
        let (name, tag) = last.split_once(':').unwrap_or((last, DEFAULT_TAG));
        let fits = |part: &str, upper: bool| {
            part.len() <= LEN
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| {
                    b.is_ascii_lowercase()
                        || b.is_ascii_digit()
                        || b"-_.".contains(&b)
                        || (upper && b.is_ascii_uppercase())
                })
        };
        if !fits(name, false) || !fits(tag, true) {
            return Err(bad());
        }
        Ok(Self {
            name: name.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, shown) in [
            ("a", "a:default"),
            ("my-snap.1:v2", "my-snap.1:v2"),
            ("team/my-snap:V2", "my-snap:V2"),
        ] {
            assert_eq!(Name::parse(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            ":",
            "a:",
            ":a",
            "A",
            "-a",
            "a b",
            "a:b:c",
            "../x/",
            &"a".repeat(129),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
