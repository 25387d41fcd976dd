//! Deflates pieces of files side by side. Each piece is compressed by itself and ends at a whole byte, so that the pieces
//! of a file, one after the other, are one deflate stream.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use rustix::io::Errno;

use super::walk::{open_file, read_at};
use crate::limits::{BUNDLE_PIECE, BUNDLE_THREADS, THREAD_STACK};
use crate::sys::as_user;
use crate::users::User;

/// What the `zip` program does by default.
const LEVEL: Compression = Compression::new(6);
/// A piece whose beginning of this length does not get smaller is packed as it is.
const PROBE: usize = 16 << 10;

/// Something to deflate.
pub(super) enum Task {
    /// A file of one piece.
    Whole {
        at: Arc<OwnedFd>,
        name: CString,
        size: usize,
    },
    /// A piece of a file.
    Part {
        file: Arc<OwnedFd>,
        offset: u64,
        len: usize,
        last: bool,
    },
    /// What lies in memory.
    Block { data: Vec<u8>, last: bool },
}

/// A deflated piece.
pub(super) struct Piece {
    pub(super) data: Vec<u8>,
    pub(super) crc: Crc,
    /// Bytes before.
    pub(super) len: usize,
}

pub(super) type Pending = Receiver<Result<Piece, Errno>>;
type Order = (Task, SyncSender<Result<Piece, Errno>>);

/// Gives pieces to threads. Where none could be started, as under a fork bomb, it does the work itself.
pub(super) struct Pool {
    send: Option<Sender<Order>>,
    own: RefCell<Worker>,
}

impl Pool {
    /// Runs `body` with threads that open files as `user`.
    pub(super) fn run<T>(user: &User, body: impl FnOnce(Self) -> T) -> T {
        let (send, receive) = channel::<Order>();
        let receive = Mutex::new(receive);
        let count = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(BUNDLE_THREADS);
        thread::scope(|scope| {
            let started = (0..count)
                .filter(|_| {
                    thread::Builder::new()
                        .stack_size(THREAD_STACK)
                        .spawn_scoped(scope, || as_user(user.uid, user.gid, || serve(&receive)))
                        .is_ok()
                })
                .count();
            body(Self {
                send: (started > 0).then_some(send),
                own: RefCell::new(Worker::new()),
            })
        })
    }

    /// Begins a task. Its result comes through what is returned.
    pub(super) fn begin(&self, task: Task) -> Pending {
        let (answer, pending) = sync_channel(1);
        match &self.send {
            // The threads end after this sender.
            Some(send) => drop(send.send((task, answer))),
            None => drop(answer.send(self.own.borrow_mut().run(task))),
        }
        pending
    }
}

/// Waits for a piece.
pub(super) fn wait(pending: &Pending) -> Result<Piece, Errno> {
    pending.recv().unwrap_or(Err(Errno::CANCELED))
}

fn serve(orders: &Mutex<Receiver<Order>>) {
    let mut worker = Worker::new();
    loop {
        let order = orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((task, answer)) = order else { return };
        // Nobody waits any more for one that was cancelled.
        let _ = answer.send(worker.run(task));
    }
}

struct Worker {
    deflate: Compress,
    input: Vec<u8>,
}

impl Worker {
    fn new() -> Self {
        Self {
            deflate: Compress::new(LEVEL, false),
            input: Vec::new(),
        }
    }

    fn run(&mut self, task: Task) -> Result<Piece, Errno> {
        let (file, offset, len, last) = match task {
            Task::Whole { at, name, size } => (Arc::new(open_file(&at, &name)?), 0, size, true),
            Task::Part {
                file,
                offset,
                len,
                last,
            } => (file, offset, len, last),
            Task::Block { data, last } => return self.deflate(&data, last),
        };
        let mut input = std::mem::take(&mut self.input);
        input.resize(len.min(BUNDLE_PIECE), 0);
        let read = read_at(&file, &mut input, offset);
        let piece = read.and_then(|read| self.deflate(&input[..read], last));
        self.input = input;
        piece
    }

    fn deflate(&mut self, input: &[u8], last: bool) -> Result<Piece, Errno> {
        let mut crc = Crc::new();
        crc.update(input);
        let flush = if last {
            FlushCompress::Finish
        } else {
            FlushCompress::Sync
        };
        let data = if gains(input) {
            pressed(&mut self.deflate, input, flush)?
        } else {
            pressed(&mut Compress::new(Compression::none(), false), input, flush)?
        };
        Ok(Piece {
            data,
            crc,
            len: input.len(),
        })
    }
}

/// Whether it is worth the time.
fn gains(input: &[u8]) -> bool {
    let Some(start) = input.get(..PROBE) else { return true };
    let mut probe = Compress::new(Compression::fast(), false);
    pressed(&mut probe, start, FlushCompress::Finish).is_ok_and(|small| small.len() < PROBE / 100 * 98)
}

fn pressed(deflate: &mut Compress, input: &[u8], flush: FlushCompress) -> Result<Vec<u8>, Errno> {
    deflate.reset();
    let mut out = Vec::with_capacity(input.len() / 2 + 64);
    loop {
        let done = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let status = deflate
            .compress_vec(&input[done..], &mut out, flush)
            .map_err(|_| Errno::INVAL)?;
        let all = deflate.total_in() == input.len() as u64;
        match (status, flush) {
            (Status::StreamEnd, _) => return Ok(out),
            // With room left over, nothing was held back.
            (_, FlushCompress::Sync) if all && out.len() < out.capacity() => return Ok(out),
            _ => out.reserve(out.capacity().max(input.len() - input.len().min(done)) / 2 + 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn pieces_are_one_stream() {
        let noise: Vec<u8> = (0..300_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let text = b"the same words again and again ".repeat(20_000);
        for input in [&noise[..], &text[..], b"x", b""] {
            for size in [1 << 10, PROBE, 100_000, 1 << 20] {
                let mut worker = Worker::new();
                let (mut stream, mut crc, mut whole) = (Vec::new(), Crc::new(), Crc::new());
                whole.update(input);
                let pieces: Vec<&[u8]> = input.chunks(size).collect();
                let pieces = if pieces.is_empty() { vec![&b""[..]] } else { pieces };
                for (at, piece) in pieces.iter().enumerate() {
                    let piece = worker.deflate(piece, at + 1 == pieces.len()).unwrap();
                    crc.combine(&piece.crc);
                    stream.extend(piece.data);
                }
                let mut back = Vec::new();
                flate2::read::DeflateDecoder::new(&stream[..])
                    .read_to_end(&mut back)
                    .unwrap();
                assert!(back == input, "pieces of {size}");
                assert_eq!(crc.sum(), whole.sum(), "pieces of {size}");
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_grows_little() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..1 << 17)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let piece = Worker::new().deflate(&noise, true).unwrap();
        assert!(piece.data.len() < noise.len() + 200, "{}", piece.data.len());
    }
}
