//! The signals that ask a program to end.

#[cfg(unix)]
mod imp {
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
}

#[cfg(not(unix))]
mod imp {
    /// Ctrl-C.
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        /// The number of SIGINT, at the next Ctrl-C.
        pub(crate) async fn next(&mut self) -> i32 {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            2
        }
    }
}

pub(crate) use imp::Signals;
