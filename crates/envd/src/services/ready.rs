//! Waiting for a server. The kernel tells nobody when a port begins to listen, so it is tried every few milliseconds:
//! a try that is refused costs less than a look at the table of sockets, which grows with the machine.

use std::time::Duration;

use sandhold_wire::services::{Await, Readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::HttpError;
use crate::limits::{READY_DRAIN, READY_DRAIN_TIME, READY_PATH, READY_PAUSE, READY_PAUSE_MAX, READY_TIME};
use crate::tunnel;

/// What one try showed.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// An HTTP answer with this status.
    Http(u16),
    /// Something that is not HTTP, or the end of the connection.
    Other,
    /// Nothing so far.
    Silence,
}

/// Waits until a server answers on the port, or until the time is up.
///
/// # Errors
/// The request is not one.
pub(crate) async fn wait(request: &Await) -> Result<Readiness, HttpError> {
    check(request)?;
    let start = Instant::now();
    let deadline = start + Duration::from_millis(request.timeout_ms).min(READY_TIME);
    let patience = Duration::from_millis(request.answer_ms);
    let mut pause = READY_PAUSE;
    let mut seen = Readiness::default();
    loop {
        if let Ok(Ok(stream)) = timeout_at(deadline.max(start + READY_PAUSE_MAX), tunnel::dial(request.port)).await {
            seen.accepts = true;
            let until = deadline.min(Instant::now() + patience);
            match ask(stream, request, until).await {
                Seen::Http(status) => {
                    seen.ready = true;
                    seen.http_status = Some(status);
                }
                Seen::Other => seen.ready = true,
                // It was given all the patience that was asked for, and not only what was left of the time.
                Seen::Silence => seen.ready = until < deadline,
            }
        } else {
            seen.accepts = false;
        }
        if seen.ready || Instant::now() >= deadline {
            seen.waited_ms = start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
            return Ok(seen);
        }
        sleep(pause.min(deadline - Instant::now())).await;
        pause = (pause * 2).min(READY_PAUSE_MAX);
    }
}

fn check(request: &Await) -> Result<(), HttpError> {
    let Await { port, path, .. } = request;
    if *port == 0 {
        return Err(HttpError::bad_request("the port must be 1 to 65535"));
    }
    let fits = path.starts_with('/') && path.len() <= READY_PATH && path.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        return Err(HttpError::bad_request(
            "the path must begin with a slash and hold no space and nothing beyond ASCII",
        ));
    }
    Ok(())
}

async fn ask(mut stream: TcpStream, request: &Await, until: Instant) -> Seen {
    let Await { port, path, .. } = request;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: sandhold\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let mut answer = Vec::new();
    let asking = async {
        // A server that ends the connection has accepted it.
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        while status_of(&answer).is_none() {
            match stream.read_buf(&mut answer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    };
    let in_time = timeout_at(until, asking).await.is_ok();
    if let Some(Some(status)) = status_of(&answer) {
        tokio::spawn(drain(stream));
        return Seen::Http(status);
    }
    if in_time { Seen::Other } else { Seen::Silence }
}

/// The status that an answer begins with; `None` while that cannot be told, `Some(None)` when it is not HTTP. What comes
/// before the answer proper, `100 Continue`, counts as an answer too.
fn status_of(answer: &[u8]) -> Option<Option<u16>> {
    const VERSION: &[u8] = b"HTTP/1.";
    let known = answer.len().min(VERSION.len());
    if answer[..known] != VERSION[..known] {
        return Some(None);
    }
    // `HTTP/1.1 200`
    let digits = answer.get(9..12)?;
    let status = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    Some(status.filter(|status| (100..1000).contains(status)))
}

/// Reads the rest: a server whose answer is cut off complains of it.
async fn drain(stream: TcpStream) {
    let mut rest = stream.take(READY_DRAIN);
    let _ = timeout(READY_DRAIN_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn request(port: u16, timeout_ms: u64, answer_ms: u64) -> Await {
        Await {
            port,
            path: "/".into(),
            timeout_ms,
            answer_ms,
        }
    }

    /// A server that answers each connection with these bytes; with none it is silent.
    async fn server(says: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read_buf(&mut Vec::new()).await;
                let _ = stream.write_all(says).await;
                if says.is_empty() {
                    held.push(stream);
                }
            }
        });
        port
    }

    #[test]
    fn statuses() {
        assert_eq!(status_of(b""), None);
        assert_eq!(status_of(b"HTTP"), None);
        assert_eq!(status_of(b"HTTP/1.1 20"), None);
        assert_eq!(status_of(b"HTTP/1.0 503 x"), Some(Some(503)));
        assert_eq!(status_of(b"220 mail"), Some(None));
        assert_eq!(status_of(b"HTTP/1.1 abc"), Some(None));
    }

    #[tokio::test]
    async fn servers_of_all_kinds() {
        let http = server(b"HTTP/1.1 404 Not Found\r\n\r\n").await;
        let seen = wait(&request(http, 5000, 5000)).await.unwrap();
        assert_eq!((seen.ready, seen.accepts, seen.http_status), (true, true, Some(404)));
        let other = server(b"220 hello\r\n").await;
        let seen = wait(&request(other, 5000, 5000)).await.unwrap();
        assert_eq!((seen.ready, seen.http_status), (true, None));
        // Silent, with patience that ends before the time does, and with patience for all of it.
        let silent = server(b"").await;
        let seen = wait(&request(silent, 60_000, 20)).await.unwrap();
        assert_eq!((seen.ready, seen.http_status), (true, None));
        let seen = wait(&request(silent, 50, 60_000)).await.unwrap();
        assert_eq!((seen.ready, seen.accepts, seen.http_status), (false, true, None));
    }

    #[tokio::test]
    async fn one_that_comes_late_is_met() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let seen = wait(&request(port, 20, 20)).await.unwrap();
        assert_eq!((seen.ready, seen.accepts), (false, false));
        let waiting = tokio::spawn(async move { wait(&request(port, 30_000, 20)).await.unwrap() });
        tokio::task::yield_now().await;
        let listener = TcpListener::bind(("::1", port)).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert_eq!(waiting.await.unwrap().http_status, Some(200));
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_refused() {
        for (port, path) in [(0, "/"), (80, ""), (80, "x"), (80, "/a b"), (80, "/\r\nX: y")] {
            let request = Await {
                path: path.into(),
                ..request(port, 1, 1)
            };
            assert!(wait(&request).await.is_err(), "{port} {path:?}");
        }
    }
}
