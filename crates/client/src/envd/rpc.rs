//! Calls of the Connect protocol: one request, one answer or a stream of them.

use std::time::Duration;

use buffa::Message;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, header};
use sandhold_wire::{limits::RPC_MESSAGE, names};
use serde::{Serialize, de::DeserializeOwned};

use super::{Envd, FrameStream, authorize, frames::HEADER};
use crate::{
    Error,
    answer::Refusal,
    limits,
    transport::{Body, Codec, full},
};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static(names::CONNECT_TIMEOUT_HEADER);
const KEEPALIVE: HeaderName = HeaderName::from_static(names::KEEPALIVE_HEADER);
const REPLAY: HeaderName = HeaderName::from_static(names::REPLAY_HEADER);

/// How a stream is asked for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Streaming<'a> {
    pub(crate) user: Option<&'a str>,
    /// Told to the server, which acts on it.
    pub(crate) timeout: Option<Duration>,
    /// What the caller has of a job's output already.
    pub(crate) has: Option<[u64; 2]>,
}

impl Codec {
    fn unary_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Binary => "application/proto",
        })
    }

    fn stream_type(self) -> &'static str {
        match self {
            Self::Json => "application/connect+json",
            Self::Binary => "application/connect+proto",
        }
    }

    fn encode(self, message: &(impl Message + Serialize)) -> Result<Bytes, Error> {
        match self {
            Self::Binary => Ok(message.encode_to_bytes()),
            Self::Json => serde_json::to_vec(message)
                .map(Bytes::from)
                .map_err(|error| Error::InvalidArgument(format!("the request cannot be written as JSON: {error}"))),
        }
    }

    /// Reads a message; `path` is the call that it answers.
    pub(crate) fn decode<M: Message + DeserializeOwned>(self, bytes: &[u8], path: &str) -> Result<M, Error> {
        match self {
            Self::Binary => M::decode_from_slice(bytes).map_err(|error| error.to_string()),
            // An answer may be empty where the message has no fields.
            Self::Json if bytes.is_empty() => Ok(M::default()),
            Self::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        }
        .map_err(|error| Error::Protocol(format!("the answer of {path} cannot be read: {error}")))
    }
}

impl Envd {
    /// One request, one answer within the usual time.
    pub(crate) fn unary<'s, Q, A>(
        &'s self,
        path: &'static str,
        message: &Q,
        user: Option<&str>,
    ) -> impl Future<Output = Result<A, Error>> + Send + use<'s, Q, A>
    where
        Q: Message + Serialize,
        A: Message + DeserializeOwned,
    {
        self.unary_within(path, message, user, limits::REQUEST_TIMEOUT)
    }

    /// One request, one answer. Not an `async fn`, so that the future holds the encoded request alone and is known to be `Send`.
    pub(crate) fn unary_within<'s, Q, A>(
        &'s self,
        path: &'static str,
        message: &Q,
        user: Option<&str>,
        within: Duration,
    ) -> impl Future<Output = Result<A, Error>> + Send + use<'s, Q, A>
    where
        Q: Message + Serialize,
        A: Message + DeserializeOwned,
    {
        let request = self.unary_request(path, message, user, within);
        async move {
            let response = self.send(request?, within).await?;
            if !response.status().is_success() {
                return Err(self.settle(Refusal::read(response).await.of_rpc(&self.id)).await);
            }
            let body = self.collect(response, RPC_MESSAGE, limits::REQUEST_TIMEOUT).await?;
            self.codec.decode(&body, path)
        }
    }

    fn unary_request<Q>(
        &self,
        path: &str,
        message: &Q,
        user: Option<&str>,
        within: Duration,
    ) -> Result<Request<Body>, Error>
    where
        Q: Message + Serialize,
    {
        let mut request = self.request(Method::POST, path, full(self.codec.encode(message)?))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.codec.unary_type());
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static("1"));
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        headers.insert(TIMEOUT, HeaderValue::from(within));
        authorize(headers, self.user(user))?;
        Ok(request)
    }

    /// One request, a stream of answers.
    pub(crate) async fn stream<Q>(
        &self,
        path: &'static str,
        message: &Q,
        how: Streaming<'_>,
    ) -> Result<FrameStream, Error>
    where
        Q: Message + Serialize,
    {
        let mut request = self.request(Method::POST, path, full(envelope(&self.codec.encode(message)?)?))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.codec.stream_type()));
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static("1"));
        headers.insert(KEEPALIVE, HeaderValue::from(limits::KEEPALIVE_S));
        if let Some(has) = how.has
            && let Ok(value) = HeaderValue::from_str(&names::replay(has))
        {
            headers.insert(REPLAY, value);
        }
        if let Some(timeout) = how.timeout {
            // A timeout of nothing would mean none at all to the server.
            headers.insert(
                TIMEOUT,
                HeaderValue::from(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)),
            );
        }
        authorize(headers, self.user(how.user))?;
        let response = self.send(request, limits::REQUEST_TIMEOUT).await?;
        if !response.status().is_success() {
            return Err(self.settle(Refusal::read(response).await.of_rpc(&self.id)).await);
        }
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(self.codec.stream_type()) {
            return Err(Error::Protocol(format!(
                "{path} was answered with {kind:?}, which is no stream of messages"
            )));
        }
        let replayed = response
            .headers()
            .get(REPLAY)
            .and_then(|v| names::parse_replay(v.to_str().ok()?));
        let mut stream = FrameStream::new(response.into_body(), self.codec, path);
        stream.replayed = replayed;
        Ok(stream)
    }
}

/// A message behind its five bytes.
fn envelope(message: &[u8]) -> Result<Bytes, Error> {
    let length = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= RPC_MESSAGE)
        .ok_or_else(|| Error::InvalidArgument(format!("the request is larger than {RPC_MESSAGE} bytes")))?;
    let mut framed = BytesMut::with_capacity(HEADER + message.len());
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    Ok(framed.freeze())
}
