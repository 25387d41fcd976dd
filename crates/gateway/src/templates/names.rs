//! What templates and tags are called, as E2B has it.

use sandhold_wire::{
    limits::{TEMPLATE_NAME, TEMPLATE_TAGS},
    names::{DEFAULT_TAG, DEFAULT_TEMPLATE},
};

use crate::error::Refusal;

/// A template's id or name, and the tag of one of its builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: String,
    /// As it was said; `None` means the default one.
    pub(crate) tag: Option<String>,
}

impl Name {
    /// Reads `name` or `name:tag`. Spaces around them and upper case are forgiven; a project in front (`mine/name`) is dropped.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let last = text.rsplit('/').next().unwrap_or(text);
        let (name, tag) = match last.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (last, None),
        };
        let name = clean(name, false).ok_or_else(|| {
            Refusal::bad_request(format!(
                "{:?} is no name of a template: names are 1 to {TEMPLATE_NAME} letters, digits, `-` and `_`",
                cut(text)
            ))
        })?;
        Ok(Self {
            name,
            tag: tag.map(self::tag).transpose()?,
        })
    }

    pub(crate) fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }

    /// Refuses names that templates cannot get.
    pub(crate) fn check_new(&self) -> Result<(), Refusal> {
        if self.name == DEFAULT_TEMPLATE {
            return Err(Refusal::bad_request(format!(
                "the name \"{DEFAULT_TEMPLATE}\" is taken by the sandbox without a template"
            )));
        }
        Ok(())
    }
}

/// Reads a tag.
pub(crate) fn tag(text: &str) -> Result<String, Refusal> {
    let bad = |why: &str| Refusal::bad_request(format!("{:?} is no tag: {why}", cut(text)));
    let tag = clean(text, true).ok_or_else(|| {
        bad(&format!(
            "tags are 1 to {TEMPLATE_NAME} letters, digits, `-`, `_` and `.`"
        ))
    })?;
    if uuid::Uuid::try_parse(&tag).is_ok() {
        return Err(bad("it looks like the id of a build"));
    }
    Ok(tag)
}

/// Reads tags; each is there once.
pub(crate) fn tags(texts: &[String]) -> Result<Vec<String>, Refusal> {
    if texts.len() > TEMPLATE_TAGS {
        return Err(Refusal::bad_request(format!(
            "tags has {} entries, at most {TEMPLATE_TAGS} are allowed",
            texts.len()
        )));
    }
    let mut tags: Vec<String> = Vec::new();
    for text in texts {
        let tag = tag(text)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

fn clean(text: &str, dots: bool) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b) || (dots && b == b'.');
    ((1..=TEMPLATE_NAME).contains(&text.len()) && text.bytes().all(fits)).then_some(text)
}

/// A text of a client, short enough for a message.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(2 * TEMPLATE_NAME).collect()
}

/// The known name that `text` looks most like, if one does.
pub(crate) fn nearest<'a>(text: &str, known: &'a [String]) -> Option<&'a str> {
    let score = |name: &&String| strsim::jaro_winkler(text, name);
    let best = known.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(&best) > 0.8).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_e2bs() {
        let name = Name::parse(" My-App_1:V1.0 ").unwrap();
        assert_eq!((name.name.as_str(), name.tag()), ("my-app_1", "v1.0"));
        assert_eq!(Name::parse("team/app").unwrap().tag(), "default");
        for bad in ["", ":x", "a:", "a b", "a.b", "é", "a:b:c", "a:b/"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Name::parse(&"a".repeat(129)).is_err());
        assert!(Name::parse("base").unwrap().check_new().is_err());
        assert!(tag("6f1c1e0a-0c3c-4f5e-9c5a-000000000000").is_err());
        assert_eq!(tags(&["A".into(), "a".into(), "b".into()]).unwrap(), ["a", "b"]);
    }

    #[test]
    fn near_names_are_found() {
        let known = ["python-data".to_owned(), "web".to_owned()];
        assert_eq!(nearest("pyton-data", &known), Some("python-data"));
        assert_eq!(nearest("kernel", &known), None);
    }
}
