//! Query strings of the control plane.

use std::collections::BTreeMap;

use axum::extract::Request;
use http::Method;
use percent_encoding::percent_decode_str;
use sandhold_wire::{
    limits::LIST_PAGE,
    rest::State,
    signature::{Operation, same, sign},
};

use crate::{entry::Entry, error::Refusal};

/// `GET /v2/sandboxes` and `GET /sandboxes`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ListQuery {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) states: Vec<State>,
    pub(crate) template: Option<String>,
    pub(crate) started_after: Option<String>,
    pub(crate) ascending: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) next_token: Option<String>,
}

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

/// The decoded pairs of a query string.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|p| !p.is_empty()).map(|p| {
        let (name, value) = p.split_once('=').unwrap_or((p, ""));
        (decode(name), decode(value))
    })
}

/// The parameters of a file URL that its signature covers.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct FileQuery {
    pub(crate) path: String,
    pub(crate) username: String,
    pub(crate) signature: Option<String>,
    pub(crate) expires_at: Option<i64>,
}

impl FileQuery {
    pub(crate) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in pairs(query) {
            match name.as_str() {
                "path" => parsed.path = value,
                "username" => parsed.username = value,
                // A `+` of the base64 may come unencoded.
                "signature" => parsed.signature = Some(value.replace(' ', "+")),
                "signature_expiration" => parsed.expires_at = value.parse().ok(),
                _ => {}
            }
        }
        parsed
    }
}

/// Whether a request's file URL was signed with the sandbox's token; without a token nothing is signed.
pub(crate) fn is_signed(entry: &Entry, request: &Request) -> bool {
    let query = FileQuery::parse(request.uri().query().unwrap_or_default());
    let operation = if matches!(*request.method(), Method::GET | Method::HEAD) {
        Operation::Read
    } else {
        Operation::Write
    };
    let (Some(given), Some(token)) = (query.signature, entry.recipe.token.as_deref()) else {
        return false;
    };
    let wanted = sign(&query.path, operation, &query.username, token, query.expires_at);
    same(given.as_bytes(), wanted.as_bytes())
}

impl ListQuery {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut parsed = Self::default();
        for (name, value) in pairs(query) {
            match name.as_str() {
                // SDKs encode the pairs twice before they encode the parameter.
                "metadata" => {
                    parsed
                        .metadata
                        .extend(pairs(&value).map(|(k, v)| (decode(&k), decode(&v))));
                }
                "state" => {
                    for state in value.split(',').filter(|s| !s.is_empty()) {
                        parsed.states.push(match state {
                            "running" => State::Running,
                            "paused" => State::Paused,
                            _ => {
                                return Err(Refusal::bad_request(format!(
                                    "state \"{state}\" is neither running nor paused"
                                )));
                            }
                        });
                    }
                }
                "template" => parsed.template = Some(value),
                "startedAfter" => parsed.started_after = Some(value),
                "order" => {
                    parsed.ascending = match value.as_str() {
                        "asc" => true,
                        "desc" => false,
                        _ => {
                            return Err(Refusal::bad_request(format!(
                                "order \"{value}\" is neither asc nor desc"
                            )));
                        }
                    };
                }
                "limit" => match value.parse() {
                    Ok(limit @ 1..=LIST_PAGE) => parsed.limit = Some(limit),
                    _ => {
                        return Err(Refusal::bad_request(format!(
                            "limit \"{value}\" is not between 1 and {LIST_PAGE}"
                        )));
                    }
                },
                "nextToken" if !value.is_empty() => parsed.next_token = Some(value),
                _ => {}
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_as_the_sdks_encode_it() {
        let query = ListQuery::parse("metadata=k%2525201%3Dv%2525262&state=running%2Cpaused&limit=2").unwrap();
        assert_eq!(query.metadata, [("k 1".to_owned(), "v&2".to_owned())].into());
        assert_eq!(query.states, [State::Running, State::Paused]);
        assert_eq!(query.limit, Some(2));
    }

    #[test]
    fn a_signed_url() {
        let query = FileQuery::parse("path=%2Fa%20b+c&signature=v1_a+b%2Fc%2B&signature_expiration=17");
        assert_eq!((query.path.as_str(), query.expires_at), ("/a b c", Some(17)));
        assert_eq!(query.signature.as_deref(), Some("v1_a+b/c+"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in ["state=dead", "limit=0", "limit=101", "limit=x", "order=up"] {
            assert!(ListQuery::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(ListQuery::parse("unknown=1&").unwrap(), ListQuery::default());
    }
}
