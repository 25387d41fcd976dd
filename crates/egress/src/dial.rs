//! Connecting to one of several addresses.

use std::{io, net::SocketAddr};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::{net::TcpStream, time::sleep};

use crate::{limits, name::canonical, world::World};

/// Connects to the first of the addresses that answers. Each is allowed already.
pub(crate) async fn dial(world: &World, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let race = race(world, addresses);
    tokio::time::timeout(limits::CONNECT, race)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn race(world: &World, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter().take(limits::ADDRESSES);
    let mut under_way = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    under_way.extend(left.next().map(|address| connect(world, *address)));
    loop {
        let next = left.clone().next();
        tokio::select! {
            done = under_way.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    last = error;
                    under_way.extend(left.next().map(|address| connect(world, *address)));
                }
                None => return Err(last),
            },
            () = sleep(limits::NEXT_ADDRESS), if next.is_some() => {
                under_way.extend(left.next().map(|address| connect(world, *address)));
            }
        }
    }
}

async fn connect(world: &World, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let (peer, own) = (
        canonical(stream.peer_addr()?.ip()),
        canonical(stream.local_addr()?.ip()),
    );
    // Both ends at one address: it is this host, however it came by that address.
    if peer == own && !world.opened(peer) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the address is one of the server itself",
        ));
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
