//! The server on standard input and output.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use rmcp::{
    ErrorData, RoleServer, ServiceExt,
    model::RequestId,
    service::{RxJsonRpcMessage, ServerInitializeError, TxJsonRpcMessage},
    transport::{Transport, async_rw::AsyncRwTransport, io::stdio_pipes},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use crate::{Server, limits, lock};

/// Serving ended other than by the client or by the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The client's first messages were not MCP's.
    #[error("the client did not open an MCP session")]
    Open(#[source] Box<ServerInitializeError>),
    /// The task that serves ended early.
    #[error("the MCP session ended unexpectedly")]
    Session(#[source] tokio::task::JoinError),
    /// The HTTP server failed.
    #[error("serving HTTP failed")]
    Http(#[source] io::Error),
}

/// Serves on standard input and output until the input ends or `shutdown` is cancelled.
///
/// # Errors
///
/// The client's first messages are not MCP's.
pub async fn serve_stdio(server: Server, shutdown: CancellationToken) -> Result<(), ServeError> {
    let (reader, writer) = stdio_pipes();
    serve_io(server, reader, writer, shutdown).await
}

/// Serves one client on a pair of byte streams, one JSON message a line, until the input ends or `shutdown` is cancelled.
///
/// # Errors
///
/// The client's first messages are not MCP's.
pub async fn serve_io<R, W>(server: Server, reader: R, writer: W, shutdown: CancellationToken) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    // Ends after `closing`: calls that end with the session leave alone what they started.
    let session = CancellationToken::new();
    let watch = Arc::new(Watch::default());
    let transport = Lines {
        inner: AsyncRwTransport::new_server(
            Watched {
                inner: reader,
                line: Line::default(),
                watch: Arc::clone(&watch),
            },
            writer,
        )
        .with_max_line_length(limits::STDIO_MESSAGE),
        watch: Arc::clone(&watch),
    };
    let closing = server.closing().clone();
    let end = tokio::spawn({
        let (session, closing) = (session.clone(), closing.clone());
        async move {
            tokio::select! {
                () = shutdown.cancelled() => {
                    closing.cancel();
                    session.cancel();
                }
                () = watch.eof.cancelled() => {
                    // Calls that are nearly done may answer; clients kill a server that takes two seconds.
                    tokio::time::sleep(limits::EOF_GRACE).await;
                    closing.cancel();
                    session.cancel();
                }
            }
        }
    });
    let served = match server.serve_with_ct(transport, session).await {
        Ok(running) => running.waiting().await.map(drop).map_err(ServeError::Session),
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
        Err(error) => Err(ServeError::Open(Box::new(error))),
    };
    closing.cancel();
    end.abort();
    served
}

/// What was seen on the input.
#[derive(Default)]
struct Watch {
    eof: CancellationToken,
    /// Ids of requests that were too long to be read.
    refused: Mutex<VecDeque<RequestId>>,
    news: Notify,
}

/// Reads through and notices the end of the input, and requests that the transport will drop for their length.
struct Watched<R> {
    inner: R,
    line: Line,
    watch: Arc<Watch>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Poll::Ready(result) = &polled {
            let new = &buf.filled()[before..];
            if result.is_err() || new.is_empty() {
                this.watch.eof.cancel();
            }
            for id in this.line.scan(new) {
                lock(&this.watch.refused).push_back(id);
                this.watch.news.notify_one();
            }
        }
        polled
    }
}

/// The line that is being read: its length, its beginning and its end, enough to find a request's id.
#[derive(Default)]
struct Line {
    len: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Line {
    /// Bytes kept of each end.
    const ENDS: usize = 512;

    /// Takes what was read; returns the ids of requests that were too long.
    fn scan(&mut self, mut data: &[u8]) -> Vec<RequestId> {
        let mut ids = Vec::new();
        while let Some(at) = data.iter().position(|b| *b == b'\n') {
            self.take(&data[..at]);
            if self.len >= limits::STDIO_MESSAGE {
                ids.extend(self.id());
            }
            *self = Self::default();
            data = &data[at + 1..];
        }
        self.take(data);
        ids
    }

    fn take(&mut self, data: &[u8]) {
        self.len += data.len();
        let room = (Self::ENDS - self.head.len()).min(data.len());
        self.head.extend_from_slice(&data[..room]);
        self.tail
            .extend_from_slice(&data[data.len().saturating_sub(Self::ENDS)..]);
        let excess = self.tail.len().saturating_sub(Self::ENDS);
        self.tail.drain(..excess);
    }

    /// The id, if it stands before everything long or after it.
    fn id(&self) -> Option<RequestId> {
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(&self.tail);
        // `{"jsonrpc":"2.0","id":7,"method":…`: closing the object after the last complete member makes it JSON.
        let before = head.match_indices(',').map(|(at, _)| format!("{}}}", &head[..at]));
        // `…,"jsonrpc":"2.0","id":7}`: what follows a comma is an object if nothing in it is nested.
        let after = tail.match_indices(',').map(|(at, _)| format!("{{{}", &tail[at + 1..]));
        before.chain(after).find_map(|text| {
            let value: Value = serde_json::from_str(&text).ok()?;
            serde_json::from_value(value.get("id")?.clone()).ok()
        })
    }
}

/// The transport of rmcp, which drops a message that is too long; this one answers it.
struct Lines<R: AsyncRead + Unpin, W: AsyncWrite> {
    inner: AsyncRwTransport<RoleServer, Watched<R>, W>,
    watch: Arc<Watch>,
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let refused = lock(&self.watch.refused).pop_front();
            if let Some(id) = refused {
                let allowed = limits::STDIO_MESSAGE;
                let text = format!("the message is longer than {allowed} bytes; send large files in parts");
                let answer = TxJsonRpcMessage::<RoleServer>::error(ErrorData::invalid_request(text, None), Some(id));
                // A task of its own: this future may be dropped at any point.
                tokio::spawn(self.inner.send(answer));
                continue;
            }
            tokio::select! {
                message = self.inner.receive() => return message,
                () = self.watch.news.notified() => {}
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(before: &str, after: &str) -> Vec<RequestId> {
        let mut line = Line::default();
        let long = "x".repeat(limits::STDIO_MESSAGE);
        let text = format!("{{\"id\":1}}\n{before}{long}{after}\n{{\"id\":3}}\n");
        text.as_bytes().chunks(8192).flat_map(|part| line.scan(part)).collect()
    }

    #[test]
    fn finds_the_id_of_a_long_request() {
        let seven = vec![RequestId::Number(7)];
        let call = r#""method":"tools/call","params":{"name":"write_file","arguments":{"id":1,"content":""#;
        assert_eq!(
            refused(&format!(r#"{{"jsonrpc":"2.0","id":7,{call}"#), r#""}}}"#),
            seven
        );
        assert_eq!(refused(&format!("{{{call}"), r#""}},"jsonrpc":"2.0","id":7}"#), seven);
        assert_eq!(
            refused(&format!(r#"{{"id": "a", {call}"#), r#""}}}"#),
            [RequestId::String("a".into())]
        );
        assert_eq!(refused(&format!("{{{call}"), r#"","id":5}}}"#), []);
    }
}
