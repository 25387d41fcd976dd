//! Layers of a registry.

use std::{fs::File, io, time::Duration};

use reqwest::{StatusCode, header};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::{answer, session::Session};
use crate::{ImageError, LayerBlob, digest::Hasher, limits};

/// What is written so far.
struct Written<'a> {
    file: tokio::fs::File,
    hasher: Hasher,
    bytes: u64,
    told: &'a (dyn Fn(u64) + Sync),
}

impl Written<'_> {
    async fn begin_anew(&mut self) -> io::Result<()> {
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.hasher = Hasher::default();
        self.bytes = 0;
        (self.told)(0);
        Ok(())
    }

    async fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.hasher.add(bytes);
        self.bytes += bytes.len() as u64;
        (self.told)(self.bytes);
        Ok(())
    }
}

/// Why one connection gave no whole layer.
enum Ended {
    /// Another may give the rest.
    Broken(Option<ImageError>, Option<Duration>),
    For(ImageError),
}

impl Session {
    pub(crate) async fn fetch(
        &self,
        blob: &LayerBlob,
        into: File,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let what = format!("layer {}", blob.digest);
        let mut written = Written {
            file: tokio::fs::File::from_std(into),
            hasher: Hasher::default(),
            bytes: 0,
            told,
        };
        written.begin_anew().await.map_err(ImageError::io(what.as_str()))?;
        let mut tries = 0;
        while written.bytes < blob.size || blob.size == 0 {
            let before = written.bytes;
            let (error, wait) = match self.transfer(blob, &mut written).await {
                Ok(()) => break,
                Err(Ended::For(error)) => return Err(error),
                Err(Ended::Broken(error, wait)) => (error, wait),
            };
            tries = if written.bytes > before { 1 } else { tries + 1 };
            if tries >= limits::LAYER_TRIES {
                return Err(match error {
                    Some(error @ (ImageError::RateLimited { .. } | ImageError::Tls { .. })) => error,
                    Some(ImageError::Unreachable { registry, source }) => ImageError::Broken {
                        registry,
                        what,
                        tries,
                        source: Some(source),
                    },
                    other => ImageError::Broken {
                        registry: self.registry().to_owned(),
                        what,
                        tries,
                        source: other.map(Into::into),
                    },
                });
            }
            tracing::debug!(layer = %blob.digest, at = written.bytes, tries, "the connection broke; asking for the rest");
            let pause = limits::RETRY_WAIT * 2_u32.pow(tries.saturating_sub(1).min(16));
            tokio::time::sleep(wait.unwrap_or(pause).min(limits::RETRY_WAIT_MOST)).await;
        }
        written.file.flush().await.map_err(ImageError::io(what.as_str()))?;
        let found = written.hasher.end();
        if found != blob.digest {
            return Err(ImageError::WrongDigest {
                what,
                expected: blob.digest,
                found,
            });
        }
        Ok(())
    }

    /// Asks for what is missing, and writes what comes. Fine means that all is there.
    async fn transfer(&self, blob: &LayerBlob, written: &mut Written<'_>) -> Result<(), Ended> {
        let disk = |error| Ended::For(ImageError::io(format!("the file for layer {}", blob.digest))(error));
        let mut response = match self.get("blobs", &blob.digest.to_string(), written.bytes).await {
            Ok(response) => response,
            Err(error) => return Err(again(error, blob)),
        };
        if written.bytes > 0 {
            // "bytes 100-999/1000"
            let range = response
                .headers()
                .get(header::CONTENT_RANGE)
                .and_then(|range| range.to_str().ok());
            let from = range.and_then(|range| {
                range
                    .trim()
                    .strip_prefix("bytes ")?
                    .split('-')
                    .next()?
                    .parse::<u64>()
                    .ok()
            });
            if response.status() != StatusCode::PARTIAL_CONTENT || from != Some(written.bytes) {
                written.begin_anew().await.map_err(disk)?;
                if response.status() == StatusCode::PARTIAL_CONTENT {
                    return Err(Ended::Broken(None, None));
                }
            }
        }
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let bytes = written.bytes + chunk.len() as u64;
                    if bytes > blob.size {
                        return Err(Ended::For(ImageError::TooLarge {
                            what: format!("layer {}", blob.digest),
                            bytes,
                            limit: blob.size,
                        }));
                    }
                    written.add(&chunk).await.map_err(disk)?;
                }
                Ok(None) if written.bytes == blob.size => return Ok(()),
                Ok(None) => return Err(Ended::Broken(None, None)),
                Err(error) => return Err(Ended::Broken(Some(answer::network(error, self.registry())), None)),
            }
        }
    }
}

/// Whether asking again may help.
fn again(error: ImageError, blob: &LayerBlob) -> Ended {
    match error {
        ImageError::RateLimited { wait, .. } if wait.is_none_or(|wait| wait <= limits::RETRY_WAIT_MOST) => {
            Ended::Broken(Some(error), wait)
        }
        ImageError::Unreachable { .. } => Ended::Broken(Some(error), None),
        ImageError::Answer { status, .. } if status >= 500 => Ended::Broken(Some(error), None),
        ImageError::Answer { status: 404, .. } if blob.foreign => {
            Ended::For(ImageError::Foreign { digest: blob.digest })
        }
        error => Ended::For(error),
    }
}
