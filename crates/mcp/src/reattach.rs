//! Getting back to a process or a watch whose connection broke.

use std::{future::Future, time::Duration};

use sandhold_client::Error;

/// Waits before the tries.
const WAITS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
];

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The sandbox does not run; what was said of it.
    Sandbox(String),
    /// What it was about is not there any more.
    Object,
    /// No try worked; why the last one did not.
    Unreachable(String),
}

/// Tries `attach` some times after `error`, which broke the connection.
pub(crate) async fn reattach<T, F>(error: Option<Error>, mut attach: impl FnMut() -> F) -> Result<T, Gone>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut last = match error {
        Some(Error::SandboxNotFound { message, .. }) => return Err(Gone::Sandbox(message)),
        Some(error) => error.to_string(),
        None => "the connection ended".into(),
    };
    for wait in WAITS {
        tokio::time::sleep(wait).await;
        match attach().await {
            Ok(attached) => return Ok(attached),
            Err(Error::SandboxNotFound { message, .. }) => return Err(Gone::Sandbox(message)),
            Err(Error::NotFound(_)) => return Err(Gone::Object),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Gone::Unreachable(last))
}
