//! What refusals mean.
//!
//! A refusal is E2B's JSON (`{"code": 404, "message": …}`), Connect's JSON (`{"code": "not_found", "message": …}`), the
//! proxy's (`{"sandboxId": …, "message": …, "code": 502}`), or the page of something in between that knows none of them.

use connectrpc::ErrorCode;
use sandhold_wire::{
    names,
    rest::{CHECKPOINT_NOT_FOUND, SNAPSHOT_NOT_FOUND},
};
use serde_json::Value;

use crate::{
    Error, limits,
    transport::{Body, read_all},
};

/// An answer that is not a success, read to its end.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status, or the one that the body names.
    pub(crate) status: u16,
    /// The code of a Connect error.
    pub(crate) code: Option<ErrorCode>,
    /// Whether the body was an error that this protocol's servers write.
    pub(crate) understood: bool,
    /// What a person reads.
    pub(crate) message: String,
    /// Whether it is about a snapshot or checkpoint that is not there, not about the sandbox.
    pub(crate) about_state: bool,
}

impl Refusal {
    /// Reads a refusal; what cannot be read leaves the status alone.
    pub(crate) async fn read(response: http::Response<Body>) -> Self {
        let status = response.status();
        let body = read_all(response.into_body(), limits::ERROR_BODY);
        let bytes = match tokio::time::timeout(limits::HEALTH_TIMEOUT, body).await {
            Ok(Ok(bytes)) => bytes,
            _ => bytes::Bytes::new(),
        };
        Self::parse(status.as_u16(), &bytes)
    }

    /// Understands the body of a refusal.
    pub(crate) fn parse(status: u16, body: &[u8]) -> Self {
        let nothing = || format!("the server answered with status {status} and said no more");
        if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
            let code = fields.get("code");
            let message = fields
                .get("message")
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty());
            let number = code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            let word = fields.get("error_code").and_then(Value::as_str);
            return Self {
                about_state: word.is_some_and(|word| [SNAPSHOT_NOT_FOUND, CHECKPOINT_NOT_FOUND].contains(&word)),
                status: number.filter(|code| (400..600).contains(code)).unwrap_or(status),
                code: code.and_then(Value::as_str).and_then(|code| code.parse().ok()),
                understood: code.is_some() || message.is_some(),
                message: message.map_or_else(nothing, str::to_owned),
            };
        }
        let text = std::str::from_utf8(body).unwrap_or_default().trim();
        let readable = !text.is_empty() && text.len() <= limits::ERROR_TEXT && !text.starts_with('<');
        let message = if readable {
            format!("status {status}: {text}")
        } else {
            nothing()
        };
        Self {
            status,
            code: None,
            understood: false,
            message,
            about_state: false,
        }
    }

    /// One that came inside of an answer.
    pub(crate) fn known(status: u16, message: String) -> Self {
        Self {
            status,
            code: None,
            understood: true,
            message,
            about_state: false,
        }
    }

    /// Whether the server does not know the endpoint, as opposed to the object that it is about.
    pub(crate) fn endpoint_is_missing(&self) -> bool {
        matches!(self.status, 404 | 405) && !self.understood
    }

    /// What a refusal of the control plane means; `id` is the sandbox it is about.
    pub(crate) fn of_control_plane(self, id: Option<&str>) -> Error {
        let Self {
            status,
            message,
            about_state,
            ..
        } = self;
        match (status, id.filter(|_| !about_state)) {
            (400 | 422, _) => Error::InvalidArgument(message),
            (401, _) => Error::Unauthenticated(message),
            (404, Some(id)) => Error::SandboxNotFound {
                id: id.to_owned(),
                message,
            },
            (404, None) => Error::NotFound(message),
            (408 | 504, _) => Error::Timeout(message),
            (409, _) => Error::Conflict(message),
            (429, _) => Error::RateLimited(message),
            (501, _) => Error::Unsupported(message),
            (507, _) => Error::NoSpace(message),
            _ => Error::Server { status, message },
        }
    }

    /// What a refusal of envd's HTTP endpoints means. `Err` holds one that says neither that the sandbox is gone nor that it
    /// runs.
    pub(crate) fn of_http(self, id: &str) -> Result<Error, Error> {
        let Self { status, message, .. } = self;
        Ok(match status {
            400 | 413 | 416 => Error::InvalidArgument(message),
            401 => Error::Unauthenticated(message),
            404 => Error::NotFound(message),
            408 | 504 => Error::Timeout(message),
            409 => Error::AlreadyExists(message),
            429 => Error::RateLimited(message),
            501 => Error::Unsupported(message),
            502 | 503 => return unavailable(id, status, message),
            507 => Error::NoSpace(message),
            _ => Error::Server { status, message },
        })
    }

    /// What a refusal of an RPC means; `Err` as above.
    pub(crate) fn of_rpc(self, id: &str) -> Result<Error, Error> {
        let code = self.code.unwrap_or(match self.status {
            400 => ErrorCode::InvalidArgument,
            401 => ErrorCode::Unauthenticated,
            403 => ErrorCode::PermissionDenied,
            404 => ErrorCode::NotFound,
            409 => ErrorCode::AlreadyExists,
            413 | 429 => ErrorCode::ResourceExhausted,
            499 => ErrorCode::Canceled,
            501 | 505 => ErrorCode::Unimplemented,
            502 | 503 => ErrorCode::Unavailable,
            504 => ErrorCode::DeadlineExceeded,
            _ => {
                return Ok(Error::Server {
                    status: self.status,
                    message: self.message,
                });
            }
        });
        of_code(code, self.message, id)
    }
}

/// What a Connect error means. `Err` holds one that says neither that the sandbox is gone nor that it runs.
pub(crate) fn of_code(code: ErrorCode, message: String, id: &str) -> Result<Error, Error> {
    Ok(match code {
        ErrorCode::ResourceExhausted | ErrorCode::Internal | ErrorCode::Unknown if disk_is_full(&message) => {
            Error::NoSpace(message)
        }
        ErrorCode::InvalidArgument | ErrorCode::OutOfRange => Error::InvalidArgument(message),
        ErrorCode::Unauthenticated => Error::Unauthenticated(message),
        ErrorCode::NotFound => Error::NotFound(message),
        ErrorCode::AlreadyExists => Error::AlreadyExists(message),
        ErrorCode::ResourceExhausted => Error::RateLimited(message),
        ErrorCode::DeadlineExceeded | ErrorCode::Canceled => Error::Timeout(message),
        ErrorCode::Aborted | ErrorCode::FailedPrecondition => Error::Conflict(message),
        ErrorCode::Unimplemented => Error::Unsupported(message),
        ErrorCode::Unavailable => return unavailable(id, 502, message),
        _ => Error::Server {
            status: code.http_status().as_u16(),
            message,
        },
    })
}

/// Whether the text is that of `ENOSPC`.
pub(crate) fn disk_is_full(message: &str) -> bool {
    message.to_ascii_lowercase().contains("no space left on device")
}

/// Sorts what a proxy in front of the sandbox says.
fn unavailable(id: &str, status: u16, message: String) -> Result<Error, Error> {
    if message.contains("was not found") {
        // The bare text says nothing that the error does not; a longer one says what to do.
        let message = match message.as_str() {
            names::PROXY_NOT_FOUND => format!("sandbox {id} does not run: it has ended or never was"),
            _ => format!("sandbox {id}: {message}"),
        };
        return Ok(Error::SandboxNotFound {
            id: id.to_owned(),
            message,
        });
    }
    let known = message.contains("port is not open");
    let error = Error::Server { status, message };
    if known { Ok(error) } else { Err(error) }
}
