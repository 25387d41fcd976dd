//! Every limit of a sandbox's way out. Sizes are bytes; each holds for one sandbox if nothing else is said.

use std::time::Duration;

/// Bytes of the firewall's log that are read at once: some of its messages.
pub(crate) const FIREWALL_LOG: usize = 16 << 10;
/// Refused packets that are noted before others get their turn.
pub(crate) const FIREWALL_READ: usize = 256;
/// Rules in one list.
pub(crate) const RULES: usize = 256;
/// Length of a rule.
pub(crate) const RULE: usize = 300;
/// Length of a name, as DNS has it.
pub(crate) const NAME: usize = 253;
/// Headers that a sandbox's rules set, over all hosts; and those of the operator.
pub(crate) const SECRETS: usize = 64;
/// Length of the name of such a header.
pub(crate) const SECRET_HEADER: usize = 128;
/// Length of its value.
pub(crate) const SECRET_VALUE: usize = 8 << 10;
/// Names for which certificates are kept, over all sandboxes.
pub(crate) const CERTIFICATES: usize = 256;
/// TCP connections open at once, over the door and the proxy together.
pub(crate) const CONNECTIONS: usize = 1024;
/// Name queries that are being answered at once; more are dropped, and asked again by every resolver.
pub(crate) const QUERIES: usize = 64;
/// A name query. Nobody asks for more than one name.
pub(crate) const QUERY: usize = 1232;
/// The largest answer by UDP: what passes every network unfragmented.
pub(crate) const ANSWER_UDP: usize = 1232;
/// Queries over one TCP connection.
pub(crate) const QUERIES_PER_CONNECTION: usize = 1000;
/// How long a name query may take.
pub(crate) const RESOLVE: Duration = Duration::from_secs(8);
/// How long a TCP connection for name queries may be silent.
pub(crate) const DNS_IDLE: Duration = Duration::from_secs(30);
/// Addresses remembered as handed out for names that a rule allows.
pub(crate) const HANDED: usize = 4096;
/// Names remembered for one address.
pub(crate) const HANDED_NAMES: usize = 8;
/// How long an address stays allowed for the name it was handed out for.
pub(crate) const HANDED_FOR: Duration = Duration::from_secs(3600);
/// Addresses of one name that are tried.
pub(crate) const ADDRESSES: usize = 16;
/// First bytes of a connection that are looked at for a name.
pub(crate) const HEAD: usize = 16 << 10;
/// How long these first bytes may take.
pub(crate) const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a client is given to speak first, where it may be a protocol in which the server does.
pub(crate) const SPEAKS_FIRST: Duration = Duration::from_millis(300);
/// How long connecting may take, over all addresses of a name.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// When the next address is tried beside one that does not answer.
pub(crate) const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// A connection without a byte in either direction ends.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// Buffer of one direction of a connection.
pub(crate) const BUFFER: usize = 64 << 10;
/// Headers of one HTTP request.
pub(crate) const HEADERS: usize = 100;
/// Buffer for one HTTP request's head.
pub(crate) const HTTP_HEAD: usize = 64 << 10;
/// Refusals that are kept.
pub(crate) const BLOCKED: usize = 256;
/// Characters of a host in a refusal.
pub(crate) const BLOCKED_HOST: usize = 256;
/// How long the list of this host's own addresses is used.
pub(crate) const OWN: Duration = Duration::from_secs(1);
/// Flows of datagrams.
pub(crate) const FLOWS: usize = 256;
/// How long a flow of datagrams lives without one.
pub(crate) const FLOW_IDLE: Duration = Duration::from_secs(60);
/// A datagram.
pub(crate) const DATAGRAM: usize = 65_535;
