//! Snapshots, forks, checkpoints and what differs between them.

use std::time::Duration;

use http::Method;
use sandhold_wire::{
    names,
    rest::{Checkpoint, ForkResult, ForkSandbox, NewCheckpoint, NewSnapshot, RollBack, SandboxChanges, SnapshotInfo},
};

use super::{Client, call::Call, seconds, segment};
use crate::{Error, Sandbox, answer::Refusal, files::pair};

/// Which snapshots to list.
#[derive(Debug, Clone, Default)]
pub struct SnapshotQuery {
    /// Only those taken of this sandbox.
    pub sandbox_id: Option<String>,
    /// At most this many; `None` is the server's page size.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// One page of snapshots.
#[derive(Debug, Clone)]
pub struct SnapshotPage {
    /// The page's snapshots, the newest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Where the next page starts; `None` at the end.
    pub next_cursor: Option<String>,
}

/// What a sandbox goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// A snapshot, by id or name.
    Snapshot(String),
    /// A checkpoint of the sandbox, by id.
    Checkpoint(String),
}

impl Client {
    /// Keeps the state of a sandbox, which goes on. E2B keeps its processes too, Sandhold its files.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended, [`Error::Unsupported`] where the engine cannot, [`Error::NoSpace`] when
    /// what is kept has reached its limit.
    pub async fn create_snapshot(&self, id: &str, name: Option<String>) -> Result<SnapshotInfo, Error> {
        let call = Call::new(Method::POST, of(id, "snapshots"), Some(id));
        Ok(self.read(call.json(&NewSnapshot { name, memory: None })?).await?.1)
    }

    /// One page of the snapshots.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a cursor or limit that is refused.
    pub async fn snapshots(&self, query: &SnapshotQuery) -> Result<SnapshotPage, Error> {
        let mut path = "/snapshots".to_owned();
        let mut asked = String::new();
        if let Some(id) = &query.sandbox_id {
            pair(&mut asked, "sandboxID", id);
        }
        if let Some(limit) = query.limit {
            pair(&mut asked, "limit", &limit.to_string());
        }
        if let Some(cursor) = &query.cursor {
            pair(&mut asked, "nextToken", cursor);
        }
        path.push_str(&asked);
        let (response, snapshots) = self.read(Call::new(Method::GET, path, None)).await?;
        let next = response.headers.get(names::NEXT_TOKEN_HEADER);
        let next = next
            .and_then(|token| token.to_str().ok())
            .filter(|token| !token.is_empty());
        Ok(SnapshotPage {
            snapshots,
            next_cursor: next.map(str::to_owned),
        })
    }

    /// Deletes a snapshot; sandboxes that were made of it live on. False if there was none.
    ///
    /// # Errors
    /// Those of the connection and of the server.
    pub async fn delete_snapshot(&self, snapshot: &str) -> Result<bool, Error> {
        match self
            .done(Call::new(
                Method::DELETE,
                format!("/templates/{}", segment(snapshot)),
                None,
            ))
            .await
        {
            Ok(()) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes sandboxes that go on from the state of another, which goes on, too. Each is there or says why it is not.
    ///
    /// # Errors
    /// As [`Client::create_snapshot`]; [`Error::Conflict`] while it is paused.
    pub async fn fork(&self, id: &str, timeout: Duration, count: u32) -> Result<Vec<Result<Sandbox, Error>>, Error> {
        let body = ForkSandbox {
            timeout: Some(seconds(timeout)),
            count: Some(count.into()),
        };
        let call = Call::new(Method::POST, of(id, "fork"), Some(id)).json(&body)?;
        let (_, forks) = self.read::<Vec<ForkResult>>(call).await?;
        let one = |fork: ForkResult| match (fork.sandbox, fork.error) {
            (Some(sandbox), _) => self.sandbox(sandbox),
            (None, Some(error)) => Err(Refusal::known(error.code, error.message).of_control_plane(None)),
            (None, None) => Err(Error::Protocol("a fork was answered with nothing".into())),
        };
        Ok(forks.into_iter().map(one).collect())
    }

    /// Makes the files of a sandbox those of an earlier state; its processes end. An addition of Sandhold.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a state that is not there, [`Error::SandboxNotFound`] when the sandbox has ended,
    /// [`Error::Unsupported`] where provider or engine cannot.
    pub async fn roll_back(&self, id: &str, back: Back) -> Result<(), Error> {
        let body = match back {
            Back::Snapshot(id) => RollBack {
                snapshot_id: Some(id),
                ..RollBack::default()
            },
            Back::Checkpoint(id) => RollBack {
                checkpoint_id: Some(id),
                ..RollBack::default()
            },
        };
        let call = Call::new(Method::POST, of(id, "rollback"), Some(id)).json(&body)?;
        let done = self.done(call).await;
        self.told(
            id,
            "roll a sandbox back; make another of a snapshot with create_sandbox",
            done,
        )
        .await
    }

    /// What differs between the files of a sandbox now and at `since`: a checkpoint, a snapshot, or where it is absent the
    /// sandbox as it was made. At most `limit` paths. An addition of Sandhold.
    ///
    /// # Errors
    /// As [`Client::roll_back`]; [`Error::Conflict`] if the sandbox does not stand on that state, or is paused.
    pub async fn changes(&self, id: &str, since: Option<&str>, limit: u32) -> Result<SandboxChanges, Error> {
        let mut query = String::new();
        if let Some(since) = since {
            pair(&mut query, "since", since);
        }
        pair(&mut query, "limit", &limit.to_string());
        let found = self
            .read(Call::new(Method::GET, of(id, "diff") + &query, Some(id)))
            .await;
        let found = found.map(|(_, changes)| changes);
        self.told(id, "tell what changed in a sandbox", found).await
    }

    /// Remembers the files of a sandbox as they are, for [`Client::roll_back`], as long as it lives. An addition of Sandhold.
    ///
    /// # Errors
    /// [`Error::SandboxNotFound`] when it has ended, [`Error::Unsupported`] where provider or engine cannot,
    /// [`Error::NoSpace`] when programs use its files and a copy does not fit.
    pub async fn checkpoint(&self, id: &str, label: Option<String>) -> Result<Checkpoint, Error> {
        let call = Call::new(Method::POST, of(id, "checkpoints"), Some(id)).json(&NewCheckpoint { label })?;
        let made = self.read(call).await.map(|(_, made)| made);
        self.told(id, "keep checkpoints", made).await
    }

    /// A server that does not know an addition of Sandhold answers as for a sandbox that is not there.
    async fn told<T>(&self, id: &str, what: &str, answer: Result<T, Error>) -> Result<T, Error> {
        match answer {
            Err(Error::SandboxNotFound { .. }) if self.inner.http.is_some() && self.info(id).await.is_ok() => {
                Err(Error::Unsupported(format!("this provider cannot {what}")))
            }
            answer => answer,
        }
    }
}

fn of(id: &str, what: &str) -> String {
    format!("/sandboxes/{}/{what}", segment(id))
}
