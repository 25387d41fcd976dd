//! One sandbox.
#![allow(unused_variables)]

use sandhold_wire::rest::{EnvdMetrics, SandboxDetail};

use crate::{Commands, Error, Files};

/// A sandbox that was created or connected to. Cloning is cheap. Dropping it does not end the sandbox.
#[derive(Clone)]
pub struct Sandbox {
    id: String,
    template: String,
}

impl Sandbox {
    /// Draft.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Draft.
    pub fn template(&self) -> &str {
        &self.template
    }
    /// Draft.
    pub fn files(&self) -> Files {
        Files {}
    }
    /// Draft.
    pub fn commands(&self) -> Commands {
        Commands {}
    }
    /// `https://<port>-<id>.<domain>`, or what the provider has instead.
    pub fn url(&self, port: u16) -> Option<String> {
        None
    }
    /// Whether envd answers.
    pub async fn is_running(&self) -> Result<bool, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn metrics(&self) -> Result<EnvdMetrics, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn kill(&self) -> Result<bool, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn info(&self) -> Result<SandboxDetail, Error> {
        Err(Error::Unsupported("draft".into()))
    }
}
