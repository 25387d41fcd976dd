//! What a build begins with: an image, made fit to be a sandbox, or a template.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use sandhold_runtime::{Archive, Base, StoredRoot};
use sandhold_wire::{names::DEFAULT_USER, templates::ImageRegistry};

use super::{
    super::{
        cache::{self, Done, Unpacked},
        image::{ImageCredentials, ImageLayer, OpenImage},
        logs::Level,
    },
    BASE, Building, Failure,
    scripts::PREPARE,
    workshop::{Shell, Task, Workshop},
};
use crate::{
    entry::Start,
    error::chain,
    limits::{BUILD_OWN_TIME, IMAGE_AHEAD, IMAGE_LAYERS, LAYER_BYTES, LAYER_FILES},
};

impl Building<'_> {
    pub(super) async fn base(&mut self) -> Result<(), Failure> {
        let asked = &self.job.asked;
        if let Some(template) = asked.from_template.as_deref().filter(|name| !name.is_empty()) {
            return self.on_template(template).await;
        }
        let image = asked.from_image.as_deref().unwrap_or_default();
        self.on_image(image).await
    }

    async fn on_template(&mut self, name: &str) -> Result<(), Failure> {
        self.log.line(Level::Info, Some(BASE), format!("FROM template {name}"));
        let origin = self.job.sandboxes.resolve(self.job.owner, name).await;
        let origin = origin.map_err(Failure::at(BASE))?;
        // What is only held may go while this goes on.
        let root = self.layers.keep(&origin.root).await;
        self.root = root.map_err(|error| Failure::new(BASE, chain(&error)))?;
        self.there.extend(&self.root.layers);
        self.start = origin.start;
        Ok(())
    }

    async fn on_image(&mut self, reference: &str) -> Result<(), Failure> {
        let failed = |message: String| Failure::new(BASE, message);
        self.log.line(Level::Info, Some(BASE), format!("FROM {reference}"));
        let images = self.job.sandboxes.config.templates.images.as_ref();
        let images = images.ok_or_else(|| failed("this server gets no images".into()))?;
        let credentials = match &self.job.asked.from_image_registry {
            Some(ImageRegistry::Registry { username, password }) => Some(ImageCredentials {
                username: username.clone(),
                password: password.clone(),
            }),
            _ => None,
        };
        let local = self.job.owner == crate::owner::Owner::LOCAL;
        let opened = images.open(reference, credentials.as_ref(), local).await;
        let image = opened.map_err(|error| failed(format!("the image {reference} cannot be had: {error}")))?;
        let layers = image.layers();
        if layers.len() > IMAGE_LAYERS {
            return Err(failed(format!(
                "the image {reference} has {} layers, at most {IMAGE_LAYERS} are taken",
                layers.len()
            )));
        }
        let root = self.unpack(&image, &layers).await?;
        self.root = root;
        self.start = Start {
            envs: image.envs().into_iter().filter(|(name, _)| fits(name)).collect(),
            user: Some(DEFAULT_USER.to_owned()),
            ..Start::default()
        };
        self.prepare().await
    }

    /// The image's layers as layers of ours. Those that are known are not fetched.
    async fn unpack(&mut self, image: &Arc<dyn OpenImage>, layers: &[ImageLayer]) -> Result<StoredRoot, Failure> {
        let failed = |message: String| Failure::new(BASE, message);
        let db = &self.job.sandboxes.templates.db;
        let mut root = StoredRoot {
            base: Base::Empty,
            layers: Vec::new(),
        };
        let mut known = 0;
        // What a layer becomes depends on those below it.
        let key = |root: &StoredRoot, layer: &ImageLayer| -> Result<String, Failure> {
            let below = serde_json::to_vec(root).map_err(|error| failed(error.to_string()))?;
            Ok(cache::key(&[b"image", &below, &layer.diff_id]))
        };
        for layer in layers {
            let found: Option<Unpacked> = cache::look_up(db, &key(&root, layer)?)
                .await
                .map_err(Failure::at(BASE))?;
            let Some(found) = found.filter(|found| self.there.contains(&found.layer)) else {
                break;
            };
            root.layers.push(found.layer);
            known += 1;
        }
        if known > 0 {
            let message = format!("CACHED {known} of {} layers", layers.len());
            self.log.line(Level::Info, Some(BASE), message);
        }
        let folder = self.job.sandboxes.templates.uploads.folder().to_owned();
        let ahead: Vec<(usize, ImageLayer)> = layers.iter().copied().enumerate().skip(known).collect();
        let fetching = stream::iter(ahead).map(|(number, layer)| {
            let (image, folder) = (image.clone(), folder.clone());
            async move {
                // Without a name: nothing of it outlives this process.
                let file = tempfile::tempfile_in(folder)
                    .and_then(|file| Ok((file.try_clone()?, file)))
                    .map_err(|error| failed(format!("there is no place for a layer: {error}")))?;
                let fetched = image.fetch(number, file.0).await;
                fetched.map_err(|error| failed(format!("layer {} cannot be had: {error}", number + 1)))?;
                Ok::<_, Failure>((number, layer, file.1))
            }
        });
        let mut fetching = std::pin::pin!(fetching.buffered(IMAGE_AHEAD));
        while let Some((number, layer, mut file)) = fetching.try_next().await? {
            let rewound = std::io::Seek::rewind(&mut file);
            rewound.map_err(|error| failed(format!("a layer cannot be read: {error}")))?;
            let archive = Archive {
                file: file.into(),
                compression: layer.compression,
                diff_id: Some(layer.diff_id),
                max_bytes: LAYER_BYTES,
                max_files: LAYER_FILES,
            };
            let begun = std::time::Instant::now();
            let unpacked = self.layers.unpack(archive, &root).await;
            let unpacked = unpacked
                .map_err(|error| failed(format!("layer {} cannot be unpacked: {}", number + 1, chain(&error))))?;
            let kept = Unpacked { layer: unpacked.id };
            cache::keep(db, &key(&root, &layer)?, &kept)
                .await
                .map_err(Failure::at(BASE))?;
            self.there.insert(unpacked.id);
            root.layers.push(unpacked.id);
            let message = format!(
                "layer {} of {}: {:.1} MB, {} files, unpacked in {}",
                number + 1,
                layers.len(),
                mb(unpacked.bytes),
                unpacked.files,
                super::told(begun.elapsed())
            );
            self.log.line(Level::Info, Some(BASE), message);
        }
        Ok(root)
    }

    /// Gives the image what every sandbox has: the user and a shell where E2B's SDKs look for it.
    async fn prepare(&mut self) -> Result<(), Failure> {
        let key = self.key(&[b"prepare", PREPARE.as_bytes()], BASE)?;
        if self.cached(&key, BASE).await? {
            self.log.line(Level::Info, Some(BASE), "CACHED user and shell");
            return Ok(());
        }
        let workshop = Workshop::open(self, BASE).await?;
        let task = Task {
            step: BASE,
            script: PREPARE.to_owned(),
            user: workshop.root_user(),
            cwd: Some("/".into()),
            shell: Shell::Plain,
            within: BUILD_OWN_TIME,
            level: Level::Info,
            ..Task::default()
        };
        let prepared = workshop.run(self, task).await;
        let root = workshop.close(self, BASE, prepared).await?.1;
        let done = Done {
            root,
            start: self.start.clone(),
        };
        self.done(&key, BASE, done).await
    }
}

/// Whether an environment variable of an image can be one.
fn fits(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

#[expect(clippy::cast_precision_loss, reason = "for a person")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
