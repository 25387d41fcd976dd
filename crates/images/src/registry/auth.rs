//! How somebody shows a registry who they are.

use base64::Engine as _;
use http_auth::parser::ChallengeParser;
use reqwest::{
    Url,
    header::{self, HeaderMap, HeaderValue},
};
use serde::Deserialize;

use super::{answer, session::Session};
use crate::{ImageError, credentials::Login, limits};

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// The challenge of an answer that is understood; `Bearer` before `Basic`.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        for one in ChallengeParser::new(value.to_str().unwrap_or_default()).flatten() {
            if one.scheme.eq_ignore_ascii_case("bearer") {
                let param = |name: &str| {
                    let found = one.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if let Some(realm) = param("realm") {
                    return Some(Challenge::Bearer {
                        realm,
                        service: param("service"),
                    });
                }
            } else if one.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session {
    /// What to send so that the registry lets us in; none if there is nothing.
    pub(super) async fn answer_to(&self, challenge: Challenge) -> Result<Option<HeaderValue>, ImageError> {
        match (challenge, &self.login) {
            (Challenge::Basic, Some(Login::Password { user, password })) => {
                let both = format!("{user}:{}", password.reveal());
                let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both));
                Ok(secret(&text))
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service }, _) => self.token(&realm, service.as_deref()).await,
        }
    }

    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Option<HeaderValue>, ImageError> {
        let strange = |why: &str| ImageError::invalid(format!("the way to log in at {}", self.registry()), why);
        let mut url = Url::parse(realm).map_err(|_| strange("it is not a URL"))?;
        if url.scheme() != "https" && !(self.plain && url.scheme() == "http") {
            return Err(strange("it goes over a connection that is not secure"));
        }
        if let Some(Err(error)) = self.reach.as_ref().map(|reach| reach.check(&url)) {
            return Err(strange(&error.to_string()));
        }
        let scope = format!("repository:{}:pull", self.reference.repository());
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.map(|service| ("service", service)));
        let request = match &self.login {
            Some(Login::Identity(token)) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "sandhold"),
                    ("refresh_token", token.reveal()),
                ]);
                // The form is written as a query is.
                let mut form = url.clone();
                form.set_query(None);
                form.query_pairs_mut().extend_pairs(fields);
                self.http
                    .post(url)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            login => {
                url.query_pairs_mut().extend_pairs(fields);
                match login {
                    Some(Login::Password { user, password }) => {
                        self.http.get(url).basic_auth(user, Some(password.reveal()))
                    }
                    _ => self.http.get(url),
                }
            }
        };
        let registry = self.registry();
        let response = request.send().await.map_err(|error| answer::network(error, registry))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Ok(None),
            _ => return Err(self.refusal(response, "a token").await),
        }
        let what = format!("the token of {registry}");
        let bytes = answer::read(response, limits::ANSWER_BYTES, &what, registry).await?;
        // serde_json's own words may repeat what it read.
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| ImageError::invalid(&what, "it has no known form"))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        Ok(token.and_then(|token| secret(&format!("Bearer {token}"))))
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
            }
            challenge(&headers)
        };
        let bearer = Some(Challenge::Bearer {
            realm: "https://a/t".into(),
            service: Some("s, \"x\"".into()),
        });
        assert_eq!(
            read(&[r#"Bearer realm="https://a/t",service="s, \"x\"",scope="a:b:pull""#]),
            bearer
        );
        assert_eq!(
            read(&[
                r#"Basic realm="x""#,
                r#"bearer Realm="https://a/t", service="s, \"x\"""#
            ]),
            bearer
        );
        assert_eq!(read(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        for none in [
            r"Bearer",
            r#"Bearer service="x""#,
            "Negotiate",
            "",
            "\"",
            "Bearer realm=\"",
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_str(none).unwrap());
            assert_eq!(challenge(&headers), None, "{none}");
        }
    }
}
