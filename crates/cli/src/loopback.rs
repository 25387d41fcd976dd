//! The loopback listener of `sandhold mcp`: what makes URLs of local sandboxes open in a browser of this machine.
//!
//! Its port is taken at the start, since it is a part of every URL; nobody listens there until a URL is handed out.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use axum::serve::ListenerExt;
use futures::{FutureExt, future::BoxFuture};
use sandhold_gateway::Owner;
use sandhold_mcp::Door;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};

use crate::local::Local;

/// Browsers and curl resolve names under localhost to this machine by themselves.
const DOMAIN: &str = "sandhold.localhost";
/// Connections that wait in the kernel.
const BACKLOG: u32 = 1024;

/// A port of the loopback that is ours, or why none is.
pub(crate) struct Place(Result<(TcpSocket, u16), io::Error>);

impl Place {
    /// Takes a free port. Must be called within a tokio runtime.
    pub(crate) fn take() -> Self {
        let taken = TcpSocket::new_v4().and_then(|socket| {
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let port = socket.local_addr()?.port();
            Ok((socket, port))
        });
        if let Err(error) = &taken {
            tracing::warn!(%error, "no port of 127.0.0.1 could be taken: sandboxes will have no URLs");
        }
        Self(taken)
    }

    /// What clients build host names from.
    pub(crate) fn domain(&self) -> Option<String> {
        let (_, port) = self.0.as_ref().ok()?;
        Some(format!("{DOMAIN}:{port}"))
    }
}

/// The listener.
pub(crate) struct Loopback {
    local: Local,
    state: Mutex<State>,
}

enum State {
    Taken(TcpSocket),
    Open(JoinHandle<()>),
    Broken(String),
}

impl Loopback {
    pub(crate) fn new(place: Place, local: Local) -> Self {
        let state = match place.0 {
            Ok((socket, _)) => State::Taken(socket),
            Err(error) => State::Broken(format!("no port of 127.0.0.1 could be taken: {error}")),
        };
        Self {
            local,
            state: Mutex::new(state),
        }
    }

    async fn listen(&self) -> Result<(), String> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(serving) if !serving.is_finished() => return Ok(()),
            State::Open(_) => return Err("its listener on 127.0.0.1 has ended".into()),
            State::Broken(why) => return Err(why.clone()),
            State::Taken(_) => {}
        }
        let (gateway, _) = self.local.start().await.map_err(|error| format!("{error:#}"))?;
        let taken = std::mem::replace(&mut *state, State::Broken("its listener was not opened".into()));
        let State::Taken(socket) = taken else {
            return Err("its listener was not opened".into());
        };
        let listener = match socket.listen(BACKLOG) {
            Ok(listener) => listener.tap_io(no_delay),
            Err(error) => {
                let why = format!("its port of 127.0.0.1 cannot be listened at: {error}");
                *state = State::Broken(why.clone());
                return Err(why);
            }
        };
        let app = gateway.door(Owner::LOCAL);
        *state = State::Open(tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!(%error, "the loopback listener ended");
            }
        }));
        Ok(())
    }

    /// Lets nobody in any more.
    pub(crate) async fn close(&self) {
        let mut state = self.state.lock().await;
        if let State::Open(serving) = std::mem::replace(&mut *state, State::Broken("this server ends".into())) {
            serving.abort();
        }
    }
}

impl Door for Loopback {
    fn open(&self) -> BoxFuture<'_, Result<(), String>> {
        self.listen().boxed()
    }
}

/// Small answers must not wait for the acknowledgement of those before them.
fn no_delay(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
}
