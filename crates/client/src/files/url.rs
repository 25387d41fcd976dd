//! URLs of files, for this client's requests and for others.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sandhold_wire::signature::{Operation, sign};

use super::Files;
use crate::Error;

/// Everything but RFC 3986's unreserved characters, as Python's `quote` has it.
pub(crate) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Adds a pair to a query.
pub(crate) fn pair(query: &mut String, name: &str, value: &str) {
    query.push(if query.is_empty() { '?' } else { '&' });
    query.push_str(name);
    query.push('=');
    query.extend(utf8_percent_encode(value, QUERY));
}

impl Files {
    /// `…/files?path=…&signature=…`, valid until `expires_at` (Unix seconds): whoever has it can read the file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the sandbox has no address outside this process.
    pub fn download_url(&self, path: &str, user: Option<&str>, expires_at: Option<i64>) -> Result<String, Error> {
        self.signed(path, Operation::Read, user, expires_at)
    }

    /// The same for a `POST` that writes the file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the sandbox has no address outside this process.
    pub fn upload_url(&self, path: &str, user: Option<&str>, expires_at: Option<i64>) -> Result<String, Error> {
        self.signed(path, Operation::Write, user, expires_at)
    }

    fn signed(
        &self,
        path: &str,
        operation: Operation,
        user: Option<&str>,
        expires_at: Option<i64>,
    ) -> Result<String, Error> {
        let Some(base) = &self.envd.direct else {
            let id = &self.envd.id;
            return Err(Error::Unsupported(format!(
                "sandbox {id} has no address outside this program, so there is no URL for its files"
            )));
        };
        let user = self.envd.user(user);
        let mut query = String::new();
        pair(&mut query, "path", path);
        if let Some(user) = user {
            pair(&mut query, "username", user);
        }
        match (&self.envd.token, expires_at) {
            (Some(token), _) => {
                let signature = sign(path, operation, user.unwrap_or_default(), token, expires_at);
                pair(&mut query, "signature", &signature);
                if let Some(at) = expires_at {
                    pair(&mut query, "signature_expiration", &at.to_string());
                }
            }
            // Without a token the daemon asks for no signature, and nothing could end the URL's life.
            (None, None) => {}
            (None, Some(_)) => {
                return Err(Error::InvalidArgument(
                    "this sandbox was made without an access token, so its URLs cannot expire".into(),
                ));
            }
        }
        Ok(format!("{base}/files{query}"))
    }
}
