//! Archives as nobody would write them, and trees as they are.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{Mode, OFlags};
use sandhold_layers::{Error, Limits, Owners, Summary};

/// Root of the host or of a user namespace owns files of all users; an ordinary user only his own.
pub(crate) fn owners() -> Owners {
    if is_root() { Owners::Exact } else { Owners::One }
}

pub(crate) fn is_root() -> bool {
    // Root of a namespace of one id is an ordinary user here.
    rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map")
            .unwrap()
            .split_whitespace()
            .nth(2)
            != Some("1")
}

/// A folder for a test, and layers in it.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new empty folder.
    pub(crate) fn layer(&self, name: &str) -> Layer {
        std::fs::create_dir(self.path(name)).unwrap();
        self.open(name)
    }

    pub(crate) fn open(&self, name: &str) -> Layer {
        let path = self.path(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        Layer { path, fd }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(self.0.path(), flags, Mode::empty()).unwrap();
        for entry in std::fs::read_dir(self.0.path()).unwrap() {
            sandhold_layers::remove(top.as_fd(), entry.unwrap().file_name().as_bytes()).unwrap();
        }
    }
}

pub(crate) struct Layer {
    pub(crate) path: PathBuf,
    fd: OwnedFd,
}

impl Layer {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Unpacks an archive into it, which is empty.
    pub(crate) fn unpack(&self, tar: &[u8], below: &[&Self]) -> Result<Summary, Error> {
        self.unpack_within(tar, below, &Limits::default())
    }

    pub(crate) fn unpack_within(&self, tar: &[u8], below: &[&Self], limits: &Limits) -> Result<Summary, Error> {
        let below: Vec<_> = below.iter().map(|layer| layer.fd()).collect();
        sandhold_layers::unpack(tar, self.fd(), &below, owners(), limits)
    }

    pub(crate) fn digest(&self) -> String {
        sandhold_layers::digest(self.fd(), owners()).unwrap().0.to_string()
    }

    pub(crate) fn list(&self) -> String {
        list(&self.path)
    }

    /// The names in it with their kinds: `d` and `f`, `w` for whiteouts, `o` for opaque folders and so on.
    pub(crate) fn names(&self) -> String {
        let mut found = Vec::new();
        walk(&self.path, &mut |path, name| {
            found.push(format!("{}{}", letter(path), name))
        });
        found.join(" ")
    }
}

fn letter(path: &Path) -> &'static str {
    let meta = path.symlink_metadata().unwrap();
    match meta.mode() & 0o170_000 {
        0o040_000 if opaque(path) => "o:",
        0o040_000 => "d:",
        0o100_000 => "f:",
        0o120_000 => "l:",
        0o010_000 => "p:",
        0o020_000 if meta.rdev() == 0 => "w:",
        _ => "?:",
    }
}

fn opaque(path: &Path) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::lgetxattr(path, "user.overlay.opaque", &mut value).is_ok_and(|length| &value[..length] == b"y")
}

/// Calls with each path below, in order.
fn walk(top: &Path, see: &mut dyn FnMut(&Path, &str)) {
    fn below(top: &Path, at: &Path, see: &mut dyn FnMut(&Path, &str)) {
        let mut names: Vec<_> = std::fs::read_dir(at)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        for path in names {
            let name = path
                .strip_prefix(top)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .escape_ascii()
                .to_string();
            see(&path, &name);
            if path.symlink_metadata().unwrap().is_dir() {
                below(top, &path, see);
            }
        }
    }
    below(top, top, see);
}

/// Everything that a tree is, as text: independent of the code under test.
pub(crate) fn list(top: &Path) -> String {
    let mut text = String::new();
    let mut first = std::collections::HashMap::new();
    let mut add = |path: &Path, name: &str| {
        let meta = path.symlink_metadata().unwrap();
        if letter(path) == "w:" {
            // Nobody sees more of it; overlayfs has one file for all.
            writeln!(text, "w: {name}").unwrap();
            return;
        }
        write!(
            text,
            "{} {name} {:o} {}:{}",
            letter(path),
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        )
        .unwrap();
        write!(text, " {}.{:09}", meta.mtime(), meta.mtime_nsec()).unwrap();
        if meta.is_symlink() {
            write!(text, " -> {:?}", std::fs::read_link(path).unwrap()).unwrap();
        }
        if meta.is_file() {
            let content = std::fs::read(path).unwrap();
            let hash = content
                .iter()
                .fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            write!(text, " {} {hash:x}", meta.len()).unwrap();
        }
        if meta.nlink() > 1 && !meta.is_dir() {
            let known = first.entry(meta.ino()).or_insert_with(|| name.to_string());
            write!(text, " = {known}").unwrap();
        }
        if meta.is_file() || meta.is_dir() {
            let mut names = vec![0; 4096];
            let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
            let mut found: Vec<_> = names[..length]
                .split(|byte| *byte == 0)
                .filter(|n| n.starts_with(b"user."))
                .collect();
            found.sort();
            for name in found {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
                write!(text, " {}={}", name.escape_ascii(), value[..length].escape_ascii()).unwrap();
            }
        }
        text.push('\n');
    };
    add(top, ".");
    walk(top, &mut add);
    text
}

/// An archive, entry by entry, with whatever names.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The bytes, with their end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path.as_bytes(), b"", 0o644, content.as_bytes())
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.raw(b'5', path.as_bytes(), b"", 0o755, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// An entry; names that are too long for the header come before it.
    pub(crate) fn raw(mut self, kind: u8, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        for (name, kind) in [(path, b'L'), (link, b'K')] {
            if name.len() > 100 {
                self = self.block(kind, b"././@LongLink", b"", 0, &[name, b"\0"].concat());
            }
        }
        self.block(kind, path, link, mode, content)
    }

    /// Records before the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..)
                .find(|length| rest + length.to_string().len() == *length)
                .unwrap();
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.block(b'x', b"pax", b"", 0o644, &text)
    }

    fn block(mut self, kind: u8, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        let short = |name: &[u8]| name.len().min(100);
        fields.name[..short(path)].copy_from_slice(&path[..short(path)]);
        fields.linkname[..short(link)].copy_from_slice(&link[..short(link)]);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Bytes as they are.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// Runs a shell's commands; all must succeed.
pub(crate) fn shell(commands: &str, arguments: &[&Path]) -> Output {
    let mut shell = Command::new("timeout");
    shell.args(["60", "bash", "-euc", commands, "bash"]).args(arguments);
    let output = shell.output().unwrap();
    assert!(
        output.status.success(),
        "{commands}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs them where overlayfs can be mounted; none where it cannot.
pub(crate) fn with_mounts(commands: &str, arguments: &[&Path]) -> Option<Output> {
    let unshare: &[&str] = if is_root() {
        &["unshare", "-m"]
    } else {
        &["unshare", "-Urm"]
    };
    let run = |commands: &str, arguments: &[&Path]| {
        let mut command = Command::new(unshare[0]);
        command
            .args(&unshare[1..])
            .args(["timeout", "60", "bash", "-euc", commands, "bash"])
            .args(arguments);
        command.output().unwrap()
    };
    let place = tempfile::tempdir().unwrap();
    let try_it = "cd \"$1\"; mkdir l u w m; mount -t overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w overlay m";
    if !run(try_it, &[place.path()]).status.success() {
        eprintln!("skipped: overlayfs cannot be mounted here");
        return None;
    }
    let output = run(commands, arguments);
    assert!(
        output.status.success(),
        "{commands}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(output)
}
