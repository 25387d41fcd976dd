use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::*;

fn connect(target: &str) -> Request<Body> {
    Request::connect(target).header("host", target).body(full("")).unwrap()
}

#[tokio::test]
async fn bytes_and_half_closes_go_both_ways() {
    let daemon = Daemon::start();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address).await else {
            assert!(address.starts_with('['), "a machine without IPv6 has IPv4");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.unwrap();
            // The client's end was seen, and it can still be answered.
            peer.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
            all
        });
        let mut client = daemon.client().await;
        let response = client.send(connect(&format!("127.0.0.1:{port}"))).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 253) as u8).collect();
        stream.write_all(&data).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "1000000 bytes");
        assert!(server.await.unwrap() == data);
    }
}

#[tokio::test]
async fn refusals() {
    let daemon = Daemon::start();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut client = daemon.client().await;
    let response = client.send(connect(&format!("127.0.0.1:{port}"))).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let body: Value = serde_json::from_slice(&response.collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        body,
        json!({"code": 502, "message": "The sandbox is running but port is not open", "port": port})
    );
    for elsewhere in ["192.0.2.1:80", "example.com:443", "127.0.0.1:0"] {
        let mut client = daemon.client().await;
        assert_eq!(
            client.send(connect(elsewhere)).await.status(),
            StatusCode::BAD_REQUEST,
            "{elsewhere}"
        );
    }
}
