//! Search, by the server where it can.

use std::sync::atomic::Ordering;

use http::{HeaderValue, Method, header};
use serde::{Deserialize, Serialize};

use super::{Files, SearchMatch, SearchMode, SearchQuery, SearchResult};
use crate::{Error, limits, transport::full};

/// `POST /sandhold/search`.
#[derive(Serialize)]
struct Request<'a> {
    pattern: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    glob: Option<&'a str>,
    mode: &'static str,
    case_sensitive: bool,
    context_lines: u32,
    limit: u32,
    respect_ignore: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
}

#[derive(Deserialize)]
struct Answer {
    matches: Vec<Match>,
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    files_searched: u64,
}

#[derive(Deserialize)]
struct Match {
    path: String,
    #[serde(default)]
    line: u64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    before: Vec<String>,
    #[serde(default)]
    after: Vec<String>,
}

impl Files {
    /// Sandhold's envd searches with ripgrep's engine; elsewhere `grep`/`find` run in the sandbox, which cannot tell how many
    /// files they looked into and know `.gitignore` only with `git` at hand.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the pattern or the glob is not valid, [`Error::NotFound`] when the path is not there.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchResult, Error> {
        if !self.envd.no_search.load(Ordering::Relaxed) {
            if let Some(result) = self.search_by_server(&query).await? {
                return Ok(result);
            }
            self.envd.no_search.store(true, Ordering::Relaxed);
        }
        self.search_by_command(&query).await
    }

    async fn search_by_server(&self, query: &SearchQuery) -> Result<Option<SearchResult>, Error> {
        let message = Request {
            pattern: &query.pattern,
            path: &query.path,
            glob: query.glob.as_deref(),
            mode: match query.mode {
                SearchMode::Content => "content",
                SearchMode::Name => "name",
            },
            case_sensitive: query.case_sensitive,
            context_lines: query.context_lines,
            limit: query.limit,
            respect_ignore: query.respect_ignore,
            username: query.user.as_deref(),
        };
        let body = serde_json::to_vec(&message)
            .map_err(|error| Error::InvalidArgument(format!("the search cannot be written as JSON: {error}")))?;
        let mut request = self.envd.request(Method::POST, "/sandhold/search", full(body))?;
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.envd.extension::<Answer>(request, limits::SEARCH_ANSWER).await?;
        Ok(answer.map(|answer| SearchResult {
            matches: answer.matches.into_iter().map(Into::into).collect(),
            truncated: answer.truncated,
            files_searched: answer.files_searched,
        }))
    }
}

/// For the fuzzer: reads the answer of a server.
#[cfg(fuzzing)]
pub(crate) fn found_by_server(body: &[u8]) -> Option<Vec<SearchMatch>> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    Some(answer.matches.into_iter().map(Into::into).collect())
}

impl From<Match> for SearchMatch {
    fn from(
        Match {
            path,
            line,
            text,
            before,
            after,
        }: Match,
    ) -> Self {
        Self {
            path,
            line,
            text,
            before,
            after,
        }
    }
}
