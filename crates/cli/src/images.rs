//! Images for builds of templates: those of registries, and for users of this machine those in files, too.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use async_trait::async_trait;
use sandhold_egress::Egress;
use sandhold_gateway::{ImageCredentials, ImageFailure, ImageLayer, ImageSource, OpenImage};
use sandhold_images::{
    Config, Credentials, DockerConfig, Image, ImageError, Images, Platform, Reach, Secret, Settings, Source,
};

/// How registries are reached, and by whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageSettings {
    /// The file where `docker login` keeps what it was told.
    pub(crate) docker_config: Option<PathBuf>,
    /// Folders of programs: Docker's credential helpers.
    pub(crate) programs: Vec<PathBuf>,
    /// A proxy for HTTPS.
    pub(crate) proxy: Option<String>,
    /// Hosts that are reached without it.
    pub(crate) no_proxy: Option<String>,
    /// Authorities to trust besides the system's, in PEM.
    pub(crate) authorities: Option<Vec<u8>>,
    /// What a command of the operator's own adds to registries.
    pub(crate) own: OwnImages,
}

/// What a command of the operator's own may use and wants to be told. Servers have nothing of it: who calls them names no
/// file of this machine.
#[derive(Clone, Default)]
pub(crate) struct OwnImages {
    /// Whether registries of this machine and of private networks may be reached, whatever the rules for sandboxes are.
    pub(crate) anywhere: bool,
    /// The one image in files that may be opened, as it is written.
    pub(crate) file: Option<String>,
    /// An image that was made before, which is opened by what its source shows.
    pub(crate) made: Option<Image>,
    /// Who is told how far a transfer is.
    pub(crate) report: Option<Arc<sandhold_images::Report>>,
}

impl std::fmt::Debug for OwnImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnImages")
            .field("file", &self.file)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}

/// Where images come from.
pub(crate) struct Registries {
    settings: ImageSettings,
    /// What callers from elsewhere may have the server reach.
    egress: Arc<Egress>,
}

impl Registries {
    /// # Errors
    /// The settings cannot be used.
    pub(crate) fn new(settings: ImageSettings, egress: Arc<Egress>) -> Result<Self> {
        let this = Self { settings, egress };
        this.images(None, false)
            .context("registries of images cannot be used")?;
        Ok(this)
    }

    /// Who asks: whom the build names, or whoever is logged in on this machine, if the caller is a user of it.
    fn images(&self, credentials: Option<&ImageCredentials>, local: bool) -> Result<Images, ImageError> {
        let credentials = match (credentials, &self.settings.docker_config) {
            (Some(given), _) => Credentials::Given {
                user: given.username.clone(),
                password: Secret::new(given.password.clone()),
            },
            (None, Some(path)) if local => Credentials::Docker(DockerConfig {
                path: path.clone(),
                programs: self.settings.programs.clone(),
            }),
            _ => Credentials::Anonymous,
        };
        let egress = Arc::clone(&self.egress);
        Images::new(Settings {
            credentials,
            proxy: self.settings.proxy.clone(),
            no_proxy: self.settings.no_proxy.clone(),
            authorities: self.settings.authorities.clone(),
            // Holders of keys and models do not reach what their sandboxes do not.
            reach: (!(local && self.settings.own.anywhere)).then(|| Reach::new(move |ip| egress.is_open(ip))),
            ..Settings::default()
        })
    }
}

fn failure(error: &dyn std::error::Error) -> ImageFailure {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    ImageFailure(text)
}

#[async_trait]
impl ImageSource for Registries {
    async fn open(
        &self,
        reference: &str,
        credentials: Option<&ImageCredentials>,
        local: bool,
    ) -> Result<Arc<dyn OpenImage>, ImageFailure> {
        let report = self.settings.own.report.clone();
        let own = Some(&self.settings.own).filter(|_| local);
        let made = own.and_then(|own| own.made.clone());
        if let Some(image) = made.filter(|image| image.source.to_string() == reference) {
            let images = self.images(None, local).map_err(|error| failure(&error))?;
            return Ok(Arc::new(Opened { images, image, report }));
        }
        let source: Source = reference.parse().map_err(|error| failure(&error))?;
        let allowed = own.and_then(|own| own.file.as_deref()) == Some(reference);
        if !allowed && !matches!(source, Source::Registry(_)) {
            return Err(ImageFailure(
                "it is in files of the machine that builds: `sandhold template build --from-oci` takes it there. Name an \
                 image of a registry"
                    .into(),
            ));
        }
        let images = self.images(credentials, local).map_err(|error| failure(&error))?;
        let image = images.open(&source, &Platform::host()).await;
        let image = image.map_err(|error| failure(&error))?;
        Ok(Arc::new(Opened { images, image, report }))
    }
}

struct Opened {
    images: Images,
    image: Image,
    report: Option<Arc<sandhold_images::Report>>,
}

#[async_trait]
impl OpenImage for Opened {
    fn envs(&self) -> Vec<(String, String)> {
        let Config { env, .. } = &self.image.config;
        env.clone()
    }

    fn layers(&self) -> Vec<ImageLayer> {
        let layers = self.image.layers.iter();
        layers
            .map(|layer| ImageLayer {
                diff_id: layer.diff_id.0,
                size: layer.size,
                compression: layer.compression,
            })
            .collect()
    }

    async fn fetch(&self, layer: usize, into: std::fs::File) -> Result<(), ImageFailure> {
        let nobody = |_| {};
        let report = self.report.as_deref().unwrap_or(&nobody);
        let fetched = self.images.fetch(&self.image, layer, into, report).await;
        fetched.map_err(|error| failure(&error))
    }
}
