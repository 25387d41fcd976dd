//! Reads gzip files as the gzip program does: one member after another, then zeros that do not count.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::Work;

/// What all members of a gzip file hold.
pub(super) struct Members<'w, R> {
    /// None after the end.
    member: Option<GzDecoder<R>>,
    work: &'w Work,
}

impl<'w, R: BufRead> Members<'w, R> {
    pub(super) fn new(from: R, work: &'w Work) -> Self {
        Self {
            member: Some(GzDecoder::new(from)),
            work,
        }
    }

    /// Whether nothing follows but zeros, which tapes and disks fill their blocks with.
    fn ends(&self, from: &mut R) -> io::Result<bool> {
        let mut padded = false;
        loop {
            self.work.go_on().map_err(|e| io::Error::other(e.text()))?;
            let bytes = from.fill_buf()?;
            if bytes.is_empty() {
                return Ok(true);
            }
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            if zeros < bytes.len() {
                return match padded || zeros > 0 {
                    false => Ok(false),
                    true => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "something stands behind its end",
                    )),
                };
            }
            padded = true;
            from.consume(zeros);
        }
    }
}

impl<R: BufRead> Read for Members<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let Some(member) = self.member.take() else { break };
            let mut from = member.into_inner();
            if !self.ends(&mut from)? {
                self.member = Some(GzDecoder::new(from));
            }
        }
        Ok(0)
    }
}
