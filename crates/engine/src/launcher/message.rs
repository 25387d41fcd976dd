//! What engine and launcher say to each other: one JSON object a packet, descriptors beside it.
//!
//! Both ends are the same build; [`Hello::build`] makes sure. The launcher is more privileged than nothing else on this
//! socket: only the engine holds the other end.

use sandhold_runtime::{Change, ChangeKind, Changes, Compression, FileKind, LayerId};
use serde::{Deserialize, Serialize};

use crate::landlock::Fence;

/// The version that both ends must share.
pub(crate) const BUILD: &str = concat!("sandhold-engine ", env!("CARGO_PKG_VERSION"), " messages 1");

/// Engine to launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first message. Descriptors: the server's private folder, if [`Hello::private`] is not empty, and the init
    /// program, if there is one.
    Hello(Box<Hello>),
    /// The answer to [`Reply::NeedsMap`]: the maps are written.
    Mapped,
    /// Make a sandbox. Descriptors: its end of the control socket, the write end of its status pipe, and with
    /// [`Create::claim`] the socket that holds a block of ids.
    Create(Box<Create>),
    /// Work on layers, done by a process of its own that writes a [`Worked`] to the pipe. Descriptors: the write end of the
    /// pipe, and what the work asks for.
    Work(Box<Work>),
    /// Nobody holds this layer any more.
    Let {
        /// Its number.
        layer: u64,
    },
    /// A sandbox is gone and cleaned up after.
    Forget {
        /// Its request.
        request: u64,
    },
}

/// How the launcher sets itself up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`BUILD`].
    pub(crate) build: String,
    /// How sandboxes are held.
    pub(crate) way: Way,
    /// Where the server's private folder is; empty where there is none.
    pub(crate) private: String,
    /// The file of `runsc`; empty where it is not used.
    pub(crate) runsc: String,
    /// Where ids come from.
    pub(crate) ids: IdSource,
    /// The template to prepare.
    pub(crate) template: String,
    /// The store of layers; empty where there is none.
    pub(crate) store: String,
    /// What this server's folders and its lock in the store begin with; empty where there is no store.
    pub(crate) drafts: String,
    /// Folders of this server's cgroups, one a hierarchy; sandboxes get a folder in each.
    pub(crate) cgroups: Vec<String>,
    /// Whether the one folder in `cgroups` is a cgroup v2, which a child can be born in.
    pub(crate) unified: bool,
    /// Argument list of the init program.
    pub(crate) init_args: Vec<String>,
    /// Names under which the init program stands in a sandbox's files.
    pub(crate) programs: Vec<String>,
    /// Certificates that sandboxes trust beside those of the host.
    pub(crate) trust: Option<String>,
}

/// How the launcher makes sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// With namespaces.
    Namespaces,
    /// Without, behind Landlock.
    Fenced(Fence),
    /// By `runsc`.
    Gvisor,
}

/// Where a sandbox's ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IdSource {
    /// Ranges of their own, by root.
    Ranges,
    /// The sub-ids of an ordinary user, mapped by `newuidmap` in a user namespace of the launcher's.
    SubIds,
    /// The user's own id, as `user`.
    Single,
}

/// What one sandbox is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Create {
    /// Number of the request, in its reply.
    pub(crate) request: u64,
    /// Name of its cgroup folders.
    pub(crate) id: String,
    /// Host name inside.
    pub(crate) hostname: String,
    /// User ids.
    pub(crate) uids: IdMap,
    /// Group ids.
    pub(crate) gids: IdMap,
    /// Files to write in the cgroups.
    pub(crate) cgroup_files: Vec<CgroupFile>,
    /// Size of the root.
    pub(crate) disk_bytes: u64,
    /// Size of `/dev/shm`.
    pub(crate) shm_bytes: u64,
    /// Files of the root.
    pub(crate) inodes: u64,
    /// Processes, as a resource limit for want of a cgroup.
    pub(crate) max_processes: Option<u64>,
    /// Largest file, as a resource limit for want of a cgroup.
    pub(crate) max_file: Option<u64>,
    /// Memory of one process that it may write, as a resource limit for want of a cgroup.
    pub(crate) max_data: Option<u64>,
    /// Open files of a process.
    pub(crate) open_files: u64,
    /// False: stop where the init program would be started, with success.
    pub(crate) exec: bool,
    /// Whether the times of the phases are written to the status pipe.
    pub(crate) trace: bool,
    /// Whether a descriptor that claims a block of ids is with this message.
    pub(crate) claim: bool,
    /// What its root is made of; `None`: files of its own, where there are no overlays.
    pub(crate) stack: Option<Stack>,
}

/// What a root is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stack {
    /// Whether the lowest layer is the template's, and the host's programs are bound over it all.
    pub(crate) host: bool,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<LayerName>,
    /// The folder of the store that the sandbox writes to; `None`: in memory.
    pub(crate) folder: Option<String>,
}

impl Stack {
    /// Whether a layer of the store is in it.
    pub(crate) fn is_stored(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, LayerName::Stored(_)))
    }
}

/// One layer of a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LayerName {
    /// By the name of its folder in the store.
    Stored(String),
    /// By the number that the launcher holds it under.
    Held {
        /// The number.
        number: u64,
        /// Whether its owners are those of the sandbox already: it was that sandbox's own upper.
        own: bool,
    },
}

/// Work on layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Another overlay for a living sandbox. Descriptor: its border.
    Restack(Restack),
    /// Copy what a sandbox wrote while it stands still, and hold the copy. Descriptor: its border.
    Copy(Transfer),
    /// Write a held layer to the store.
    Keep(Transfer),
    /// Unpack a layer of an image. Descriptor: the archive.
    Unpack(Unpack),
    /// Write what layers show together as one, over others.
    Merge {
        /// The temporary folder's name.
        draft: String,
        /// What it lies over, the lowest first.
        below: Vec<LayerId>,
        /// The layers, the lowest first.
        layers: Vec<LayerId>,
    },
    /// Hold a layer against its name.
    Verify(LayerId),
    /// Remove a temporary folder.
    Remove(String),
    /// Say how much a temporary folder holds.
    Measure(String),
    /// Compare. Descriptor: the sandbox's border.
    Changes(Look),
}

/// A layer that is held, or is to be, as a copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Its number.
    pub(crate) number: u64,
    /// The request that made the sandbox whose files are copied; else 0.
    pub(crate) sandbox: u64,
    /// The ids of the root of the sandbox that it was written by, in the launcher's view, if its files have them.
    pub(crate) from: Option<(u32, u32)>,
    /// The temporary folder's name.
    pub(crate) draft: String,
    /// Whether processes have to be stopped by signals.
    pub(crate) stop: bool,
    /// Most bytes.
    pub(crate) max_bytes: u64,
    /// Most files.
    pub(crate) max_files: u64,
}

/// A layer of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unpack {
    /// The temporary folder's name.
    pub(crate) draft: String,
    /// The layers it lies over, the lowest first.
    pub(crate) below: Vec<LayerId>,
    /// How it is compressed.
    pub(crate) compression: Packed,
    /// The SHA-256 of the tar.
    pub(crate) diff_id: Option<LayerId>,
    /// Most bytes of the tar without compression.
    pub(crate) max_tar: u64,
    /// Most bytes of its files.
    pub(crate) max_bytes: u64,
    /// Most files.
    pub(crate) max_files: u64,
}

/// [`Compression`], for a message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Packed {
    None,
    Gzip,
    Zstd,
}

impl From<Packed> for Compression {
    fn from(packed: Packed) -> Self {
        match packed {
            Packed::None => Self::None,
            Packed::Gzip => Self::Gzip,
            Packed::Zstd => Self::Zstd,
        }
    }
}

impl From<Compression> for Packed {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}

/// A comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Look {
    /// The request that made the sandbox.
    pub(crate) sandbox: u64,
    /// What its root is made of.
    pub(crate) stack: Stack,
    /// How many of its highest layers belong to what is looked at.
    pub(crate) above: usize,
    /// Most paths.
    pub(crate) most: usize,
    /// The host name inside.
    pub(crate) hostname: String,
}

/// What is known of a stored layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Files, folders, links and whiteouts.
    pub(crate) files: u64,
}

/// [`Changes`], for a message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    changes: Vec<(Vec<u8>, u8, u8, u64)>,
    truncated: bool,
}

const KINDS: [ChangeKind; 3] = [ChangeKind::Added, ChangeKind::Changed, ChangeKind::Removed];
const FILES: [FileKind; 4] = [FileKind::File, FileKind::Folder, FileKind::Link, FileKind::Other];

impl From<Changes> for Changed {
    fn from(changes: Changes) -> Self {
        let index = |position: Option<usize>| position.and_then(|index| u8::try_from(index).ok()).unwrap_or(0);
        let plain = |change: Change| {
            let kind = index(KINDS.iter().position(|kind| *kind == change.kind));
            let file = index(FILES.iter().position(|file| *file == change.file));
            (change.path, kind, file, change.bytes)
        };
        Self {
            changes: changes.changes.into_iter().map(plain).collect(),
            truncated: changes.truncated,
        }
    }
}

impl From<Changed> for Changes {
    fn from(changed: Changed) -> Self {
        let full = |(path, kind, file, bytes): (Vec<u8>, u8, u8, u64)| Change {
            path,
            kind: KINDS.get(usize::from(kind)).copied().unwrap_or(ChangeKind::Changed),
            file: FILES.get(usize::from(file)).copied().unwrap_or(FileKind::Other),
            bytes,
        };
        Self {
            changes: changed.changes.into_iter().map(full).collect(),
            truncated: changed.truncated,
        }
    }
}

/// Another overlay for a living sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Restack {
    /// The request that made the sandbox.
    pub(crate) sandbox: u64,
    /// Its ids, users' and groups'.
    pub(crate) ids: (IdMap, IdMap),
    /// The temporary folder that it writes to now; `None`: in memory.
    pub(crate) folder: Option<String>,
    /// The number that its upper of now is held under from then on; `None`: it goes.
    pub(crate) hold: Option<u64>,
    /// What the new root is made of.
    pub(crate) stack: Stack,
    /// Whether every process but the first is ended before, and the root furnished like a new one.
    pub(crate) end_others: bool,
    /// Whether its processes have to be stopped by signals for want of a cgroup.
    pub(crate) stop: bool,
    /// The host name inside.
    pub(crate) hostname: String,
    /// Size of the new upper.
    pub(crate) disk_bytes: u64,
    /// Files of the new upper.
    pub(crate) inodes: u64,
}

/// What came of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Worked {
    /// It failed; nothing has changed.
    Failed(Failure),
    /// The sandbox has another overlay.
    Restacked {
        /// The error number of what could not be tidied up.
        untidy: Option<i32>,
    },
    /// A process of this name uses a file; nothing has changed.
    Busy(String),
    /// A copy is held.
    Copied,
    /// A layer is in the store.
    Layer {
        /// Its name, as it was computed.
        id: LayerId,
        /// Its size.
        about: About,
    },
    /// A folder is gone.
    Removed,
    /// How much a folder holds.
    Measured(About),
    /// What differs.
    Changes(Changed),
    /// File work failed; nothing has changed.
    Spoiled {
        /// Whether that is the archive's fault.
        refused: bool,
        /// What was wrong.
        said: String,
    },
}

/// One line of an id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMap {
    /// First id inside.
    pub(crate) inside: u32,
    /// First id in the launcher's user namespace.
    pub(crate) outside: u32,
    /// How many.
    pub(crate) count: u32,
}

impl IdMap {
    /// Whether `id` exists inside.
    pub(crate) fn holds(self, id: u32) -> bool {
        id >= self.inside && id - self.inside < self.count
    }

    /// The line for `uid_map`.
    pub(crate) fn line(self) -> String {
        format!("{} {} {}\n", self.inside, self.outside, self.count)
    }
}

/// A value for a file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CgroupFile {
    /// Index into [`Hello::cgroups`].
    pub(crate) hierarchy: usize,
    /// The file's name.
    pub(crate) name: String,
    /// What to write.
    pub(crate) value: String,
    /// Whether the sandbox cannot be made without.
    pub(crate) required: bool,
}

/// Launcher to engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The launcher stands in a new user namespace, whose maps somebody outside must write.
    NeedsMap {
        /// Its process id.
        pid: i32,
    },
    /// Sandboxes can be made.
    Ready(Ready),
    /// The launcher cannot be set up and ends.
    Failed(Failure),
    /// A sandbox's first process runs. Descriptor: its pidfd.
    Created {
        /// Which.
        request: u64,
        /// Its id on the host.
        pid: i32,
        /// Microseconds that each phase took in the launcher.
        phases: Vec<Phase>,
    },
    /// It could not be made; nothing is left of it.
    Refused {
        /// Which.
        request: u64,
        /// Why.
        failure: Failure,
    },
}

/// What the launcher found out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Whether host trees show their owners inside.
    pub(crate) time_namespace: bool,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// How long something took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Phase {
    /// What.
    pub name: String,
    /// Microseconds.
    pub us: u64,
}

impl Phase {
    pub(crate) fn new(name: &str, took: std::time::Duration) -> Self {
        Self {
            name: name.to_owned(),
            us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// What a child writes into its status pipe.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Status {
    /// It failed and ends.
    Failed(Failure),
    /// What was asked for by [`Create::trace`], just before the exec.
    Phases(Vec<Phase>),
    /// It came where the init program would have been started.
    Dry,
}

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
