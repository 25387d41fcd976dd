//! What engine and launcher say to each other: one JSON object a packet, descriptors beside it.
//!
//! Both ends are the same build; [`Hello::build`] makes sure. The launcher is more privileged than nothing else on this
//! socket: only the engine holds the other end.

mod failure;
mod work;

pub(crate) use failure::{At, Failure, Step};
use serde::{Deserialize, Serialize};
pub(crate) use work::{About, Look, Restack, Transfer, Unpack, Work, Worked};

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
