//! Archives without their compression.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use sandhold_runtime::Compression;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::limits::{CHUNK, WINDOW_LOG};

/// Reads an archive without its compression: at most `most` bytes, of which the SHA-256 is taken.
///
/// # Errors
/// There is no memory for the decompressor.
pub fn stream<'a>(
    from: impl Read + 'a,
    compression: Compression,
    most: u64,
) -> Result<Decompressed<Box<dyn Read + 'a>>, Error> {
    let from = BufReader::with_capacity(CHUNK, from);
    let inner: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(from),
        Compression::Gzip => Box::new(MultiGzDecoder::new(from)),
        Compression::Zstd => Box::new(zstd(from).map_err(Error::Read)?),
    };
    Ok(Decompressed {
        inner,
        hash: Sha256::new(),
        read: 0,
        most,
    })
}

fn zstd<'a>(from: impl BufRead + 'a) -> io::Result<impl Read + 'a> {
    let mut decoder = zstd::Decoder::with_buffer(from)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

/// An archive without its compression, whose bytes are counted and hashed.
pub struct Decompressed<R> {
    inner: R,
    hash: Sha256,
    read: u64,
    most: u64,
}

impl<R> std::fmt::Debug for Decompressed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressed")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Decompressed<R> {
    /// Reads what is left and gives the SHA-256 of all of it: an image's "diff id".
    ///
    /// # Errors
    /// It cannot be read, or is longer than allowed.
    pub fn finish(mut self) -> Result<[u8; 32], Error> {
        io::copy(&mut self, &mut io::sink()).map_err(Error::Read)?;
        Ok(self.hash.finalize().into())
    }

    /// The same, and holds it against what is expected.
    ///
    /// # Errors
    /// It is another, too.
    pub fn expect(self, diff_id: &[u8; 32]) -> Result<(), Error> {
        match self.finish()? == *diff_id {
            true => Ok(()),
            false => Err(Error::Damaged("its SHA-256 is not the one that the image names")),
        }
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        if self.read > self.most {
            return Err(io::Error::other(format!(
                "it holds more than the {} bytes that are allowed",
                self.most
            )));
        }
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
