//! Daemons that were replaced by an enemy. Whatever they send, whoever asks gets an error in time, and a second sandbox of
//! the same server is served as before. The questions are those of the client that Sandhold's tools use.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use sandhold_client::{Client, CommandEvent, CommandRequest, CreateOptions, Error, ReadOptions, Sandbox, WriteOptions};
use sandhold_gateway::Owner;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{
    call,
    fake::{FakeRuntime, gateway},
};

/// What a daemon does with a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hostile {
    /// Bytes that are no HTTP.
    Garbage,
    /// One header after the other.
    EndlessHead,
    /// A length that no memory holds, and a few bytes.
    HugeLength,
    /// A length that is no number.
    BadLength,
    /// A Connect frame whose length is the largest there is.
    HugeFrame,
    /// Connect frames without end that mean nothing.
    EndlessFrames,
    /// The end of the stream before its beginning, and more after it.
    OutOfOrder,
    /// Chunks that are cut off.
    HalfChunk,
    /// A JSON answer without end.
    EndlessBody,
    /// Nothing.
    Silent,
    /// The connection is closed at once.
    Closed,
    /// It is closed after the question.
    ClosedLater,
    /// An upgrade that nobody asked for.
    Upgrade,
    /// One informational answer after the other.
    EndlessContinue,
}

const ALL: &[Hostile] = &[
    Hostile::Garbage,
    Hostile::EndlessHead,
    Hostile::HugeLength,
    Hostile::BadLength,
    Hostile::HugeFrame,
    Hostile::EndlessFrames,
    Hostile::OutOfOrder,
    Hostile::HalfChunk,
    Hostile::EndlessBody,
    Hostile::Silent,
    Hostile::Closed,
    Hostile::ClosedLater,
    Hostile::Upgrade,
    Hostile::EndlessContinue,
];

impl Hostile {
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|one| format!("{one:?}") == name)
    }

    pub(crate) async fn serve(self, mut stream: DuplexStream) {
        if matches!(self, Self::Closed) {
            return;
        }
        let mut asked = vec![0; 64 << 10];
        if stream.read(&mut asked).await.is_err() || matches!(self, Self::ClosedLater) {
            return;
        }
        let stream_of = |rest: &[u8]| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/connect+json\r\n\r\n";
            [head.as_bytes(), rest].concat()
        };
        let (first, again): (Vec<u8>, Option<Vec<u8>>) = match self {
            Self::Garbage => ((0..=255).cycle().take(9000).collect(), None),
            Self::EndlessHead => (
                b"HTTP/1.1 200 OK\r\n".to_vec(),
                Some(b"x-more: and more of it\r\n".repeat(100)),
            ),
            Self::HugeLength => (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9223372036854775807\r\n\r\n{"
                    .to_vec(),
                None,
            ),
            Self::BadLength => (b"HTTP/1.1 200 OK\r\ncontent-length: -7\r\n\r\n{}".to_vec(), None),
            Self::HugeFrame => (stream_of(b"\0\xff\xff\xff\xff{\"event\":{}}"), None),
            Self::EndlessFrames => (stream_of(b""), Some(b"\0\0\0\0\x0c{\"event\":{}}".repeat(1000))),
            Self::OutOfOrder => (
                stream_of(b"\x02\0\0\0\x02{}\0\0\0\0\x23{\"event\":{\"start\":{\"pid\":4294967295}}}"),
                None,
            ),
            Self::HalfChunk => (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n{"
                    .to_vec(),
                None,
            ),
            Self::EndlessBody => (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[".to_vec(),
                Some(b"{\"name\":\"x\"},".repeat(1000)),
            ),
            Self::Upgrade => (
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec(),
                None,
            ),
            Self::EndlessContinue => (Vec::new(), Some(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100))),
            Self::Silent => (Vec::new(), None),
            Self::Closed | Self::ClosedLater => return,
        };
        if stream.write_all(&first).await.is_err() {
            return;
        }
        while let Some(more) = &again {
            if stream.write_all(more).await.is_err() {
                return;
            }
            // The tests' clock stands still while anybody is at work.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if matches!(self, Self::HalfChunk) {
            return;
        }
        std::future::pending::<()>().await;
    }
}

async fn sandbox(client: &Client, hostile: &str) -> Sandbox {
    let envs = [("HOSTILE".to_owned(), hostile.to_owned())].into();
    let options = CreateOptions {
        envs,
        timeout: Some(Duration::from_secs(3600)),
        ..CreateOptions::default()
    };
    client.create(options).await.unwrap()
}

/// Longer than every deadline of the client, so that meeting it means that there is none.
const PATIENCE: Duration = Duration::from_secs(900);

/// Asks in every way; each has to fail, in time and with a text.
async fn ask(name: &str, sandbox: &Sandbox) {
    let in_time = async |what: &str, asked: std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>>| {
        let ended = tokio::time::timeout(PATIENCE, asked).await;
        let error = ended
            .unwrap_or_else(|_| panic!("{name}: {what} has no end"))
            .expect_err(&format!("{name}: {what}"));
        assert!(!error.to_string().is_empty(), "{name}: {what}");
    };
    let (files, commands) = (sandbox.files(), sandbox.commands());
    in_time("list", Box::pin(async { files.list("/", 1, None).await.map(drop) })).await;
    in_time("info", Box::pin(async { files.info("/x", None).await.map(drop) })).await;
    in_time("metrics", Box::pin(async { sandbox.metrics().await.map(drop) })).await;
    in_time("processes", Box::pin(async { commands.list().await.map(drop) })).await;
    in_time(
        "run",
        Box::pin(async {
            let mut process = commands.start(CommandRequest::shell("true")).await?;
            while let Some(event) = process.next().await {
                if let CommandEvent::Exited(_) = event? {
                    return Ok(());
                }
            }
            Err(Error::Protocol("it went without a word".into()))
        }),
    )
    .await;
    // A file is whatever bytes come: what matters is that it ends.
    let read = files.read("/x", ReadOptions::default(), 1 << 20);
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("{name}: read has no end"));
    let write = files.write("/x", Bytes::from_static(b"x"), WriteOptions::default());
    let _ = tokio::time::timeout(PATIENCE, write)
        .await
        .unwrap_or_else(|_| panic!("{name}: write has no end"));
}

#[tokio::test(start_paused = true)]
async fn whatever_a_daemon_sends_is_an_error_in_time_and_stays_its_own() {
    let (_home, gateway) = gateway(FakeRuntime::default());
    let router = gateway.router(Owner::LOCAL);
    let client = Client::in_process(router.clone());
    let good = sandbox(&client, "").await;
    for hostile in ALL {
        let name = format!("{hostile:?}");
        let bad = sandbox(&client, &name).await;
        ask(&name, &bad).await;
        // A port of it, through the daemon's tunnel.
        let host = format!("8080-{}.sandhold.localhost", bad.id());
        let open = gateway.router(Owner::LOCAL);
        let through = tokio::time::timeout(PATIENCE, call(&open, Method::GET, "/", &[("host", &host)], None)).await;
        let status = through.unwrap_or_else(|_| panic!("{name}: a port has no end")).status;
        assert!(!status.is_success(), "{name}: {status}");
        // The other one answers as before.
        assert!(good.is_running().await.unwrap(), "{name}");
        assert_eq!(good.metrics().await.unwrap().disk_total, 8192, "{name}");
        assert!(bad.kill().await.unwrap(), "{name}");
    }
}

#[tokio::test]
async fn a_boot_answer_that_is_none_makes_no_sandbox() {
    let runtime = FakeRuntime::default();
    let killed = runtime.killed.clone();
    let (_home, gateway) = gateway(runtime);
    let router = gateway.router(Owner::LOCAL);
    let deep = "[".repeat(1000);
    for (count, said) in [
        "\u{1}\u{2}",
        "",
        "{}",
        "null",
        "{\"version\": 7}",
        &deep,
        "{\"version\": \"9.9.9\"}",
    ]
    .iter()
    .enumerate()
    {
        let body = json!({"templateID": "base", "envVars": {"BOOT": said}});
        let made = call(&router, Method::POST, "/v2/sandboxes", &[], Some(body)).await;
        assert_eq!(
            made.status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{} for {:.20}",
            made.body,
            said
        );
        let message = made.body["message"].as_str().unwrap();
        assert!(message.contains("daemon"), "{message}");
        assert_eq!(
            killed.load(std::sync::atomic::Ordering::SeqCst),
            count + 1,
            "it is ended"
        );
    }
    let body = json!({"templateID": "base"});
    let made = call(&router, Method::POST, "/v2/sandboxes", &[], Some(body)).await;
    assert_eq!(made.status, StatusCode::CREATED, "the control: {}", made.body);
}
