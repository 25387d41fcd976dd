//! What the daemon is asked about the servers of its sandbox under `/sandhold/ports`, `/sandhold/ready` and
//! `/sandhold/http`, and what it answers. Ours, not part of E2B's protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The answer of `GET /sandhold/ports`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ports {
    /// Ports that something listens on, in ascending order.
    pub listening: Vec<Listener>,
    /// The processes that use the processors most, the busiest first; empty unless asked for.
    #[serde(default)]
    pub busiest: Vec<Busy>,
}

/// A port that something listens on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Where: `127.0.0.1`, `0.0.0.0`, `::1`, `::` or an address of the sandbox.
    pub addresses: Vec<String>,
    /// Who, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The session of that process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Its command line, cut to a few hundred bytes.
    #[serde(default)]
    pub command: String,
}

/// A process and what it uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// Its id.
    pub pid: u32,
    /// Share of one processor in percent, over a moment.
    pub cpu_pct: f64,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Its command line, cut to a few hundred bytes.
    pub command: String,
}

/// The body of `POST /sandhold/ready`: waits until a server on the port answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Await {
    /// The port.
    pub port: u16,
    /// What is asked for by `GET`; begins with a slash.
    pub path: String,
    /// How long to wait, in milliseconds.
    pub timeout_ms: u64,
    /// How long a server that accepts may leave the request unanswered before it counts as one that does not speak HTTP,
    /// in milliseconds.
    pub answer_ms: u64,
}

/// The answer to that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it is ready: it answered, or it accepts and does not speak HTTP.
    pub ready: bool,
    /// Whether something accepts connections.
    pub accepts: bool,
    /// The status of its answer, where it speaks HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// How long it took, in milliseconds.
    pub waited_ms: u64,
}

/// The body of `POST /sandhold/http`: one request made from inside the sandbox. Redirects are not followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `GET`, …
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// Headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body, in base64.
    #[serde(default)]
    pub body: String,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many bytes of the answer's body are wanted.
    pub max_body: usize,
}

/// What came of it: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// The answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ProbeAnswer>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ProbeFailure>,
}

/// An HTTP answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers, in their order.
    pub headers: Vec<(String, String)>,
    /// Its body in base64, as far as it was wanted.
    #[serde(default)]
    pub body: String,
    /// Whether there is more.
    #[serde(default)]
    pub truncated: bool,
    /// When the connection stood, in milliseconds from the start.
    pub connect_ms: f64,
    /// When the head of the answer was there.
    pub first_byte_ms: f64,
    /// When the body was there.
    pub total_ms: f64,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What a person reads.
    pub message: String,
}

/// Kinds of [`ProbeFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// The request cannot be made: its URL, method or a header is wrong.
    Invalid,
    /// The one who was asked cannot do this: TLS, or a name that needs DNS.
    Unable,
    /// The name was not found.
    Name,
    /// Nobody listens there.
    Refused,
    /// It was not answered in time.
    Timeout,
    /// Something else about the connection or what came over it.
    Connection,
}

/// A socket that listens, as the kernel's table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Where.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The user it belongs to.
    pub uid: u32,
    /// By which it is found among the descriptors of a process: `socket:[<inode>]`.
    pub inode: u64,
}

/// Ports of the sockets that stand in a local sandbox's network and are served from outside, see `sandhold_runtime::Doors`: they
/// are nobody's service.
pub const DOORS: std::ops::RangeInclusive<u16> = 65001..=65080;

/// The sockets that listen in the text of `/proc/net/tcp` or `/proc/net/tcp6`; at most `max`.
#[must_use]
pub fn listening_sockets(table: &str, max: usize) -> Vec<ListeningSocket> {
    table.lines().filter_map(listening_socket).take(max).collect()
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`
fn listening_socket(line: &str) -> Option<ListeningSocket> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
    let [_, local, _, state, _, _, _, uid, _, inode] = words[..] else {
        return None;
    };
    let (address, port) = local.split_once(':')?;
    if state != LISTEN {
        return None;
    }
    Some(ListeningSocket {
        address: address_of(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// Words of 32 bits in hexadecimal, each in the byte order of the machine: little on all that sandboxes run on.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_le_bytes)
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
            \x20  2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0 20 4 30 10 -1\n";
        let found = listening_sockets(v4, 10);
        assert_eq!(
            found,
            [
                ListeningSocket {
                    address: Ipv4Addr::LOCALHOST.into(),
                    port: 8080,
                    uid: 1000,
                    inode: 4711
                },
                ListeningSocket {
                    address: Ipv4Addr::UNSPECIFIED.into(),
                    port: 80,
                    uid: 0,
                    inode: 4712
                },
            ]
        );
        assert_eq!(listening_sockets(v4, 1).len(), 1);
        let v6 = "   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 0:0 00:0 0 1000 0 9 1\n\
            \x20  1: 00000000000000000000000000000000:1F92 00000000000000000000000000000000:0000 0A 0:0 00:0 0 1000 0 8 1\n";
        let addresses: Vec<IpAddr> = listening_sockets(v6, 10).into_iter().map(|s| s.address).collect();
        assert_eq!(
            addresses,
            [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv6Addr::UNSPECIFIED.into()]
        );
    }

    #[test]
    fn what_is_no_table_has_no_sockets() {
        for text in [
            "",
            "\n\n",
            "a b c d e f g h i j",
            "0: 0100007F:1F90 x 0A a b c uid 0 1",
            "0: ÄÄÄÄ:1 x 0A a b c 1 0 1",
        ] {
            assert_eq!(listening_sockets(text, 10), [], "{text:?}");
        }
    }
}
