//! The signals that ask a program to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP.
pub(crate) struct Signals([(Signal, i32); 3]);

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        let listen = |kind: SignalKind| Ok::<_, std::io::Error>((signal(kind)?, kind.as_raw_value()));
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> i32 {
        let [(a, x), (b, y), (c, z)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => *x,
            _ = b.recv() => *y,
            _ = c.recv() => *z,
        }
    }
}
