//! Landlock as a second wall: what stays shut if a mount, a descriptor or the filter were wrong.
//!
//! One rule gives a sandbox everything below its own root. So whatever lies elsewhere, on the host or in another sandbox,
//! cannot be opened, run or changed, whichever way a path or a descriptor leads there; nothing can be mounted, moved or
//! unmounted (the kernel forbids it to any process under file rules); and abstract sockets and signals end at the
//! sandbox's border. The rule names the sandbox's own root and is made for each: four system calls.
//!
//! Within its root it takes nothing away, which is what mounts are for: a rule for the root holds for all below it.

use std::os::fd::OwnedFd;

use super::message::{Failure, Step};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope,
};

/// The newest rules that are used where the kernel has them.
const NEWEST: ABI = ABI::V6;

/// Everything there is to do with files but what devices are asked (`ioctl`): terminals are passed in from outside.
fn accesses() -> BitFlags<AccessFs> {
    let mut all = AccessFs::from_all(NEWEST);
    all.remove(AccessFs::IoctlDev);
    all
}

/// An empty set of rules. Without [`AccessFs::Refer`] (Linux 5.19) no file could be moved between folders: then there is no
/// wall.
fn rules() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(accesses())?
        .scope(Scope::from_all(NEWEST))?
        .create()
}

/// Whether this kernel can.
pub(super) fn possible() -> bool {
    rules().is_ok()
}

/// Shuts the calling process and all it starts into the tree below `root`. `no_new_privs` must be set already.
pub(super) fn close(root: &OwnedFd) -> Result<(), Failure> {
    let shut = || {
        rules()?
            .add_rule(PathBeneath::new(root, accesses()))?
            .no_new_privs(false)
            .restrict_self()
    };
    match shut() {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure {
            step: Step::Landlock,
            object: error.to_string(),
            errno: 0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::process::Command;

    use rustix::fs::{Mode, OFlags, RenameFlags, openat, renameat_with};
    use rustix::io::Errno;
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// In a thread of its own, whose working folder stands for a sandbox's root.
    #[test]
    fn beyond_the_root_nothing_is_left_whichever_way_leads_there() {
        if !possible() {
            eprintln!("not checked on this machine: Landlock");
            return;
        }
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(other.path().join("file"), "x").unwrap();
        for folder in ["a", "b"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("a/file"), "x").unwrap();
        let open_dir = |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (inside, outside) = (open_dir(root.path()), open_dir(other.path()));
        let name = SocketAddr::from_abstract_name(format!("sandhold-wall-{}", std::process::id())).unwrap();
        let _listener = UnixListener::bind_addr(&name).unwrap();
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let victim = Pid::from_child(&sleeper);
        let try_all = |folder: &OwnedFd| {
            let read = openat(folder, "file", OFlags::RDONLY, Mode::empty()).map(drop);
            let made = openat(folder, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).map(drop);
            (read, made)
        };
        assert_eq!(try_all(&outside), (Ok(()), Ok(())), "the control");
        kill_process(victim, Signal::CONT).unwrap();
        UnixStream::connect_addr(&name).unwrap();
        let (tried, moved, connected, signalled) = std::thread::scope(|scope| {
            let shut = scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                rustix::process::fchdir(&inside).unwrap();
                close(&inside).unwrap();
                let moved = renameat_with(&inside, "a/file", &inside, "b/file", RenameFlags::empty());
                let truncated = std::fs::write(root.path().join("b/file"), "shorter");
                let connected = UnixStream::connect_addr(&name).map(drop).map_err(|error| error.kind());
                let signalled = kill_process(victim, Signal::CONT);
                (
                    try_all(&outside),
                    moved.is_ok() && truncated.is_ok(),
                    connected,
                    signalled,
                )
            });
            shut.join().unwrap()
        });
        assert_eq!(tried, (Err(Errno::ACCESS), Err(Errno::ACCESS)));
        assert!(moved, "what is inside moves and shrinks as before");
        if !scoped() {
            eprintln!("not checked on this machine: Landlock's scopes (Linux 6.12)");
        } else {
            assert_eq!(connected, Err(std::io::ErrorKind::PermissionDenied));
            assert_eq!(signalled, Err(Errno::PERM));
        }
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    /// Whether the kernel scopes sockets and signals.
    fn scoped() -> bool {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .scope(Scope::from_all(NEWEST))
            .is_ok_and(|rules| rules.create().is_ok())
    }
}
