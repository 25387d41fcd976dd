use std::io::Read;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;

use super::*;

#[tokio::test]
async fn a_small_file_comes_whole_with_its_headers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "hello").unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    std::fs::File::open(&path).unwrap().set_modified(modified).unwrap();
    let answer = get(&path, &[]).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"));
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", "5"),
        ("content-disposition", "inline; filename=a.txt"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("vary", "Accept-Encoding"),
        ("accept-ranges", "bytes"),
        ("etag", ""),
        ("content-encoding", ""),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let head = send(router(), Method::HEAD, &url(&path), &[], Body::empty()).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.text()),
        (StatusCode::OK, "5", "")
    );
    let at = "Sun, 06 Nov 1994 08:49:37 GMT";
    let unchanged = get(&path, &[("if-modified-since", at), ("accept-encoding", "gzip")]).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.text()), (304, ""));
    assert_eq!(unchanged.header("content-encoding"), "");
    assert_eq!(get(&path, &[("if-none-match", "*")]).await.status, 304);
}

#[tokio::test]
async fn ranges_of_large_and_small_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    let data = noise(3_000_001);
    std::fs::write(&path, &data).unwrap();
    let whole = get(&path, &[]).await;
    assert!(whole.body == data);
    assert_eq!(whole.header("content-length"), "3000001");
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    for (range, from, to) in [
        ("bytes=0-9", 0, 10),
        ("bytes=0-999999", 0, 1_000_000),
        ("bytes=7-", 7, 3_000_001),
        ("bytes=-700000", 2_300_001, 3_000_001),
        ("bytes=1000000-1000000", 1_000_000, 1_000_001),
    ] {
        let part = get(&path, &[("range", range), ("accept-encoding", "gzip")]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/3000001", to - 1));
        assert_eq!(part.header("content-length"), (to - from).to_string());
        assert_eq!(part.header("content-encoding"), "");
        assert!(part.body == data[from..to], "{range}");
    }
    let beyond = get(&path, &[("range", "bytes=3000001-")]).await;
    assert_eq!(beyond.header("content-range"), "bytes */3000001");
    assert_eq!(beyond.refusal().0, 416);
    let several = get(&path, &[("range", "bytes=0-1,5-6")]).await;
    assert!(several.status == 200 && several.body == data);
    let other = get(
        &path,
        &[("range", "bytes=0-1"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")],
    )
    .await;
    assert!(other.status == 200 && other.body == data);
}

#[tokio::test]
async fn gzip_when_the_client_prefers_it() {
    let folder = tempfile::tempdir().unwrap();
    for (name, data) in [
        ("small.json", b"{}".to_vec()),
        ("empty.json", vec![]),
        ("large.json", noise(2_000_000)),
        ("packed.json", b"0123456789".repeat(200_000)),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, &data).unwrap();
        let answer = get(&path, &[("accept-encoding", "gzip, deflate")]).await;
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("vary"), "Accept-Encoding");
        let mut plain = Vec::new();
        GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == data, "{name}");
    }
    let path = folder.path().join("small.json");
    assert_eq!(get(&path, &[("accept-encoding", "identity")]).await.text(), "{}");
    let none = get(&path, &[("accept-encoding", "br, identity;q=0")]).await;
    assert_eq!(none.refusal().0, 406);
}

#[tokio::test]
async fn refusals() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).display().to_string();
    assert_eq!(
        get(folder.path(), &[]).await.refusal(),
        (400, format!("path '{}' is a directory", folder.path().display()))
    );
    assert_eq!(
        get(&at("no"), &[]).await.refusal(),
        (404, format!("path '{}' does not exist", text("no")))
    );
    std::fs::write(at("file"), "").unwrap();
    assert_eq!(get(&at("file/below"), &[]).await.refusal().0, 404);
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    assert_eq!(get(&at("loop"), &[]).await.refusal().0, 400);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let expected = format!(
        "path '{}' is a named pipe, only regular files can be read",
        text("pipe")
    );
    assert_eq!(get(&at("pipe"), &[]).await.refusal(), (400, expected));
    assert_eq!(get(Path::new("/dev/zero"), &[]).await.refusal().0, 400);
    assert_eq!(get(Path::new("/a\0b"), &[]).await.refusal().0, 400);
    let bad = send(
        router(),
        Method::GET,
        "/files?signature_expiration=x",
        &[],
        Body::empty(),
    )
    .await;
    assert_eq!(bad.refusal().0, 400);
}

#[tokio::test]
async fn files_without_a_size_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let answer = get(Path::new("/proc/self/status"), &[]).await;
    assert!(answer.text().starts_with("Name:"));
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let zipped = get(Path::new("/proc/self/status"), &[("accept-encoding", "gzip")]).await;
    let mut plain = String::new();
    GzDecoder::new(&zipped.body[..]).read_to_string(&mut plain).unwrap();
    assert!(plain.starts_with("Name:"));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let answer = get(&empty, &[("range", "bytes=0-99")]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text(), answer.header("content-length")),
        (200, "", "0")
    );
    let link = folder.path().join("link");
    std::fs::write(folder.path().join("to"), "there").unwrap();
    std::os::unix::fs::symlink("to", &link).unwrap();
    assert_eq!(get(&link, &[]).await.text(), "there");
}

#[tokio::test]
async fn a_file_that_shrinks_breaks_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    std::fs::write(&path, noise(4_000_000)).unwrap();
    let request = Request::get(url(&path)).body(Body::empty()).unwrap();
    let answer = router().oneshot(request).await.unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1)
        .unwrap();
    assert!(answer.into_body().collect().await.is_err());
}
