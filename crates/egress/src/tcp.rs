//! Connections that the sandbox's kernel led here.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use crate::{
    blocked::Refusal,
    dial::dial,
    dns,
    inspect::{Goal, Inspect, Look},
    limits,
    policy::Basis,
    relay::splice,
    sandbox::{Grant, Permit, Sandbox},
    stream::Io,
};

/// Takes connections from a door until the sandbox ends, and serves each by `serve`.
pub(crate) async fn accept<F>(
    sandbox: Arc<Sandbox>,
    door: TcpListener,
    serve: impl Fn(Arc<Sandbox>, TcpStream, Permit) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut client = match door.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Mostly a lack of file descriptors, which passes.
                tracing::debug!(%error, "a connection cannot be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = sandbox.permit() else {
            let original = (sandbox.world.original)(&client);
            sandbox.block(Refusal {
                host: original.as_ref().map(|to| to.ip().to_string()).unwrap_or_default(),
                port: original.map_or(0, |to| to.port()),
                protocol: "tcp",
                rule: format!("more than {} connections at once", limits::CONNECTIONS),
                remedy: "close connections that are no longer needed".into(),
            });
            client.reset();
            continue;
        };
        let _ = client.set_nodelay(true);
        let task = serve(Arc::clone(&sandbox), client, permit);
        sandbox.spawn(task);
    }
}

/// Serves a connection that was meant for somewhere else.
pub(crate) async fn serve(sandbox: Arc<Sandbox>, mut client: TcpStream, permit: Permit) {
    let to = match (sandbox.world.original)(&client) {
        // Nobody was meant: the door itself was connected to.
        Ok(to)
            if client
                .local_addr()
                .is_ok_and(|own| own.port() == to.port() && to.ip().is_loopback()) =>
        {
            return client.reset();
        }
        Ok(to) => to,
        Err(error) => {
            tracing::debug!(%error, "a connection tells no destination");
            return client.reset();
        }
    };
    if to.port() == 53 {
        return dns::serve_tcp(&sandbox, client).await;
    }
    let policy = sandbox.policy();
    let goal = |name: Option<&str>| Goal {
        name: name.map(str::to_owned),
        addresses: vec![to],
    };
    let by_address = sandbox.judge(None, Some(to.ip()), Some(to.port()), "tcp");
    let (fallback, look) = match by_address {
        Ok(basis) if basis == Basis::Public && policy.denies_names() => (Some(goal(None)), Look::Denied),
        Ok(_) if policy.has_secrets() => (Some(goal(None)), Look::Secrets),
        Ok(_) => return direct(&sandbox, client, to).await,
        Err(refusal) if !policy.allows_names(to.port()) => {
            sandbox.block(refusal);
            return client.reset();
        }
        Err(_) => (
            sandbox.handed(to.ip(), to.port(), "tcp").map(|name| goal(Some(&name))),
            Look::Allowed,
        ),
    };
    let inspect = Inspect {
        sandbox,
        shown: to.ip().to_string(),
        port: to.port(),
        original: Some(to.ip()),
        fallback,
        look,
    };
    inspect.serve(Box::new(client), None, permit).await;
}

async fn direct(sandbox: &Sandbox, mut client: TcpStream, to: SocketAddr) {
    match dial(&sandbox.world, &[to]).await {
        Ok(upstream) => {
            let grant = Grant {
                name: None,
                ip: to.ip(),
                port: to.port(),
                protocol: "tcp",
                headers: None,
            };
            splice(sandbox, Box::new(client), upstream, &[], &grant).await;
        }
        Err(error) => {
            failed(&to.to_string(), &error);
            client.reset();
        }
    }
}

/// A target that cannot be reached is the program's to see; there is nothing to allow.
pub(crate) fn failed(target: &str, error: &io::Error) {
    tracing::debug!(target = ?target, %error, "cannot connect");
}
