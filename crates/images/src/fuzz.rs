//! What reads text of strangers, for the fuzzer in `fuzz/`; part of no other build.

use std::collections::BTreeMap;

use crate::{
    Config, Ignore, Platform, Reference, Source,
    dockerfile::{Build, Dockerfile, DockerfileError, Plan},
    layout,
};

/// A Dockerfile's plan, over a base that is known or is not.
///
/// # Errors
/// Its fault.
pub fn plan(text: &str, known: bool) -> Result<Plan, DockerfileError> {
    let base = Config {
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        ..Config::default()
    };
    let platform = Platform::host();
    Dockerfile::parse(text)?.plan(&Build {
        args: BTreeMap::from([("GIVEN".to_owned(), "given $PATH".to_owned())]),
        platform: Some(&platform),
        base: known.then_some(&base),
    })
}

/// The name of an image, written again; none if it is not one.
#[must_use]
pub fn reference(text: &str) -> Option<(Reference, String)> {
    let reference: Reference = text.parse().ok()?;
    let written = reference.to_string();
    Some((reference, written))
}

/// Where an image is, written again.
#[must_use]
pub fn source(text: &str) -> Option<(Source, String)> {
    let source: Source = text.parse().ok()?;
    let written = source.to_string();
    Some((source, written))
}

/// Whether a path is left out by a `.dockerignore`; none if that is not one.
#[must_use]
pub fn ignored(rules: &str, path: &str) -> Option<(bool, bool)> {
    let ignore = Ignore::parse(rules).ok()?;
    Some((ignore.matches(path), ignore.may_bring_back(path)))
}

/// The table of a tar, as far as it is one: what these names lead to.
#[must_use]
pub fn archive(path: &std::path::Path, names: &[&str]) -> Vec<(u64, u64)> {
    layout::find_all(path, names)
}
