//! Files.
#![allow(unused_variables)]

mod types;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::Error;

pub use types::{Entry, EntryType, ReadOptions, SearchMatch, SearchMode, SearchQuery, SearchResult, WriteOptions};

/// The file system of one sandbox. Paths are relative to the user's home unless absolute; `~` works.
#[derive(Clone)]
pub struct Files {}

impl Files {
    /// The whole file, at most `max` bytes: a larger one is an error that names its size.
    pub async fn read(&self, path: &str, options: ReadOptions, max: u64) -> Result<Bytes, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn read_stream(
        &self,
        path: &str,
        options: ReadOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Returns the absolute path.
    pub async fn write(&self, path: &str, data: Bytes, options: WriteOptions) -> Result<String, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn write_stream(
        &self,
        path: &str,
        data: BoxStream<'static, std::io::Result<Bytes>>,
        options: WriteOptions,
    ) -> Result<String, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Appends; makes the file if it is absent.
    pub async fn append(&self, path: &str, data: Bytes, user: Option<&str>) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn list(&self, path: &str, depth: u32, user: Option<&str>) -> Result<Vec<Entry>, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn info(&self, path: &str, user: Option<&str>) -> Result<Entry, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// False if it stood already.
    pub async fn make_dir(&self, path: &str, user: Option<&str>) -> Result<bool, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub async fn rename(&self, from: &str, to: &str, user: Option<&str>) -> Result<Entry, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Removes a file or a whole folder; absent is fine.
    pub async fn remove(&self, path: &str, user: Option<&str>) -> Result<(), Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Sandhold's envd searches with ripgrep's engine; elsewhere `grep`/`find` run in the sandbox.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchResult, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// `…/files?path=…&signature=…`, valid until `expires_at` (Unix seconds).
    pub fn download_url(&self, path: &str, user: Option<&str>, expires_at: Option<i64>) -> Result<String, Error> {
        Err(Error::Unsupported("draft".into()))
    }
    /// Draft.
    pub fn upload_url(&self, path: &str, user: Option<&str>, expires_at: Option<i64>) -> Result<String, Error> {
        Err(Error::Unsupported("draft".into()))
    }
}
