//! Images in folders and archives: the OCI's layout, as a folder or a tar, and what `docker save` writes.

mod docker;
mod oci;
mod tarball;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tarball::Tarball;
use tokio::io::AsyncWriteExt;

use crate::{
    Digest, Image, ImageError, LayerBlob, Platform, Source,
    digest::Hasher,
    manifest::{self, Wanted},
    registry::matches,
};

/// How much of a layer is copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A folder or an archive on this machine.
#[derive(Debug, Clone)]
pub(crate) enum Archived {
    Folder(PathBuf),
    Tar(Arc<Tarball>),
    /// A file that is one layer: open, and what errors call it.
    File(Arc<Mutex<File>>, String),
}

/// Where some bytes are: in which file, from where on, how many.
pub(crate) struct Place {
    file: Arc<Mutex<File>>,
    at: u64,
    bytes: u64,
}

impl Archived {
    fn path(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Tar(tarball) => tarball.path.display().to_string(),
            Self::File(_, name) => name.clone(),
        }
    }

    /// A file of the layout; none if it is not there.
    fn find(&self, name: &str) -> Result<Option<Place>, ImageError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
                match opened {
                    Ok((meta, file)) if meta.is_file() => Ok(Some(Place {
                        file: Arc::new(Mutex::new(file)),
                        at: 0,
                        bytes: meta.len(),
                    })),
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(ImageError::io(path.display().to_string())(error)),
                }
            }
            Self::Tar(tarball) => Ok(tarball.find(name).map(|(at, bytes)| Place {
                file: Arc::clone(&tarball.file),
                at,
                bytes,
            })),
            Self::File(..) => Ok(None),
        }
    }

    /// The place of what has this digest.
    fn blob(&self, digest: &Digest) -> Result<Place, ImageError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        self.find(&name)?
            .ok_or_else(|| ImageError::invalid(self.path(), format!("{name} is missing")))
    }

    /// A whole small file; none if it is not there.
    async fn small(&self, name: &str, most: u64) -> Result<Option<Bytes>, ImageError> {
        let Some(place) = self.find(name)? else { return Ok(None) };
        let what = format!("{name} in {}", self.path());
        place.read(&what, most).await.map(Some)
    }

    async fn document(&self, digest: &Digest, most: u64, what: &str) -> Result<Bytes, ImageError> {
        let bytes = self
            .blob(digest)?
            .read(&format!("{what} in {}", self.path()), most)
            .await?;
        matches(&bytes, digest, what)?;
        Ok(bytes)
    }

    /// Copies a layer to a file, and holds it against its digest.
    pub(crate) async fn fetch(
        &self,
        blob: &LayerBlob,
        into: File,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let what = format!("layer {}", blob.digest);
        let place = match self {
            Self::Tar(tarball) => Place {
                file: Arc::clone(&tarball.file),
                at: blob.at,
                bytes: blob.size,
            },
            Self::File(file, _) => Place {
                file: Arc::clone(file),
                at: 0,
                bytes: blob.size,
            },
            Self::Folder(_) => self.blob(&blob.digest)?,
        };
        if place.bytes != blob.size {
            let why = format!("it has {} bytes, its manifest says {}", place.bytes, blob.size);
            return Err(ImageError::invalid(what, why));
        }
        into.set_len(0).map_err(ImageError::io(what.as_str()))?;
        let mut into = tokio::fs::File::from_std(into);
        let (mut hasher, mut done) = (Hasher::default(), 0);
        told(0);
        while done < place.bytes {
            let part = place
                .part(done, COPY_BYTES)
                .await
                .map_err(ImageError::io(what.as_str()))?;
            hasher.add(&part);
            into.write_all(&part).await.map_err(ImageError::io(what.as_str()))?;
            done += part.len() as u64;
            told(done);
        }
        into.flush().await.map_err(ImageError::io(what.as_str()))?;
        let found = hasher.end();
        if found == blob.digest {
            return Ok(());
        }
        Err(ImageError::WrongDigest {
            what,
            expected: blob.digest,
            found,
        })
    }
}

impl Place {
    /// Some bytes, at least one.
    async fn part(&self, from: u64, most: usize) -> std::io::Result<Vec<u8>> {
        let file = Arc::clone(&self.file);
        let at = self.at.saturating_add(from);
        let want = self.bytes.saturating_sub(from).min(most as u64);
        let read = move || {
            let mut part = Vec::new();
            // A thread that panicked while it read leaves the file as it was.
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            file.seek(SeekFrom::Start(at))?;
            (&mut *file).take(want).read_to_end(&mut part)?;
            if part.is_empty() && want > 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok(part)
        };
        tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
    }

    async fn read(&self, what: &str, most: u64) -> Result<Bytes, ImageError> {
        manifest::bounded(what, self.bytes, most)?;
        let mut all = Vec::new();
        while (all.len() as u64) < self.bytes {
            let part = self
                .part(all.len() as u64, COPY_BYTES)
                .await
                .map_err(ImageError::io(what))?;
            all.extend_from_slice(&part);
        }
        Ok(all.into())
    }

    async fn digest(&self, what: &str) -> Result<Digest, ImageError> {
        let (mut hasher, mut done) = (Hasher::default(), 0);
        while done < self.bytes {
            let part = self.part(done, COPY_BYTES).await.map_err(ImageError::io(what))?;
            hasher.add(&part);
            done += part.len() as u64;
        }
        Ok(hasher.end())
    }
}

/// The image of a layer that is one file: its digest.
pub(crate) async fn digest_of(file: File, name: &str) -> Result<(Archived, Digest, u64), ImageError> {
    let bytes = file.metadata().map_err(ImageError::io(name))?.len();
    let file = Arc::new(Mutex::new(file));
    let place = Place {
        file: Arc::clone(&file),
        at: 0,
        bytes,
    };
    let digest = place.digest(name).await?;
    Ok((Archived::File(file, name.to_owned()), digest, bytes))
}

pub(crate) async fn open(source: &Source, platform: &Platform, image_bytes: u64) -> Result<Image, ImageError> {
    let wanted = Wanted {
        source,
        platform,
        name: source.to_string(),
        image_bytes,
    };
    let (path, tag) = match source {
        Source::OciFolder { path, tag } | Source::OciArchive { path, tag } | Source::DockerArchive { path, tag } => {
            (path, tag.as_deref())
        }
        Source::Path(path) => (path, None),
        Source::Registry(_) | Source::Debian { .. } => {
            return Err(ImageError::invalid(source.to_string(), "it is not on this machine"));
        }
    };
    let place = look(path).await?;
    match (source, &place) {
        (Source::OciFolder { .. }, Archived::Tar(_)) => {
            return Err(ImageError::invalid(
                path.display().to_string(),
                "it is not a folder; try oci-archive:",
            ));
        }
        (Source::OciArchive { .. } | Source::DockerArchive { .. }, Archived::Folder(_)) => {
            return Err(ImageError::invalid(
                path.display().to_string(),
                "it is a folder; try oci:",
            ));
        }
        _ => {}
    }
    let has = |name| place.find(name).map(|found| found.is_some());
    let docker = match source {
        Source::DockerArchive { .. } => true,
        // What newer Dockers save is both.
        Source::Path(_) => !has("index.json")?,
        _ => false,
    };
    if docker {
        // The names in manifest.json are looked up in an archive's table; in a folder they would be paths.
        if !matches!(place, Archived::Tar(_)) || !has("manifest.json")? {
            return Err(ImageError::invalid(
                path.display().to_string(),
                "it has neither index.json (OCI) nor manifest.json (docker save): it is not an image",
            ));
        }
        docker::open(place, path, tag, &wanted).await
    } else {
        oci::open(place, path, tag, &wanted).await
    }
}

/// Where names of a tar lead.
#[cfg(fuzzing)]
pub(crate) fn find_all(path: &Path, names: &[&str]) -> Vec<(u64, u64)> {
    let Ok(tarball) = Tarball::open(path) else {
        return Vec::new();
    };
    names.iter().filter_map(|name| tarball.find(name)).collect()
}

/// Opens a folder or a tar.
async fn look(path: &Path) -> Result<Archived, ImageError> {
    let path = path.to_owned();
    let name = path.display().to_string();
    let looked = move || {
        let meta = std::fs::metadata(&path).map_err(ImageError::io(path.display().to_string()))?;
        if meta.is_dir() {
            return Ok(Archived::Folder(path));
        }
        if !meta.is_file() {
            return Err(ImageError::invalid(
                path.display().to_string(),
                "it is neither a folder nor a file",
            ));
        }
        Tarball::open(&path).map(|tarball| Archived::Tar(Arc::new(tarball)))
    };
    tokio::task::spawn_blocking(looked)
        .await
        .map_err(|error| ImageError::io(name)(std::io::Error::other(error)))?
}
