//! Where things can fail, and what is told of it.

use serde::{Deserialize, Serialize};

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}{}", if object.is_empty() { String::new() } else { format!(" ({object})") })]
pub(crate) struct Failure {
    /// Which.
    pub(crate) step: Step,
    /// What it worked on.
    pub(crate) object: String,
    /// The kernel's error number; 0 where there is none.
    pub(crate) errno: i32,
}

impl Failure {
    /// The kernel's error as a source.
    pub(crate) fn cause(&self) -> std::io::Error {
        if self.errno == 0 {
            std::io::Error::other("refused")
        } else {
            std::io::Error::from_raw_os_error(self.errno)
        }
    }
}

/// Where things can fail, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Protocol,
    Policy,
    UserNamespace,
    IdMaps,
    MountNamespace,
    PrivateRoot,
    HostTree,
    Template,
    Cgroup,
    Clone,
    Gate,
    Hostname,
    Loopback,
    Doors,
    Ids,
    ParentDeath,
    Root,
    Store,
    Layers,
    Overlay,
    Vault,
    Look,
    Restack,
    Worker,
    Files,
    Dev,
    Proc,
    ProcMasks,
    Sys,
    Pivot,
    Descriptors,
    ResourceLimits,
    Capabilities,
    Guard,
    PrivateFolder,
    Landlock,
    Runsc,
    Seccomp,
    Exec,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Protocol => "the message to the launcher cannot be understood",
            Self::Policy => "the system call policy cannot be compiled",
            Self::UserNamespace => "a user namespace cannot be made",
            Self::IdMaps => "the id maps cannot be written",
            Self::MountNamespace => "a mount namespace cannot be made",
            Self::PrivateRoot => "the launcher's own root cannot be mounted",
            Self::HostTree => "a host folder cannot be bound read-only",
            Self::Template => "the template's files cannot be prepared",
            Self::Cgroup => "the cgroup cannot be made",
            Self::Clone => "the sandbox's namespaces cannot be made",
            Self::Gate => "the launcher ended while the sandbox started",
            Self::Hostname => "the host name cannot be set",
            Self::Loopback => "the loopback interface cannot be brought up",
            Self::Doors => "the sandbox's way out cannot be handed over",
            Self::Ids => "the sandbox's ids cannot be taken",
            Self::ParentDeath => "the sandbox cannot be tied to the launcher",
            Self::Root => "the sandbox's root cannot be mounted",
            Self::Store => "the store of layers cannot be used",
            Self::Layers => "a layer of the sandbox's root cannot be mounted",
            Self::Overlay => "an overlay cannot be mounted",
            Self::Vault => "a layer cannot be held",
            Self::Look => "the sandbox's processes cannot be looked at",
            Self::Restack => "the sandbox's root cannot be replaced",
            Self::Worker => "a process for work on layers cannot be started",
            Self::Files => "a file of the sandbox's root cannot be made",
            Self::Dev => "the sandbox's /dev cannot be made",
            Self::Proc => "the sandbox's /proc cannot be mounted",
            Self::ProcMasks => "a part of /proc cannot be hidden",
            Self::Sys => "the sandbox's /sys cannot be mounted",
            Self::Pivot => "the sandbox's root cannot be entered",
            Self::Descriptors => "the sandbox's descriptors cannot be arranged",
            Self::ResourceLimits => "a resource limit cannot be set",
            Self::Capabilities => "capabilities cannot be given up",
            Self::Guard => "the sandbox's guard cannot be set up",
            Self::PrivateFolder => "the sandbox's private folder cannot be made",
            Self::Landlock => "the sandbox cannot be restricted by Landlock",
            Self::Runsc => "runsc cannot start the sandbox",
            Self::Seccomp => "the system call filter cannot be installed",
            Self::Exec => "the init program cannot be started",
        })
    }
}

/// Says which step a result belongs to.
pub(crate) trait At<T> {
    /// Names the step.
    fn at(self, step: Step) -> Result<T, Failure>;
    /// Names the step and what it worked on.
    fn on(self, step: Step, object: &str) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, rustix::io::Errno> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.on(step, "")
    }

    fn on(self, step: Step, object: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step,
            object: object.to_owned(),
            errno: error.raw_os_error(),
        })
    }
}

impl<T> At<T> for Result<T, std::io::Error> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.on(step, "")
    }

    fn on(self, step: Step, object: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step,
            object: object.to_owned(),
            errno: error.raw_os_error().unwrap_or(0),
        })
    }
}
