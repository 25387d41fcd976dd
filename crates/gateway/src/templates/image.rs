//! Where images come from: whoever composes the program says so.

use std::sync::Arc;

use async_trait::async_trait;
use sandhold_runtime::Compression;

/// Finds images.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// Finds an image for this machine and reads what it says of itself. `local`: the caller is a user of this machine, and
    /// the image may be one of its files.
    ///
    /// # Errors
    /// The reference is none, the image is not there, or it is not for this machine.
    async fn open(
        &self,
        reference: &str,
        credentials: Option<&ImageCredentials>,
        local: bool,
    ) -> Result<Arc<dyn OpenImage>, ImageFailure>;
}

/// An image that was found.
#[async_trait]
pub trait OpenImage: Send + Sync {
    /// Its environment, in its order.
    fn envs(&self) -> Vec<(String, String)>;

    /// Its layers, the lowest first.
    fn layers(&self) -> Vec<ImageLayer>;

    /// Writes the layer of this number to an empty file and holds it against its digest.
    ///
    /// # Errors
    /// It could not be had, or is not what it should be.
    async fn fetch(&self, layer: usize, into: std::fs::File) -> Result<(), ImageFailure>;
}

/// A layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLayer {
    /// The SHA-256 of its tar without compression.
    pub diff_id: [u8; 32],
    /// Bytes that are transferred.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// Who one is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageCredentials {
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl std::fmt::Debug for ImageCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageCredentials").finish_non_exhaustive()
    }
}

/// Why an image could not be had. The text is for the person who builds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ImageFailure(pub String);
