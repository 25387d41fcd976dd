//! One HTTP request from inside the sandbox, without a program for it there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sandhold_wire::services::{FailureKind, Probe, ProbeAnswer, ProbeFailure, Probed};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::names;
use crate::limits::{PROBE_BODY, PROBE_HEAD, PROBE_TIME};
use crate::tunnel;

/// Makes the request. What goes wrong is a part of the answer.
pub(crate) async fn ask(probe: Probe) -> Probed {
    let time = Duration::from_millis(probe.timeout_ms).min(PROBE_TIME);
    let result = match timeout(time, send(probe)).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("no complete answer within {} ms", time.as_millis());
            Err(failure(FailureKind::Timeout, message))
        }
    };
    match result {
        Ok(answer) => Probed {
            answer: Some(answer),
            failure: None,
        },
        Err(failure) => Probed {
            answer: None,
            failure: Some(failure),
        },
    }
}

fn failure(kind: FailureKind, message: impl Into<String>) -> ProbeFailure {
    ProbeFailure {
        kind,
        message: message.into(),
    }
}

fn invalid(message: impl Into<String>) -> ProbeFailure {
    failure(FailureKind::Invalid, message)
}

fn connection(what: &str, error: &dyn std::error::Error) -> ProbeFailure {
    let mut message = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    failure(FailureKind::Connection, message)
}

async fn send(probe: Probe) -> Result<ProbeAnswer, ProbeFailure> {
    let start = Instant::now();
    let max = probe.max_body.min(PROBE_BODY);
    let (request, host, port) = request(&probe)?;
    let addresses = names::addresses(&host);
    if addresses.is_empty() {
        return Err(failure(FailureKind::Unable, format!("the name {host} needs DNS")));
    }
    let stream = dial(&host, &addresses, port).await?;
    let connect_ms = millis(start);
    let (mut sender, connected) = http1::Builder::new()
        .max_buf_size(PROBE_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| connection("no HTTP connection", &error))?;
    // Ends with the request: what breaks the connection is told by that.
    let driving = Guard(tokio::spawn(async move { drop(connected.await) }));
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| connection("no HTTP answer", &error))?;
    let first_byte_ms = millis(start);
    let (head, mut body) = answer.into_parts();
    let mut read: Vec<u8> = Vec::new();
    let mut truncated = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| connection("the answer broke off", &error))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = max - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            truncated = true;
            break;
        }
    }
    drop(driving);
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(ProbeAnswer {
        status: head.status.as_u16(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        body: STANDARD.encode(read),
        truncated,
        connect_ms,
        first_byte_ms,
        total_ms: millis(start),
    })
}

struct Guard(tokio::task::JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// In milliseconds, with two digits behind the point.
fn millis(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 100_000.0).round() / 100.0
}

/// The request with the host and the port that it goes to.
fn request(probe: &Probe) -> Result<(Request<Full<Bytes>>, String, u16), ProbeFailure> {
    let uri: Uri = probe
        .url
        .parse()
        .map_err(|error| invalid(format!("the URL is not valid: {error}")))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(failure(FailureKind::Unable, "TLS is not spoken here")),
        _ => return Err(invalid("the URL must begin with http:// or https://")),
    }
    let authority = uri.authority().ok_or_else(|| invalid("the URL names no host"))?;
    let host = authority.host().to_owned();
    let port = match authority.port_u16() {
        Some(port) => port,
        // What is no port is not there for the parser.
        None if authority.as_str().trim_end_matches(':').ends_with(&host) => 80,
        None => return Err(invalid("the port of the URL must be 1 to 65535")),
    };
    if host.is_empty() || port == 0 || authority.as_str().contains('@') {
        return Err(invalid("the URL must be http://host:port/path, without a user"));
    }
    let method = Method::from_bytes(probe.method.as_bytes())
        .ok()
        .filter(|method| method != Method::CONNECT)
        .ok_or_else(|| invalid(format!("{:?} is not a method", probe.method)))?;
    let body = STANDARD
        .decode(&probe.body)
        .map_err(|_| invalid("the body is not base64"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| invalid("the path is not valid"))?;
    let headers = request.headers_mut();
    let given_host = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid("the host is not valid"))?;
    headers.insert(header::HOST, given_host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("sandhold"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    for name in [header::HOST, header::USER_AGENT, header::ACCEPT] {
        if probe
            .headers
            .iter()
            .any(|(given, _)| given.eq_ignore_ascii_case(name.as_str()))
        {
            headers.remove(name);
        }
    }
    for (name, value) in &probe.headers {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) else {
            return Err(invalid(format!("the header {name:?} is not valid")));
        };
        headers.append(name, value);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok((request, host, port))
}

/// The first address that takes the connection.
async fn dial(host: &str, addresses: &[IpAddr], port: u16) -> Result<TcpStream, ProbeFailure> {
    let mut last = None;
    for &address in addresses {
        match tunnel::connect(SocketAddr::from((address, port))).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            failure(FailureKind::Refused, format!("nothing listens on {host}:{port}"))
        }
        Some(error) => connection(&format!("no connection to {host}:{port}"), &error),
        None => failure(FailureKind::Name, format!("{host} has no address")),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn probe(url: &str) -> Probe {
        Probe {
            method: "POST".into(),
            url: url.into(),
            headers: vec![("X-A".into(), "b".into()), ("host".into(), "other.example".into())],
            body: STANDARD.encode("hello"),
            timeout_ms: 5000,
            max_body: 4,
        }
    }

    #[tokio::test]
    async fn a_request_is_made_and_its_answer_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"hello") {
                assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
            }
            stream
                .write_all(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 6\r\n\r\nabcdef")
                .await
                .unwrap();
            String::from_utf8(seen).unwrap()
        });
        let answer = ask(probe(&format!("http://127.0.0.1:{port}/p?q=1")))
            .await
            .answer
            .unwrap();
        assert_eq!((answer.status, answer.truncated), (302, true));
        assert_eq!(answer.body, STANDARD.encode("abcd"));
        assert!(answer.headers.contains(&("location".into(), "/x".into())));
        let seen = server.await.unwrap().to_ascii_lowercase();
        assert!(seen.starts_with("post /p?q=1 http/1.1\r\n"), "{seen}");
        assert!(
            seen.contains("x-a: b\r\n")
                && seen.contains("host: other.example\r\n")
                && seen.contains("content-length: 5")
        );
        assert_eq!(seen.matches("host:").count(), 1, "{seen}");
    }

    #[tokio::test]
    async fn failures_say_what_they_are() {
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        for (url, kind) in [
            (format!("http://127.0.0.1:{free}/"), FailureKind::Refused),
            ("https://127.0.0.1/".into(), FailureKind::Unable),
            ("http://nothing.invalid/".into(), FailureKind::Unable),
            ("ftp://127.0.0.1/".into(), FailureKind::Invalid),
            ("/x".into(), FailureKind::Invalid),
            ("http://a@127.0.0.1/".into(), FailureKind::Invalid),
        ] {
            assert_eq!(ask(probe(&url)).await.failure.unwrap().kind, kind, "{url}");
        }
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let late = Probe {
            timeout_ms: 30,
            ..probe(&format!("http://{}/", silent.local_addr().unwrap()))
        };
        assert_eq!(ask(late).await.failure.unwrap().kind, FailureKind::Timeout);
    }
}
