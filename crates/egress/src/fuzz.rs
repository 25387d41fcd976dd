//! What reads bytes that come out of a sandbox, and rules, for the fuzzer in `fuzz/`; part of no other build.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    head,
    name::{self, Host},
    rule::{Rule, Target},
    socks, web,
};

/// What the first bytes of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// More bytes are needed.
    More,
    /// TLS, and the name it asks for.
    Tls(Option<String>),
    /// TLS that cannot be understood.
    BadTls,
    /// HTTP/1, HTTP/2, or anything else.
    Told(&'static str),
}

/// Reads the first bytes of a connection.
#[must_use]
pub fn head(bytes: &[u8]) -> First {
    match head::parse(bytes) {
        head::Head::More => First::More,
        head::Head::Tls(name) => First::Tls(name),
        head::Head::BadTls => First::BadTls,
        head::Head::Http => First::Told("http"),
        head::Head::Http2 => First::Told("http2"),
        head::Head::Other => First::Told("other"),
    }
}

/// Reads a name query: the name and the begin of its answer, or the answer to one that is not understood.
///
/// # Errors
/// It is not understood.
pub fn query(bytes: &[u8]) -> Result<(String, Vec<u8>), Option<Vec<u8>>> {
    crate::dns::asked(bytes)
}

/// Reads an answer of the kernel about a flow.
pub fn conntrack(bytes: &[u8]) {
    crate::conntrack::read(bytes);
}

/// An address or a name.
pub type Named = Result<IpAddr, String>;

fn named(host: Host) -> Named {
    match host {
        Host::Ip(ip) => Ok(ip),
        Host::Name(name) => Err(name),
    }
}

/// Speaks SOCKS with a client that says `bytes` and no more: where it wants to go, and what it was answered.
pub async fn socks(bytes: &[u8]) -> (Option<(Named, u16)>, Vec<u8>) {
    let (mut client, mut server) = tokio::io::duplex(bytes.len() + 1024);
    let said = client.write_all(bytes).await.and(client.shutdown().await);
    let wanted = match said {
        Ok(()) => socks::greet(&mut server).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    drop(server);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    (wanted.map(|(host, port)| (named(host), port)), answer)
}

/// Reads a host and a port, as they stand in a request.
#[must_use]
pub fn authority(text: &str) -> Option<(Named, Option<u16>)> {
    let (host, port) = web::authority(text).ok()?;
    Some((named(host), port))
}

/// Brings a name to its one form.
#[must_use]
pub fn one_form(text: &str) -> Option<String> {
    name::name(text).ok()
}

/// The host and port that a request names.
#[must_use]
pub fn target(request: &http::Request<()>) -> Option<(Option<Named>, Option<u16>)> {
    let (host, port) = web::target(request).ok()?;
    Some((host.map(named), port))
}

/// Reads a rule. Gives it written anew, and whether it holds for a name and for an address.
#[must_use]
pub fn rule(text: &str, name: &str, ip: IpAddr) -> Option<(String, bool, bool)> {
    let rule = Rule::parse("allow_out", text).ok()?;
    let port = rule.port.map(|port| format!(":{port}")).unwrap_or_default();
    let again = match &rule.target {
        Target::All => "*".to_owned(),
        Target::Net(net) if net.addr().is_ipv6() => format!("[{net}]"),
        Target::Net(net) => net.to_string(),
        Target::Name(name) => name.clone(),
        Target::Below(name) => format!("*.{name}"),
    };
    let names = rule.is_for(Some(name), None, rule.port);
    let holds = rule.is_for(None, Some(ip), rule.port);
    Some((again + &port, names, holds))
}
