use std::ffi::OsString;
use std::path::PathBuf;

use sandhold_runtime::{Level, Resources};

use crate::limits::{SANDBOXES_DEFAULT, SPARES_MOST};

/// How the engine is set up.
#[derive(Debug)]
pub struct EngineConfig {
    /// The program that becomes process 1 of every sandbox. It must be linked statically: a sandbox need not have any
    /// library. It is copied and sealed at the start of the engine; later changes of the file have no effect.
    pub init: InitProgram,
    /// Its argument list, the program's name included.
    pub init_args: Vec<String>,
    /// Names under which the init program stands in `/opt/sandhold/bin` of every sandbox, which comes first in `PATH`. It
    /// tells by its name what it is to do.
    pub programs: Vec<String>,
    /// Program and arguments of a process that runs [`crate::launcher_main`] at once, before it starts any thread.
    pub launcher: Vec<OsString>,
    /// Limits of sandboxes that ask for none; absent ones get the engine's own.
    pub defaults: Resources,
    /// Sandboxes at once.
    pub max_sandboxes: usize,
    /// How sandboxes are held. Where this machine cannot, the engine does not start.
    pub isolation: Level,
    /// Where `runsc` is looked for by the level `gvisor`: folders, as in `PATH`.
    pub search_path: OsString,
    /// Sandboxes of the host's root, the default limits and [`EngineConfig::spare_hostname`] that are always made before
    /// anybody asks for one; 0: none is made ahead of any shape. Of other shapes, and in bursts of this, as many are made
    /// ahead as were asked for lately. They are not among the sandboxes at once.
    pub spares: usize,
    /// Most of them, of all shapes together.
    pub spares_most: usize,
    /// The host name of the spare ones.
    pub spare_hostname: String,
    /// Where layers are kept: a folder that is made, and may be shared by several servers of one user. `None`: there are no
    /// templates, and snapshots live in memory only.
    pub store: Option<PathBuf>,
    /// Certificates (PEM) that sandboxes trust beside those of the host.
    pub trust: Option<String>,
}

impl EngineConfig {
    /// The usual set-up for an init program and a launcher.
    #[must_use]
    pub fn new(init: InitProgram, launcher: Vec<OsString>) -> Self {
        Self {
            init,
            init_args: vec!["sandhold-envd".to_owned()],
            programs: vec!["sudo".to_owned()],
            launcher,
            defaults: Resources::default(),
            max_sandboxes: SANDBOXES_DEFAULT,
            isolation: Level::default(),
            search_path: OsString::new(),
            spares: 0,
            spares_most: SPARES_MOST,
            spare_hostname: "sandhold".to_owned(),
            store: None,
            trust: None,
        }
    }
}

/// Where the init program comes from.
#[derive(Debug)]
pub enum InitProgram {
    /// A file.
    Path(PathBuf),
    /// An open file.
    #[cfg(unix)]
    Fd(std::os::fd::OwnedFd),
}
