//! What sandboxes may reach.
//!
//! A sandbox has no interface that leads out. Its engine gives the sockets that stand inside its network
//! ([`sandhold_runtime::Doors`]), and [`Egress::attach`] serves them by a [`Policy`]: connections, datagrams and name
//! queries arrive here, are held against the rules, and are made anew from the host, or refused. What was refused is kept
//! ([`Attached::blocked`]) so that it can be told to whoever ran the program.
//!
//! Addresses are held against rules by themselves. Names are, too, at three places: when a program asks for their
//! addresses, when it connects to an address that it was given for them, and in what a connection itself says, which is
//! TLS's server name or HTTP's host. Where a name decides, it is resolved here, anew, and its own address is connected to:
//! a program cannot name one host and reach another. What is hidden within TLS (HTTP's host within it, an encrypted
//! client hello) is not seen; a rule that allows a name trusts whoever serves that name.
//!
//! Requests to some hosts get headers that the sandbox must not see ([`Secret`]). Only for such a host TLS ends here: the
//! program inside sees a certificate of this server's own authority ([`Egress::ca_pem`]), each request is read, gets its
//! headers, and goes to the host over TLS of its own, which is verified. All other connections stay end-to-end. Nothing is
//! ever added to plain HTTP, nor to QUIC.
#![forbid(unsafe_code)]

mod address;
mod authority;
mod blocked;
mod conntrack;
mod dial;
mod dns;
mod door;
mod egress;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod handed;
mod head;
mod inspect;
mod limits;
mod name;
mod policy;
mod proxy;
mod relay;
mod resolve;
mod rule;
mod sandbox;
mod secret;
mod secure;
mod sni;
mod socks;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod wall;
mod web;
mod world;

pub use blocked::Blocked;
pub use egress::{Attached, Egress, EgressConfig, EgressError};
pub use policy::{Mode, Policy, PolicyError};
pub use secret::{Secret, SecretConfig};
