use regex::Regex;

use crate::{limits, pattern};

/// What a `.dockerignore` leaves out.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// Whether it brings back what one before it left out.
    back: bool,
    /// Its names between slashes.
    parts: Vec<String>,
    regex: Regex,
}

/// A line of a `.dockerignore` that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of .dockerignore, {text:?}, is not a pattern: {why}")]
pub struct IgnoreError {
    /// Which line, from 1 on.
    pub line: usize,
    /// The line, cut if it is long.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl Ignore {
    /// Reads a `.dockerignore`.
    ///
    /// # Errors
    /// It is too large, or has a line that is not a pattern.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let bad = |line, text: &str, why| IgnoreError {
            line,
            text: text.chars().take(limits::LINE_CHARS).collect(),
            why,
        };
        if text.len() > limits::DOCKERFILE_BYTES {
            return Err(bad(1, text, "the file is too large"));
        }
        let mut rules = Vec::new();
        for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let bad = |why| bad(index + 1, raw, why);
            let line = raw.trim();
            if raw.starts_with('#') || line.is_empty() {
                continue;
            }
            if rules.len() >= limits::INSTRUCTIONS {
                return Err(bad("there are too many lines"));
            }
            let (back, rest) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if rest.is_empty() {
                return Err(bad("after ! comes a pattern"));
            }
            // What leads out of the folder matches nothing in it.
            let Some(cleaned) = pattern::clean(rest) else { continue };
            rules.push(Rule {
                back,
                parts: cleaned.split('/').map(str::to_owned).collect(),
                regex: pattern::compile(&cleaned).map_err(|_| bad("a bracket or a backslash is not ended"))?,
            });
        }
        Ok(Self { rules })
    }

    /// Whether a path below the context, parted by `/`, is left out: by itself or with a folder above it.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut held = vec![false; self.rules.len()];
        let mut out = false;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            out = false;
            let mut now = vec![false; self.rules.len()];
            for (index, rule) in self.rules.iter().enumerate() {
                // A rule can only change what those before it said.
                if !held[index] && (rule.back != out || !rule.regex.is_match(&path[..end])) {
                    continue;
                }
                now[index] = true;
                out = !rule.back;
            }
            held = now;
        }
        out
    }

    /// Whether something below a folder that is left out may be brought back.
    #[must_use]
    pub fn may_bring_back(&self, folder: &str) -> bool {
        let folders: Vec<&str> = folder.split('/').collect();
        self.rules.iter().filter(|rule| rule.back).any(|rule| {
            for (index, name) in folders.iter().enumerate() {
                match rule.parts.get(index) {
                    None => return false,
                    Some(part) if part.contains("**") => return true,
                    Some(part) if pattern::is_pattern(part) || part == name => {}
                    Some(_) => return false,
                }
            }
            rule.parts.len() > folders.len()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_in_order_and_below_folders() {
        let ignore =
            Ignore::parse("# a comment\n\n/target\n*.log\n!keep.log\n**/node_modules\ndocs/*\n!docs/a.md\n../x\n")
                .unwrap();
        for path in [
            "target",
            "target/a/b",
            "x.log",
            "a/node_modules/x",
            "node_modules",
            "docs/b",
            "docs/b/a.md",
        ] {
            assert!(ignore.matches(path), "{path}");
        }
        for path in [
            "src",
            "keep.log",
            "a/x.log",
            "docs",
            "docs/a.md",
            "targets",
            "a/target",
            "x",
        ] {
            assert!(!ignore.matches(path), "{path}");
        }
        assert!(ignore.may_bring_back("docs") && !ignore.may_bring_back("target") && !ignore.may_bring_back("docs/b"));
        let all = Ignore::parse("*\n!src/**\n").unwrap();
        assert!(all.matches("a") && all.matches("src") && !all.matches("src/a") && all.may_bring_back("src"));
        let error = Ignore::parse("a\n[b").unwrap_err();
        assert!(error.line == 2 && error.to_string().contains("[b"), "{error}");
        assert!(Ignore::parse("!").is_err());
    }
}
