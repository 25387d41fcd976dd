use std::{fmt, path::PathBuf, str::FromStr};

use crate::{Reference, ReferenceError};

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a registry: `debian:12`, `docker://debian:12`.
    Registry(Reference),
    /// In a folder in the layout of the OCI: `oci:PATH`, `oci:PATH:TAG`.
    OciFolder {
        /// The folder.
        path: PathBuf,
        /// Which of its images, if it has several.
        tag: Option<String>,
    },
    /// The same in a tar: `oci-archive:PATH`, `oci-archive:PATH:TAG`.
    OciArchive {
        /// The tar.
        path: PathBuf,
        /// Which of its images, if it has several.
        tag: Option<String>,
    },
    /// A tar that `docker save` or `podman save` wrote: `docker-archive:PATH`, `docker-archive:PATH:IMAGE`.
    DockerArchive {
        /// The tar.
        path: PathBuf,
        /// Which of its images, if it has several.
        tag: Option<String>,
    },
    /// A path, which begins with `/`, `./` or `../`: a folder or tar of any of these kinds.
    Path(PathBuf),
    /// A root that mmdebstrap made; not to be written by a person.
    Debian {
        /// Debian's release.
        suite: String,
    },
}

impl FromStr for Source {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = |why| ReferenceError {
            text: text.chars().take(300).collect(),
            why,
        };
        if text.contains('\0') {
            return Err(bad("it has a zero byte"));
        }
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return Ok(Self::Path(text.into()));
        }
        if let Some(rest) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(rest.parse()?));
        }
        let split = |rest: &str| {
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) => (path, Some(tag.to_owned())),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(bad("after the first colon comes a path"));
            }
            if tag.as_deref() == Some("") {
                return Err(bad("after the last colon comes a tag"));
            }
            Ok((PathBuf::from(path), tag))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = split(rest)?;
            return Ok(Self::OciFolder { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = split(rest)?;
            return Ok(Self::OciArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, tag) = split(rest)?;
            return Ok(Self::DockerArchive { path, tag });
        }
        if text.contains("://") {
            return Err(bad(
                "write docker://NAME, oci:PATH, oci-archive:PATH, docker-archive:PATH or NAME",
            ));
        }
        Ok(Self::Registry(text.parse()?))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, tag) = match self {
            Self::Registry(reference) => return write!(f, "docker://{reference}"),
            Self::Path(path) => return write!(f, "{}", path.display()),
            Self::Debian { suite } => return write!(f, "debian:{suite} (mmdebstrap)"),
            Self::OciFolder { path, tag } => ("oci", path, tag),
            Self::OciArchive { path, tag } => ("oci-archive", path, tag),
            Self::DockerArchive { path, tag } => ("docker-archive", path, tag),
        };
        write!(f, "{kind}:{}", path.display())?;
        tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_by_their_prefix() {
        let is = |text: &str| text.parse::<Source>().unwrap();
        assert!(matches!(is("debian"), Source::Registry(r) if r.repository() == "library/debian"));
        assert!(matches!(is("docker://x.io/a"), Source::Registry(r) if r.registry() == "x.io"));
        // An image may have the name of a kind.
        assert!(matches!(is("oci"), Source::Registry(_)));
        for text in [
            "oci:a/b",
            "oci:/a/b:1",
            "oci-archive:x.tar",
            "docker-archive:x.tar:me/y:2",
            "./x.tar",
            "/x",
        ] {
            let source = is(text);
            assert!(!matches!(source, Source::Registry(_)), "{text}");
            assert_eq!(source.to_string(), text);
        }
        let one = is("docker-archive:x.tar:me/y:2");
        assert!(matches!(one, Source::DockerArchive { tag: Some(tag), .. } if tag == "me/y:2"));
        for text in [
            "",
            "oci:",
            "oci:a:",
            "docker://",
            "containers-storage://x",
            "/a\0b",
            "x y",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text:?}");
        }
    }
}
