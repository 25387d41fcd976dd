//! What reads a sandbox's answers, for the fuzzer in `fuzz/`; part of no other build.

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use sandhold_wire::procfs::ProcessList;

use crate::{
    Error, Ports, SearchMatch, SearchQuery, SearchResult,
    answer::Refusal,
    envd::{Broken, FrameStream},
    transport::Codec,
};

/// How a stream of messages ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Regularly.
    Regular,
    /// By an error of the server's: its code and its message.
    Refused(String, String),
    /// In the middle.
    Lost,
    /// It is none of this protocol.
    Malformed(String),
}

/// Reads a stream of messages that comes in pieces of `size` bytes, to its end.
pub async fn messages(bytes: &Bytes, size: usize) -> (Vec<Bytes>, End) {
    let pieces: Vec<_> = (0..bytes.len())
        .step_by(size.max(1))
        .map(|at| {
            Ok(http_body::Frame::data(
                bytes.slice(at..bytes.len().min(at + size.max(1))),
            ))
        })
        .collect();
    let body = StreamBody::new(stream::iter(pieces)).boxed_unsync();
    let mut stream = FrameStream::new(body, Codec::Binary, "/fuzz");
    let mut messages = Vec::new();
    loop {
        let end = match stream.next().await {
            Some(Ok(message)) => {
                messages.push(message);
                continue;
            }
            None => End::Regular,
            Some(Err(Broken::Refused(code, text))) => End::Refused(code.as_str().to_owned(), text),
            Some(Err(Broken::Lost(_))) => End::Lost,
            Some(Err(Broken::Malformed(text))) => End::Malformed(text),
        };
        assert!(stream.next().await.is_none(), "something follows the end");
        return (messages, end);
    }
}

/// Reads a message about a process: the bytes of output in it, `None` if it cannot be read.
#[must_use]
pub fn output(message: &Bytes, json: bool) -> Option<usize> {
    crate::commands::output_in(if json { Codec::Json } else { Codec::Binary }, message)
}

/// Reads the body of an answer with a status that is no success: the message, and what an RPC and a call over HTTP make of
/// it as text.
#[must_use]
pub fn refusal(status: u16, body: &[u8]) -> [String; 3] {
    let refusal = || Refusal::parse(status, body);
    let text = |told: Result<Error, Error>| match told {
        Ok(error) | Err(error) => error.to_string(),
    };
    [
        refusal().message,
        text(refusal().of_rpc("i")),
        text(refusal().of_http("i")),
    ]
}

/// Reads one line about an archive.
#[must_use]
pub fn archive_line(line: &[u8]) -> bool {
    crate::files::is_understood(line)
}

/// Reads the answer of a search by the server.
#[must_use]
pub fn found_by_server(body: &[u8]) -> Option<Vec<SearchMatch>> {
    crate::files::found_by_server(body)
}

/// Reads what the scripts of a search printed.
///
/// # Errors
/// The query is not valid.
pub fn found_by_command(printed: &[u8], cut: bool, query: &SearchQuery) -> Result<Option<SearchResult>, Error> {
    crate::files::found_by_command(printed, cut, query)
}

/// Reads what the script that lists processes printed.
#[must_use]
pub fn processes(printed: &[u8]) -> Option<ProcessList> {
    crate::commands::listed(printed)
}

/// Reads what the script that lists ports printed.
#[must_use]
pub fn ports(printed: &str) -> Ports {
    crate::services::read_ports(printed)
}
