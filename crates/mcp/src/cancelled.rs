//! Why a request was cancelled. A client that only stopped waiting says so, by the protocol, with the same notification as
//! one whose user changed their mind; its reason tells the two apart.

use std::{collections::VecDeque, sync::Mutex};

use rmcp::model::{Extensions, RequestId};

use crate::{http::Principal, http::sse::SessionEnd, limits, lock};

/// Names a request among those of all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    principal: Principal,
    session: Option<String>,
    id: RequestId,
}

impl Asked {
    /// The request `id` of the session that a message with these extensions is of.
    pub(crate) fn of(extensions: &Extensions, id: RequestId) -> Self {
        let parts = extensions.get::<http::request::Parts>();
        let header = parts.and_then(|p| p.headers.get("mcp-session-id")?.to_str().ok());
        let session = parts
            .and_then(|p| p.extensions.get::<SessionEnd>())
            .map(|end| end.session.as_str());
        Self {
            principal: parts.and_then(|p| p.extensions.get().cloned()).unwrap_or_default(),
            session: header.or(session).map(str::to_owned),
            id,
        }
    }
}

/// The newest reasons.
#[derive(Default)]
pub(crate) struct Reasons(Mutex<VecDeque<(Asked, bool)>>);

impl Reasons {
    /// Notes why a request was cancelled.
    pub(crate) fn note(&self, asked: Asked, reason: Option<&str>) {
        let mut reasons = lock(&self.0);
        reasons.push_back((asked, is_timeout(reason)));
        if reasons.len() > limits::CANCEL_REASONS {
            reasons.pop_front();
        }
    }

    /// Whether the client only stopped waiting. The reason comes right behind the cancelling, if at all.
    pub(crate) async fn timed_out(&self, asked: &Asked) -> bool {
        for _ in 0..limits::CANCEL_LOOKS {
            if let Some(timed_out) = self.take(asked) {
                return timed_out;
            }
            tokio::time::sleep(limits::CANCEL_PAUSE).await;
        }
        false
    }

    fn take(&self, asked: &Asked) -> Option<bool> {
        let mut reasons = lock(&self.0);
        let at = reasons.iter().position(|(known, _)| known == asked)?;
        reasons.remove(at).map(|(_, timed_out)| timed_out)
    }
}

/// What the SDKs write: `Request timed out`, `request timeout`, `McpError: MCP error -32001: Request timed out`.
fn is_timeout(reason: Option<&str>) -> bool {
    let reason = reason.unwrap_or_default().to_ascii_lowercase();
    ["timed out", "timeout", "time out"]
        .iter()
        .any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_clients() {
        for reason in [
            "McpError: MCP error -32001: Request timed out",
            "request timeout",
            "Timed out",
        ] {
            assert!(is_timeout(Some(reason)), "{reason}");
        }
        for reason in [
            None,
            Some(""),
            Some("User requested cancellation"),
            Some("AbortError: This operation was aborted"),
        ] {
            assert!(!is_timeout(reason), "{reason:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_of_its_request() {
        let reasons = Reasons::default();
        let asked = |id: i64| Asked::of(&Extensions::default(), RequestId::Number(id));
        reasons.note(asked(1), Some("Request timed out"));
        assert!(!reasons.timed_out(&asked(2)).await);
        assert!(reasons.timed_out(&asked(1)).await);
        assert!(!reasons.timed_out(&asked(1)).await, "it is told once");
    }
}
