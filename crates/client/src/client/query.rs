//! The query of a list.

use percent_encoding::utf8_percent_encode;
use sandhold_wire::rest::State;

use super::ListQuery;
use crate::files::{QUERY, pair};

/// The query with its question mark, or nothing.
pub(super) fn list(query: &ListQuery) -> String {
    let mut out = String::new();
    if !query.metadata.is_empty() {
        // The SDKs encode names and values, encode the pairs of them again as a form, and the form again as a value; servers
        // undo all three.
        let twice = |text: &str| {
            let once = utf8_percent_encode(text, QUERY).to_string();
            utf8_percent_encode(&once, QUERY).to_string()
        };
        let form: Vec<_> = query
            .metadata
            .iter()
            .map(|(key, value)| format!("{}={}", twice(key), twice(value)))
            .collect();
        pair(&mut out, "metadata", &form.join("&"));
    }
    if !query.states.is_empty() {
        let names = query.states.iter().map(|state| match state {
            State::Running => "running",
            State::Paused => "paused",
        });
        pair(&mut out, "state", &names.collect::<Vec<_>>().join(","));
    }
    if let Some(limit) = query.limit {
        pair(&mut out, "limit", &limit.to_string());
    }
    if let Some(cursor) = &query.cursor {
        pair(&mut out, "nextToken", cursor);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_sdks_encode() {
        assert_eq!(list(&ListQuery::default()), "");
        let query = ListQuery {
            metadata: [("k 1".into(), "v&2".into())].into(),
            states: vec![State::Running, State::Paused],
            limit: Some(5),
            cursor: Some("a/b=".into()),
        };
        assert_eq!(
            list(&query),
            "?metadata=k%2525201%3Dv%2525262&state=running%2Cpaused&limit=5&nextToken=a%2Fb%3D"
        );
        let two = ListQuery {
            metadata: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
            ..query
        };
        assert!(list(&two).starts_with("?metadata=a%3D1%26b%3D2&"));
    }
}
