//! Sandboxes that outlive their server: they pause where they would end, and the default one is found again.

use std::path::Path;

use sandhold_client::{CreateOptions, ListQuery, State};
use sha2::{Digest, Sha256};

use crate::{limits, tenant::Tenant};

/// The pair of metadata that a default sandbox is found by.
pub(crate) const DEFAULT_OF: &str = "sandhold.default";

/// Whether sandboxes outlive the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Whether sandboxes whose lifetime nobody set are paused when it is over, and go on when they are used.
    pub pause: bool,
    /// What the caller's default sandbox is marked with, so that the next server of the same caller finds it; `None`: it is
    /// not looked for. At most 64 letters and digits.
    pub default_mark: Option<String>,
}

impl Keeping {
    /// Everything is kept; the default sandbox is that of callers who start their server in `folder`, as clients do in the
    /// folder of a project. The mark does not tell which it is.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let hash = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let mark = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            pause: true,
            default_mark: Some(mark),
        }
    }
}

/// A default sandbox of an earlier server.
pub(crate) enum Found {
    /// There is none.
    Nothing,
    /// It was resumed; what to say of it.
    Back(sandhold_client::Sandbox, String),
    /// It is there and could not be resumed; what to say of it.
    Lost(String),
}

impl Tenant {
    /// What a default sandbox is made with.
    pub(crate) fn default_options(&self) -> CreateOptions {
        let mark = self.keeping.default_mark.iter();
        CreateOptions {
            timeout: Some(limits::SANDBOX_LIFETIME),
            pause_at_timeout: self.keeping.pause,
            metadata: mark.map(|mark| (DEFAULT_OF.to_owned(), mark.clone())).collect(),
            ..CreateOptions::default()
        }
    }

    /// Looks for the default sandbox that an earlier server of this caller left paused, and resumes it.
    pub(crate) async fn find_default(&self) -> Found {
        let Some(mark) = &self.keeping.default_mark else {
            return Found::Nothing;
        };
        let query = ListQuery {
            states: vec![State::Paused],
            metadata: [(DEFAULT_OF.to_owned(), mark.clone())].into(),
            limit: Some(1),
            cursor: None,
        };
        let id = match self.client().list(query).await {
            Ok(page) => match page.sandboxes.into_iter().next() {
                Some(newest) => newest.sandbox_id,
                None => return Found::Nothing,
            },
            Err(error) => return Found::Lost(format!("your default sandbox of before was not looked for: {error}")),
        };
        match self.client().connect(&id, Some(limits::SANDBOX_LIFETIME)).await {
            Ok(sandbox) => {
                let text = format!(
                    "sandbox {id}, your default one of before, is back with its files; processes that ran did not come back"
                );
                Found::Back(sandbox, text)
            }
            Err(error) => Found::Lost(format!(
                "your default sandbox of before, {id}, could not be brought back, this is a new one: {error}"
            )),
        }
    }
}
