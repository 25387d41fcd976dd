//! Headers that requests get on their way out, so that what they hold need not be inside.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    PolicyError, limits,
    rule::{Rule, Target},
};

const LIST: &str = "network.rules";

/// Headers that say where a message ends or goes, or that are for one connection. Nobody but HTTP itself may set them.
const REFUSED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header that every request to a host gets. It replaces what the request has of that name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    host: Target,
    name: HeaderName,
    value: HeaderValue,
}

impl Secret {
    /// `host` is a name, or `*.` and a name for all below it.
    ///
    /// # Errors
    /// What of it cannot be used. The value is not told.
    pub fn new(host: &str, header: &str, value: &str) -> Result<Self, PolicyError> {
        let rule = Rule::parse(LIST, host)?;
        let error = |why: String| PolicyError {
            list: LIST,
            rule: host.chars().take(limits::RULE).collect(),
            why,
        };
        if !rule.is_name() || rule.port.is_some() {
            return Err(error(
                "headers are set for a name such as api.example.com or *.example.com, without a port".into(),
            ));
        }
        let shown: String = header.chars().take(limits::SECRET_HEADER).collect();
        if header.len() > limits::SECRET_HEADER {
            let most = limits::SECRET_HEADER;
            return Err(error(format!(
                "the name of the header {shown:?} is longer than {most} characters"
            )));
        }
        let name = HeaderName::from_bytes(header.as_bytes())
            .map_err(|_| error(format!("{shown:?} is no name of a header, such as Authorization")))?;
        if REFUSED.contains(&name.as_str()) {
            return Err(error(format!(
                "the header {shown:?} is HTTP's own and cannot be set; set one that the host reads, such as Authorization"
            )));
        }
        if value.is_empty() || value.len() > limits::SECRET_VALUE {
            let most = limits::SECRET_VALUE;
            return Err(error(format!("the value of {shown:?} must have 1 to {most} bytes")));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            error(format!(
                "the value of {shown:?} holds a line break or another character that no header has"
            ))
        })?;
        value.set_sensitive(true);
        Ok(Self {
            host: rule.target,
            name,
            value,
        })
    }

    /// How closely it names `name`; `None` if it does not.
    fn closeness(&self, name: &str) -> Option<usize> {
        match &self.host {
            Target::Name(own) => (own == name).then_some(usize::MAX),
            Target::Below(parent) => self.host.names(name).then_some(parent.len()),
            Target::All | Target::Net(_) => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:?}", self.name, self.host)
    }
}

/// One of the operator's secrets. It holds for every sandbox.
#[derive(Clone)]
pub struct SecretConfig {
    /// As in [`Secret::new`].
    pub host: String,
    /// The header's name.
    pub header: String,
    /// The header's whole value.
    pub value: String,
    /// An environment variable that sandboxes get with a placeholder in it, for programs that will not start without.
    pub env: Option<String>,
}

impl fmt::Debug for SecretConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretConfig")
            .field("host", &self.host)
            .field("header", &self.header)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// What requests to one host get.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Headers(Arc<[(HeaderName, HeaderValue)]>);

impl Headers {
    /// Those for a host. Of the rules that name it the closest holds: the name itself, then the longest `*.` rule; among
    /// equals a sandbox's own, then the operator's. Rules are not merged.
    pub(crate) fn find(own: &[Secret], operator: &[Secret], host: &str) -> Option<Self> {
        let closest = own.iter().chain(operator).filter_map(|one| one.closeness(host)).max()?;
        let of = |list: &[Secret]| -> Vec<_> {
            list.iter()
                .filter(|one| one.closeness(host) == Some(closest))
                .map(|one| (one.name.clone(), one.value.clone()))
                .collect()
        };
        let mut found = of(own);
        if found.is_empty() {
            found = of(operator);
        }
        Some(Self(found.into()))
    }

    /// Sets them. What was there of these names is gone, and so is what a server might take for these names: some read
    /// `X_Key` as `X-Key`.
    pub(crate) fn set(&self, headers: &mut HeaderMap) {
        let plain = |name: &HeaderName| name.as_str().replace('_', "-");
        let names: Vec<_> = self.0.iter().map(|(name, _)| plain(name)).collect();
        let alike: Vec<_> = headers
            .keys()
            .filter(|name| names.contains(&plain(name)))
            .cloned()
            .collect();
        for name in alike {
            headers.remove(name);
        }
        for (name, value) in self.0.iter() {
            headers.insert(name, value.clone());
        }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(host: &str, value: &str) -> Secret {
        Secret::new(host, "X-Key", value).unwrap()
    }

    fn found(own: &[Secret], operator: &[Secret], host: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        Headers::find(own, operator, host)?.set(&mut headers);
        Some(headers["x-key"].to_str().unwrap().to_owned())
    }

    #[test]
    fn the_closest_rule_holds() {
        let own = [secret("*.example.com", "wide"), secret("*.b.example.com", "narrow")];
        let operator = [
            secret("a.b.example.com", "exact"),
            secret("*.example.com", "not this"),
            secret("c.test", "c"),
        ];
        for (host, value) in [
            ("x.example.com", Some("wide")),
            ("x.b.example.com", Some("narrow")),
            ("b.example.com", Some("wide")),
            ("a.b.example.com", Some("exact")),
            ("c.test", Some("c")),
            ("example.com", None),
            ("x.c.test", None),
            ("notexample.com", None),
        ] {
            assert_eq!(found(&own, &operator, host).as_deref(), value, "{host}");
        }
    }

    #[test]
    fn sets_are_not_merged() {
        let other = Secret::new("a.test", "X-Other", "o").unwrap();
        let headers = Headers::find(&[secret("a.test", "own")], std::slice::from_ref(&other), "a.test").unwrap();
        assert_eq!(format!("{headers:?}"), r#"{"x-key"}"#);
        let two = Headers::find(&[secret("a.test", "own"), other], &[], "a.test").unwrap();
        assert_eq!(format!("{two:?}"), r#"{"x-key", "x-other"}"#);
    }

    #[test]
    fn what_the_client_has_of_a_name_is_replaced() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-key", "1"), ("x-key", "2"), ("x_key", "3"), ("x-keys", "4")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        Headers::find(&[secret("a.test", "own")], &[], "a.test")
            .unwrap()
            .set(&mut headers);
        let left: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&("x-key", "own")) && left.contains(&("x-keys", "4")));
    }

    #[test]
    fn what_is_refused() {
        let long = "a".repeat(limits::SECRET_VALUE + 1);
        for (host, header, value, word) in [
            ("a.test", "Host", "x", "HTTP's own"),
            ("a.test", "content-length", "1", "HTTP's own"),
            ("a.test", "Transfer-Encoding", "chunked", "HTTP's own"),
            ("a.test", "CONNECTION", "x", "HTTP's own"),
            ("a.test", "a b", "x", "no name of a header"),
            ("a.test", "", "x", "no name of a header"),
            ("a.test", "X", "", "1 to"),
            ("a.test", "X", &long, "1 to"),
            ("a.test", "X", "hidden\r\nHost: b", "line break"),
            ("a.test:443", "X", "x", "without a port"),
            ("192.0.2.1", "X", "x", "a name"),
            ("*", "X", "x", "a name"),
            ("a.*.test", "X", "x", "example.com"),
            ("https://a.test", "X", "x", "a URL"),
        ] {
            let error = Secret::new(host, header, value).unwrap_err().to_string();
            assert!(error.contains(word), "{host} {header}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn no_value_is_shown() {
        let secret = secret("a.test", "hidden");
        let config = SecretConfig {
            host: "a.test".into(),
            header: "X".into(),
            value: "hidden".into(),
            env: None,
        };
        let shown = format!("{secret:?} {config:?} {:?}", secret.value);
        assert!(!shown.contains("hidden") && shown.contains("a.test"), "{shown}");
    }
}
