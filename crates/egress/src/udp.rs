//! Datagrams that the sandbox's kernel led here.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::{blocked::Refusal, door::Door, limits, sandbox::Sandbox};

/// Serves the door.
pub(crate) async fn serve(sandbox: Arc<Sandbox>, door: Arc<Door>, _conntrack: Option<OwnedFd>) {
    let mut buffer = vec![0; limits::DATAGRAM];
    loop {
        if door.receive(&mut buffer).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        sandbox.block(Refusal {
            host: String::new(),
            port: 0,
            protocol: "udp",
            rule: "UDP, other than name queries".into(),
            remedy: "use TCP".into(),
        });
    }
}
