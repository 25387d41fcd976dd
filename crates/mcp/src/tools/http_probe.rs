//! `http_probe`

use std::{fmt::Write as _, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use sandhold_client::{FailureKind, HttpRequest, ProbeAnswer, ProbeFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    answer::{Reply, ToolError},
    args::Pair,
    budget,
    call::{Call, Target},
    limits,
    registry::{Hints, Spec, Tool, Toolset},
};

pub(super) struct HttpProbe;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// If not the default
    sandbox_id: Option<String>,
    /// Or port and path
    url: Option<String>,
    port: Option<u64>,
    /// Default: /
    path: Option<String>,
    /// Default: GET
    method: Option<String>,
    headers: Option<Vec<Pair>>,
    body: Option<String>,
    /// Default 10, at most 40
    timeout_s: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Output {
    status: u16,
    headers: Vec<Pair>,
    body: String,
    /// base64 where the body is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    truncated: bool,
    timings: Timings,
}

/// Milliseconds from the start.
#[derive(Serialize, JsonSchema)]
pub(super) struct Timings {
    connect_ms: f64,
    first_byte_ms: f64,
    total_ms: f64,
}

impl Tool for HttpProbe {
    type Params = Params;
    type Output = Output;
    const SPEC: Spec = Spec {
        name: "http_probe",
        title: "Ask a server",
        description: "Make an HTTP request from inside the sandbox. Follows no redirect.",
        toolset: Toolset::Services,
        hints: Hints::RUNS,
        limited: true,
    };

    async fn run(call: Call, p: Params) -> Result<Reply<Output>, ToolError> {
        let place = place(p.url, p.port, p.path)?;
        let method = p.method.unwrap_or_else(|| "GET".into()).to_ascii_uppercase();
        if method.is_empty()
            || method.len() > 20
            || !method.bytes().all(|b| b.is_ascii_uppercase())
            || method == "CONNECT"
        {
            let shown = budget::line(&method, 40);
            return Err(ToolError::invalid(format!(
                "method is {shown:?}; GET, HEAD, POST, PUT, PATCH, DELETE and the like are allowed"
            )));
        }
        let headers = p.headers.unwrap_or_default();
        limits::headers(&headers)?;
        let body = p.body.unwrap_or_default();
        limits::at_most("body", body.len(), limits::PROBE_BODY)?;
        let timeout = match p.timeout_s {
            Some(seconds) => Duration::from_secs(limits::between("timeout_s", seconds, 1, limits::PROBE_TIMEOUT_S)?),
            None => limits::DEFAULT_PROBE_TIMEOUT,
        };
        let target = call.target(p.sandbox_id.as_deref()).await?;
        let request = HttpRequest {
            method: method.clone(),
            url: place.url_in(&target),
            headers: headers.into_iter().map(|pair| (pair.name, pair.value)).collect(),
            body: STANDARD.encode(body),
            timeout,
            max_body: budget::ANSWER,
        };
        let outcome = target.services().http(&request).await.map_err(|e| target.error(&e))?;
        match outcome {
            Ok(answer) => Ok(reply(&method, &request.url, answer).within(target.id())),
            Err(failure) => Err(explain(&request.url, failure).within(target.id())),
        }
    }
}

enum Place {
    Url(String),
    Port(u16, String),
}

fn place(url: Option<String>, port: Option<u64>, path: Option<String>) -> Result<Place, ToolError> {
    match (url, port) {
        (Some(_), Some(_)) => {
            Err(ToolError::invalid("url and port were both given; one of them says where").hint("Leave one out."))
        }
        (None, None) => {
            Err(ToolError::invalid("neither url nor port was given").hint("Give port, and path if it is not /."))
        }
        (None, Some(port)) => {
            let path = path.unwrap_or_else(|| "/".into());
            limits::url_path("path", &path)?;
            Ok(Place::Port(limits::port(port)?, path))
        }
        (Some(_), None) if path.is_some() => {
            Err(ToolError::invalid("path goes with port; with url it is a part of that"))
        }
        (Some(url), None) => {
            limits::at_most("url", url.len(), limits::URL)?;
            let known = url.starts_with("http://") || url.starts_with("https://");
            if known && url.bytes().all(|b| b.is_ascii_graphic()) {
                return Ok(Place::Url(url));
            }
            let shown = budget::line(&url, 80);
            Err(ToolError::invalid(format!(
                "url is {shown:?}; it must be http://… or https://…, with no space and nothing beyond ASCII"
            )))
        }
    }
}

impl Place {
    /// The URL as it is reached from inside: there the sandbox's own public URL is a port of the loopback.
    fn url_in(&self, target: &Target) -> String {
        match self {
            Self::Port(port, path) => format!("http://localhost:{port}{path}"),
            Self::Url(url) => {
                let port = own_port(url);
                let own = port.and_then(|port| Some((port, url.strip_prefix(&target.handle.sandbox.url(port)?)?)));
                match own {
                    Some((port, rest)) if rest.is_empty() || rest.starts_with(['/', '?']) => {
                        format!("http://localhost:{port}{rest}")
                    }
                    _ => url.clone(),
                }
            }
        }
    }
}

/// The port in `http://<port>-<id>.…`.
fn own_port(url: &str) -> Option<u16> {
    url.split_once("://")?.1.split_once('-')?.0.parse().ok()
}

fn reply(method: &str, url: &str, answer: ProbeAnswer) -> Reply<Output> {
    let bytes = STANDARD.decode(&answer.body).unwrap_or_default();
    let headers: Vec<Pair> = answer
        .headers
        .into_iter()
        .map(|(name, value)| Pair {
            name,
            value: budget::line(&value, budget::LINE),
        })
        .collect();
    let (headers, _) = budget::rows(headers);
    let kind = headers
        .iter()
        .find(|h| h.name == "content-type")
        .map_or("", |h| h.value.as_str())
        .to_owned();
    let mut note = String::new();
    let mut truncated = answer.truncated;
    // The cut may go through a character.
    let whole = if truncated {
        budget::whole_chars(&bytes)
    } else {
        bytes.len()
    };
    let (body, encoding) = match std::str::from_utf8(&bytes[..whole]) {
        Ok(text) if !text.contains('\0') => (text.to_owned(), None),
        _ => {
            let more = if truncated { " and more" } else { "" };
            note = format!("[the body is no text: {} bytes{more} of {kind}]", bytes.len());
            if bytes.len() > limits::PROBE_BASE64 {
                truncated = true;
                note.push_str(" Save it with run_command to look into it.");
                (String::new(), Some("base64"))
            } else {
                (STANDARD.encode(&bytes), Some("base64"))
            }
        }
    };
    let mut text = format!(
        "{method} {url}: HTTP {} after {:.1} ms\n",
        answer.status, answer.total_ms
    );
    for Pair { name, value } in &headers {
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = match (&encoding, note.as_str()) {
        (None, _) if !body.is_empty() => writeln!(text, "\n{body}"),
        (None, _) => Ok(()),
        (Some(_), note) => writeln!(text, "\n{note}"),
    };
    if truncated && encoding.is_none() {
        let _ = writeln!(text, "[the body is longer: {} bytes are shown]", body.len());
    }
    let output = Output {
        status: answer.status,
        headers,
        body,
        encoding,
        truncated,
        timings: Timings {
            connect_ms: answer.connect_ms,
            first_byte_ms: answer.first_byte_ms,
            total_ms: answer.total_ms,
        },
    };
    Reply::new(output, text.trim_end())
}

fn explain(url: &str, failure: ProbeFailure) -> ToolError {
    let (code, hint) = match failure.kind {
        FailureKind::Invalid => ("invalid_argument", "Mend the request and call it again."),
        FailureKind::Unable => (
            "unsupported",
            "Use http:// and an address or localhost, or install curl or python3.",
        ),
        FailureKind::Name => (
            "name_not_found",
            "Check the name; the sandbox may have no network: see sandbox_info.",
        ),
        FailureKind::Refused => (
            "connection_refused",
            "Start the server with start_service; service_diagnostics shows what listens.",
        ),
        FailureKind::Timeout => (
            "timeout",
            "Give a longer timeout_s, or see what the server prints with get_job_status.",
        ),
        FailureKind::Connection => ("connection_failed", "See what the server prints with get_job_status."),
    };
    let url = budget::line(url, budget::COMMAND);
    ToolError::new(code, format!("{url}: {}", budget::line(&failure.message, budget::LINE))).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &[u8], truncated: bool) -> ProbeAnswer {
        ProbeAnswer {
            status: 200,
            headers: vec![("content-type".into(), "image/png".into())],
            body: STANDARD.encode(body),
            truncated,
            ..ProbeAnswer::default()
        }
    }

    fn shown(answer: ProbeAnswer) -> serde_json::Value {
        let result = crate::answer::finish(Ok(reply("GET", "http://localhost/", answer)), true);
        result.structured_content.unwrap()
    }

    #[test]
    fn bodies() {
        let text = shown(answer("grüße".as_bytes(), false));
        assert_eq!((text["body"].as_str(), text.get("encoding")), (Some("grüße"), None));
        let cut = shown(answer(&"aü".as_bytes()[..2], true));
        assert_eq!(
            (cut["body"].as_str(), cut["truncated"].as_bool()),
            (Some("a"), Some(true))
        );
        let binary = shown(answer(b"\x89PNG\0", false));
        assert_eq!(binary["encoding"], "base64");
        assert_eq!(STANDARD.decode(binary["body"].as_str().unwrap()).unwrap(), b"\x89PNG\0");
        let long = shown(answer(&[0; limits::PROBE_BASE64 + 1], false));
        assert_eq!(
            (long["body"].as_str(), long["truncated"].as_bool()),
            (Some(""), Some(true))
        );
    }

    #[test]
    fn places() {
        let said = |url: Option<&str>, port, path: Option<&str>| {
            place(url.map(Into::into), port, path.map(Into::into))
                .map(drop)
                .unwrap_err()
                .message
        };
        assert!(said(None, None, None).contains("neither"));
        assert!(said(Some("http://a/"), Some(1), None).contains("both"));
        assert!(said(Some("http://a/"), None, Some("/x")).contains("path goes with port"));
        assert!(said(Some("file:///etc/passwd"), None, None).contains("http://"));
        assert!(said(None, Some(0), None).contains("1 to 65535"));
        assert_eq!(own_port("http://8000-abc.sandhold.localhost:1/x"), Some(8000));
        assert_eq!(own_port("http://localhost:1/x-y"), None);
    }
}
