//! Docker's patterns for paths: `*` and `?` within a name, `[a-z]`, `**` for any folders.

use regex::Regex;

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern: a bracket or a backslash is not ended")]
pub(crate) struct BadPattern(pub(crate) String);

/// A pattern as a regular expression over whole paths without a leading slash.
pub(crate) fn compile(pattern: &str) -> Result<Regex, BadPattern> {
    let bad = || BadPattern(pattern.chars().take(200).collect());
    let mut regex = String::from("(?s)^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                while chars.peek() == Some(&'*') {
                    chars.next();
                }
                // "**/" is as "**".
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                regex.push_str(if chars.peek().is_none() { ".*" } else { "(?:.*/)?" });
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => {
                regex.push_str(&class(&mut chars).ok_or_else(bad)?);
            }
            '\\' => regex.push_str(&regex::escape(&chars.next().ok_or_else(bad)?.to_string())),
            c => regex.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex.push('$');
    Regex::new(&regex).map_err(|_| bad())
}

/// A set of characters, after its `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut out = String::from("[");
    let others = chars.next_if_eq(&'^').is_some();
    if others {
        out.push_str("^/");
    }
    let mut any = false;
    loop {
        match chars.next()? {
            ']' if any => break,
            '-' | ']' => return None,
            '\\' => push(&mut out, chars.next()?),
            c => push(&mut out, c),
        }
        any = true;
        if chars.peek() == Some(&'-') {
            chars.next();
            out.push('-');
            match chars.next()? {
                '-' | ']' => return None,
                '\\' => push(&mut out, chars.next()?),
                c => push(&mut out, c),
            }
        }
    }
    // No set has the slash in it.
    out.push_str(if others { "]" } else { "&&[^/]]" });
    Some(out)
}

fn push(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

/// Whether a text means more than itself.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

/// A path without `.`, `..` and double slashes, without a leading one; `.` for the folder itself. None if it leads out.
pub(crate) fn clean(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_dockers_do() {
        for (pattern, matching, others) in [
            ("a", &["a"][..], &["b", "a/b", "xa", "ab"][..]),
            ("*.rs", &["x.rs", ".rs"], &["a/x.rs", "x.rss"]),
            ("a/*", &["a/b"], &["a", "a/b/c"]),
            ("**/x", &["x", "a/x", "a/b/x"], &["ax", "x/a"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["az", "a/bz"]),
            ("a?c", &["abc", "aéc"], &["ac", "a/c"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[^a-c]x", &["dx"], &["ax", "/x"]),
            ("[\\]^]x", &["]x", "^x"], &["\\x"]),
            ("\\*", &["*"], &["a"]),
            ("a.b+(c)|$", &["a.b+(c)|$"], &["axb+(c)|$"]),
        ] {
            let regex = compile(pattern).unwrap();
            for path in matching {
                assert!(regex.is_match(path), "{pattern} {path}");
            }
            for path in others {
                assert!(!regex.is_match(path), "{pattern} {path}");
            }
        }
        for bad in ["[", "[]", "[a", "[a-]", "[-a]", "a\\", "[^]"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }
}
