//! Manifests, indexes of them, and configurations: what they say, held to the limits.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use sandhold_runtime::Compression;
use serde::Deserialize;

use crate::{Config, Digest, Image, ImageError, LayerBlob, Platform, Source, image::Origin, limits};

/// The kinds of manifests that are understood.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// What a manifest says of another document, or of a layer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) platform: Option<PlatformSaid>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PlatformSaid {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl PlatformSaid {
    fn read(&self) -> Platform {
        let cut = |text: &str| text.chars().take(40).collect();
        Platform {
            os: cut(&self.os),
            architecture: cut(&self.architecture),
            variant: cut(self.variant.as_deref().unwrap_or_default()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct ConfigFile {
    #[serde(flatten)]
    platform: PlatformSaid,
    config: Option<ConfigSaid>,
    rootfs: Option<Rootfs>,
}

#[derive(Debug, Deserialize)]
struct Rootfs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigSaid {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    shell: Option<Vec<String>>,
}

/// Where further documents of an image come from. They give what the digest says, or an error.
#[async_trait]
pub(crate) trait Documents: Sync {
    async fn manifest(&self, digest: &Digest, size: u64) -> Result<Bytes, ImageError>;
    async fn config(&self, digest: &Digest, size: u64) -> Result<Bytes, ImageError>;
}

/// The image that is meant, and what errors call it.
pub(crate) struct Wanted<'a> {
    pub(crate) source: &'a Source,
    pub(crate) platform: &'a Platform,
    pub(crate) name: String,
    pub(crate) image_bytes: u64,
}

/// Finds the image, beginning with a document that is already here: an index or a manifest.
pub(crate) async fn open(
    documents: &dyn Documents,
    first: Bytes,
    origin: Origin,
    wanted: &Wanted<'_>,
) -> Result<Image, ImageError> {
    let mut bytes = first;
    for _ in 0..=limits::INDEX_DEPTH {
        let what = || format!("the manifest of {}", wanted.name);
        let document: Document = serde_json::from_slice(&bytes).map_err(ImageError::json(what()))?;
        if document.schema_version == Some(1) {
            return Err(ImageError::invalid(
                what(),
                "it is in the format of before 2016; push the image again with a newer program",
            ));
        }
        match document {
            Document {
                manifests: Some(manifests),
                config: None,
                layers: None,
                ..
            } => {
                let one = pick(&manifests, wanted)?;
                bytes = documents.manifest(&digest(one, &what)?, one.size).await?;
            }
            Document {
                config: Some(config),
                layers,
                manifests: None,
                ..
            } => {
                let manifest = Digest::of(&bytes);
                let id = digest(&config, &what)?;
                bounded(
                    &format!("the configuration of {}", wanted.name),
                    config.size,
                    limits::CONFIG_BYTES,
                )?;
                let layers = layers.unwrap_or_default();
                let blobs = blobs(&layers, wanted)?;
                let config = documents.config(&id, config.size).await?;
                return image(&config, id, manifest, blobs, origin, wanted);
            }
            _ => {
                return Err(ImageError::invalid(
                    what(),
                    "it is neither a manifest of an image nor an index",
                ));
            }
        }
    }
    Err(ImageError::invalid(
        format!("the index of {}", wanted.name),
        "its indexes lie too deep within each other",
    ))
}

pub(crate) fn bounded(what: &str, bytes: u64, limit: u64) -> Result<(), ImageError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(ImageError::TooLarge {
        what: what.to_owned(),
        bytes,
        limit,
    })
}

fn digest(of: &Descriptor, what: &dyn Fn() -> String) -> Result<Digest, ImageError> {
    of.digest
        .parse()
        .map_err(|error: crate::digest::NotADigest| ImageError::invalid(what(), error.to_string()))
}

/// The entry of an index that suits best; of several that do, the first.
fn pick<'a>(manifests: &'a [Descriptor], wanted: &Wanted<'_>) -> Result<&'a Descriptor, ImageError> {
    let suits = |entry: &&Descriptor| match &entry.platform {
        Some(said) => wanted.platform.suits(&said.read()),
        // The one manifest of an index that names no platform is looked at itself.
        None => (manifests.len() == 1).then_some(0),
    };
    let best = manifests
        .iter()
        .filter_map(|entry| Some((suits(&entry)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    best.map(|(_, entry)| entry).ok_or_else(|| {
        // What build tools add to an index, such as attestations, is for "unknown/unknown".
        let mut available: Vec<Platform> = manifests
            .iter()
            .filter_map(|entry| Some(entry.platform.as_ref()?.read()))
            .filter(|platform| platform.os != "unknown")
            .collect();
        available.sort();
        available.dedup();
        ImageError::NoPlatform {
            image: wanted.name.clone(),
            wanted: wanted.platform.clone(),
            available,
        }
    })
}

/// What the manifest says of each layer.
fn blobs(layers: &[Descriptor], wanted: &Wanted<'_>) -> Result<Vec<LayerBlob>, ImageError> {
    let what = || format!("the manifest of {}", wanted.name);
    if layers.len() > limits::LAYERS {
        let why = format!("it has {} layers, {} are allowed", layers.len(), limits::LAYERS);
        return Err(ImageError::invalid(what(), why));
    }
    let mut all = 0_u64;
    let mut blobs = Vec::with_capacity(layers.len());
    for layer in layers {
        all = all.saturating_add(layer.size);
        bounded(&wanted.name, all, wanted.image_bytes)?;
        let (compression, foreign) = kind(&layer.media_type).ok_or_else(|| {
            let media: String = layer.media_type.chars().take(limits::TOLD_CHARS).collect();
            ImageError::invalid(
                &wanted.name,
                format!("it is not an image of a root file system: it has a layer of the type {media:?}"),
            )
        })?;
        let digest = digest(layer, &what)?;
        blobs.push(LayerBlob {
            digest,
            diff_id: digest,
            size: layer.size,
            compression,
            foreign,
            at: 0,
        });
    }
    Ok(blobs)
}

/// How a layer of this type is compressed, and whether it is foreign; none if it is no layer.
fn kind(media_type: &str) -> Option<(Compression, bool)> {
    let (foreign, rest) = if let Some(rest) = media_type.strip_prefix("application/vnd.oci.image.layer.") {
        match rest.strip_prefix("nondistributable.") {
            Some(rest) => (true, rest.strip_prefix("v1.")?),
            None => (false, rest.strip_prefix("v1.")?),
        }
    } else {
        let rest = media_type.strip_prefix("application/vnd.docker.image.rootfs.")?;
        match rest.strip_prefix("foreign.") {
            Some(rest) => (true, rest.strip_prefix("diff.")?),
            None => (false, rest.strip_prefix("diff.")?),
        }
    };
    let compression = match rest {
        "tar" => Compression::None,
        "tar+gzip" | "tar.gzip" => Compression::Gzip,
        "tar+zstd" | "tar.zstd" => Compression::Zstd,
        _ => return None,
    };
    Some((compression, foreign))
}

/// Puts an image together: its configuration says what its layers are without compression. What the history says of layers
/// without files does not count among them.
pub(crate) fn image(
    config: &[u8],
    id: Digest,
    manifest: Digest,
    mut layers: Vec<LayerBlob>,
    origin: Origin,
    wanted: &Wanted<'_>,
) -> Result<Image, ImageError> {
    let what = format!("the configuration of {}", wanted.name);
    let (platform, diff_ids, config) = configuration(config, &what)?;
    if wanted.platform.suits(&platform).is_none() {
        return Err(ImageError::NoPlatform {
            image: wanted.name.clone(),
            wanted: wanted.platform.clone(),
            available: vec![platform],
        });
    }
    if diff_ids.len() != layers.len() {
        let why = format!("it speaks of {} layers, there are {}", diff_ids.len(), layers.len());
        return Err(ImageError::invalid(what, why));
    }
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        if layer.compression == Compression::None && layer.digest != diff_id {
            return Err(ImageError::invalid(
                what,
                format!("the layer {} is not compressed, and here it is {diff_id}", layer.digest),
            ));
        }
        layer.diff_id = diff_id;
    }
    Ok(Image {
        source: wanted.source.clone(),
        digest: manifest,
        id,
        platform,
        config,
        layers,
        origin,
    })
}

/// What a configuration says: the platform, the layers without compression, and how to run it.
pub(crate) fn configuration(bytes: &[u8], what: &str) -> Result<(Platform, Vec<Digest>, Config), ImageError> {
    let file: ConfigFile = serde_json::from_slice(bytes).map_err(ImageError::json(what))?;
    let diff_ids = file.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
    if diff_ids.len() > limits::LAYERS {
        return Err(ImageError::invalid(
            what,
            format!("it speaks of {} layers", diff_ids.len()),
        ));
    }
    let diff_ids = diff_ids
        .iter()
        .map(|id| {
            id.parse()
                .map_err(|error: crate::digest::NotADigest| ImageError::invalid(what, error.to_string()))
        })
        .collect::<Result<Vec<Digest>, _>>()?;
    let said = file.config.unwrap_or_default();
    let pair = |variable: String| match variable.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (variable, String::new()),
    };
    let config = Config {
        env: said.env.unwrap_or_default().into_iter().map(pair).collect(),
        entrypoint: said.entrypoint.unwrap_or_default(),
        cmd: said.cmd.unwrap_or_default(),
        user: said.user.unwrap_or_default(),
        workdir: said.working_dir.unwrap_or_default(),
        labels: said.labels.unwrap_or_default(),
        exposed_ports: said.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: said.volumes.unwrap_or_default().into_keys().collect(),
        shell: said.shell.unwrap_or_default(),
    };
    Ok((file.platform.read(), diff_ids, config))
}
