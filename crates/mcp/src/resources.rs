//! The resources: the manual, the caller's sandboxes, and files in them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rmcp::{ErrorData, model::*};
use sandhold_client::{Error, ReadOptions};
use serde_json::json;

use crate::{errors, export, guide, limits, registry::Entry, server::Provider, tenant::Tenant};

const HELP_URI: &str = "sandhold://help";
const TOOLS_URI: &str = "sandhold://tools";
const SANDBOX_URI: &str = "sandhold://sandbox/";
/// Between the id of a sandbox and the path of a file in it.
const FILE: &str = "/file/";
/// What stands for itself in the path of a URI.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// `sandhold://sandbox/<id>/file/<path>` of an absolute path.
pub(crate) fn file_uri(sandbox_id: &str, path: &str) -> String {
    let path = utf8_percent_encode(path.trim_start_matches('/'), PATH);
    format!("{SANDBOX_URI}{sandbox_id}{FILE}{path}")
}

/// The resources of a caller with these sandboxes.
pub(crate) fn list(sandboxes: &[String]) -> Vec<Resource> {
    let help = Resource::new(HELP_URI, "help")
        .with_title("How to use Sandhold")
        .with_description("All tools, what their answers have in common, and their limits")
        .with_mime_type("text/markdown");
    let tools = Resource::new(TOOLS_URI, "tools")
        .with_title("The tools")
        .with_description("The tools that are offered, with the whole schemas of their answers")
        .with_mime_type("application/json");
    let sandbox = |id: &String| {
        Resource::new(format!("{SANDBOX_URI}{id}"), id)
            .with_description("State and resources of this sandbox")
            .with_mime_type("application/json")
    };
    [help, tools].into_iter().chain(sandboxes.iter().map(sandbox)).collect()
}

/// How URIs are made.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(format!("{SANDBOX_URI}{{id}}"), "sandbox")
            .with_title("A sandbox")
            .with_description("State and resources of a sandbox")
            .with_mime_type("application/json"),
        ResourceTemplate::new(format!("{SANDBOX_URI}{{id}}{FILE}{{+path}}"), "file")
            .with_title("A file in a sandbox")
            .with_description(format!(
                "A file by its absolute path, at most {} MiB",
                limits::RESOURCE >> 20
            )),
    ]
}

/// What a URI names.
enum Named<'a> {
    Help,
    Tools,
    Sandbox(&'a str),
    /// With an absolute path.
    File(&'a str, String),
}

fn named(uri: &str) -> Option<Named<'_>> {
    if uri == HELP_URI {
        return Some(Named::Help);
    }
    if uri == TOOLS_URI {
        return Some(Named::Tools);
    }
    let rest = uri.strip_prefix(SANDBOX_URI)?;
    let (id, path) = match rest.split_once(FILE) {
        Some((id, path)) => (id, Some(path)),
        None => (rest, None),
    };
    errors::sandbox_id(id).ok()?;
    let Some(path) = path else {
        return Some(Named::Sandbox(id));
    };
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let path = format!("/{}", path.trim_start_matches('/'));
    limits::path("path", &path).ok()?;
    Some(Named::File(id, path))
}

/// Reads a resource.
pub(crate) async fn read<'a>(
    uri: &str,
    entries: impl Iterator<Item = &'a Entry> + Clone,
    provider: &Provider,
    tenant: &Tenant,
) -> Result<ReadResourceResult, ErrorData> {
    let missing = || ErrorData::resource_not_found(format!("there is no resource {uri}"), Some(json!({ "uri": uri })));
    let failed = |error: &Error| match error {
        Error::SandboxNotFound { .. } | Error::NotFound(_) => missing(),
        error => ErrorData::internal_error(errors::explain(error).message, Some(json!({ "uri": uri }))),
    };
    let contents = match named(uri).ok_or_else(missing)? {
        Named::Help => ResourceContents::text(guide::help(entries, provider), uri).with_mime_type("text/markdown"),
        Named::Tools => {
            let tools: Vec<_> = entries.map(export::whole).collect();
            let text = json!({ "tools": tools }).to_string();
            ResourceContents::text(text, uri).with_mime_type("application/json")
        }
        Named::Sandbox(id) => {
            let detail = tenant.client().info(id).await.map_err(|error| failed(&error))?;
            let described = crate::tools::sandbox_info::describe(&detail, provider);
            let text = serde_json::to_string_pretty(&described)
                .map_err(|error| ErrorData::internal_error(format!("the answer cannot be encoded: {error}"), None))?;
            ResourceContents::text(text, uri).with_mime_type("application/json")
        }
        Named::File(id, path) => {
            let handle = tenant.attach(id).await.map_err(|error| match error.code {
                "sandbox_not_found" | "sandbox_ended" => missing(),
                _ => ErrorData::internal_error(error.text(), Some(json!({ "uri": uri }))),
            })?;
            tenant.touch(&handle);
            let reading = handle.sandbox.files();
            let reading = reading.read(&path, ReadOptions::default(), limits::RESOURCE);
            let data = match tokio::time::timeout(limits::ANSWER_WITHIN, reading).await {
                Ok(read) => read.map_err(|error| failed(&error))?,
                Err(_) => return Err(ErrorData::internal_error(format!("reading {uri} took too long"), None)),
            };
            let kind = mime_guess::from_path(&path).first_or_octet_stream();
            match std::str::from_utf8(&data) {
                Ok(text) if !data.contains(&0) => {
                    // A name without a known ending says nothing, its content does.
                    let kind = if kind == mime_guess::mime::APPLICATION_OCTET_STREAM {
                        mime_guess::mime::TEXT_PLAIN
                    } else {
                        kind
                    };
                    ResourceContents::text(text, uri).with_mime_type(kind.essence_str())
                }
                _ => ResourceContents::blob(STANDARD.encode(&data), uri).with_mime_type(kind.essence_str()),
            }
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_uris() {
        let uri = file_uri("iabc", "/home/user/a b/ü#?%.txt");
        assert_eq!(uri, "sandhold://sandbox/iabc/file/home/user/a%20b/%C3%BC%23%3F%25.txt");
        assert!(matches!(named(&uri), Some(Named::File("iabc", path)) if path == "/home/user/a b/ü#?%.txt"));
        assert!(matches!(named("sandhold://sandbox/iabc"), Some(Named::Sandbox("iabc"))));
        for bad in [
            "sandhold://sandbox/",
            "sandhold://sandbox/../file/etc/passwd",
            "sandhold://sandbox/iabc/file/%00",
            "sandhold://sandbox/iabc/file/%ff",
            "sandhold://other",
            "file:///etc/passwd",
        ] {
            assert!(named(bad).is_none(), "{bad}");
        }
    }
}
