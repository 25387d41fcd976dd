use std::{fmt, path::PathBuf, time::Duration};

use crate::{Digest, Platform, ReferenceError, limits};

/// Why there is no image, or no layer of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// What was asked for is not the name of an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry does not know it.
    #[error(
        "there is no image {image} at {registry}. Look for a slip in its name or tag; if the image is private, log in \
         with `docker login {registry}`"
    )]
    Unknown {
        /// The registry's name.
        registry: String,
        /// What was asked for.
        image: String,
    },
    /// The registry wants to know who asks, or does not let them.
    #[error("{registry} refuses {image}: {}", if *.known {
        "the login that was given is wrong or may not read it"
    } else {
        "it is private, or there is no such image. To log in, run `docker login` with the registry's name, or give a user and a password"
    })]
    Unauthorized {
        /// The registry's name.
        registry: String,
        /// What was asked for.
        image: String,
        /// Whether a login was given.
        known: bool,
    },
    /// The registry has had too many requests of this address or user.
    #[error("{registry} answers no more requests for now: its limit is reached. {}", Wait(.wait))]
    RateLimited {
        /// The registry's name.
        registry: String,
        /// After how long it may be asked again, if it said so.
        wait: Option<Duration>,
    },
    /// The image is not there for this machine.
    #[error("{image} is not made for {wanted}; it is for: {}", Platforms(.available))]
    NoPlatform {
        /// What was asked for.
        image: String,
        /// The platform that was wanted.
        wanted: Platform,
        /// Those that there are.
        available: Vec<Platform>,
    },
    /// No connection was made, or none that lasted.
    #[error("{registry} could not be reached")]
    Unreachable {
        /// The registry's name.
        registry: String,
        /// What the network said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry's certificate is not one to trust, or it does not speak TLS.
    #[error("there is no secure connection to {registry}: its certificate is not trusted, or it speaks no TLS")]
    Tls {
        /// The registry's name.
        registry: String,
        /// What TLS said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke again and again.
    #[error("the connection to {registry} broke while {what} was transferred, {tries} times in a row")]
    Broken {
        /// The registry's name.
        registry: String,
        /// What was transferred.
        what: String,
        /// How often nothing came.
        tries: u32,
        /// What the network said last.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It took too long.
    #[error("{what} took more than {} s", .after.as_secs())]
    Timeout {
        /// What did.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// The registry answered with an error.
    #[error("{registry} answered {status} for {what}{}", Told(.told))]
    Answer {
        /// The registry's name.
        registry: String,
        /// The status of HTTP.
        status: u16,
        /// What was asked for.
        what: String,
        /// The beginning of what it said; may be empty. Untrusted.
        told: String,
    },
    /// What came is not what its digest says.
    #[error("{what} is not what its digest says: it should be {expected} and is {found}")]
    WrongDigest {
        /// Which document or layer.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A document or an archive does not follow its format.
    #[error("{what} cannot be used: {why}")]
    Invalid {
        /// Which.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A document is no JSON, or lacks something.
    #[error("{what} is not understood")]
    Json {
        /// Which.
        what: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// More than is allowed.
    #[error("{what} is too large: {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// What is.
        what: String,
        /// How large it is, or says to be.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A layer that is not in the registry but at some other place of its maker's: those of Windows.
    #[error("layer {digest} is not kept with the image (a \"foreign\" layer); it cannot be fetched")]
    Foreign {
        /// The layer.
        digest: Digest,
    },
    /// The folder or archive has several images, or not that one.
    #[error("{} has no image {}; it has: {}", .path.display(), Wanted(.wanted), List(.available))]
    NotInArchive {
        /// The folder or archive.
        path: PathBuf,
        /// The tag that was asked for.
        wanted: Option<String>,
        /// Those that it has.
        available: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{what} could not be read or written")]
    Io {
        /// Which.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The login could not be found out.
    #[error("the login for {registry} could not be found: {why}")]
    Credentials {
        /// The registry's name.
        registry: String,
        /// Why; holds no secret.
        why: String,
    },
    /// HTTPS could not be set up with these settings.
    #[error("the settings for registries cannot be used: {what}")]
    Settings {
        /// Which setting.
        what: String,
        /// What is wrong with it.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl ImageError {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Json { what, source }
    }
}

struct Wait<'a>(&'a Option<Duration>);

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) if time.as_secs() > 120 => write!(f, "Try again in {} minutes", time.as_secs().div_ceil(60))?,
            Some(time) => write!(f, "Try again in {} s", time.as_secs().max(1))?,
            None => f.write_str("Try again later")?,
        }
        f.write_str(", or log in (`docker login`): users that are known may ask for more")
    }
}

struct Platforms<'a>(&'a [Platform]);

impl fmt::Display for Platforms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(Platform::to_string).collect();
        List(&names).fmt(f)
    }
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing that is known");
        }
        let told = &self.0[..self.0.len().min(limits::PLATFORMS_TOLD)];
        f.write_str(&told.join(", "))?;
        match self.0.len() - told.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

struct Wanted<'a>(&'a Option<String>);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(tag) => write!(f, "{tag:?}"),
            None => f.write_str("that is meant without a tag"),
        }
    }
}

struct Told<'a>(&'a str);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ": {:?}", self.0)
        }
    }
}
