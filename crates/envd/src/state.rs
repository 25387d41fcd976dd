//! What every request handler can see.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use sandhold_wire::boot::BootSpec;

use crate::process::Table;

/// The daemon's state, shared by all handlers.
#[derive(Debug)]
pub(crate) struct State {
    /// What requests must carry in `X-Access-Token`; none: nothing is asked.
    pub(crate) access_token: Option<String>,
    /// The user of requests that name none.
    pub(crate) default_user: String,
    /// Where relative paths start; none: the user's home.
    pub(crate) workdir: Option<String>,
    /// Largest number of processes at once.
    pub(crate) max_processes: usize,
    /// Whether user ids other than the daemon's own can be taken.
    pub(crate) can_switch_user: bool,
    /// The daemon's own user id.
    pub(crate) own_uid: u32,
    /// `PATH` of processes unless a request says otherwise.
    pub(crate) path: String,
    /// When the daemon was ready.
    pub(crate) started: Instant,
    /// The processes.
    pub(crate) processes: Table,
    envs: RwLock<BTreeMap<String, String>>,
}

/// Where programs are looked for when the daemon was given no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl State {
    /// The state of a sandbox that was described by `spec`.
    pub(crate) fn new(spec: BootSpec) -> Self {
        let mut envs: BTreeMap<String, String> = [
            ("E2B_SANDBOX", "true"),
            ("E2B_SANDBOX_ID", &spec.sandbox_id),
            ("E2B_TEMPLATE_ID", &spec.template_id),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        envs.extend(spec.envs);
        Self {
            access_token: spec.access_token,
            default_user: spec.default_user,
            workdir: spec.workdir,
            max_processes: spec.max_processes.try_into().unwrap_or(usize::MAX),
            can_switch_user: spec.can_switch_user,
            own_uid: rustix::process::geteuid().as_raw(),
            path: std::env::var("PATH")
                .ok()
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| DEFAULT_PATH.to_owned()),
            started: Instant::now(),
            processes: Table::default(),
            envs: RwLock::new(envs),
        }
    }

    /// The environment of every process: the sandbox's own variables and those of the create request.
    pub(crate) fn envs(&self) -> BTreeMap<String, String> {
        self.envs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
