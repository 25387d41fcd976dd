//! What registries answer, and errors out of it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::{Response, header};
use serde::Deserialize;

use crate::{ImageError, limits};

/// Reads the body of an answer, which may have `most` bytes.
pub(super) async fn read(mut response: Response, most: u64, what: &str, registry: &str) -> Result<Bytes, ImageError> {
    let large = |bytes| ImageError::TooLarge {
        what: what.to_owned(),
        bytes,
        limit: most,
    };
    if let Some(bytes) = response.content_length().filter(|bytes| *bytes > most) {
        return Err(large(bytes));
    }
    let mut all = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| network(error, registry))? {
        let bytes = (all.len() + chunk.len()) as u64;
        if bytes > most {
            return Err(large(bytes));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}

/// What a registry's error says, cut and without control characters.
pub(super) async fn told(mut response: Response) -> String {
    let mut all = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > limits::ANSWER_BYTES {
            break;
        }
    }
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(&all) {
        Ok(errors) => errors
            .errors
            .iter()
            .map(|one| {
                if one.message.is_empty() {
                    &*one.code
                } else {
                    &*one.message
                }
            })
            .collect::<Vec<_>>()
            .join("; "),
        Err(_) => String::new(),
    };
    text.chars()
        .filter(|c| !c.is_control())
        .take(limits::TOLD_CHARS)
        .collect()
}

/// How long a registry wants not to be asked.
pub(super) fn wait(response: &Response) -> Option<Duration> {
    let said = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(said).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// An error of the network as one of ours. The URL is left out: after a redirection it may hold a secret.
pub(super) fn network(error: reqwest::Error, registry: &str) -> ImageError {
    let error = error.without_url();
    let registry = registry.to_owned();
    if is_tls(&error) {
        return ImageError::Tls {
            registry,
            source: error.into(),
        };
    }
    ImageError::Unreachable {
        registry,
        source: error.into(),
    }
}

fn is_tls(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        // An error of I/O hides the one that it was made from: its source is that one's source.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn std::error::Error + 'static));
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
