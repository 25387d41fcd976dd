//! What every request handler can see.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::process::Resource;
use sandhold_wire::boot::{BootSpec, PLAIN_VARIABLE};

use crate::metrics::LastLook;
use crate::process::{OutputRate, Table};
use crate::reap::Reaper;
use crate::sys::Spawner;
use crate::users::{self, User};

/// The daemon's state, shared by all handlers.
#[derive(Debug)]
pub(crate) struct State {
    /// What requests must carry in `X-Access-Token`; none: nothing is asked.
    pub(crate) access_token: Option<String>,
    /// The user of requests that name none.
    pub(crate) default_user: String,
    /// The default user and root as they were at the start.
    known_users: Vec<User>,
    /// Where relative paths start; none: the user's home.
    pub(crate) workdir: Option<String>,
    /// Largest number of processes at once.
    pub(crate) max_processes: usize,
    /// Jobs that run at once.
    pub(crate) max_jobs: usize,
    /// Memory that all of the sandbox may use, in bytes, where that was told.
    pub(crate) memory_bytes: Option<u64>,
    /// How fast processes may print.
    pub(crate) output: OutputRate,
    /// Whether user ids other than the daemon's own can be taken.
    pub(crate) can_switch_user: bool,
    /// Where callers of `sudo` are awaited; none: nowhere.
    pub(crate) sudo_socket: Option<String>,
    /// The daemon's own user id.
    pub(crate) own_uid: u32,
    /// `PATH` of processes unless a request says otherwise.
    pub(crate) path: String,
    /// The processes.
    pub(crate) processes: Table,
    /// Starts them and learns of their ends.
    pub(crate) reaper: Arc<Reaper>,
    /// Processor time at the last look of `/metrics`.
    pub(crate) cpu: LastLook,
    /// Whether the sandbox stands on its host's own root, without namespaces.
    pub(crate) plain: bool,
    envs: RwLock<BTreeMap<String, String>>,
}

/// Where programs are looked for when the daemon was given no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl State {
    /// The state of a sandbox that was described by `spec`. Processes get the limit on open files that holds now.
    pub(crate) fn new(spec: BootSpec) -> Self {
        let mut envs: BTreeMap<String, String> = [
            ("E2B_SANDBOX", "true"),
            ("E2B_SANDBOX_ID", &spec.sandbox_id),
            ("E2B_TEMPLATE_ID", &spec.template_id),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let plain = std::env::var_os(PLAIN_VARIABLE).is_some();
        if let (true, Ok(folder)) = (plain, std::env::var("TMPDIR")) {
            envs.insert("TMPDIR".to_owned(), folder);
        }
        envs.extend(spec.envs);
        Self {
            access_token: spec.access_token,
            known_users: [spec.default_user.as_str(), "root"]
                .into_iter()
                .filter_map(|name| users::lookup(name).ok())
                .collect(),
            default_user: spec.default_user,
            workdir: spec.workdir,
            max_processes: spec.max_processes.try_into().unwrap_or(usize::MAX),
            max_jobs: spec.caps.jobs.try_into().unwrap_or(usize::MAX),
            memory_bytes: spec.memory_bytes,
            output: OutputRate::new(spec.caps.output_bytes_per_s),
            can_switch_user: spec.can_switch_user,
            // There is nobody else whom one could become.
            sudo_socket: spec.sudo_socket.filter(|_| !plain),
            own_uid: rustix::process::geteuid().as_raw(),
            path: std::env::var("PATH")
                .ok()
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| DEFAULT_PATH.to_owned()),
            processes: Table::new(spec.caps.log_bytes),
            reaper: Arc::new(Reaper::new(Spawner::new(rustix::process::getrlimit(Resource::Nofile)))),
            cpu: LastLook::default(),
            plain,
            envs: RwLock::new(envs),
        }
    }

    /// The default user or root, as the account files described them at the start.
    pub(crate) fn known_user(&self, name: &str) -> Option<&User> {
        self.known_users.iter().find(|user| user.name == name)
    }

    /// The environment of every process: the sandbox's own variables and those of the create request.
    pub(crate) fn envs(&self) -> BTreeMap<String, String> {
        self.envs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_of_the_start_are_kept() {
        let state = State::new(BootSpec {
            default_user: "nobody-of-this-name".into(),
            ..BootSpec::default()
        });
        assert_eq!(state.known_user("root").map(|user| user.uid), Some(0));
        assert_eq!(state.known_user("nobody-of-this-name"), None);
        assert_eq!(state.known_user("daemon"), None, "no other is kept");
    }
}
