//! Over a connection, as the daemon serves it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::serve::Server;

fn connect() -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Server::new(state(None));
    tokio::spawn(async move { server.serve(theirs).await });
    ours
}

fn post(path: &Path, query: &str, length: usize) -> String {
    format!(
        "POST {}{query} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n",
        url(path)
    )
}

/// One answer: its head, and as many bytes as `Content-Length` says.
async fn answer(connection: &mut UnixStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .unwrap()
        .split('\r')
        .next()
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).await.unwrap();
    (head, body)
}

async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within five seconds");
}

#[tokio::test]
async fn uploads_that_break_off_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("kept"), "old").unwrap();
    let count = || std::fs::read_dir(folder.path()).unwrap().count();
    for (name, query, while_open) in [("kept", "&atomic=true", 2), ("new", "", 2), ("new2", "&atomic=true", 2)] {
        let mut connection = connect();
        connection
            .write_all(post(&at(name), query, 2_000_000).as_bytes())
            .await
            .unwrap();
        connection.write_all(&noise(1_500_000)).await.unwrap();
        eventually(|| count() == while_open).await;
        drop(connection);
        eventually(|| count() == 1).await;
    }
    assert_eq!(std::fs::read(at("kept")).unwrap(), b"old");
}

#[tokio::test]
async fn refusals_reach_clients_that_are_still_sending() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = connect();
    connection
        .write_all(post(folder.path(), "", 8_000_000).as_bytes())
        .await
        .unwrap();
    connection.write_all(&noise(8_000_000)).await.unwrap();
    let (head, body) = answer(&mut connection).await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("path is a directory"));
}

#[tokio::test]
async fn a_connection_serves_one_file_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let data = noise(1_000_000);
    let mut connection = connect();
    connection
        .write_all(post(&path, "", data.len()).as_bytes())
        .await
        .unwrap();
    connection.write_all(&data).await.unwrap();
    assert!(answer(&mut connection).await.0.starts_with("http/1.1 200"));
    for _ in 0..2 {
        let get = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", url(&path));
        connection.write_all(get.as_bytes()).await.unwrap();
        let (head, body) = answer(&mut connection).await;
        assert!(head.contains("content-disposition: inline; filename=a\r"), "{head}");
        assert!(body == data);
    }
    let head = format!("HEAD {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", url(&path));
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut rest = String::new();
    connection.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.to_ascii_lowercase().contains("content-length: 1000000\r"),
        "{rest}"
    );
    assert!(rest.ends_with("\r\n\r\n"));
}
