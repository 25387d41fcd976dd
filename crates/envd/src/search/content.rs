//! Lines of files: one thread walks, others look into the files, and what they find is put together in the walk's order.
//! So equal searches give equal answers, cut or not.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use grep_regex::RegexMatcher;
use grep_searcher::Searcher;
use ignore::DirEntry;

use super::sink::Collector;
use super::{Answer, Stop, Stoppable, readable, searcher};
use crate::filesystem::limits;

/// What is looked for in every file.
pub(super) struct Look<'a> {
    pub(super) matcher: &'a RegexMatcher,
    pub(super) limit: usize,
    pub(super) context: usize,
    pub(super) stop: &'a Stop,
}

/// What some files that follow each other hold.
struct Piece {
    found: Collector,
    /// How many matches there were after each file that was searched.
    ends: Vec<usize>,
    timed_out: bool,
}

impl Look<'_> {
    fn piece(&self, files: &[DirEntry], searcher: &mut Searcher) -> Piece {
        let mut piece = Piece {
            found: Collector::new(self.limit, self.context),
            ends: Vec::new(),
            timed_out: false,
        };
        for entry in files {
            if self.stop.now() {
                piece.timed_out = true;
                break;
            }
            let Some(file) = readable(entry) else { continue };
            piece.found.enter(entry.path());
            let stop = self.stop;
            let searched = searcher.search_reader(self.matcher, Stoppable { file, stop }, &mut piece.found);
            piece.timed_out |= searched.is_err_and(|e| e.kind() == io::ErrorKind::TimedOut);
            piece.ends.push(piece.found.len());
            if piece.found.full() {
                break;
            }
        }
        piece
    }
}

/// Searches the files that `entries` gives, until there is enough.
pub(super) fn search(mut entries: impl Iterator<Item = DirEntry>, look: &Look<'_>) -> Answer {
    let mut answer = Joined {
        found: Collector::new(look.limit, look.context),
        files_searched: 0,
        truncated: false,
    };
    let mut next = || entries.by_ref().take(limits::SEARCH_PIECE).collect::<Vec<_>>();
    let mut searcher = searcher(look.context);
    let first = next();
    let more = first.len() == limits::SEARCH_PIECE;
    answer.add(look.piece(&first, &mut searcher));
    if more && !answer.is_done() {
        side_by_side(next, look, &mut answer);
    }
    answer.into()
}

/// Looks into piece after piece on threads of their own, while this one walks on.
fn side_by_side(mut next: impl FnMut() -> Vec<DirEntry>, look: &Look<'_>, answer: &mut Joined) {
    let (give, pieces) = mpsc::channel::<(usize, Vec<DirEntry>)>();
    let pieces = Mutex::new(pieces);
    let (done, results) = mpsc::channel();
    // The work ends with this function: what is on its way then is for nobody.
    let enough = AtomicBool::new(false);
    let work = |done: mpsc::Sender<(usize, Piece)>| {
        let mut searcher = searcher(look.context);
        loop {
            let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, files)) = piece else { return };
            if enough.load(Ordering::Relaxed) || done.send((number, look.piece(&files, &mut searcher))).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let wanted = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(limits::SEARCH_THREADS);
        let start = |done| thread::Builder::new().spawn_scoped(scope, || work(done)).is_ok();
        // Where the sandbox has no room for threads, this one does it all.
        let threads = (0..wanted).filter(|_| start(done.clone())).count();
        drop(done);
        let mut alone = (threads == 0).then(|| searcher(look.context));
        let (mut given, mut joined, mut waiting) = (0, 0, BTreeMap::new());
        let mut walking = true;
        while walking || joined < given {
            // What was found early waits for what stands before it, so only so much is looked at ahead.
            if walking && given - joined < threads.max(1) * limits::SEARCH_AHEAD {
                let files = next();
                walking = files.len() == limits::SEARCH_PIECE;
                match &mut alone {
                    Some(searcher) => drop(waiting.insert(given, look.piece(&files, searcher))),
                    None if give.send((given, files)).is_err() => break,
                    None => {}
                }
                given += 1;
                waiting.extend(results.try_iter());
            } else if alone.is_none() {
                let Ok((number, piece)) = results.recv() else { break };
                waiting.insert(number, piece);
            }
            while let Some(piece) = waiting.remove(&joined) {
                answer.add(piece);
                joined += 1;
                if answer.is_done() {
                    walking = false;
                    given = joined;
                    break;
                }
            }
        }
        enough.store(true, Ordering::Relaxed);
        drop(give);
    });
}

/// The pieces so far, in their order.
struct Joined {
    found: Collector,
    files_searched: u64,
    truncated: bool,
}

impl Joined {
    fn add(&mut self, piece: Piece) {
        self.truncated |= piece.timed_out || piece.found.full();
        let mut matches = piece.found.into_matches().into_iter();
        let mut taken = 0;
        for end in piece.ends {
            self.files_searched += 1;
            for found in matches.by_ref().take(end - taken) {
                if !self.found.add(found) {
                    self.truncated = true;
                    return;
                }
            }
            taken = end;
        }
    }

    fn is_done(&self) -> bool {
        self.truncated
    }
}

impl From<Joined> for Answer {
    fn from(joined: Joined) -> Self {
        Self {
            matches: joined.found.into_matches(),
            truncated: joined.truncated,
            files_searched: joined.files_searched,
        }
    }
}
