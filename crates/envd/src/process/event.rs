//! The events of a process as they go over the wire. `StartResponse` and `ConnectResponse` have the same shape, so one
//! type serves both streams.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use connectrpc::{CodecFormat, ConnectError, Encodable};
use sandhold_wire::proto::process::{
    ConnectResponse, ProcessEvent, StartResponse,
    process_event::{DataEvent, EndEvent, Event as Wire, KeepAlive, StartEvent, data_event::Output},
};

use super::hub::Source;

/// An event of a process.
#[derive(Debug)]
pub(crate) enum Event {
    /// It runs, under this pid.
    Start(u32),
    /// It printed something.
    Data(Source, Bytes),
    /// It ended.
    End(Arc<EndEvent>),
    /// It is silent.
    Keepalive,
}

impl Event {
    fn encode(&self, codec: CodecFormat) -> Result<Bytes, ConnectError> {
        let event: Wire = match self {
            // Output is the hot path: one allocation, no message in between.
            Self::Data(source, bytes) if matches!(codec, CodecFormat::Json) => return Ok(data_json(*source, bytes)),
            Self::Data(source, bytes) => DataEvent {
                output: Some(output(*source, bytes)),
                ..DataEvent::default()
            }
            .into(),
            Self::Start(pid) => StartEvent {
                pid: *pid,
                ..StartEvent::default()
            }
            .into(),
            Self::End(end) => EndEvent::clone(end).into(),
            Self::Keepalive => KeepAlive::default().into(),
        };
        let message = StartResponse {
            event: ProcessEvent {
                event: Some(event),
                ..ProcessEvent::default()
            }
            .into(),
            ..StartResponse::default()
        };
        Encodable::<StartResponse>::encode(&message, codec)
    }
}

impl Encodable<StartResponse> for Event {
    fn encode(&self, codec: CodecFormat) -> Result<Bytes, ConnectError> {
        self.encode(codec)
    }
}

impl Encodable<ConnectResponse> for Event {
    fn encode(&self, codec: CodecFormat) -> Result<Bytes, ConnectError> {
        self.encode(codec)
    }
}

fn output(source: Source, bytes: &Bytes) -> Output {
    let bytes = bytes.to_vec();
    match source {
        Source::Stdout => Output::Stdout(bytes),
        Source::Stderr => Output::Stderr(bytes),
        Source::Pty => Output::Pty(bytes),
    }
}

fn data_json(source: Source, bytes: &Bytes) -> Bytes {
    let field = match source {
        Source::Stdout => "stdout",
        Source::Stderr => "stderr",
        Source::Pty => "pty",
    };
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4 + 48);
    text.push_str(r#"{"event":{"data":{""#);
    text.push_str(field);
    text.push_str(r#"":""#);
    STANDARD.encode_string(bytes, &mut text);
    text.push_str(r#""}}}"#);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_made_json_is_what_the_codec_makes() {
        for (source, bytes) in [
            (Source::Stdout, &b""[..]),
            (Source::Stderr, b"a"),
            (Source::Pty, b"\xff\x00ab"),
        ] {
            let bytes = Bytes::copy_from_slice(bytes);
            let data = DataEvent {
                output: Some(output(source, &bytes)),
                ..DataEvent::default()
            };
            let message = StartResponse {
                event: ProcessEvent {
                    event: Some(data.into()),
                    ..ProcessEvent::default()
                }
                .into(),
                ..StartResponse::default()
            };
            let wanted = Encodable::<StartResponse>::encode(&message, CodecFormat::Json).unwrap();
            assert_eq!(Event::Data(source, bytes).encode(CodecFormat::Json).unwrap(), wanted);
        }
    }
}
