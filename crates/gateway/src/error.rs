use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use sandhold_runtime::RuntimeError;
use sandhold_wire::{names, rest::ApiError};

/// A refusal of the control plane: a status and E2B's error body.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    error_code: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            error_code: None,
        }
    }

    /// Says to a program what it is about.
    pub(crate) fn code(self, code: &'static str) -> Self {
        Self {
            error_code: Some(code),
            ..self
        }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// As it is sent.
    pub(crate) fn into_error(self) -> ApiError {
        ApiError {
            code: self.status.as_u16(),
            message: self.message,
            error_code: self.error_code.map(str::to_owned),
        }
    }

    /// The status that it answers with.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The sandbox is not there. `ended` says what became of it, where that is known.
    pub(crate) fn no_sandbox(id: &str, ended: Option<&str>) -> Self {
        let mut message = names::sandbox_not_found(id);
        if let Some(reason) = ended {
            message.push_str(": it has ended, ");
            message.push_str(reason);
        }
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.into_error())).into_response()
    }
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Self {
        let status = match &error {
            RuntimeError::Ended(_) | RuntimeError::UnknownLayer(_) => StatusCode::NOT_FOUND,
            RuntimeError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            RuntimeError::InvalidSpec(_) => StatusCode::BAD_REQUEST,
            RuntimeError::Exhausted(_) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}

impl From<getrandom::Error> for Refusal {
    fn from(error: getrandom::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no random bytes: {error}"))
    }
}

/// The message of an error and of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        text.push_str(": ");
        text.push_str(&c.to_string());
        cause = c.source();
    }
    text
}

/// The registry or the keys could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Its folder cannot be made.
    #[error("cannot make the folder {path}")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its file cannot be made its owner's alone.
    #[error("cannot keep {path} to its owner")]
    Private {
        /// The file or folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot use the database {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Its thread did not start.
    #[error("cannot start the registry's thread")]
    Thread(#[source] std::io::Error),
    /// The system gives no random bytes.
    #[error("no random bytes")]
    Random(#[source] getrandom::Error),
}
