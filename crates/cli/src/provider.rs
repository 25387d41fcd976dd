//! From settings to a client.

use std::sync::Arc;

use anyhow::{Context, Result};
use sandhold_client::Client;

use crate::{
    local::Local,
    loopback::{Loopback, Place},
    settings::{LocalSettings, Provider, Settings},
};

/// A client, and the local engine behind it where there is one.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) local: Option<Local>,
    /// The way to local sandboxes for browsers of this machine.
    pub(crate) door: Option<Arc<Loopback>>,
}

impl Connected {
    /// For a program that hands out URLs of its sandboxes. Must be called within a tokio runtime.
    pub(crate) fn with_door(settings: &Settings) -> Result<Self> {
        Self::with(settings, settings.local.clone(), Some(Place::take()))
    }

    fn with(settings: &Settings, local: LocalSettings, place: Option<Place>) -> Result<Self> {
        match &settings.provider {
            Provider::E2b(config) | Provider::Sandhold(config) => {
                let client = Client::http(config.clone()).context("the settings for the server cannot be used")?;
                Ok(Self {
                    client,
                    local: None,
                    door: None,
                })
            }
            Provider::Local => {
                let local = Local::new(local, place.as_ref().and_then(Place::domain));
                Ok(Self {
                    client: Client::in_process(local.clone()),
                    door: place.map(|place| Arc::new(Loopback::new(place, local.clone()))),
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
        Self::with(settings, local, None)
    }

    /// Ends the local sandboxes. Those on E2B are left to their timeout or their owner.
    pub(crate) async fn shutdown(&self) {
        if let Some(door) = &self.door {
            door.close().await;
        }
        if let Some(local) = &self.local {
            local.shutdown().await;
        }
    }
}
