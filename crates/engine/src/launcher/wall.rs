//! Landlock as a second wall: what stays shut if a mount, a descriptor or the filter were wrong.
//!
//! One rule gives a sandbox everything below its own root. So whatever lies elsewhere, on the host or in another sandbox,
//! cannot be opened, run or changed, whichever way a path or a descriptor leads there; nothing can be mounted, moved or
//! unmounted (the kernel forbids it to any process under file rules); and abstract sockets and signals end at the
//! sandbox's border. The rule names the sandbox's own root and is made for each: four system calls.
//!
//! Within its root it takes nothing away, which is what mounts are for: a rule for the root holds for all below it.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::{Mode, OFlags};

use super::message::{At, Failure, Step};

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

/// Shuts the calling process and all it starts into the tree below `/`. `no_new_privs` must be set already.
pub(super) fn close() -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = rustix::fs::open(".", flags, Mode::empty()).at(Step::Landlock)?;
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
