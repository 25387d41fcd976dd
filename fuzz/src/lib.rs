//! What the targets share: memory that is counted, a folder with witnesses around it, a runtime.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::OnceCell,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; the counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Does `what`, which may hold `most` bytes more at once than are held now.
///
/// # Panics
/// It held more.
pub fn within<T>(most: usize, what: impl FnOnce() -> T) -> T {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let done = what();
    let held = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(held <= most, "{held} bytes were held at once, {most} may be");
    done
}

/// Waits for `what` on a runtime of this thread.
pub fn wait<T>(what: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let made = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
        };
        runtime.get_or_init(made).block_on(what)
    })
}

/// A folder that is empty, and beside it what nobody may touch.
pub struct Folder {
    all: tempfile::TempDir,
}

/// The largest file that can be made, so that a hole in an archive does not fill the memory of this machine.
const FILE: u64 = 4 << 20;

impl Folder {
    /// Makes it, in memory where that can be.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let limit = libc::rlimit {
            rlim_cur: FILE,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the limit is a value of this function's; the signal has no handler that could be entered.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
        }
        let shm = Path::new("/dev/shm");
        let at = if shm.is_dir() {
            shm.to_owned()
        } else {
            std::env::temp_dir()
        };
        let all = tempfile::Builder::new()
            .prefix("sandhold-fuzz.")
            .tempdir_in(at)
            .expect("a folder");
        std::fs::create_dir(all.path().join("in")).expect("a folder in it");
        std::fs::create_dir(all.path().join("beside")).expect("a folder in it");
        std::fs::write(all.path().join("beside/witness"), "untouched").expect("a file in it");
        Self { all }
    }

    /// Where things may be.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        self.all.path().join("in")
    }

    /// Writes what is to be read, beside it.
    ///
    /// # Panics
    /// It cannot be written.
    #[must_use]
    pub fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.all.path().join("archive");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// Looks at what was made: how many names and bytes.
    ///
    /// # Panics
    /// Something was made outside, or is a device.
    #[must_use]
    pub fn look(&self) -> Seen {
        let names = |at: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(at)
                .expect("it is there")
                .flatten()
                .map(|e| e.file_name())
                .collect();
            names.retain(|name| name != "archive");
            names.sort();
            names
        };
        assert_eq!(
            names(self.all.path()),
            ["beside", "in"],
            "something stands beside the folder"
        );
        let beside = self.all.path().join("beside");
        assert_eq!(names(&beside), ["witness"], "something stands outside of the folder");
        let witness = beside.join("witness");
        assert_eq!(std::fs::read(&witness).expect("it is there"), b"untouched");
        assert_eq!(
            std::fs::metadata(&witness).expect("it is there").nlink(),
            1,
            "a file from outside has a name inside"
        );
        let mut seen = Seen::default();
        visit(&self.inside(), &mut seen);
        seen
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

/// What is in a folder.
#[derive(Debug, Default)]
pub struct Seen {
    /// Names below it.
    pub names: u64,
    /// Bytes of files, each name counted.
    pub bytes: u64,
    /// Whether a file has a set-id bit.
    pub set_id: bool,
    /// Symbolic links: where they stand, and what they say.
    pub links: Vec<(PathBuf, PathBuf)>,
}

fn visit(at: &Path, seen: &mut Seen) {
    // Whoever is not root could not look into it, nor remove it.
    let _ = std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(at).expect("a folder can be read").flatten() {
        let meta = entry.metadata().expect("it is there");
        let kind = meta.file_type();
        assert!(!kind.is_block_device() && !kind.is_char_device(), "a device was made");
        seen.names += 1;
        if kind.is_dir() {
            visit(&entry.path(), seen);
        } else if kind.is_symlink() {
            seen.links
                .push((entry.path(), std::fs::read_link(entry.path()).expect("it is a link")));
        } else if kind.is_file() {
            seen.bytes += meta.len();
            seen.set_id |= meta.mode() & 0o6000 != 0;
        }
    }
}

/// Sets the checksums of what looks like the heads of a tar file right: nobody guesses them.
#[must_use]
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for block in out
        .chunks_exact_mut(512)
        .filter(|block| block[257..].starts_with(b"ustar"))
    {
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    out
}
