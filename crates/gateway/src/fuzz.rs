//! What reads requests of strangers and answers of sandboxes, for the fuzzer in `fuzz/`; part of no other build.

use http::{HeaderMap, Uri};

use crate::{create, query::FileQuery, route};

/// The version of the daemon that is accepted.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The REST API.
    Api,
    /// A port of a sandbox.
    Sandbox(String, u16),
    /// A signed file URL that names no sandbox.
    SignedFile,
    /// A port that cannot be.
    BadPort(String, String),
}

impl From<route::Route> for Route {
    fn from(route: route::Route) -> Self {
        match route {
            route::Route::Api => Self::Api,
            route::Route::Sandbox { id, port } => Self::Sandbox(id, port),
            route::Route::SignedFile => Self::SignedFile,
            route::Route::BadPort { id, port } => Self::BadPort(id, port),
        }
    }
}

/// Finds the route of a request, and the one that its host name alone gives.
#[must_use]
pub fn route(uri: &Uri, headers: &HeaderMap, domain: &str) -> (Route, Option<Route>) {
    let by_host = route::of_host(uri, headers, domain).map(Into::into);
    (route::route(uri, headers, Some(domain)).into(), by_host)
}

/// Path, user, signature and expiry in the query of a file URL.
#[must_use]
pub fn file_query(query: &str) -> (String, String, Option<String>, Option<i64>) {
    let FileQuery {
        path,
        username,
        signature,
        expires_at,
    } = FileQuery::parse(query);
    (path, username, signature, expires_at)
}

/// Whether the answer of a daemon at its start is accepted.
#[must_use]
pub fn boot_answer(answer: &[u8]) -> bool {
    create::check_answer(answer).is_ok()
}
