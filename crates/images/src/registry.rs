//! Images of registries: the OCI's distribution protocol, as far as pulling needs it.

mod answer;
mod auth;
mod blob;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
pub(crate) use session::Session;

use crate::{
    Digest, Image, ImageError, Platform, Reference, Settings, Source,
    image::Origin,
    limits,
    manifest::{self, Documents, Wanted},
};

/// What reaches registries.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    http: reqwest::Client,
    settings: Arc<Settings>,
}

impl Registries {
    pub(crate) fn new(settings: Settings) -> Result<Self, ImageError> {
        Ok(Self {
            http: session::client(&settings)?,
            settings: Arc::new(settings),
        })
    }

    pub(crate) async fn open(
        &self,
        source: &Source,
        reference: &Reference,
        platform: &Platform,
        image_bytes: u64,
    ) -> Result<Image, ImageError> {
        let session = Session::new(self.http.clone(), reference.clone(), &self.settings).await?;
        let first = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => session.manifest(digest, limits::MANIFEST_BYTES).await?,
            (None, tag) => {
                session
                    .document("manifests", tag.unwrap_or("latest"), limits::MANIFEST_BYTES)
                    .await?
            }
        };
        let wanted = Wanted {
            source,
            platform,
            name: reference.to_string(),
            image_bytes,
        };
        let origin = Origin::Registry(Arc::clone(&session));
        manifest::open(&*session, first, origin, &wanted).await
    }
}

#[async_trait]
impl Documents for Session {
    async fn manifest(&self, digest: &Digest, size: u64) -> Result<Bytes, ImageError> {
        manifest::bounded("a manifest", size, limits::MANIFEST_BYTES)?;
        let bytes = self
            .document("manifests", &digest.to_string(), limits::MANIFEST_BYTES)
            .await?;
        matches(&bytes, digest, "the manifest")?;
        Ok(bytes)
    }

    async fn config(&self, digest: &Digest, size: u64) -> Result<Bytes, ImageError> {
        let bytes = self.document("blobs", &digest.to_string(), size).await?;
        matches(&bytes, digest, "the configuration")?;
        Ok(bytes)
    }
}

/// Holds a document against its digest.
pub(crate) fn matches(bytes: &[u8], digest: &Digest, what: &str) -> Result<(), ImageError> {
    let found = Digest::of(bytes);
    if found == *digest {
        return Ok(());
    }
    Err(ImageError::WrongDigest {
        what: format!("{what} {digest}"),
        expected: *digest,
        found,
    })
}
