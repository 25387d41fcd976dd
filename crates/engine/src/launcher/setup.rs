//! What the launcher does once: descriptors, signals, ids, its own root, the prepared template and filter.

use std::ffi::CString;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use libc::sock_filter;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};

use super::message::{At, BUILD, Failure, Hello, IdSource, Ready, Reply, Request, Step, Way};
use super::vault::Vault;
use super::{protocol, root, wall};
use crate::limits::USER_ID;
use crate::packet;
use crate::seccomp::Variant;
use crate::sys;
use crate::template::Template;

/// The descriptor that the init program gets its control socket at; reserved here so that nothing else is ever there.
pub(super) const CONTROL_FD: i32 = 3;

/// A launcher that can make sandboxes.
pub(super) struct Launcher {
    pub(super) proof: sys::SingleThreaded,
    pub(super) hello: Hello,
    pub(super) template: Template,
    /// Which trees were found to take no id map.
    pub(super) unmapped: Vec<bool>,
    /// Parts of /proc and /sys that this host has and a sandbox must not see.
    pub(super) masks: root::Masks,
    /// Where layers are held; only with namespaces.
    vault: Option<Vault>,
    /// The server's folder of private folders, whose lock is held by it.
    pub(super) private: Option<OwnedFd>,
    pub(super) filter: Vec<sock_filter>,
    /// Whether sandboxes get a second wall.
    pub(super) wall: bool,
    pub(super) init: Option<OwnedFd>,
    pub(super) init_args: Vec<CString>,
    /// This server's folders in the cgroup hierarchies, as in [`Hello::cgroups`].
    pub(super) cgroups: Vec<OwnedFd>,
    cgroup_parents: Vec<(OwnedFd, String)>,
    /// Children hold the read end: it hangs up when the launcher is gone.
    pub(super) life_read: OwnedFd,
    pub(super) life_write: OwnedFd,
    /// Sockets that claim blocks of ids for as long as this process lives.
    pub(super) claims: Vec<OwnedFd>,
    pub(super) facts: Ready,
}

impl Launcher {
    /// Where layers are held.
    pub(super) fn vault(&self) -> Result<&Vault, Failure> {
        self.vault.as_ref().ok_or_else(|| protocol("there are no layers"))
    }

    /// Lets the processes of a frozen sandbox go on, so that they can end (cgroup v1; v2 kills frozen processes).
    pub(super) fn thaw(&self, id: &str) {
        for folder in &self.cgroups {
            crate::cgroup::write_at(folder, &format!("{id}/freezer.state"), "THAWED").ok();
        }
    }

    /// Removes this server's own folders, if they are empty.
    pub(super) fn remove_cgroups(&self) {
        for (parent, name) in &self.cgroup_parents {
            crate::cgroup::remove_at(parent, name);
        }
    }
}

/// Puts the descriptors in order: the engine's socket is standard input, everything else but standard error is nothing.
pub(super) fn take_socket() -> Result<OwnedFd, rustix::io::Errno> {
    sys::default_signals();
    sys::ignore_children();
    // What an unruly parent let through. Before anything is opened here.
    sys::close_from(CONTROL_FD as u32)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), CONTROL_FD + 1)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // Everything from 3 on was closed, so this is where `null` is, unless 0 to 2 were not all open.
    let reserved = if null.as_raw_fd() == CONTROL_FD {
        null
    } else {
        rustix::io::fcntl_dupfd_cloexec(&null, CONTROL_FD)?
    };
    if reserved.into_raw_fd() == CONTROL_FD {
        Ok(socket)
    } else {
        Err(rustix::io::Errno::BADF)
    }
}

/// Everything up to `Ready`. `Err(None)`: the engine is gone.
pub(super) fn prepare(socket: &OwnedFd) -> Result<Launcher, Option<Failure>> {
    let Ok((Request::Hello(hello), fds)) = packet::receive::<Request>(socket) else {
        return Err(None);
    };
    if hello.build != BUILD {
        return Err(Some(protocol(&format!(
            "the launcher is \"{BUILD}\", the engine \"{}\"",
            hello.build
        ))));
    }
    rustix::process::setsid().ok();
    let proof = sys::SingleThreaded::prove().ok_or_else(|| protocol("the launcher has threads"))?;
    let plain = match hello.way {
        Way::Namespaces => None,
        Way::Fenced(fence) => Some(fence),
        Way::Gvisor => None,
    };
    let namespaced = hello.way == Way::Namespaces;
    if namespaced {
        take_ids(socket, hello.ids)?;
    } else {
        // What a guard leaves behind comes here.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at(Step::Guard)?;
    }
    let mut cgroups = Vec::new();
    let mut cgroup_parents = Vec::new();
    for path in &hello.cgroups {
        let open = |path: &str| {
            rustix::fs::open(
                path,
                OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .on(Step::Cgroup, path)
        };
        cgroups.push(open(path)?);
        if let Some((parent, name)) = path.rsplit_once('/') {
            cgroup_parents.push((open(parent)?, name.to_owned()));
        }
    }
    let template = match Template::load(&hello.template, hello.trust.as_deref()) {
        Ok(Some(template)) => template,
        Ok(None) => return Err(Some(protocol(&hello.template))),
        Err(missing) => {
            return Err(Some(Failure {
                step: Step::HostTree,
                object: missing,
                errno: libc::ENOENT,
            }));
        }
    };
    let variant = match plain {
        None => Variant::Namespaced,
        Some(fence) => Variant::Plain {
            unix: fence.unix_sockets(),
        },
    };
    let filter = crate::seccomp::program(variant).map_err(|error| Failure {
        step: Step::Policy,
        object: error.to_string(),
        errno: 0,
    })?;
    let time_namespace = rustix::fs::access("/proc/self/ns/time", rustix::fs::Access::EXISTS).is_ok();
    let mut facts = Ready {
        time_namespace,
        warnings: Vec::new(),
    };
    if !time_namespace && namespaced {
        facts
            .warnings
            .push("the kernel has no time namespaces: sandboxes see how long the host has been up".to_owned());
    }
    let wall = wall::possible();
    if !wall {
        let text = "the kernel has no Landlock rules (Linux 5.19, and LSM `landlock`): there is no second wall behind the mounts";
        facts.warnings.push(text.to_owned());
    }
    let masks = root::Masks::of_this_host();
    let mut fds = fds.into_iter();
    let mut vault = None;
    let private = if hello.private.is_empty() { None } else { fds.next() };
    let init = fds.next();
    if namespaced {
        root::enter(
            &template,
            init.as_ref(),
            &hello.programs,
            &hello.store,
            base_ids(hello.ids),
        )?;
        vault = Some(Vault::make()?);
    }
    let (life_read, life_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Step::ParentDeath)?;
    let init_args = hello
        .init_args
        .iter()
        .map(|arg| {
            CString::new(arg.as_str()).map_err(|_| protocol("an argument of the init program holds a zero byte"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Launcher {
        proof,
        unmapped: vec![hello.ids != IdSource::Ranges; template.trees.len()],
        template,
        masks,
        vault,
        private,
        filter,
        wall,
        init,
        init_args,
        cgroups,
        cgroup_parents,
        life_read,
        life_write,
        claims: Vec::new(),
        facts,
        hello: *hello,
    })
}

/// Who owns the files of the lowest layer, in the launcher's ids: a sandbox's own ids are mapped to these.
fn base_ids(source: IdSource) -> Option<root::Ids> {
    let ids = |root: u32| root::Ids {
        root,
        user: root + USER_ID,
    };
    match source {
        IdSource::Ranges => Some(ids(0)),
        // 0 is the user, whom no sandbox has.
        IdSource::SubIds => Some(ids(1)),
        IdSource::Single => None,
    }
}

/// Makes the user namespace that an ordinary user's sandboxes live in, and takes id 0 in it.
fn take_ids(socket: &OwnedFd, source: IdSource) -> Result<(), Option<Failure>> {
    match source {
        IdSource::Ranges => {}
        IdSource::SubIds => {
            sys::unshare(sys::Unshare::Users).at(Step::UserNamespace)?;
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            packet::send(socket, &Reply::NeedsMap { pid }, &[]).map_err(|_| None)?;
            match packet::receive::<Request>(socket) {
                Ok((Request::Mapped, _)) => {}
                _ => return Err(None),
            }
        }
        IdSource::Single => {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            sys::unshare(sys::Unshare::Users).at(Step::UserNamespace)?;
            let write =
                |file: &str, text: String| std::fs::write(format!("/proc/self/{file}"), text).on(Step::IdMaps, file);
            // An ordinary user may write a group map only after giving up setgroups.
            write("setgroups", "deny".to_owned())?;
            write("uid_map", format!("0 {} 1\n", uid.as_raw()))?;
            write("gid_map", format!("0 {} 1\n", gid.as_raw()))?;
        }
    }
    if source == IdSource::Single {
        return Ok(());
    }
    rustix::thread::set_thread_groups(&[]).on(Step::Ids, "supplementary groups")?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).on(Step::Ids, "gid 0")?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).on(Step::Ids, "uid 0")?;
    Ok(())
}
