//! The level `landlock`: whether this kernel has enough of it, and the rules of a sandbox.
//!
//! There is no namespace here. What holds is Landlock (files, TCP, signals, abstract sockets), the system call filter (no
//! internet sockets at all, for Landlock knows neither UDP nor addresses) and, where the server is root, user ids that no
//! one else has. What does not hold is told in [`warnings`].

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use sandhold_runtime::RuntimeError;
use serde::{Deserialize, Serialize};

use crate::sys;

/// The least that is taken: from here on truncation and TCP are held. Linux 6.7.
const ABI_LEAST: i32 = 4;
/// From here on the ioctls of devices are held. Linux 6.10.
const ABI_DEVICES: i32 = 5;
/// From here on signals and abstract sockets are held. Linux 6.12.
const ABI_SCOPES: i32 = 6;

/// How a sandbox of this level is held here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fence {
    /// The kernel's version of Landlock.
    pub(crate) abi: i32,
    /// Whether each sandbox has a user id of its own, which only root can give.
    pub(crate) own_ids: bool,
}

/// Programs and libraries of the host, read and executed.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What is read: the parts of `/etc` that programs do not run without, and what the kernel tells.
const READ: &[&str] = &[
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/environment",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/magic.mime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/python3",
    "/etc/python3.11",
    "/etc/python3.12",
    "/etc/python3.13",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];

/// Devices that everybody may use.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// Terminals. Only with ids of its own: the terminals of others belong to other ids then, and are closed to it.
const TERMINALS: &[&str] = &["/dev/ptmx", "/dev/pts"];

impl Fence {
    /// What this machine gives.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] when that is too little.
    pub(crate) fn detect() -> Result<Self, RuntimeError> {
        Self::of(sys::landlock_abi(), rustix::process::geteuid().is_root())
    }

    fn of(abi: i32, own_ids: bool) -> Result<Self, RuntimeError> {
        let refused = |what: &str| Err(RuntimeError::Unsupported(what.to_owned()));
        if abi <= 0 {
            return refused(
                "the level landlock needs Landlock, which this kernel has not, or has switched off; use Linux 6.7 or newer \
                 with `landlock` in the list of its boot parameter `lsm=`, and a container whose filter allows \
                 landlock_create_ruleset",
            );
        }
        if abi < ABI_LEAST {
            return Err(RuntimeError::Unsupported(format!(
                "the level landlock needs version {ABI_LEAST} of Landlock, and this kernel has {abi}; use Linux 6.7 or \
                 newer"
            )));
        }
        if !own_ids && abi < ABI_SCOPES {
            return Err(RuntimeError::Unsupported(format!(
                "the level landlock needs version {ABI_SCOPES} of Landlock where the server is not root, and this kernel \
                 has {abi}: nothing else would keep a sandbox from ending your other programs; use Linux 6.12 or newer, \
                 or run the server as root of its container"
            )));
        }
        Ok(Self { abi, own_ids })
    }

    fn version(self) -> ABI {
        match self.abi {
            ..=ABI_LEAST => ABI::V4,
            ABI_DEVICES => ABI::V5,
            _ => ABI::V6,
        }
    }

    /// Whether signals and abstract sockets are held.
    pub(crate) fn has_scopes(self) -> bool {
        self.abi >= ABI_SCOPES
    }

    /// Whether a sandbox may make sockets of the family unix. With a user id that others have, too, sockets of the host
    /// would open to it (the session's bus is a way out), and Landlock does not hold those that have a path.
    pub(crate) fn unix_sockets(self) -> bool {
        self.own_ids && self.has_scopes()
    }

    /// One line on how.
    pub(crate) fn describe(self) -> String {
        let ids = if self.own_ids {
            "a user id of its own"
        } else {
            "your own user id"
        };
        format!(
            "no namespaces; Landlock {} over files{} and TCP, {ids}, system call allow-list, no new privileges",
            self.abi,
            if self.has_scopes() { ", signals" } else { "" },
        )
    }

    /// What this level does not hold, one sentence each.
    pub(crate) fn warnings(self) -> Vec<String> {
        let mut warnings: Vec<&str> = vec![
            "the level landlock holds less than the level namespaces: use it only where namespaces cannot be had",
            "the processes of the whole machine and their command lines can be read in /proc; their memory and files cannot",
            "there is no network, not even a loopback: no service can be started or reached",
            "/tmp and /dev/shm are closed; programs have to use $TMPDIR, and the home is a private folder of the host's disk",
            "the size of all files together is looked at every few seconds, not enforced at the moment of writing",
            "files outside cannot be read or written, but whether a path exists, its size and its times can be seen",
        ];
        if !self.own_ids {
            warnings.push(
                "the sandbox has your own user id: permissions, times and attributes of files that are yours can be changed \
                 from inside, also outside of its folder, for Landlock does not hold them",
            );
            warnings.push("terminals and unix sockets cannot be opened: those of your session would be open, too");
            warnings.push("the number of processes has no limit of its own without a cgroup");
        }
        if self.own_ids && !self.unix_sockets() {
            warnings.push("unix sockets cannot be opened: before Linux 6.12 those of the host would be open, too");
        }
        if self.abi < ABI_DEVICES {
            warnings.push("ioctls of the few devices that are open are not held before Linux 6.10");
        }
        warnings.into_iter().map(str::to_owned).collect()
    }

    /// Restricts this process, for ever, to signals among itself and what it starts. Only where there are scopes.
    pub(crate) fn enclose_signals(self) -> Result<(), RulesetError> {
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .scope(Scope::Signal)?
            .create()?
            .restrict_self()?;
        debug_assert_eq!(status.ruleset, RulesetStatus::FullyEnforced);
        Ok(())
    }

    /// Restricts this process, for ever, to its private folder and what all may read.
    pub(crate) fn enclose(self, private: &Path) -> Result<(), RulesetError> {
        let abi = self.version();
        let all = AccessFs::from_all(abi);
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let own = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        let mut device = AccessFs::ReadFile | AccessFs::WriteFile;
        let mut terminal = device | AccessFs::ReadDir;
        if self.abi >= ABI_DEVICES {
            device |= AccessFs::IoctlDev;
            terminal |= AccessFs::IoctlDev;
        }
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(all)?
            .handle_access(AccessNet::from_all(abi))?;
        if self.has_scopes() {
            ruleset = ruleset.scope(Scope::Signal | Scope::AbstractUnixSocket)?;
        }
        let mut rules = vec![(PROGRAMS, read | AccessFs::Execute), (READ, read), (DEVICES, device)];
        if self.own_ids {
            rules.push((TERMINALS, terminal));
        }
        let mut created = ruleset.create()?;
        for (paths, access) in rules {
            for path in paths {
                created = allow(created, Path::new(path), access)?;
            }
        }
        created = allow(created, private, own)?;
        created.restrict_self()?;
        Ok(())
    }
}

/// Adds a rule for a path, if it exists. A file takes only the rights that files have.
fn allow(
    created: landlock::RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    let Ok(fd) = PathFd::new(path) else {
        return Ok(created);
    };
    let is_dir = std::fs::metadata(path).is_ok_and(|found| found.is_dir());
    let access = if is_dir {
        access
    } else {
        access & AccessFs::from_file(ABI::V6)
    };
    created.add_rule(PathBeneath::new(fd, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_holds_too_little_is_refused_with_what_would_do() {
        for (abi, root, told) in [
            (0, true, "lsm="),
            (-1, false, "lsm="),
            (3, true, "Linux 6.7"),
            (5, false, "Linux 6.12"),
        ] {
            let said = Fence::of(abi, root).unwrap_err().to_string();
            assert!(said.contains(told), "{abi} {root}: {said}");
        }
        assert!(Fence::of(4, true).is_ok());
        assert!(Fence::of(6, false).is_ok());
    }

    #[test]
    fn what_is_not_held_is_told() {
        let said = |abi, root| Fence::of(abi, root).unwrap().warnings().join("\n");
        assert!(said(6, false).contains("your own user id") && !said(6, true).contains("your own user id"));
        assert!(said(4, true).contains("Linux 6.10") && !said(5, true).contains("Linux 6.10"));
        assert!(said(5, true).contains("unix sockets") && !said(6, true).contains("unix sockets"));
    }
}
