//! The layout of the OCI.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use super::Archived;
use crate::{
    Digest, Image, ImageError,
    image::Origin,
    limits,
    manifest::{self, Descriptor, Documents, Wanted},
};

/// Where an index keeps the tag of an image.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
struct Index {
    manifests: Option<Vec<Descriptor>>,
}

#[async_trait]
impl Documents for Archived {
    async fn manifest(&self, digest: &Digest, _size: u64) -> Result<Bytes, ImageError> {
        self.document(digest, limits::MANIFEST_BYTES, "the manifest").await
    }

    async fn config(&self, digest: &Digest, _size: u64) -> Result<Bytes, ImageError> {
        self.document(digest, limits::CONFIG_BYTES, "the configuration").await
    }
}

pub(super) async fn open(
    place: Archived,
    path: &Path,
    tag: Option<&str>,
    wanted: &Wanted<'_>,
) -> Result<Image, ImageError> {
    let what = format!("index.json of {}", wanted.name);
    let first = place.small("index.json", limits::MANIFEST_BYTES).await?;
    let first = first.ok_or_else(|| ImageError::invalid(path.display().to_string(), "there is no index.json in it"))?;
    let index: Index = serde_json::from_slice(&first).map_err(ImageError::json(what))?;
    let all = index.manifests.unwrap_or_default();
    let name = |entry: &Descriptor| entry.annotations.as_ref().and_then(|all| all.get(REF_NAME)).cloned();
    let chosen: Vec<&Descriptor> = match tag {
        // Some programs write the whole name: "docker.io/library/debian:12".
        Some(tag) => all
            .iter()
            .filter(|entry| {
                name(entry)
                    .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag))
            })
            .collect(),
        None => all.iter().collect(),
    };
    let first = match chosen.as_slice() {
        [one] => {
            let digest: Digest = one.digest.parse().map_err(|error: crate::digest::NotADigest| {
                ImageError::invalid(format!("index.json of {}", wanted.name), error.to_string())
            })?;
            place.manifest(&digest, one.size).await?
        }
        // Several without names are one image for several platforms.
        several if !several.is_empty() && tag.is_none() && several.iter().all(|entry| name(entry).is_none()) => first,
        _ => {
            return Err(ImageError::NotInArchive {
                path: path.to_owned(),
                wanted: tag.map(str::to_owned),
                available: all.iter().filter_map(name).collect(),
            });
        }
    };
    let mut image = manifest::open(&place, first, Origin::Local(place.clone()), wanted).await?;
    for layer in &mut image.layers {
        let found = place.blob(&layer.digest)?;
        if found.bytes != layer.size {
            let why = format!("it has {} bytes, its manifest says {}", found.bytes, layer.size);
            return Err(ImageError::invalid(format!("layer {}", layer.digest), why));
        }
        layer.at = found.at;
    }
    Ok(image)
}
