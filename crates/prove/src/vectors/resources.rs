//! Group 9: using up what there is. The bombs are thrown in a small sandbox, as `user`, and nowhere else; what stops them
//! must be the sandbox's bound, which is why a small amount of the same has to go through first.

use std::fs::File;
use std::io::Write;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Kind, Listed, Tried};
use crate::attempt::{Attempt, by_errno, by_result, done, errno_name, error_name, refused, unknown};
use crate::sys;

/// More than any of the sandbox's own bounds; attempts that reach it were not stopped.
const PROCESSES: usize = 20_000;
const FILES: usize = 300_000;
const DESCRIPTORS: usize = 200_000;
const TERMINALS: usize = 4_000;
const WATCHES: usize = 100_000;
/// How many go through as the control.
const FEW: usize = 8;
const MIB: usize = 1 << 20;

pub(super) fn vectors() -> Vec<Listed> {
    let mut all = vec![
        bomb("fork-bomb", "a fork bomb", "EAGAIN", |_, few| {
            forks(if few { FEW } else { PROCESSES })
        }),
        bomb("thread-bomb", "a thread bomb", "EAGAIN", |_, few| {
            threads(if few { FEW } else { PROCESSES })
        }),
        bomb("disk-bomb", "fill the disk", "ENOSPC", |tried, few| {
            fill(tried, "/tmp", few)
        }),
        bomb("shm-bomb", "fill the shared memory", "ENOSPC", |tried, few| {
            fill(tried, "/dev/shm", few)
        }),
        bomb("inode-bomb", "use up the inodes", "ENOSPC", |_, few| {
            inodes(if few { FEW } else { FILES })
        }),
        bomb("descriptor-bomb", "use up the descriptors", "EMFILE", |_, few| {
            let mut kept = Vec::new();
            many(if few { FEW } else { DESCRIPTORS }, || {
                File::open("/dev/null").map(|file| kept.push(file))
            })
        }),
        bomb("terminal-bomb", "use up the terminals", "ENOSPC", |_, few| {
            let mut kept = Vec::new();
            many(if few { FEW } else { TERMINALS }, || {
                let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
                kept.push(rustix::pty::openpt(flags)?);
                Ok(())
            })
        }),
        bomb("inotify-bomb", "use up the watches", "EMFILE", |_, few| {
            let mut kept = Vec::new();
            many(if few { FEW } else { WATCHES }, || {
                kept.push(rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?);
                Ok(())
            })
        }),
        bomb("memory-bomb", "use up the memory", "killed, or ENOMEM", memory),
        bomb(
            "memfd-bomb",
            "use up the memory by files without a name",
            "killed, or ENOMEM",
            memfd,
        ),
        bomb(
            "pipe-bomb",
            "use up the memory by pipe buffers",
            "EPERM, EMFILE, or killed",
            pipes,
        ),
    ];
    all.push(
        Listed::new(9, "limit-raise", "raise a hard limit", "EPERM", |_| raise()).shown_by(|_| {
            let now = getrlimit(Resource::Nofile);
            let lower = Rlimit {
                current: Some(64),
                maximum: now.maximum,
            };
            by_result(
                setrlimit(Resource::Nofile, lower).map_err(std::io::Error::from),
                "lowering works",
            )
        }),
    );
    all.push(Listed::new(
        9,
        "core-files",
        "leave a core file, or feed the host's handler",
        "the limit is 1 byte at most",
        |_| match getrlimit(Resource::Core).maximum {
            Some(0 | 1) => refused("the limit is 1 byte at most"),
            Some(limit) => done(format!("{limit} bytes may be written")),
            None => done("no limit"),
        },
    ));
    all.push(Listed::new(
        9,
        "lock-memory",
        "lock 64 MiB of memory",
        "ENOMEM or EPERM",
        |_| lock(64 * MIB),
    ));
    all.push(Listed::new(
        9,
        "priority",
        "run before others (nice -5)",
        "EACCES",
        |_| by_errno(sys::raise_priority(false)),
    ));
    all.push(Listed::new(
        9,
        "real-time",
        "run before all others (SCHED_FIFO)",
        "EPERM",
        |_| by_errno(sys::raise_priority(true)),
    ));
    all
}

/// A bomb, with a little of the same as its control.
fn bomb(id: &'static str, title: &'static str, expected: &'static str, throw: fn(&Tried, bool) -> Attempt) -> Listed {
    let control: fn(&Tried) -> Attempt = match id {
        "fork-bomb" => |_| forks(FEW),
        "thread-bomb" => |_| threads(FEW),
        "disk-bomb" => |tried| fill(tried, "/tmp", true),
        "shm-bomb" => |tried| fill(tried, "/dev/shm", true),
        "inode-bomb" => |_| inodes(FEW),
        "memory-bomb" => |tried| memory(tried, true),
        "memfd-bomb" => |tried| memfd(tried, true),
        "pipe-bomb" => |tried| pipes(tried, true),
        "descriptor-bomb" | "terminal-bomb" | "inotify-bomb" => |_| opens(),
        _ => |_| unknown("there is none"),
    };
    let attempt = move |tried: &Tried| {
        if tried.facts.inside() {
            throw(tried, false)
        } else {
            unknown("bombs are thrown in sandboxes alone")
        }
    };
    Listed::new(9, id, title, expected, attempt)
        .of(Kind::Bomb)
        .shown_by(control)
}

fn opens() -> Attempt {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let all = (
        File::open("/dev/null"),
        rustix::pty::openpt(flags),
        rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC),
    );
    match all {
        (Ok(_), Ok(_), Ok(_)) => done("one of each goes through"),
        _ => refused("not even one goes through"),
    }
}

fn many(count: usize, mut one: impl FnMut() -> std::io::Result<()>) -> Attempt {
    for number in 0..count {
        if let Err(error) = one() {
            return refused(format!("{} after {number}", error_name(&error)));
        }
    }
    done(format!("{count} go through"))
}

fn forks(count: usize) -> Attempt {
    // They end with the attempt's group.
    many(count, || {
        sys::sleeper().map(|_| ()).ok_or_else(std::io::Error::last_os_error)
    })
}

fn threads(count: usize) -> Attempt {
    many(count, || {
        let builder = std::thread::Builder::new().stack_size(16 << 10);
        builder
            .spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)))
            .map(|_| ())
    })
}

/// Writes more than the folder's file system may hold by the sandbox's memory.
fn fill(tried: &Tried, folder: &str, few: bool) -> Attempt {
    let Some(bound) = tried.facts.disk else {
        return unknown("the disk's bound is not known");
    };
    let path = format!("{folder}/sandhold-fill-{}", std::process::id());
    let piece = vec![1u8; MIB];
    let most = if few {
        1
    } else {
        usize::try_from(bound).unwrap_or(usize::MAX) / MIB * 2
    };
    let found = match File::create(&path) {
        Ok(mut file) => many(most, || file.write_all(&piece)),
        Err(error) => refused(error_name(&error)),
    };
    let _ = std::fs::remove_file(&path);
    found
}

fn inodes(count: usize) -> Attempt {
    let folder = format!("/tmp/sandhold-inodes-{}", std::process::id());
    if let Err(error) = std::fs::create_dir(&folder) {
        return refused(error_name(&error));
    }
    let mut number = 0;
    let found = many(count, || {
        number += 1;
        File::create(format!("{folder}/{number}")).map(|_| ())
    });
    let _ = std::fs::remove_dir_all(&folder);
    found
}

fn memory(tried: &Tried, few: bool) -> Attempt {
    let Some(bound) = bound(tried, few) else {
        return unknown("the sandbox's memory has no bound here");
    };
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for number in 0..bound {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(MIB).is_err() {
            return refused(format!("ENOMEM after {number} MiB"));
        }
        piece.resize(MIB, 1);
        kept.push(std::hint::black_box(piece));
    }
    done(format!("{} MiB are used", kept.len()))
}

fn memfd(tried: &Tried, few: bool) -> Attempt {
    let Some(bound) = bound(tried, few) else {
        return unknown("the sandbox's memory has no bound here");
    };
    let made = rustix::fs::memfd_create("sandhold", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = match made {
        Ok(fd) => File::from(fd),
        Err(error) => return refused(errno_name(error.raw_os_error())),
    };
    let piece = vec![1u8; MIB];
    many(bound, || file.write_all(&piece))
}

/// Twice the sandbox's memory in MiB, or a little.
fn bound(tried: &Tried, few: bool) -> Option<usize> {
    if few {
        return Some(FEW);
    }
    tried
        .facts
        .memory
        .and_then(|bytes| usize::try_from(bytes).ok())
        .map(|bytes| bytes / MIB * 2)
}

fn pipes(tried: &Tried, few: bool) -> Attempt {
    let Some(bound) = bound(tried, few) else {
        return unknown("the sandbox's memory has no bound here");
    };
    let mut kept = Vec::new();
    many(bound, || {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
        rustix::pipe::fcntl_setpipe_size(&writer, MIB)?;
        rustix::io::write(&writer, &vec![1u8; MIB])?;
        kept.push((reader, writer));
        Ok(())
    })
}

fn raise() -> Attempt {
    let now = getrlimit(Resource::Nofile).maximum;
    let Some(now) = now else {
        return unknown("there is no limit to raise");
    };
    let more = Rlimit {
        current: Some(now + 1),
        maximum: Some(now + 1),
    };
    by_result(
        setrlimit(Resource::Nofile, more).map_err(std::io::Error::from),
        "raised",
    )
}

fn lock(bytes: usize) -> Attempt {
    let memory = vec![0u8; bytes];
    let result = sys::call(libc::SYS_mlock, sys::pad([memory.as_ptr() as usize, bytes]));
    match result {
        Ok(_) => done("locked"),
        Err(code) => refused(errno_name(code)),
    }
}
