//! `CONNECT 127.0.0.1:<port>`: bytes to and from a port of the sandbox.
//!
//! Only the sandbox's own loopback is reached. The control socket's peer is the host alone, and it decides who may come
//! through; so no access token is asked for.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sandhold_wire::names::PROXY_PORT_CLOSED;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{HttpError, json};
use crate::limits::{TUNNEL_BUFFER, TUNNEL_CONNECT};

#[derive(Serialize)]
struct Closed {
    code: u16,
    message: &'static str,
    port: u16,
}

/// Answers a `CONNECT` request, and copies from then on.
pub(crate) async fn open(request: Request<Incoming>) -> Response<Body> {
    let Some(port) = port(&request) else {
        return HttpError::bad_request("CONNECT takes 127.0.0.1 or localhost and a port, nothing else").into_response();
    };
    let Ok(target) = dial(port).await else {
        let body = Closed {
            code: StatusCode::BAD_GATEWAY.as_u16(),
            message: PROXY_PORT_CLOSED,
            port,
        };
        return json(StatusCode::BAD_GATEWAY, &body);
    };
    tokio::spawn(async move {
        if let Ok(client) = hyper::upgrade::on(request).await {
            // Either side may break off at any time; both ends are closed then.
            let _ = copy(client, target).await;
        }
    });
    StatusCode::OK.into_response()
}

fn port(request: &Request<Incoming>) -> Option<u16> {
    let authority = request.uri().authority()?;
    let local = ["127.0.0.1", "localhost", "[::1]"].contains(&authority.host());
    authority.port_u16().filter(|&port| local && port != 0)
}

/// Connects to a port. Programs listen on one of the two loopbacks, or on both.
///
/// # Errors
/// Nobody listens on either, or they did not answer.
pub(crate) async fn dial(port: u16) -> io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let dial = async {
        match connect(v4).await {
            Ok(stream) => Ok(stream),
            Err(_) => connect(v6).await,
        }
    };
    let stream = timeout(TUNNEL_CONNECT, dial).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to an address, but never to itself: where nobody listens on a port of the range that the kernel takes sender's
/// ports from, it may take that very port, and the socket meets itself.
pub(crate) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    unless_itself(TcpStream::connect(to).await?, to)
}

fn unless_itself(stream: TcpStream, to: SocketAddr) -> io::Result<TcpStream> {
    if stream.local_addr()? == to {
        // Nor must the port stay taken for a while after.
        stream.set_zero_linger()?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

async fn copy(client: Upgraded, mut target: TcpStream) -> io::Result<()> {
    let mut client = TokioIo::new(client);
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut target, TUNNEL_BUFFER, TUNNEL_BUFFER).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_socket_that_met_itself_is_no_connection() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let own = socket.local_addr().unwrap();
        let itself = socket.connect(own).await.unwrap();
        let error = unless_itself(itself, own).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // The port is free at once, for the server that was waited for.
        let server = TcpListener::bind(own).await.unwrap();
        let other = connect(own).await.unwrap();
        assert_eq!(other.peer_addr().unwrap(), server.local_addr().unwrap());
    }
}
