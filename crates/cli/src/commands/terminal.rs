//! The user's own terminal.

use sandhold_client::PtySize;

const DEFAULT: PtySize = PtySize { cols: 80, rows: 24 };

#[cfg(unix)]
mod imp {
    use std::io::{IsTerminal, Result};

    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
    use sandhold_client::PtySize;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The size of the terminal that is standard output.
    pub(crate) fn size() -> PtySize {
        let size = tcgetwinsize(std::io::stdout())
            .ok()
            .filter(|s| s.ws_col > 0 && s.ws_row > 0);
        size.map_or(super::DEFAULT, |s| PtySize {
            cols: s.ws_col.into(),
            rows: s.ws_row.into(),
        })
    }

    /// Tells when the size changes.
    pub(crate) struct Resizes(Signal);

    impl Resizes {
        pub(crate) fn new() -> Result<Self> {
            signal(SignalKind::window_change()).map(Self)
        }

        pub(crate) async fn next(&mut self) {
            self.0.recv().await;
        }
    }

    /// The terminal that is standard input, passing every key on: the sandbox's terminal does the line editing. Dropping
    /// it restores the terminal.
    pub(crate) struct RawTerminal(Option<Termios>);

    impl RawTerminal {
        pub(crate) fn enter() -> Result<Self> {
            let stdin = std::io::stdin();
            if !stdin.is_terminal() {
                return Ok(Self(None));
            }
            let before = tcgetattr(&stdin)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw)?;
            Ok(Self(Some(before)))
        }
    }

    impl Drop for RawTerminal {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
            }
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use std::io::Result;

    use sandhold_client::PtySize;

    pub(crate) fn size() -> PtySize {
        super::DEFAULT
    }

    /// Sizes are not followed here.
    pub(crate) struct Resizes;

    impl Resizes {
        pub(crate) fn new() -> Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn next(&mut self) {
            std::future::pending().await
        }
    }

    /// The terminal stays as it is here: a line is sent when it is complete.
    pub(crate) struct RawTerminal;

    impl RawTerminal {
        pub(crate) fn enter() -> Result<Self> {
            Ok(Self)
        }
    }
}

pub(crate) use imp::{RawTerminal, Resizes, size};
