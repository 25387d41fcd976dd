//! Sparse files in archives: GNU's old form, and the three that it writes with PAX records.

use std::io::Read;

use super::pax::{Pax, decimal};
use super::{BLOCK, Block, Reader, number};
use crate::error::Error;
use crate::limits::PIECES;

/// A part of a sparse file that is no hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

const TOO_MANY: Error = Error::Damaged("a sparse file has too many pieces");
const BAD: Error = Error::Damaged("the pieces of a sparse file do not fit it");

/// Whether the pieces are in order, within the file, and together what follows.
pub(super) fn check(pieces: &[Piece], size: u64, data: u64) -> Result<(), Error> {
    let (mut end, mut sum) = (0u64, 0u64);
    for piece in pieces {
        if piece.offset < end {
            return Err(BAD);
        }
        end = piece.offset.checked_add(piece.length).ok_or(BAD)?;
        sum += piece.length;
    }
    if end > size || size > i64::MAX as u64 || sum != data {
        return Err(BAD);
    }
    Ok(())
}

impl<R: Read> Reader<R> {
    /// The size and pieces in GNU's own header and the blocks after it.
    pub(super) fn gnu_sparse(&mut self, header: &Block) -> Result<(u64, Vec<Piece>), Error> {
        let mut pieces = Vec::new();
        let more = |pieces: &mut Vec<Piece>, fields: &[u8]| {
            for field in fields.chunks_exact(24) {
                let value = |field| number(field).and_then(|value| u64::try_from(value).map_err(|_| BAD));
                if field[12] == 0 {
                    break;
                }
                let (offset, length) = (value(&field[..12])?, value(&field[12..])?);
                pieces.push(Piece { offset, length });
            }
            if pieces.len() > PIECES { Err(TOO_MANY) } else { Ok(()) }
        };
        more(&mut pieces, &header[386..482])?;
        let mut continued = header[482] != 0;
        while continued {
            let block = self.block()?;
            let before = pieces.len();
            more(&mut pieces, &block[..504])?;
            continued = block[504] != 0;
            if continued && pieces.len() == before {
                return Err(BAD);
            }
        }
        let size = u64::try_from(number(&header[483..495])?).map_err(|_| BAD)?;
        Ok((size, pieces))
    }

    /// The same of PAX records, where these say it is a sparse file. In version 1.0 the pieces stand before the content.
    pub(super) fn pax_sparse(&mut self, pax: &Pax) -> Result<Option<(u64, Vec<Piece>)>, Error> {
        let Some(size) = pax.sparse.size else {
            return Ok(None);
        };
        if let Some(pieces) = &pax.sparse.pieces {
            return Ok(Some((size, pieces.clone())));
        }
        if pax.sparse.major != Some(1) {
            return Err(BAD);
        }
        let mut lines = Lines {
            block: [0; BLOCK as usize],
            at: BLOCK as usize,
        };
        let count = lines.next(self)?;
        if count > PIECES as u64 {
            return Err(TOO_MANY);
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            let offset = lines.next(self)?;
            let length = lines.next(self)?;
            pieces.push(Piece { offset, length });
        }
        Ok(Some((size, pieces)))
    }
}

/// Numbers, one a line, in blocks of the content.
struct Lines {
    block: Block,
    at: usize,
}

impl Lines {
    fn next<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<u64, Error> {
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                if reader.data < BLOCK {
                    return Err(BAD);
                }
                self.block = reader.block()?;
                reader.data -= BLOCK;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return decimal(&digits),
                _ if digits.len() > 20 => return Err(BAD),
                _ => digits.push(byte),
            }
        }
    }
}
