//! Files: requests as they go over the wire, and contents of any size.

use bytes::Bytes;
use futures::StreamExt;
use sandhold_client::{EntryType, Error, Files, ReadOptions, WriteOptions};
use sandhold_wire::signature::{Operation, sign};
use serde_json::{Value, json};

use crate::stub::{ID, Stub, TOKEN, reply, sandbox, with};

async fn http(stub: &Stub) -> Files {
    sandbox(&stub.http().await).await.files()
}

#[tokio::test]
async fn reads() {
    let stub = Stub::with_sandbox(|_, _| reply(200, "contents"));
    for client in [stub.in_process(), stub.http().await] {
        let files = sandbox(&client).await.files();
        let options = ReadOptions {
            user: Some("root".into()),
            range: None,
        };
        assert_eq!(files.read("/a b/é&=", options, 8).await.unwrap(), "contents");
        let seen = stub.last();
        assert_eq!(seen.line, "GET /files?path=%2Fa%20b%2F%C3%A9%26%3D&username=root");
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert_eq!(
            (seen.header("x-access-token"), seen.header("e2b-sandbox-id")),
            (Some(TOKEN), Some(ID))
        );
        assert_eq!((seen.header("range"), seen.header("authorization")), (None, None));
        let error = files.read("/x", ReadOptions::default(), 7).await.unwrap_err();
        assert!(
            matches!(&error, Error::InvalidArgument(text) if text == "/x has 8 bytes, more than 7"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn reads_a_part() {
    let stub = Stub::with_sandbox(|seen, before| match (seen.header("range"), before) {
        (Some("bytes=2-4"), 0) => reply(206, "cde"),
        // Virtual files ignore ranges.
        (Some("bytes=2-4"), _) => reply(200, "abcdefgh"),
        (Some("bytes=9-9"), _) => with(reply(416, "invalid range"), "content-range", "bytes */8"),
        other => panic!("{other:?}"),
    });
    let files = sandbox(&stub.in_process()).await.files();
    let range = |first, count| ReadOptions {
        range: Some((first, count)),
        ..ReadOptions::default()
    };
    assert_eq!(files.read("f", range(2, 3), 3).await.unwrap(), "cde");
    assert_eq!(files.read("f", range(2, 3), 3).await.unwrap(), "cde");
    assert_eq!(files.read("f", range(9, 1), 3).await.unwrap(), "");
    let before = stub.lines().len();
    assert_eq!(files.read("f", range(5, 0), 3).await.unwrap(), "");
    assert_eq!(stub.lines().len(), before, "no bytes need no request");
}

#[tokio::test]
async fn streams_a_file_without_a_length() {
    let stub = Stub::with_sandbox(|_, _| {
        let pieces = (0..10).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1000])));
        reply(200, axum::body::Body::from_stream(futures::stream::iter(pieces)))
    });
    let files = http(&stub).await;
    let mut stream = files.read_stream("f", ReadOptions::default()).await.unwrap();
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        total += piece.unwrap().len();
    }
    assert_eq!(total, 10_000);
    assert_eq!(
        files.read("f", ReadOptions::default(), 10_000).await.unwrap().len(),
        10_000
    );
    let error = files.read("f", ReadOptions::default(), 9_999).await.unwrap_err();
    assert!(
        matches!(&error, Error::InvalidArgument(text) if text.contains("more than 9999")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_download_that_breaks_off() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /health" => reply(204, ""),
        _ => {
            let pieces = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("cut"))];
            // A server that fails at once drops the head of its answer too.
            let pieces = futures::stream::iter(pieces).then(|piece| async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                piece
            });
            reply(200, axum::body::Body::from_stream(pieces))
        }
    });
    for client in [stub.in_process(), stub.http().await] {
        let files = sandbox(&client).await.files();
        let error = files.read("f", ReadOptions::default(), 100).await.unwrap_err();
        assert!(
            matches!(&error, Error::Transport { what, .. } if what == "reading f broke off"),
            "{error:?}"
        );
    }
}

const WRITTEN: &str = r#"[{"path":"/home/user/f","name":"f","type":"file","metadata":{"k":"v"}}]"#;

#[tokio::test]
async fn writes() {
    let stub = Stub::with_sandbox(|_, _| reply(200, WRITTEN));
    let files = http(&stub).await;
    let options = WriteOptions {
        user: Some("root".into()),
        metadata: [("k".into(), "v".into())].into(),
        atomic: true,
    };
    assert_eq!(
        files.write("f", Bytes::from_static(&[0, 255]), options).await.unwrap(),
        "/home/user/f"
    );
    let seen = stub.last();
    assert_eq!(seen.line, "POST /files?path=f&username=root&atomic=true");
    assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
    assert_eq!(seen.header("x-metadata-k"), Some("v"));
    assert_eq!(
        (seen.header("content-length"), &seen.body[..]),
        (Some("2"), &[0, 255][..])
    );

    let pieces = (0..20).map(|i| Ok(Bytes::from(vec![i; 50_000])));
    let stream = futures::stream::iter(pieces.collect::<Vec<_>>()).boxed();
    files
        .write_stream("big", stream, WriteOptions::default())
        .await
        .unwrap();
    let seen = stub.last();
    assert_eq!(
        (seen.line.as_str(), seen.body.len()),
        ("POST /files?path=big", 1_000_000)
    );
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    assert_eq!(seen.body[999_999], 19);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_here() {
    let stub = Stub::with_sandbox(|_, _| reply(200, WRITTEN));
    let files = sandbox(&stub.in_process()).await.files();
    for (key, value) in [("a b", "v"), ("k", "line\nbreak")] {
        let options = WriteOptions {
            metadata: [(key.into(), value.into())].into(),
            ..WriteOptions::default()
        };
        assert!(matches!(
            files.write("f", Bytes::new(), options).await,
            Err(Error::InvalidArgument(_))
        ));
    }
    assert_eq!(stub.lines().len(), 1);
}

#[tokio::test]
async fn an_upload_whose_source_fails() {
    let stub = Stub::with_sandbox(|seen, _| match seen.line.as_str() {
        "GET /health" => reply(204, ""),
        _ => reply(200, WRITTEN),
    });
    let files = http(&stub).await;
    let pieces = vec![
        Ok(Bytes::from_static(b"half")),
        Err(std::io::Error::other("the disk is gone")),
    ];
    let stream = futures::stream::iter(pieces).boxed();
    let error = files
        .write_stream("f", stream, WriteOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
}

#[tokio::test]
async fn old_daemons_get_a_form() {
    let stub = Stub::new(|seen, _| match seen.line.as_str() {
        "POST /v2/sandboxes" => reply(
            201,
            r#"{"templateID":"t","sandboxID":"i1","clientID":"","envdVersion":"0.5.6"}"#,
        ),
        _ => reply(200, WRITTEN),
    });
    let files = http(&stub).await;
    files
        .write("a\"b", Bytes::from_static(b"data"), WriteOptions::default())
        .await
        .unwrap();
    let seen = stub.last();
    let kind = seen.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    let wanted = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a_b\"\r\n\
         Content-Type: application/octet-stream\r\n\r\ndata\r\n--{boundary}--\r\n"
    );
    assert_eq!(std::str::from_utf8(&seen.body).unwrap(), wanted);
    assert_eq!(seen.line, "POST /files?path=a%22b");
}

fn entry(name: &str, more: Value) -> Value {
    let mut entry = json!({"name": name, "type": "FILE_TYPE_FILE", "path": format!("/d/{name}"), "size": "9007199254740993",
        "mode": 0o100_644, "permissions": "-rw-r--r--", "owner": "user", "group": "user",
        "modifiedTime": "2026-01-02T03:04:05.500Z"});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

#[tokio::test]
async fn entries() {
    let stub = Stub::with_sandbox(|seen, _| {
        let entries = json!([
            entry("f", json!({"metadata": {"k": "v"}})),
            entry("d", json!({"type": "FILE_TYPE_DIRECTORY", "size": "0"})),
            entry("l", json!({"symlinkTarget": "/d/f"})),
            entry("s", json!({"type": "FILE_TYPE_UNSPECIFIED"})),
        ]);
        match seen.line.as_str() {
            "POST /filesystem.Filesystem/ListDir" => reply(200, json!({"entries": entries}).to_string()),
            "POST /filesystem.Filesystem/Remove" => reply(200, "{}"),
            _ => reply(200, json!({"entry": entries[0]}).to_string()),
        }
    });
    let files = http(&stub).await;
    let list = files.list("/d", 0, Some("root")).await.unwrap();
    assert_eq!(stub.last().json(), json!({"path": "/d", "depth": 1}));
    assert_eq!(stub.last().header("authorization"), Some("Basic cm9vdDo="));
    let kinds: Vec<_> = list.iter().map(|entry| entry.kind).collect();
    assert_eq!(
        kinds,
        [EntryType::File, EntryType::Dir, EntryType::Symlink, EntryType::Other]
    );
    let file = &list[0];
    assert_eq!(
        (file.size, file.mode, file.path.as_str()),
        (9_007_199_254_740_993, 0o644, "/d/f")
    );
    assert_eq!(file.modified.as_deref(), Some("2026-01-02T03:04:05.500Z"));
    assert_eq!(
        (file.metadata["k"].as_str(), list[2].symlink_target.as_deref()),
        ("v", Some("/d/f"))
    );

    assert_eq!(files.info("/d/f", None).await.unwrap().name, "f");
    assert_eq!(
        (stub.last().line, stub.last().json()),
        ("POST /filesystem.Filesystem/Stat".into(), json!({"path": "/d/f"}))
    );
    assert!(files.make_dir("n", None).await.unwrap());
    assert_eq!(
        (stub.last().line, stub.last().json()),
        ("POST /filesystem.Filesystem/MakeDir".into(), json!({"path": "n"}))
    );
    files.rename("a", "b", None).await.unwrap();
    assert_eq!(stub.last().line, "POST /filesystem.Filesystem/Move");
    assert_eq!(stub.last().json(), json!({"source": "a", "destination": "b"}));
    files.remove("a", None).await.unwrap();
    assert_eq!(
        (stub.last().line, stub.last().json()),
        ("POST /filesystem.Filesystem/Remove".into(), json!({"path": "a"}))
    );
}

#[tokio::test]
async fn there_already_or_not_at_all() {
    let exists =
        Stub::with_sandbox(|_, _| reply(409, r#"{"code":"already_exists","message":"directory already exists"}"#));
    assert!(
        !sandbox(&exists.in_process())
            .await
            .files()
            .make_dir("d", None)
            .await
            .unwrap()
    );
    let absent = Stub::with_sandbox(|_, _| reply(404, r#"{"code":"not_found","message":"file not found: x"}"#));
    let files = sandbox(&absent.in_process()).await.files();
    files.remove("x", None).await.unwrap();
    assert!(matches!(files.info("x", None).await, Err(Error::NotFound(text)) if text == "file not found: x"));
}

#[tokio::test]
async fn signed_urls() {
    let stub = Stub::with_sandbox(|_, _| reply(200, ""));
    let files = http(&stub).await;
    let url = files.download_url("/a b", Some("root"), Some(1_900_000_000)).unwrap();
    let (base, query) = url.split_once('?').unwrap();
    assert!(
        base.starts_with("http://127.0.0.1:") && base.ends_with("/files"),
        "{base}"
    );
    let signature = sign("/a b", Operation::Read, "root", TOKEN, Some(1_900_000_000));
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    assert_eq!(
        query,
        format!("path=%2Fa%20b&username=root&signature={signature}&signature_expiration=1900000000")
    );
    let url = files.upload_url("f", None, None).unwrap();
    let signature = sign("f", Operation::Write, "", TOKEN, None)
        .replace('+', "%2B")
        .replace('/', "%2F");
    assert!(url.ends_with(&format!("/files?path=f&signature={signature}")), "{url}");

    let files = sandbox(&stub.in_process()).await.files();
    assert!(matches!(
        files.download_url("f", None, None),
        Err(Error::Unsupported(_))
    ));
}

#[tokio::test]
async fn urls_of_open_sandboxes_do_not_expire() {
    let stub = Stub::always(
        201,
        r#"{"templateID":"t","sandboxID":"i1","envdVersion":"0.6.13","domain":"x.org"}"#,
    );
    let files = sandbox(&stub.in_process()).await.files();
    assert_eq!(
        files.download_url("f", None, None).unwrap(),
        "http://49983-i1.x.org/files?path=f"
    );
    assert!(matches!(
        files.download_url("f", None, Some(1)),
        Err(Error::InvalidArgument(_))
    ));
}

#[tokio::test]
async fn metrics() {
    let stub = Stub::with_sandbox(|_, _| {
        reply(
            200,
            r#"{"ts":1,"cpu_count":2,"cpu_used_pct":1.5,"mem_total":4,"mem_used":3,"mem_cache":1,"disk_used":5,"disk_total":6,"oom_kills":[]}"#,
        )
    });
    let metrics = sandbox(&stub.in_process()).await.metrics().await.unwrap();
    assert_eq!((metrics.ts, metrics.cpu_used_pct, metrics.disk_total), (1, 1.5, 6));
    assert_eq!(stub.last().line, "GET /metrics");
}
