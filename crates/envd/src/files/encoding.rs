//! Content codings: which one a client wants, and what it sent.

use http::{HeaderMap, header};

use crate::filesystem::error::{FsError, Kind};

/// How a body is coded on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
}

/// What the client's `Accept-Encoding` asks for: the coding with the highest weight, at equal weight the one named first.
/// Identity is acceptable unless it is refused by name.
pub(crate) fn accepted(headers: &HeaderMap) -> Result<Coding, FsError> {
    let mut wishes: Vec<(String, f32)> = Vec::new();
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        let value = value.to_str().unwrap_or_default();
        wishes.extend(value.split(',').filter(|v| !v.trim().is_empty()).map(weighted));
    }
    wishes.sort_by(|a, b| b.1.total_cmp(&a.1));
    let refused = |name: &str| wishes.iter().any(|(n, q)| n == name && *q == 0.0);
    let no_identity = refused("identity");
    for (name, weight) in &wishes {
        if *weight == 0.0 {
            break;
        }
        match name.as_str() {
            "identity" => return Ok(Coding::Identity),
            "gzip" | "x-gzip" => return Ok(Coding::Gzip),
            "*" if no_identity && !refused("gzip") => return Ok(Coding::Gzip),
            "*" if !no_identity => return Ok(Coding::Identity),
            _ => {}
        }
    }
    let nothing_else = refused("*") && !wishes.iter().any(|(n, _)| n == "identity");
    if no_identity || nothing_else {
        let text = "no acceptable encoding found, supported: gzip, identity";
        return Err(FsError::new(Kind::NotAcceptable, text));
    }
    Ok(Coding::Identity)
}

/// How the request's body is coded.
pub(crate) fn of_body(headers: &HeaderMap) -> Result<Coding, FsError> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(Coding::Identity);
    };
    let value = value.to_str().unwrap_or("?");
    match weighted(value).0.as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        _ => Err(FsError::invalid(format!(
            "unsupported Content-Encoding: {value}, supported: gzip"
        ))),
    }
}

/// `name;q=0.5` as name and weight. A weight that cannot be read is 1.
fn weighted(value: &str) -> (String, f32) {
    let mut parts = value.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts
        .filter_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
        .find_map(|q| q.trim().parse::<f32>().ok())
        .unwrap_or(1.0);
    (name, weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> Option<Coding> {
        let headers = [(header::ACCEPT_ENCODING, http::HeaderValue::from_static(value))]
            .into_iter()
            .collect();
        accepted(&headers).ok()
    }

    #[test]
    fn the_heaviest_coding_wins() {
        use Coding::{Gzip, Identity};
        assert_eq!(accepted(&HeaderMap::new()).unwrap(), Identity);
        for (value, coding) in [
            ("", Some(Identity)),
            ("gzip, deflate", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("deflate, gzip, br, zstd", Some(Gzip)),
            ("br", Some(Identity)),
            ("*", Some(Identity)),
            ("identity, gzip;q=0.5", Some(Identity)),
            ("identity;q=0.5, gzip", Some(Gzip)),
            ("gzip;q=0", Some(Identity)),
            ("gzip;q=0, identity;q=0", None),
            ("br, identity;q=0", None),
            ("*, identity;q=0", Some(Gzip)),
            ("*, identity;q=0, gzip;q=0", None),
            ("br, *;q=0", None),
            ("identity, *;q=0", Some(Identity)),
        ] {
            assert_eq!(accept(value), coding, "{value}");
        }
    }
}
