use std::time::SystemTime;

/// A connection, datagram or name query that was refused. Repeats of one target and rule are counted, not listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Grows by one with each refusal of the sandbox; of repeats the newest.
    pub number: u64,
    /// When it happened last.
    pub at: SystemTime,
    /// The name that was asked for, where it is known, else the address. Shortened, without control characters.
    pub host: String,
    /// Port; 0 for a name query.
    pub port: u16,
    /// `tcp`, `udp` or `dns`.
    pub protocol: &'static str,
    /// What refused it, in a few words: `not in allow_out`, `deny_out 10.0.0.0/8`, `private address`.
    pub rule: String,
    /// How to allow it, one sentence, or why nobody but the operator can.
    pub remedy: String,
    /// How often.
    pub count: u64,
}
