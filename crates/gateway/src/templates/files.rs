//! The calls that bring files of build steps here.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Request, State},
};
use http::{HeaderMap, StatusCode, Uri, header};
use sandhold_wire::templates::TemplateFileUpload;

use super::{rows, uploads::check_hash};
use crate::{error::Refusal, owner::Owner, query::pairs, sandboxes::Sandboxes};

/// `GET /templates/{id}/files/{hash}`: whether files are there, and where they are brought to.
pub(crate) async fn link(
    State(sandboxes): State<Arc<Sandboxes>>,
    Extension(owner): Extension<Owner>,
    Path((template, hash)): Path<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<TemplateFileUpload>), Refusal> {
    check_hash(&hash)?;
    let templates = &sandboxes.templates;
    let template = templates.db.read(move |db| rows::own(db, owner, &template)).await?;
    let (end, signature) = templates.uploads.ticket(owner, &template.id, &hash);
    let number = owner.number().unwrap_or(0);
    let path = format!(
        "/templates/{}/files/{hash}/upload?owner={number}&expires={end}&signature={}",
        template.id,
        percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC)
    );
    let upload = TemplateFileUpload {
        present: templates.uploads.present(owner, &hash),
        url: Some(format!(
            "{}{path}",
            base(request.uri(), request.headers(), sandboxes.config.templates.https)
        )),
        headers: None,
    };
    Ok((StatusCode::CREATED, Json(upload)))
}

/// How the caller reaches this server: as it did just now. Empty for callers in this process.
fn base(uri: &Uri, headers: &HeaderMap, https: bool) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let Some(host) = host else { return String::new() };
    // Set by a proxy that ends the TLS of this server.
    let proxied = headers.get("x-forwarded-proto").and_then(|scheme| scheme.to_str().ok());
    let https = match proxied {
        Some(scheme) => scheme.trim().eq_ignore_ascii_case("https"),
        None => https,
    };
    format!("{}://{host}", if https { "https" } else { "http" })
}

/// `PUT` of what [`link`] gave; its bearer needs no key.
pub(crate) async fn put(
    State(sandboxes): State<Arc<Sandboxes>>,
    Path((template, hash)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    check_hash(&hash)?;
    let (mut owner, mut end, mut signature) = (None, None, String::new());
    for (name, value) in pairs(request.uri().query().unwrap_or_default()) {
        match name.as_str() {
            "owner" => owner = value.parse::<i64>().ok(),
            "expires" => end = value.parse::<i64>().ok(),
            "signature" => signature = value,
            _ => {}
        }
    }
    let owner = match owner {
        Some(0) | None => Owner::LOCAL,
        Some(number) => Owner::key(number),
    };
    let uploads = &sandboxes.templates.uploads;
    if !uploads.admits(owner, &template, &hash, end.unwrap_or_default(), &signature) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "this URL is not one of this server's, or has expired: ask for another one",
        ));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    // In a task of its own: what a client that goes away left is removed.
    let body: Body = request.into_body();
    let task = tokio::spawn(async move { sandboxes.templates.uploads.take(owner, &hash, length, body).await });
    task.await
        .unwrap_or_else(|_| Err(Refusal::internal("taking the files broke off")))?;
    Ok(StatusCode::CREATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_back_to_where_the_caller_came_from() {
        let of = |pairs: &[(&str, &str)], uri: &str, https| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()));
            base(&uri.parse().unwrap(), &headers.collect(), https)
        };
        assert_eq!(of(&[("host", "127.0.0.1:3000")], "/x", false), "http://127.0.0.1:3000");
        assert_eq!(of(&[("host", "api.me")], "/x", true), "https://api.me");
        assert_eq!(of(&[], "https://api.me:1/x", true), "https://api.me:1");
        assert_eq!(
            of(&[("host", "a"), ("x-forwarded-proto", "https")], "/x", false),
            "https://a"
        );
        assert_eq!(of(&[], "/x", false), "");
    }
}
