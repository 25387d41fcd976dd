//! The messages of a Connect stream: each has five bytes before it, a flag and a length.
//!
//! A body is read one piece at a time and only when somebody waits for a message, so a slow reader slows the server down.

use bytes::{Buf, Bytes, BytesMut};
use connectrpc::ErrorCode;
use http_body_util::BodyExt;
use sandhold_wire::limits::RPC_MESSAGE;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    limits,
    transport::{Body, BoxError, Codec},
};

/// Length of what stands before a message.
pub(super) const HEADER: usize = 5;
const COMPRESSED: u8 = 1;
const END: u8 = 2;

/// What a stream ended with other than its regular end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The server said why.
    Refused(ErrorCode, String),
    /// The connection ended in the middle.
    Lost(BoxError),
    /// The stream is not one of this protocol.
    Malformed(String),
}

/// Messages as they come.
pub(crate) struct FrameStream {
    body: Body,
    pub(crate) codec: Codec,
    pub(crate) path: &'static str,
    /// From where on the server sends what a process printed before, if it does.
    pub(crate) replayed: Option<[u64; 2]>,
    deframer: Deframer,
    /// Since when the next piece is waited for; a reader that was away does not make the server silent.
    asked: Option<Instant>,
    ended: bool,
}

impl FrameStream {
    pub(crate) fn new(body: Body, codec: Codec, path: &'static str) -> Self {
        Self {
            body,
            codec,
            path,
            replayed: None,
            deframer: Deframer::default(),
            asked: None,
            ended: false,
        }
    }

    /// The next message; `None` at the regular end. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if self.ended {
                return None;
            }
            match self.deframer.take() {
                Ok(Some((END, end))) => {
                    self.ended = true;
                    return end_error(&end).map(Err);
                }
                Ok(Some((0, message))) => return Some(Ok(message)),
                Ok(Some((flags, _))) => {
                    let what = if flags & COMPRESSED != 0 {
                        "is compressed, which was not asked for"
                    } else {
                        "has unknown flags"
                    };
                    return self.fail(Broken::Malformed(format!("a message of {} {what}", self.path)));
                }
                Ok(None) => {}
                Err(length) => {
                    let what = format!("a message of {} has {length} bytes, more than {RPC_MESSAGE}", self.path);
                    return self.fail(Broken::Malformed(what));
                }
            }
            let now = Instant::now();
            let silent = *self.asked.get_or_insert(now) + limits::STREAM_SILENCE;
            match tokio::time::timeout_at(silent.max(now + limits::STREAM_GRACE), self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    self.asked = None;
                    if let Ok(data) = frame.into_data() {
                        self.deframer.push(data);
                    }
                }
                Ok(Some(Err(error))) => return self.fail(Broken::Lost(error)),
                Ok(None) => return self.fail(Broken::Lost("the stream ended before its last message".into())),
                Err(_) => {
                    let silence = limits::STREAM_SILENCE;
                    return self.fail(Broken::Lost(format!("nothing was heard for {silence:?}").into()));
                }
            }
        }
    }

    fn fail(&mut self, broken: Broken) -> Option<Result<Bytes, Broken>> {
        self.ended = true;
        Some(Err(broken))
    }
}

/// The error of the last message, if it holds one.
fn end_error(message: &[u8]) -> Option<Broken> {
    #[derive(Deserialize)]
    struct End {
        error: Option<Wire>,
    }
    #[derive(Deserialize)]
    struct Wire {
        code: String,
        #[serde(default)]
        message: String,
    }
    if message.is_empty() {
        return None;
    }
    match serde_json::from_slice::<End>(message) {
        Ok(End { error: None }) => None,
        Ok(End {
            error: Some(Wire { code, message }),
        }) => {
            let code = code.parse().unwrap_or(ErrorCode::Unknown);
            let message = if message.is_empty() {
                format!("the stream ended with {}", code.as_str())
            } else {
                message
            };
            Some(Broken::Refused(code, message))
        }
        Err(error) => Some(Broken::Malformed(format!(
            "the last message of a stream cannot be read: {error}"
        ))),
    }
}

/// Cuts pieces of any size into messages. A message that lies inside one piece is not copied.
#[derive(Default)]
struct Deframer {
    /// The newest piece, while nothing is left over from those before it.
    piece: Bytes,
    /// What is left over, once a message spans pieces.
    joined: BytesMut,
}

impl Deframer {
    /// Adds a piece. Everything whole has been taken before.
    fn push(&mut self, piece: Bytes) {
        if self.joined.is_empty() && self.piece.is_empty() {
            self.piece = piece;
            return;
        }
        if !self.piece.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.piece));
        }
        self.joined.extend_from_slice(&piece);
    }

    /// Takes the next message with its flags, if it is whole; a length that is too large is an error.
    fn take(&mut self) -> Result<Option<(u8, Bytes)>, usize> {
        if self.joined.is_empty() {
            let Some((flags, length)) = header(&self.piece)? else {
                return Ok(None);
            };
            if self.piece.len() < HEADER + length {
                return Ok(None);
            }
            self.piece.advance(HEADER);
            return Ok(Some((flags, self.piece.split_to(length))));
        }
        let Some((flags, length)) = header(&self.joined)? else {
            return Ok(None);
        };
        if self.joined.len() < HEADER + length {
            // One allocation for the whole message rather than a doubling for every piece.
            self.joined.reserve(HEADER + length - self.joined.len());
            return Ok(None);
        }
        self.joined.advance(HEADER);
        Ok(Some((flags, self.joined.split_to(length).freeze())))
    }
}

/// Flags and length of a message, if they are there.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, usize> {
    let Some(&[flags, a, b, c, d]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > RPC_MESSAGE {
        Err(length)
    } else {
        Ok(Some((flags, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![flags];
        out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        out.extend_from_slice(data);
        out
    }

    #[test]
    fn cuts_at_any_split() {
        let wanted: Vec<(u8, Vec<u8>)> = vec![(0, b"a".to_vec()), (0, vec![]), (0, vec![7; 300]), (2, b"{}".to_vec())];
        let wire: Vec<u8> = wanted.iter().flat_map(|(flags, data)| frame(*flags, data)).collect();
        for size in 1..=wire.len() {
            let mut deframer = Deframer::default();
            let mut got = Vec::new();
            for piece in wire.chunks(size) {
                deframer.push(Bytes::copy_from_slice(piece));
                while let Some((flags, data)) = deframer.take().unwrap() {
                    got.push((flags, data.to_vec()));
                }
            }
            assert_eq!(got, wanted, "pieces of {size}");
        }
    }

    #[test]
    fn does_not_copy_a_whole_message() {
        let wire = Bytes::from(frame(0, b"payload"));
        let mut deframer = Deframer::default();
        deframer.push(wire.clone());
        let (_, data) = deframer.take().unwrap().unwrap();
        assert_eq!(data.as_ptr(), wire[HEADER..].as_ptr());
    }

    #[test]
    fn refuses_a_length_before_it_is_allocated() {
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]));
        assert_eq!(deframer.take(), Err(0xffff_ffff));
    }

    #[test]
    fn ends() {
        assert!(end_error(b"").is_none());
        assert!(end_error(b"{}").is_none());
        let broken = end_error(br#"{"error":{"code":"not_found","message":"gone"}}"#).unwrap();
        assert!(matches!(broken, Broken::Refused(ErrorCode::NotFound, text) if text == "gone"));
        assert!(matches!(end_error(b"["), Some(Broken::Malformed(_))));
    }
}
