use std::{collections::BTreeMap, fmt};

use sandhold_runtime::Compression;

use crate::{Digest, Source, layout::Archived, registry::Session};

/// An image: how it wants to be run, and its layers. Its layers are still where it came from.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it was opened by.
    pub source: Source,
    /// That of its manifest for this platform; of one that has no manifest (an archive of `docker save`, a Debian root),
    /// the same as `id`.
    pub digest: Digest,
    /// That of its configuration: the same wherever the same image comes from. Docker calls it the image's id.
    pub id: Digest,
    /// What it is made for.
    pub platform: Platform,
    /// How it wants to be run.
    pub config: Config,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerBlob>,
    pub(crate) origin: Origin,
}

/// Where the layers of an image are.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Registry(std::sync::Arc<Session>),
    Local(Archived),
}

/// How an image wants to be run. All of it is untrusted text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The environment, `NAME=value` taken apart, in the image's order.
    pub env: Vec<(String, String)>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments that follow, or the program.
    pub cmd: Vec<String>,
    /// User and group, as names or numbers: `user`, `user:group`. Empty: root.
    pub user: String,
    /// The working folder. Empty: `/`.
    pub workdir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports that its programs listen on: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Folders that are meant to be kept outside of it.
    pub volumes: Vec<String>,
    /// The shell of Dockerfile's `RUN`, where it is not `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// One layer of an image: a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// The SHA-256 of what is transferred.
    pub digest: Digest,
    /// The SHA-256 of the tar without compression.
    pub diff_id: Digest,
    /// Bytes that are transferred.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Whether it is said to be kept elsewhere. Then it may not be there.
    pub foreign: bool,
    /// Where it begins in an archive.
    pub(crate) at: u64,
}

/// What a program of an image is made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// The operating system: `linux`.
    pub os: String,
    /// The processor, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Which of its kinds: `v8`; empty where that does not matter.
    pub variant: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl Platform {
    /// Linux on this machine's processor.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", ""),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    /// How well what is made for `other` suits; none if it does not run here. Less is better.
    pub(crate) fn suits(&self, other: &Self) -> Option<u32> {
        if (&self.os, &self.architecture) != (&other.os, &other.architecture) {
            return None;
        }
        let number = |variant: &str| variant.strip_prefix('v')?.parse::<u32>().ok();
        // What a plain name means: the first 64-bit processors of both kinds.
        let plain = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        let own = if self.variant.is_empty() {
            Some(plain)
        } else {
            number(&self.variant)
        };
        if other.variant == self.variant {
            return Some(0);
        }
        let theirs = if other.variant.is_empty() {
            Some(plain)
        } else {
            number(&other.variant)
        };
        match (own, theirs) {
            (Some(own), Some(theirs)) if theirs <= own => Some(1 + own - theirs),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        Platform {
            os: part(),
            architecture: part(),
            variant: part(),
        }
    }

    #[test]
    fn a_processor_runs_what_is_made_for_older_ones() {
        let suits = |own: &str, other: &str| platform(own).suits(&platform(other));
        assert_eq!(suits("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(suits("linux/arm64", "linux/arm64/v8"), Some(1));
        assert_eq!(suits("linux/arm/v7", "linux/arm/v6"), Some(2));
        assert_eq!(suits("linux/amd64/v3", "linux/amd64"), Some(3));
        for (own, other) in [
            ("linux/amd64", "linux/arm64"),
            ("linux/amd64", "windows/amd64"),
            ("linux/amd64", "linux/amd64/v2"),
            ("linux/arm64", "linux/arm64/v9"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/amd64", "linux/amd64/strange"),
        ] {
            assert_eq!(suits(own, other), None, "{own} {other}");
        }
    }
}
