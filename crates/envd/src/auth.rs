//! Who may ask, and for which user.

use base64::{Engine, engine::general_purpose::STANDARD};
use connectrpc::ConnectError;
use http::{HeaderMap, Method, header::AUTHORIZATION};
use sandhold_wire::{names::ACCESS_TOKEN_HEADER, signature::same};

use crate::{
    error::HttpError,
    state::State,
    users::{self, UnknownUser, User},
};

/// Whether a request may pass without its token being looked at here: `/health` needs none, and `/files` looks at it
/// together with the signature.
pub(crate) fn is_open(method: &Method, path: &str) -> bool {
    path == "/files" || (path == "/health" && (method == Method::GET || method == Method::HEAD))
}

/// What the request's token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// It is right, or the sandbox asks for none.
    Right,
    /// There is none.
    Missing,
    /// It is another.
    Wrong,
}

/// Compares the request's `X-Access-Token` with the sandbox's, in time that does not depend on where they differ.
pub(crate) fn token(state: &State, headers: &HeaderMap) -> Token {
    let Some(wanted) = &state.access_token else {
        return Token::Right;
    };
    match headers.get(ACCESS_TOKEN_HEADER) {
        None => Token::Missing,
        Some(given) if same(given.as_bytes(), wanted.as_bytes()) => Token::Right,
        Some(_) => Token::Wrong,
    }
}

/// Why a request is for nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    /// There is no such user.
    #[error(transparent)]
    Unknown(#[from] UnknownUser),
    /// There is, but this sandbox cannot become them.
    #[error("this sandbox has one user id: it cannot run anything as user '{0}', only as '{1}'")]
    OneId(String, String),
}

impl From<UserError> for ConnectError {
    fn from(error: UserError) -> Self {
        Self::unauthenticated(error.to_string())
    }
}

impl From<UserError> for HttpError {
    fn from(error: UserError) -> Self {
        Self::unauthorized(error.to_string())
    }
}

/// The user whom `name` names, or the default user.
///
/// # Errors
/// [`UserError`] when there is no such user, or no way to become them.
pub(crate) fn user_named(state: &State, name: Option<&str>) -> Result<User, UserError> {
    let name = name.filter(|n| !n.is_empty()).unwrap_or(&state.default_user);
    // A sandbox whose account files were broken must stay usable: how else could they be mended?
    let user = users::lookup(name).or_else(|unknown| state.known_user(name).cloned().ok_or(unknown))?;
    if state.can_switch_user || user.uid == state.own_uid {
        return Ok(user);
    }
    Err(UserError::OneId(
        name.to_owned(),
        users::Names::read().user(state.own_uid),
    ))
}

/// The user a request is for: the name in `Authorization: Basic`, or the default user.
///
/// # Errors
/// As [`user_named`].
pub(crate) fn user(state: &State, headers: &HeaderMap) -> Result<User, UserError> {
    user_named(state, basic_user(headers).as_deref())
}

/// The user name of `Authorization: Basic base64("name:")`. Other schemes are not ours and count as none.
pub(crate) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    Some(text.split_once(':').map_or(text.as_str(), |(name, _)| name).to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sandhold_wire::boot::BootSpec;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        [(http::HeaderName::from_static(name), HeaderValue::from_static(value))]
            .into_iter()
            .collect()
    }

    #[test]
    fn tokens() {
        let state = State::new(BootSpec {
            access_token: Some("abc".into()),
            ..BootSpec::default()
        });
        assert_eq!(token(&state, &headers("x-access-token", "abc")), Token::Right);
        assert_eq!(token(&state, &headers("x-access-token", "abd")), Token::Wrong);
        assert_eq!(token(&state, &HeaderMap::new()), Token::Missing);
        let open = State::new(BootSpec::default());
        assert_eq!(token(&open, &HeaderMap::new()), Token::Right);
    }

    #[test]
    fn basic_names() {
        assert_eq!(
            basic_user(&headers("authorization", "Basic dXNlcjo=")).as_deref(),
            Some("user")
        );
        assert_eq!(
            basic_user(&headers("authorization", "basic cm9vdDpwdw==")).as_deref(),
            Some("root")
        );
        assert_eq!(basic_user(&headers("authorization", "Bearer dXNlcjo=")), None);
        assert_eq!(basic_user(&headers("authorization", "Basic !!")), None);
    }

    #[test]
    fn open_paths() {
        assert!(is_open(&Method::GET, "/health"));
        assert!(!is_open(&Method::POST, "/health"));
        assert!(is_open(&Method::POST, "/files"));
        assert!(!is_open(&Method::GET, "/files/compose"));
        assert!(!is_open(&Method::GET, "/envs"));
    }
}
