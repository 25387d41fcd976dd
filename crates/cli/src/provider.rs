//! From settings to a client.

use anyhow::{Context, Result};
use sandhold_client::Client;

use crate::{
    local::Local,
    settings::{LocalSettings, Provider, Settings},
};

/// A client, and the local engine behind it where there is one.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) local: Option<Local>,
}

impl Connected {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        Self::with(settings, settings.local.clone())
    }

    fn with(settings: &Settings, local: LocalSettings) -> Result<Self> {
        match &settings.provider {
            Provider::E2b(config) => {
                let client = Client::http(config.clone()).context("the settings for E2B cannot be used")?;
                Ok(Self { client, local: None })
            }
            Provider::Local => {
                let local = Local::new(local);
                Ok(Self {
                    client: Client::in_process(local.clone()),
                    local: Some(local),
                })
            }
        }
    }

    /// For a program that makes one sandbox at most.
    pub(crate) fn without_spares(settings: &Settings) -> Result<Self> {
        let local = LocalSettings {
            spares: 0,
            ..settings.local.clone()
        };
        Self::with(settings, local)
    }

    /// Ends the local sandboxes. Those on E2B are left to their timeout or their owner.
    pub(crate) async fn shutdown(&self) {
        if let Some(local) = &self.local {
            local.shutdown().await;
        }
    }
}
