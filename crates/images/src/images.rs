use std::{fs::File, sync::Arc};

use tokio::sync::Semaphore;

use crate::{Credentials, Image, ImageError, Platform, Reach, Source, image::Origin, layout, limits, registry};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who asks.
    pub credentials: Credentials,
    /// Registries (`host` or `host:port`, as in an image's name) that may be spoken to without TLS. Those on this machine
    /// (`localhost`, `127.0.0.0/8`, `::1`) may always be.
    pub insecure: Vec<String>,
    /// The URL of a proxy for HTTPS.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy, parted by commas.
    pub no_proxy: Option<String>,
    /// Where registries may be; `None`: anywhere.
    pub reach: Option<Reach>,
    /// Authorities to trust besides the system's: certificates in PEM.
    pub authorities: Option<Vec<u8>>,
    /// Most bytes that the layers of an image may have together as they are transferred.
    pub image_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            credentials: Credentials::default(),
            insecure: Vec::new(),
            proxy: None,
            no_proxy: None,
            reach: None,
            authorities: None,
            image_bytes: limits::IMAGE_BYTES,
        }
    }
}

/// How far the transfer of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which of the image's layers.
    pub layer: usize,
    /// Bytes that are written. It may go back: a registry that cannot continue begins anew.
    pub done: u64,
    /// Bytes of the whole layer.
    pub total: u64,
}

/// Is told how far a transfer is. It is called often and must not wait.
pub type Report = dyn Fn(Progress) + Send + Sync;

/// Finds images and fetches their layers.
#[derive(Debug, Clone)]
pub struct Images {
    registries: registry::Registries,
    image_bytes: u64,
    transfers: Arc<Semaphore>,
}

impl Images {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// The proxy's URL or the authorities cannot be used.
    pub fn new(settings: Settings) -> Result<Self, ImageError> {
        Ok(Self {
            image_bytes: settings.image_bytes,
            registries: registry::Registries::new(settings)?,
            transfers: Arc::new(Semaphore::new(limits::LAYERS_AT_ONCE)),
        })
    }

    /// Finds an image: reads its manifest and configuration, no layer.
    ///
    /// # Errors
    /// See [`ImageError`]: it is not there, not for this platform, not allowed, not valid, or nobody answers.
    pub async fn open(&self, source: &Source, platform: &Platform) -> Result<Image, ImageError> {
        match source {
            Source::Registry(reference) => {
                self.registries
                    .open(source, reference, platform, self.image_bytes)
                    .await
            }
            Source::Debian { .. } => Err(ImageError::invalid(source.to_string(), "it is made anew, not opened")),
            _ => layout::open(source, platform, self.image_bytes).await,
        }
    }

    /// Writes one layer to a file, which is made empty first, and holds it against its size and digest. Of a registry's
    /// layers few are transferred at once; who asks for more waits. A connection that breaks is made again, and the
    /// transfer goes on where it ended. Dropping the future ends the transfer.
    ///
    /// # Errors
    /// There is no such layer, it cannot be had, or what comes is not what its digest says. What is in the file then is
    /// not to be used.
    pub async fn fetch(&self, image: &Image, layer: usize, into: File, report: &Report) -> Result<(), ImageError> {
        let Some(blob) = image.layers.get(layer) else {
            let why = format!("it has {} layers, there is no layer {layer}", image.layers.len());
            return Err(ImageError::invalid(image.source.to_string(), why));
        };
        let told = |done| {
            report(Progress {
                layer,
                done,
                total: blob.size,
            });
        };
        match &image.origin {
            Origin::Registry(session) => {
                // The semaphore is never closed.
                let _turn = self.transfers.acquire().await.ok();
                let fetched = session.fetch(blob, into, &told);
                tokio::time::timeout(limits::LAYER_TIME, fetched)
                    .await
                    .unwrap_or_else(|_| {
                        Err(ImageError::Timeout {
                            what: format!("layer {}", blob.digest),
                            after: limits::LAYER_TIME,
                        })
                    })
            }
            Origin::Local(place) => place.fetch(blob, into, &told).await,
        }
    }
}
