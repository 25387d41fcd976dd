//! From where a request may come: the names in `Host`, and the origins of browsers. rmcp checks `/mcp` by the same lists;
//! this is for the endpoints beside it.

use http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority};

/// Which hosts and origins are let in.
#[derive(Debug, Clone)]
pub(super) struct Callers {
    /// Names or `name:port`; none at all lets every host in.
    pub(super) hosts: Vec<String>,
    /// `scheme://name:port`, `scheme://name:*` or, for any port too, `scheme://name`.
    pub(super) origins: Vec<String>,
}

impl Callers {
    /// Refuses a request from elsewhere.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let bad_host = (StatusCode::BAD_REQUEST, "the Host header is missing or not a name");
        let host = match text(headers, &header::HOST) {
            Some(host) => Authority::try_from(host).map_err(|_| bad_host)?,
            // HTTP/2 has it in the URI.
            None => uri.authority().cloned().ok_or(bad_host)?,
        };
        if !self.hosts.is_empty() && !self.hosts.iter().any(|allowed| is_host(&host, allowed)) {
            return Err((StatusCode::FORBIDDEN, "this Host is not allowed"));
        }
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = text(headers, &header::ORIGIN).and_then(Origin::parse);
        if origin.is_some_and(|origin| self.origins.iter().any(|allowed| origin.is(allowed))) {
            return Ok(());
        }
        Err((StatusCode::FORBIDDEN, "this Origin is not allowed"))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Without brackets around an IPv6 address, in lower case.
fn plain(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

fn is_host(host: &Authority, allowed: &str) -> bool {
    let (name, port) = match Authority::try_from(allowed) {
        Ok(allowed) => (plain(allowed.host()), allowed.port_u16()),
        // An IPv6 address without brackets.
        Err(_) => (plain(allowed), None),
    };
    plain(host.host()) == name && (port.is_none() || host.port_u16() == port)
}

/// `scheme://name[:port]`
#[derive(Debug)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let uri = Uri::try_from(text.trim()).ok()?;
        Some(Self {
            scheme: uri.scheme_str()?.to_ascii_lowercase(),
            host: plain(uri.authority()?.host()),
            port: uri.port_u16(),
        })
    }

    fn is(&self, allowed: &str) -> bool {
        let (base, any) = match allowed.strip_suffix(":*") {
            Some(base) => (base, true),
            None => (allowed, false),
        };
        let usual = match self.scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Self::parse(base).is_some_and(|allowed| {
            let port = any || allowed.port.is_none() || self.port.or(usual) == allowed.port;
            allowed.scheme == self.scheme && allowed.host == self.host && port
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins() {
        let callers = Callers {
            hosts: ["localhost", "::1", "box.example:8443"].map(str::to_owned).into(),
            origins: ["http://localhost:*", "http://[::1]:*", "https://app.example:443"]
                .map(str::to_owned)
                .into(),
        };
        let status = |host: Option<&str>, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            let pairs = [(header::HOST, host), (header::ORIGIN, origin)];
            pairs
                .into_iter()
                .filter_map(|(n, v)| Some((n, v?)))
                .for_each(|(n, v)| drop(headers.insert(n, v.parse().unwrap())));
            callers
                .check(&Uri::from_static("/sse"), &headers)
                .map_err(|(status, _)| status.as_u16())
        };
        for host in ["localhost", "LOCALHOST:80", "[::1]:9", "box.example:8443"] {
            assert_eq!(status(Some(host), None), Ok(()), "{host}");
        }
        for host in ["evil.example", "box.example", "box.example:1", "localhost.evil.example"] {
            assert_eq!(status(Some(host), None), Err(403), "{host}");
        }
        assert_eq!((status(None, None), status(Some("a b"), None)), (Err(400), Err(400)));
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "http://[::1]:1",
            "https://app.example",
            "https://app.example:443",
        ] {
            assert_eq!(status(Some("localhost"), Some(origin)), Ok(()), "{origin}");
        }
        for origin in [
            "https://localhost:3000",
            "http://app.example",
            "https://app.example:444",
            "null",
            "",
            "https://evil.example",
        ] {
            assert_eq!(status(Some("localhost"), Some(origin)), Err(403), "{origin}");
        }
    }
}
