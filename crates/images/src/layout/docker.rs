//! What `docker save` and `podman save` write.

use std::path::Path;

use sandhold_runtime::Compression;
use serde::Deserialize;

use super::Archived;
use crate::{
    Digest, Image, ImageError, LayerBlob, Reference,
    image::Origin,
    limits,
    manifest::{self, Wanted, bounded},
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

pub(super) async fn open(
    place: Archived,
    path: &Path,
    tag: Option<&str>,
    wanted: &Wanted<'_>,
) -> Result<Image, ImageError> {
    let what = format!("manifest.json of {}", wanted.name);
    let bytes = place.small("manifest.json", limits::MANIFEST_BYTES).await?;
    let bytes =
        bytes.ok_or_else(|| ImageError::invalid(path.display().to_string(), "there is no manifest.json in it"))?;
    let all: Vec<Entry> = serde_json::from_slice(&bytes).map_err(ImageError::json(&*what))?;
    let chosen: Vec<&Entry> = all
        .iter()
        .filter(|entry| tag.is_none_or(|tag| has(entry, tag)))
        .collect();
    let [one] = chosen.as_slice() else {
        return Err(ImageError::NotInArchive {
            path: path.to_owned(),
            wanted: tag.map(str::to_owned),
            available: all
                .iter()
                .flat_map(|entry| entry.repo_tags.clone().unwrap_or_default())
                .collect(),
        });
    };
    let config = place.small(&one.config, limits::CONFIG_BYTES).await?;
    let config = config.ok_or_else(|| ImageError::invalid(&*what, "its configuration is missing"))?;
    // Its name says its digest, too, but nothing relies on that: it is what is read.
    let id = Digest::of(&config);
    let (_, diff_ids, _) = manifest::configuration(&config, &what)?;
    let names = one.layers.clone().unwrap_or_default();
    if names.len() != diff_ids.len() {
        let why = format!(
            "it has {} layers, its configuration speaks of {}",
            names.len(),
            diff_ids.len()
        );
        return Err(ImageError::invalid(what, why));
    }
    let mut layers = Vec::new();
    let mut all = 0_u64;
    for (name, diff_id) in names.iter().zip(diff_ids) {
        let missing = || ImageError::invalid(&*what, format!("the layer {diff_id} is missing"));
        let found = place.find(name)?.ok_or_else(missing)?;
        all = all.saturating_add(found.bytes);
        bounded(&wanted.name, all, wanted.image_bytes)?;
        let layer = format!("layer {diff_id}");
        let magic = match found.bytes {
            0 => Vec::new(),
            _ => found.part(0, 4).await.map_err(ImageError::io(&*layer))?,
        };
        let compression = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        };
        let digest = match compression {
            Compression::None => diff_id,
            // The archive does not say what a compressed layer's digest is.
            _ => found.digest(&layer).await?,
        };
        layers.push(LayerBlob {
            digest,
            diff_id,
            size: found.bytes,
            compression,
            foreign: false,
            at: found.at,
        });
    }
    manifest::image(&config, id, id, layers, Origin::Local(place), wanted)
}

/// Whether an image has this name. Names are compared as Docker reads them: `a` is `docker.io/library/a:latest`.
fn has(entry: &Entry, tag: &str) -> bool {
    let read = |text: &str| text.parse::<Reference>().ok();
    entry
        .repo_tags
        .iter()
        .flatten()
        .any(|name| name == tag || (read(name).is_some() && read(name) == read(tag)))
}
