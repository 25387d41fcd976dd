use std::{fmt, net::Ipv6Addr};

use crate::Digest;

/// The registry that is meant when none is named.
const DOCKER_IO: &str = "docker.io";

/// The folder there that is meant when none is named.
const LIBRARY: &str = "library";

/// Characters of a registry and a repository together.
const NAME_CHARS: usize = 255;

/// The name of an image in a registry, as Docker reads it: `debian`, `debian:12`, `ghcr.io/x/y@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the name of an image: {why}")]
pub struct ReferenceError {
    /// What was read, cut if it is long.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Reference {
    /// The registry's host and port, `docker.io` if none was named.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The image's name at the registry: `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if there was neither a tag nor a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which decides where there is one, whatever the tag says.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = |why| ReferenceError {
            text: text.chars().take(300).collect(),
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| bad("after @ comes sha256: and 64 lower-case hexadecimal digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad(
                "a tag has 1 to 128 letters, digits, dots, dashes and underscores, and begins with none of . and -",
            ));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if names_a_host(first) => (first, path),
            _ => (DOCKER_IO, name),
        };
        if !is_host(registry) {
            return Err(bad("the registry is not a host name with or without a port"));
        }
        if path.is_empty() {
            return Err(bad("there is no name"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("the name of an image has lower-case letters only"));
        }
        if !path.split('/').all(is_component) {
            return Err(bad(
                "a name has letters and digits, between them single dots, one or two underscores, or dashes; slashes part it",
            ));
        }
        if registry == DOCKER_IO && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("this is the id of an image; only images with a name can be pulled"));
        }
        // Without a dot or port only its capitals tell it from a folder.
        let registry = match registry.to_ascii_lowercase() {
            lower if !lower.contains(['.', ':']) => registry.to_owned(),
            hub if hub == "index.docker.io" || hub == "registry-1.docker.io" => DOCKER_IO.to_owned(),
            other => other,
        };
        let repository = if registry == DOCKER_IO && !path.contains('/') {
            format!("{LIBRARY}/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > NAME_CHARS {
            return Err(bad("the name is longer than 255 characters"));
        }
        let tag = tag.map(str::to_owned);
        Ok(Self {
            registry,
            repository,
            tag: tag.or_else(|| digest.is_none().then(|| "latest".to_owned())),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Docker's rule for what comes before the first slash.
fn names_a_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, "")) => return ip.parse::<Ipv6Addr>().is_ok(),
            Some((ip, port)) => {
                let Some(port) = port.strip_prefix(':') else {
                    return false;
                };
                return ip.parse::<Ipv6Addr>().is_ok() && is_port(port);
            }
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = label.as_bytes();
            edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        })
}

fn is_port(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 5
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_tag(text: &str) -> bool {
    let first = text.bytes().next();
    text.len() <= 128
        && first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut parts = text.split(|c: char| c.is_ascii() && plain(c as u8));
    let between = |part: &str| matches!(part, "" | "." | "_" | "__") || part.bytes().all(|b| b == b'-');
    let edges = text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain);
    edges && parts.all(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, String, Option<String>, bool) {
        let r: Reference = text.parse().unwrap();
        (r.registry, r.repository, r.tag, r.digest.is_some())
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, registry, repository, tag, by_digest) in [
            ("debian", "docker.io", "library/debian", "latest", false),
            ("debian:12", "docker.io", "library/debian", "12", false),
            ("me/tool:v1.2-x_y", "docker.io", "me/tool", "v1.2-x_y", false),
            ("index.docker.io/library/a", "docker.io", "library/a", "latest", false),
            ("localhost/a", "localhost", "a", "latest", false),
            ("localhost:5000/a/b:c", "localhost:5000", "a/b", "c", false),
            ("ghcr.io/x/y/z", "ghcr.io", "x/y/z", "latest", false),
            ("Registry/a", "Registry", "a", "latest", false),
            ("X.io/a", "x.io", "a", "latest", false),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest", false),
            ("a__b/c--d.e", "docker.io", "a__b/c--d.e", "latest", false),
            (&format!("ghcr.io/x/y@{digest}"), "ghcr.io", "x/y", "", true),
            (&format!("x:1@{digest}"), "docker.io", "library/x", "1", true),
        ] {
            let tag = (!tag.is_empty()).then(|| tag.to_owned());
            assert_eq!(
                read(text),
                (registry.into(), repository.into(), tag, by_digest),
                "{text}"
            );
            let one: Reference = text.parse().unwrap();
            assert_eq!(one.to_string().parse(), Ok(one), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for text in [
            "",
            ":",
            "@",
            "a:",
            "a@",
            "a/",
            "/a",
            "a//b",
            "A",
            "a b",
            "a:b c",
            "-a",
            "a-",
            "a._b",
            "a___b",
            "x/..",
            "x/../y",
            "a@sha256:00",
            "a@md5:00",
            "http://x/y",
            "localhost:/a",
            "localhost:x/a",
            "localhost:99999/a",
            "-x.io/a",
            "x..io/a",
            "[::g]/a",
            "[::1/a",
            "ä",
            "a:ä",
            "x.io/é",
            "a\n",
            "a?b",
            "a#b",
            "x.io:0/a",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(!error.why.is_empty() && error.text == text, "{error}");
        }
        assert!("a".repeat(64).parse::<Reference>().is_err(), "an id");
        assert!(format!("x/{}", "b".repeat(64)).parse::<Reference>().is_ok());
        assert!(format!("x.io/{}", "b".repeat(300)).parse::<Reference>().is_err());
        assert!(format!("x:{}", "b".repeat(129)).parse::<Reference>().is_err());
    }
}
