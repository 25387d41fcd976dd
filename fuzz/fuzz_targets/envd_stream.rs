//! Requests of the Connect protocol as the daemon reads them, with its limits and messages. The first byte says which call and
//! how it is written, the second in which pieces it comes.
#![no_main]

use std::convert::Infallible;

use bytes::Bytes;
use connectrpc::{
    ConnectRpcService, Limits, Response, Router, ServiceStream, client_streaming_handler_fn, handler_fn,
    streaming_handler_fn,
};
use futures::{StreamExt, stream};
use http::{Request, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::{wait, within};
use sandhold_wire::{
    limits::RPC_MESSAGE,
    proto::process::{
        SendInputRequest, SendInputResponse, StartRequest, StartResponse, StreamInputRequest, StreamInputResponse,
    },
};
use tower::ServiceExt;

const SERVICE: &str = "process.Process";

fn service() -> ConnectRpcService {
    let unary = handler_fn(async |_, _: SendInputRequest| Response::ok(SendInputResponse::default()));
    let starts = streaming_handler_fn(async |_, _: StartRequest| {
        let answers: ServiceStream<StartResponse> = Box::pin(stream::iter([Ok(StartResponse::default())]));
        Response::ok(answers)
    });
    let input = client_streaming_handler_fn(async |_, mut pieces: ServiceStream<StreamInputRequest>| {
        while let Some(piece) = pieces.next().await {
            piece?;
        }
        Response::ok(StreamInputResponse::default())
    });
    let router = Router::new()
        .route::<_, SendInputRequest, SendInputResponse>(SERVICE, "SendInput", unary)
        .route_server_stream::<_, StartRequest, StartResponse>(SERVICE, "Start", starts)
        .route_client_stream::<_, StreamInputRequest, StreamInputResponse>(SERVICE, "StreamInput", input);
    let limits = Limits::default()
        .with_max_message_size(RPC_MESSAGE)
        .with_max_request_body_size(RPC_MESSAGE);
    ConnectRpcService::new(router).with_limits(limits)
}

fuzz_target!(|data: &[u8]| {
    let [how, size, body @ ..] = data else { return };
    let (method, kind) = match how % 6 {
        0 => ("SendInput", "application/proto"),
        1 => ("SendInput", "application/json"),
        2 => ("Start", "application/connect+proto"),
        3 => ("Start", "application/connect+json"),
        4 => ("StreamInput", "application/connect+proto"),
        _ => ("StreamInput", "application/connect+json"),
    };
    let body = Bytes::copy_from_slice(body);
    let ask = |size: usize| {
        within((256 << 10) + 1024 * data.len(), || {
            wait(async {
                let at = (0..body.len()).step_by(size);
                let pieces: Vec<_> = at
                    .map(|at| Ok::<_, Infallible>(Frame::data(body.slice(at..body.len().min(at + size)))))
                    .collect();
                let request = Request::post(format!("/{SERVICE}/{method}"))
                    .header(header::CONTENT_TYPE, kind)
                    .header("connect-protocol-version", "1")
                    .body(StreamBody::new(stream::iter(pieces)))
                    .expect("a request");
                let answer = service().oneshot(request).await.expect("it never fails");
                let status = answer.status();
                let said = answer
                    .into_body()
                    .collect()
                    .await
                    .expect("an answer is whole")
                    .to_bytes();
                (status, said)
            })
        })
    };
    let whole = ask(usize::MAX >> 1);
    assert!(
        !whole.0.is_server_error() || whole.0 == http::StatusCode::NOT_IMPLEMENTED,
        "{whole:?}"
    );
    assert_eq!(ask(usize::from(*size).max(1)), whole, "it depends on the pieces");
});
