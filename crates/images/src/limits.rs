//! The limits of this crate, with what they are by default.

use std::time::Duration;

/// Bytes of a manifest or an index of manifests: what registries accept at most, too.
pub const MANIFEST_BYTES: u64 = 4 << 20;

/// Bytes of an image's configuration.
pub const CONFIG_BYTES: u64 = 4 << 20;

/// Layers of an image: what Docker allows.
pub const LAYERS: usize = 127;

/// Bytes of all layers of an image together, as they are transferred. [`crate::Settings`] may say another figure.
pub const IMAGE_BYTES: u64 = 32 << 30;

/// Indexes that may lie within each other before the manifest of the image comes.
pub const INDEX_DEPTH: usize = 3;

/// Platforms that an error names at most.
pub const PLATFORMS_TOLD: usize = 20;

/// Layers that are transferred at once.
pub const LAYERS_AT_ONCE: usize = 3;

/// Bytes of an answer with a token, of an error of a registry, and of a credential helper.
pub const ANSWER_BYTES: u64 = 64 << 10;

/// Bytes of Docker's own settings, where the logins are.
pub const DOCKER_CONFIG_BYTES: u64 = 1 << 20;

/// Characters of a registry's own words that an error repeats.
pub const TOLD_CHARS: usize = 200;

/// How long a connection may take to be made.
pub const CONNECT_TIME: Duration = Duration::from_secs(15);

/// How long a registry may take for a document, or for the head of a layer's answer.
pub const REQUEST_TIME: Duration = Duration::from_secs(60);

/// How long no byte may come while a layer is transferred. Then the connection counts as broken.
pub const IDLE_TIME: Duration = Duration::from_secs(30);

/// How long one layer may take with all repetitions.
pub const LAYER_TIME: Duration = Duration::from_secs(3600);

/// How often in a row a layer is asked for again when nothing of it came.
pub const LAYER_TRIES: u32 = 5;

/// How long is waited before a layer is asked for again, at first: each time twice as long.
pub const RETRY_WAIT: Duration = Duration::from_millis(250);

/// How long is waited at most when a registry says "later"; for longer than that it is an error, with the time.
pub const RETRY_WAIT_MOST: Duration = Duration::from_secs(10);

/// Redirections that are followed.
pub const REDIRECTS: usize = 5;

/// How long a credential helper may take: it may ask its user.
pub const HELPER_TIME: Duration = Duration::from_secs(30);

/// Entries of an archive of an image.
pub const ARCHIVE_ENTRIES: usize = 4096;

/// Bytes that are read of an archive to find its entries: their heads, not what they hold.
pub const ARCHIVE_INDEX_BYTES: u64 = 16 << 20;

/// Bytes of a Dockerfile, and of a `.dockerignore`.
pub const DOCKERFILE_BYTES: usize = 1 << 20;

/// Instructions of a Dockerfile.
pub const INSTRUCTIONS: usize = 4096;

/// Characters of a line of a Dockerfile that an error repeats.
pub const LINE_CHARS: usize = 120;

/// Bytes that one word of a Dockerfile may have once its variables are replaced.
pub const WORD_BYTES: usize = 1 << 20;

/// Bytes of all words of a Dockerfile together once their variables are replaced.
pub const PLAN_BYTES: usize = 8 << 20;

/// `${…}` within `${…}` of a Dockerfile.
pub const EXPANSION_DEPTH: usize = 32;

/// Files and folders of one `COPY`.
pub const CONTEXT_FILES: usize = 200_000;

/// Folders within folders of a context.
pub const CONTEXT_DEPTH: usize = 128;

/// Bytes of the files of one `COPY`.
pub const CONTEXT_BYTES: u64 = 16 << 30;

/// Packages that a Debian root may be asked to have.
pub const DEBIAN_PACKAGES: usize = 500;

/// How long the making of a Debian root may take, if nobody says another time.
pub const DEBIAN_TIME: Duration = Duration::from_secs(1800);

/// How long mmdebstrap may take to clear up when it is stopped.
pub const DEBIAN_STOP_TIME: Duration = Duration::from_secs(10);

/// Bytes of a line of mmdebstrap's log that are passed on.
pub const LOG_LINE_BYTES: usize = 4096;

/// Lines of mmdebstrap's log that an error repeats.
pub const LOG_LINES_TOLD: usize = 8;
