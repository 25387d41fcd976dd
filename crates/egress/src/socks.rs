//! SOCKS5 (RFC 1928), as far as TCP needs it, without authentication.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::name::{self, Host};

/// The first byte of the protocol.
pub(crate) const VERSION: u8 = 5;

/// What is answered to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Done = 0,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

impl Reply {
    /// The address that the proxy uses is nobody's business.
    pub(crate) fn bytes(self) -> [u8; 10] {
        [VERSION, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }
}

/// Speaks with a client, whose first byte was read, up to its request; the request, or what to answer to it.
pub(crate) async fn greet<S>(client: &mut S) -> io::Result<Result<(Host, u16), Reply>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let count = client.read_u8().await?;
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        client.write_all(&[VERSION, 0xff]).await?;
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the client wants authentication",
        ));
    }
    client.write_all(&[VERSION, 0]).await?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let host = match kind {
        1 => {
            let mut ip = [0; 4];
            client.read_exact(&mut ip).await?;
            Some(Host::Ip(Ipv4Addr::from(ip).into()))
        }
        4 => {
            let mut ip = [0; 16];
            client.read_exact(&mut ip).await?;
            Some(Host::Ip(name::canonical(Ipv6Addr::from(ip).into())))
        }
        3 => {
            let count = client.read_u8().await?;
            let mut text = vec![0; usize::from(count)];
            client.read_exact(&mut text).await?;
            std::str::from_utf8(&text).ok().and_then(|text| name::host(text).ok())
        }
        _ => return Ok(Err(Reply::AddressNotSupported)),
    };
    let port = client.read_u16().await?;
    Ok(match (command, host) {
        (1, Some(host)) if port > 0 => Ok((host, port)),
        (1, _) => Err(Reply::AddressNotSupported),
        _ => Err(Reply::CommandNotSupported),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn ask(bytes: &[u8]) -> io::Result<Result<(Host, u16), Reply>> {
        let (mut inside, mut outside) = duplex(1024);
        inside.write_all(bytes).await.unwrap();
        inside.shutdown().await.unwrap();
        greet(&mut outside).await
    }

    fn request(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        [&[1, 0, 5, command, 0, kind][..], rest].concat()
    }

    fn named(text: &str) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text.as_bytes(), &[1, 187]].concat()
    }

    #[tokio::test]
    async fn requests() {
        let v4 = ask(&request(1, 1, &[192, 0, 2, 1, 0, 80])).await.unwrap();
        assert_eq!(v4, Ok((Host::Ip([192, 0, 2, 1].into()), 80)));
        let mapped: Ipv6Addr = "::ffff:127.0.0.1".parse().unwrap();
        let mapped = ask(&request(1, 4, &[&mapped.octets()[..], &[0, 80]].concat()))
            .await
            .unwrap();
        assert_eq!(mapped, Ok((Host::Ip([127, 0, 0, 1].into()), 80)));
        let name = ask(&request(1, 3, &named("Example.COM."))).await.unwrap();
        assert_eq!(name, Ok((Host::Name("example.com".into()), 443)));
        let literal = ask(&request(1, 3, &named("127.0.0.1"))).await.unwrap();
        assert_eq!(literal, Ok((Host::Ip([127, 0, 0, 1].into()), 443)));
    }

    #[tokio::test]
    async fn what_is_refused() {
        for text in ["2130706433", "0x7f.1", "0177.0.0.1", "a b", "", "u@h", "\u{ff}\u{0}"] {
            let reply = ask(&request(1, 3, &named(text))).await.unwrap();
            assert_eq!(reply, Err(Reply::AddressNotSupported), "{text}");
        }
        let udp = ask(&request(3, 1, &[0, 0, 0, 0, 0, 80])).await.unwrap();
        assert_eq!(udp, Err(Reply::CommandNotSupported));
        assert_eq!(ask(&request(1, 9, &[])).await.unwrap(), Err(Reply::AddressNotSupported));
        assert!(ask(&[1, 2]).await.is_err(), "authentication only");
        let whole = request(1, 3, &named("example.com"));
        for end in 0..whole.len() {
            assert!(ask(&whole[..end]).await.is_err(), "{end}");
        }
    }
}
