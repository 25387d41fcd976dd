//! Which sandbox and port a request is for, in the three ways E2B's clients say it: the host name
//! `<port>-<id>.<domain>`, the `E2b-Sandbox-Id` and `E2b-Sandbox-Port` headers, or neither, for signed file URLs.

use http::{HeaderMap, Uri, header};
use sandhold_wire::names::{ENVD_PORT, SANDBOX_ID_HEADER, SANDBOX_PORT_HEADER, is_sandbox_id};

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The REST API.
    Api,
    /// A port of a sandbox.
    Sandbox { id: String, port: u16 },
    /// A signed file URL that names no sandbox.
    SignedFile,
    /// A port that cannot be.
    BadPort { id: String, port: String },
}

/// Finds the route. `domain` is the server's domain, absent where it has none.
pub(crate) fn route(uri: &Uri, headers: &HeaderMap, domain: Option<&str>) -> Route {
    if let Some(route) = domain.and_then(|d| of_host(uri, headers, d)) {
        return route;
    }
    match text(headers, SANDBOX_ID_HEADER) {
        Some(id) => match text(headers, SANDBOX_PORT_HEADER) {
            None => Route::Sandbox {
                id: id.into(),
                port: ENVD_PORT,
            },
            Some(port) => match port.parse() {
                Ok(number @ 1..) => Route::Sandbox {
                    id: id.into(),
                    port: number,
                },
                _ => Route::BadPort {
                    id: id.into(),
                    port: port.into(),
                },
            },
        },
        None if uri.path() == "/files" => Route::SignedFile,
        None => Route::Api,
    }
}

/// The sandbox that a request's host name means, whatever else it says.
pub(crate) fn of_host(uri: &Uri, headers: &HeaderMap, domain: &str) -> Option<Route> {
    by_host(host(uri, headers)?, domain)
}

/// The host a request names, without its port.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let full = uri.host().or_else(|| text(headers, header::HOST.as_str()))?;
    // An IPv6 address is never a sandbox's host name.
    Some(if full.starts_with('[') {
        full
    } else {
        full.split(':').next().unwrap_or(full)
    })
}

/// `<port>-<id>.<domain>`; older clients append `-<client id>` to the id.
fn by_host(host: &str, domain: &str) -> Option<Route> {
    let label_len = host.len().checked_sub(domain.len() + 1)?;
    let (label, rest) = host.split_at_checked(label_len)?;
    if !rest.strip_prefix('.')?.eq_ignore_ascii_case(domain) {
        return None;
    }
    let (port, id) = label.split_once('-')?;
    let id = id.split('-').next().unwrap_or(id).to_ascii_lowercase();
    if !is_sandbox_id(&id) {
        return None;
    }
    match port.parse() {
        Ok(number @ 1..) => Some(Route::Sandbox { id, port: number }),
        _ => port
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| Route::BadPort { id, port: port.into() }),
    }
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(host: &str, path: &str, pairs: &[(&'static str, &str)]) -> Route {
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .collect();
        headers.insert(header::HOST, host.parse().unwrap());
        route(&path.parse().unwrap(), &headers, Some("sandhold.localhost"))
    }

    fn sandbox(id: &str, port: u16) -> Route {
        Route::Sandbox { id: id.into(), port }
    }

    #[test]
    fn all_three_ways() {
        assert_eq!(
            routed("8080-iabc.sandhold.localhost:3000", "/x", &[]),
            sandbox("iabc", 8080)
        );
        assert_eq!(
            routed("49983-IABC-client.Sandhold.LOCALHOST", "/x", &[]),
            sandbox("iabc", 49983)
        );
        let both = [(SANDBOX_ID_HEADER, "iabc"), (SANDBOX_PORT_HEADER, "49999")];
        assert_eq!(routed("localhost:3000", "/x", &both), sandbox("iabc", 49999));
        assert_eq!(routed("127.0.0.1", "/x", &both[..1]), sandbox("iabc", ENVD_PORT));
        assert_eq!(routed("[::1]:3000", "/files?signature=v1_x", &[]), Route::SignedFile);
        for host in [
            "api.sandhold.localhost",
            "sandhold.localhost",
            "localhost",
            "8080-iabc.elsewhere",
        ] {
            assert_eq!(routed(host, "/v2/sandboxes", &[]), Route::Api, "{host}");
        }
        assert!(matches!(
            routed("0-iabc.sandhold.localhost", "/", &[]),
            Route::BadPort { .. }
        ));
        assert!(matches!(
            routed("99999-iabc.sandhold.localhost", "/", &[]),
            Route::BadPort { .. }
        ));
    }
}
