//! Being told what changes in a folder.

use std::sync::Arc;

use sandhold_wire::proto::filesystem as proto;

use super::Files;
use crate::{
    Error, answer,
    envd::{Broken, Envd, FrameStream, Streaming},
    limits,
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    /// It is new.
    Create,
    /// Its content changed.
    Write,
    /// It is gone.
    Remove,
    /// It is no longer here under this name; under its new name it is told as created.
    Rename,
    /// Its mode or owner changed.
    Chmod,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// Relative to the watched folder, which itself is `.`.
    pub name: String,
    /// What happened.
    pub kind: WatchKind,
}

/// A watched folder. Dropping it ends the watch.
pub struct Watch {
    envd: Arc<Envd>,
    stream: FrameStream,
    /// How the stream broke, until that is told.
    broken: Option<Broken>,
    ended: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

enum Told {
    Started,
    Event(WatchEvent),
    /// A keepalive, or something newer than this client.
    Nothing,
}

impl Files {
    /// Watches a folder, with `recursive` all folders below it too. What happens after this returned is told.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such folder, [`Error::InvalidArgument`] when it is none or on a network mount,
    /// [`Error::RateLimited`] when more cannot be watched.
    pub async fn watch(&self, path: &str, recursive: bool, user: Option<&str>) -> Result<Watch, Error> {
        let message = proto::WatchDirRequest {
            path: path.into(),
            recursive,
            ..Default::default()
        };
        let how = Streaming {
            user,
            ..Streaming::default()
        };
        let stream = self
            .envd
            .stream("/filesystem.Filesystem/WatchDir", &message, how)
            .await?;
        let mut watch = Watch {
            envd: self.envd.clone(),
            stream,
            broken: None,
            ended: false,
        };
        match tokio::time::timeout(limits::REQUEST_TIMEOUT, watch.told()).await {
            Ok(Some(Ok(Told::Started))) => Ok(watch),
            Ok(Some(Err(error))) => Err(error),
            Ok(_) => Err(Error::Protocol("WatchDir did not begin with its start event".into())),
            Err(_) => {
                let wait = limits::REQUEST_TIMEOUT;
                Err(Error::Timeout(format!(
                    "sandbox {} did not start to watch within {wait:?}",
                    watch.envd.id
                )))
            }
        }
    }
}

impl Watch {
    /// The next change; an error when the watch has ended, which is told once, then `None`. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        loop {
            match self.told().await? {
                Ok(Told::Event(event)) => return Some(Ok(event)),
                Ok(Told::Started | Told::Nothing) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    async fn told(&mut self) -> Option<Result<Told, Error>> {
        if self.ended {
            return None;
        }
        if self.broken.is_none() {
            match self.stream.next().await {
                Some(Ok(message)) => {
                    let path = self.stream.path;
                    let told = self
                        .stream
                        .codec
                        .decode::<proto::WatchDirResponse>(&message, path)
                        .map(read);
                    self.ended = told.is_err();
                    return Some(told);
                }
                Some(Err(broken)) => self.broken = Some(broken),
                None => self.broken = Some(Broken::Lost("the stream ended".into())),
            }
        }
        let id = &self.envd.id;
        let error = match self.broken.as_mut()? {
            Broken::Refused(code, message) => answer::of_code(*code, message.clone(), id),
            Broken::Lost(source) => Err(Error::Transport {
                what: format!("the connection to a watch in sandbox {id} broke"),
                source: std::mem::replace(source, "the stream is broken".into()),
            }),
            Broken::Malformed(text) => Ok(Error::Protocol(text.clone())),
        };
        let error = self.envd.settle(error).await;
        self.broken = None;
        self.ended = true;
        Some(Err(error))
    }
}

fn read(message: proto::WatchDirResponse) -> Told {
    use proto::watch_dir_response::Event;

    match message.event {
        Some(Event::Start(_)) => Told::Started,
        Some(Event::Filesystem(event)) => {
            let kind = match event.r#type.as_known() {
                Some(proto::EventType::EVENT_TYPE_CREATE) => WatchKind::Create,
                Some(proto::EventType::EVENT_TYPE_WRITE) => WatchKind::Write,
                Some(proto::EventType::EVENT_TYPE_REMOVE) => WatchKind::Remove,
                Some(proto::EventType::EVENT_TYPE_RENAME) => WatchKind::Rename,
                Some(proto::EventType::EVENT_TYPE_CHMOD) => WatchKind::Chmod,
                _ => return Told::Nothing,
            };
            Told::Event(WatchEvent { name: event.name, kind })
        }
        Some(Event::Keepalive(_)) | None => Told::Nothing,
    }
}
