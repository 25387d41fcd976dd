//! Dockerfiles, which `build_template` takes: whoever composes the program reads them.

use sandhold_client::BuildStep;

/// Reads Dockerfiles.
pub trait Dockerfiles: Send + Sync {
    /// What the text of a Dockerfile asks for. There are no files beside it that it could copy.
    ///
    /// # Errors
    /// What cannot be done, with its line and what to do instead.
    fn plan(&self, text: &str) -> Result<Planned, String>;
}

/// What a Dockerfile asks for.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// The image below.
    pub image: String,
    /// The steps over it, in order.
    pub steps: Vec<BuildStep>,
    /// What it starts.
    pub start_cmd: Option<String>,
    /// What was left out, a line each.
    pub notes: Vec<String>,
}
