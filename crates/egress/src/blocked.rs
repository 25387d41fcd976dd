use std::{collections::VecDeque, time::SystemTime};

use crate::limits;

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

/// What is refused, before it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: &'static str,
    pub(crate) rule: String,
    pub(crate) remedy: String,
}

impl Refusal {
    /// For a person or a model that reads an answer of the proxy.
    pub(crate) fn text(&self) -> String {
        let (host, port) = (shown(&self.host), self.port);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!(
            "{host}:{port} cannot be reached from this sandbox: {}.\nRemedy: {}.\n",
            self.rule, self.remedy
        )
    }
}

/// The newest refusals of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    entries: VecDeque<Blocked>,
    number: u64,
}

impl Ring {
    /// Counts a refusal.
    pub(crate) fn add(&mut self, refusal: Refusal) {
        self.number += 1;
        let host = shown(&refusal.host);
        let same = self.entries.iter().position(|e| {
            e.host == host && e.port == refusal.port && e.protocol == refusal.protocol && e.rule == refusal.rule
        });
        let before = same.and_then(|at| self.entries.remove(at)).map_or(0, |e| e.count);
        if self.entries.len() >= limits::BLOCKED {
            self.entries.pop_front();
        }
        self.entries.push_back(Blocked {
            number: self.number,
            at: SystemTime::now(),
            host,
            port: refusal.port,
            protocol: refusal.protocol,
            rule: refusal.rule,
            remedy: refusal.remedy,
            count: before + 1,
        });
    }

    /// Those after number `since`, oldest first, and the newest number.
    pub(crate) fn since(&self, since: u64) -> (Vec<Blocked>, u64) {
        (
            self.entries.iter().filter(|e| e.number > since).cloned().collect(),
            self.number,
        )
    }
}

/// Text from inside a sandbox, made fit to be shown.
fn shown(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() && !c.is_whitespace());
    plain.take(limits::BLOCKED_HOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(host: &str, port: u16) -> Refusal {
        let (host, protocol) = (host.to_owned(), "tcp");
        Refusal {
            host,
            port,
            protocol,
            rule: "not in allow_out".into(),
            remedy: "x".into(),
        }
    }

    #[test]
    fn repeats_are_counted() {
        let mut ring = Ring::default();
        for host in ["a", "b", "a", "a"] {
            ring.add(refusal(host, 443));
        }
        ring.add(refusal("a", 80));
        let (list, newest) = ring.since(0);
        let seen: Vec<_> = list
            .iter()
            .map(|e| (e.host.as_str(), e.port, e.number, e.count))
            .collect();
        assert_eq!(seen, [("b", 443, 2, 1), ("a", 443, 4, 3), ("a", 80, 5, 1)]);
        assert_eq!(newest, 5);
        assert_eq!(ring.since(4).0.len(), 1);
        assert_eq!(ring.since(5), (Vec::new(), 5));
    }

    #[test]
    fn bounded_and_clean() {
        let mut ring = Ring::default();
        for i in 0..1000 {
            ring.add(refusal(&format!("h{i}\n\u{1b}[31m{}", "x".repeat(1000)), 1));
        }
        let (list, newest) = ring.since(0);
        assert_eq!((list.len(), newest), (limits::BLOCKED, 1000));
        assert!(
            list.iter()
                .all(|e| e.host.chars().count() <= limits::BLOCKED_HOST && !e.host.contains(['\n', '\u{1b}']))
        );
    }
}
