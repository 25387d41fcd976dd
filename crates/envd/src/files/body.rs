//! The body of a download, read piece by piece where it may block, one piece ahead of the client.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::read::GzEncoder;
use futures::FutureExt;
use http_body::{Frame, SizeHint};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use crate::filesystem::limits::FILE_CHUNK;

/// Where the bytes come from.
pub(crate) enum Source {
    /// The next so many bytes of the file.
    Plain(File, u64),
    /// The rest of the file, gzipped.
    Gzip(Box<GzEncoder<File>>),
}

impl Source {
    /// The next piece; empty at the end.
    pub(crate) fn read(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Plain(file, left) => {
                let piece = read_up_to(file, usize::try_from(*left).unwrap_or(FILE_CHUNK).min(FILE_CHUNK))?;
                if piece.is_empty() && *left > 0 {
                    // The length has been promised; the client must see that this is not all.
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
                }
                *left -= piece.len() as u64;
                Ok(piece.into())
            }
            Self::Gzip(encoder) => {
                let mut piece = vec![0; FILE_CHUNK];
                let mut filled = 0;
                while filled < piece.len() {
                    match encoder.read(&mut piece[filled..])? {
                        0 => break,
                        n => filled += n,
                    }
                }
                piece.truncate(filled);
                Ok(piece.into())
            }
        }
    }

    /// Bytes that are still to come, where that is known.
    fn left(&self) -> Option<u64> {
        match self {
            Self::Plain(_, left) => Some(*left),
            Self::Gzip(_) => None,
        }
    }
}

/// Reads until `limit` bytes are there or the file ends.
pub(crate) fn read_up_to(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limit);
    while bytes.len() < limit {
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes)) {
            // Files below /proc that wait for events have none for us now.
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    // The buffer may have come out larger than was asked for.
    bytes.truncate(limit);
    Ok(bytes)
}

type Read1 = JoinHandle<io::Result<(Source, Bytes)>>;

/// A body of known or unknown length.
pub(crate) struct FileBody {
    first: Option<Bytes>,
    reading: Option<Read1>,
    left: Option<u64>,
}

impl FileBody {
    /// `first`, then what `source` still has.
    pub(crate) fn new(first: Bytes, source: Source) -> Self {
        let left = source.left().map(|left| left + first.len() as u64);
        Self {
            first: Some(first),
            reading: read_on(source),
            left,
        }
    }

    fn took(&mut self, bytes: &Bytes) {
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
    }
}

fn read_on(mut source: Source) -> Option<Read1> {
    (source.left() != Some(0)).then(|| {
        tokio::task::spawn_blocking(move || {
            let bytes = source.read()?;
            Ok((source, bytes))
        })
    })
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take().filter(|b| !b.is_empty()) {
            self.took(&first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let read = ready!(reading.poll_unpin(context)).unwrap_or_else(|e| Err(io::Error::other(e)));
        self.reading = None;
        match read {
            Ok((_, bytes)) if bytes.is_empty() => Poll::Ready(None),
            Ok((source, bytes)) => {
                self.took(&bytes);
                self.reading = read_on(source);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
