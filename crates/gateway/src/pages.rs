//! Refusals of the proxy as pages, for people who open a sandbox's port in a browser.

use std::sync::Arc;

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sandhold_wire::{names::PROXY_PORT_CLOSED, rest::ProxyError};

use crate::route::text;

/// Whether the client is a browser that shows pages: it asks for HTML, or is one and does not say what it wants.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = text(headers, header::ACCEPT.as_str()).unwrap_or("*/*");
    let agent = text(headers, header::USER_AGENT.as_str()).unwrap_or_default();
    accept.contains("text/html") || (accept.trim() == "*/*" && agent.starts_with("Mozilla/"))
}

/// Makes a page of a refusal of the proxy; every other answer stays as it is.
pub(crate) fn show(response: Response) -> Response {
    let Some(refusal) = response.extensions().get::<Arc<ProxyError>>().cloned() else {
        return response;
    };
    let status = response.status();
    let mut page = (status, Html(page(status, &refusal))).into_response();
    let headers = page.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept, user-agent"));
    page
}

fn page(status: StatusCode, refusal: &ProxyError) -> String {
    let id = escape(&refusal.sandbox_id);
    let message = escape(&refusal.message);
    let (title, advice) = match (status, refusal.port) {
        (StatusCode::FORBIDDEN, _) => (
            "Missing or wrong traffic access token".to_owned(),
            "This sandbox was made with allowPublicTraffic off: requests carry its token in a header.",
        ),
        (_, Some(port)) if refusal.message == PROXY_PORT_CLOSED => (
            format!("Nothing listens on port {port}"),
            "Start a server on this port inside the sandbox, then load this page again.",
        ),
        (StatusCode::UNAUTHORIZED, _) => (
            "This URL is not valid".to_owned(),
            "Its signature is missing or wrong. Ask for a new URL of the file.",
        ),
        (StatusCode::NOT_FOUND, _) => (
            "There is nothing under this address".to_owned(),
            "It serves the ports of sandboxes and signed URLs of their files.",
        ),
        (StatusCode::BAD_GATEWAY, None) => (
            "Sandbox not found".to_owned(),
            "It has ended, is paused, or never was. Connect to it again or make a new one.",
        ),
        _ => (
            "The sandbox cannot be reached".to_owned(),
            "Load this page again in a moment.",
        ),
    };
    let sandbox = match id.as_str() {
        "" => String::new(),
        id => format!("<p>Sandbox <code>{id}</code></p>\n"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title>\n<style>body{{font:16px/1.5 system-ui,sans-serif;\
         max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222;background:#fff}}code{{background:#eee;padding:.1em \
         .3em}}p.small{{color:#666;font-size:.85rem}}@media(prefers-color-scheme:dark){{body{{color:#ddd;\
         background:#181818}}code{{background:#333}}}}</style></head>\n<body><h1>{title}</h1>\n<p>{advice}</p>\n{sandbox}<p \
         class=\"small\">{code} · {message}</p></body></html>\n",
        code = refusal.code
    )
}

/// The id and the message may hold what the client sent.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(header::HeaderName, &'static str)]) -> bool {
        is_wanted(
            &pairs
                .iter()
                .map(|(n, v)| (n.clone(), HeaderValue::from_static(v)))
                .collect(),
        )
    }

    #[test]
    fn browsers_get_pages_and_programs_do_not() {
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert!(wanted(&[(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")]));
        assert!(wanted(&[(header::USER_AGENT, firefox)]));
        assert!(!wanted(&[]));
        assert!(!wanted(&[(header::USER_AGENT, "curl/8.0"), (header::ACCEPT, "*/*")]));
        assert!(!wanted(&[
            (header::USER_AGENT, firefox),
            (header::ACCEPT, "application/json")
        ]));
    }

    #[test]
    fn what_a_client_sends_is_text_in_the_page() {
        let refusal = ProxyError {
            sandbox_id: "<script>'&\"".into(),
            message: "<b>".into(),
            port: None,
            code: 502,
        };
        let page = page(StatusCode::BAD_GATEWAY, &refusal);
        assert!(page.contains("&lt;script&gt;&#39;&amp;&quot;") && page.contains("&lt;b&gt;"));
        assert!(!page.contains("<script>") && !page.contains("<b>"));
    }
}
