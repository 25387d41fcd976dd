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
    /// A part of the file.
    Plain(Plain),
    /// The rest of the file, gzipped.
    Gzip(Box<GzEncoder<File>>),
}

impl Source {
    /// The next piece; empty at the end.
    pub(crate) fn read(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Plain(plain) => plain.read(),
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
            Self::Plain(plain) => Some(plain.left),
            Self::Gzip(_) => None,
        }
    }
}

/// The next so many bytes of a file.
pub(crate) struct Plain {
    file: File,
    left: u64,
    /// Pieces whose memory is used again once they are sent: fresh memory costs more than the reading.
    pieces: Vec<Bytes>,
}

impl Plain {
    /// `left` bytes from where the file stands.
    pub(crate) fn new(file: File, left: u64) -> Self {
        Self {
            file,
            left,
            pieces: Vec::new(),
        }
    }

    fn read(&mut self) -> io::Result<Bytes> {
        let limit = usize::try_from(self.left).unwrap_or(FILE_CHUNK).min(FILE_CHUNK);
        let sent = self.pieces.iter().position(Bytes::is_unique);
        let sent = sent.and_then(|at| self.pieces.swap_remove(at).try_into_mut().ok());
        let mut buffer = sent.map_or_else(Vec::new, Vec::from);
        read_into(&self.file, &mut buffer, limit)?;
        if buffer.is_empty() && self.left > 0 {
            // The length has been promised; the client must see that this is not all.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.left -= buffer.len() as u64;
        let piece = Bytes::from(buffer);
        if self.left > 0 {
            self.pieces.push(piece.clone());
        }
        Ok(piece)
    }
}

/// Reads until `limit` bytes are there or the file ends.
pub(crate) fn read_up_to(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_into(file, &mut bytes, limit)?;
    Ok(bytes)
}

/// The same, in place of what `bytes` holds.
fn read_into(file: &File, bytes: &mut Vec<u8>, limit: usize) -> io::Result<()> {
    bytes.resize(limit, 0);
    let mut filled = 0;
    while filled < limit {
        match rustix::io::read(file, &mut bytes[filled..]) {
            // Files below /proc that wait for events have none for us now.
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    bytes.truncate(filled);
    Ok(())
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
