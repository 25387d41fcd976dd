//! The firewall of a sandbox's own network namespace: what leaves is led to the doors, and what is known to be refused is
//! refused at once.
//!
//! What `nft` would write as
//!
//! ```text
//! table inet sandhold {
//!   set open4 { type ipv4_addr; flags interval }   # and open6: what rules allow by range
//!   set shut4 { type ipv4_addr; flags interval }   # and shut6: what they do not
//!   set given4 { type ipv4_addr }                  # and given6: addresses of names that are allowed
//!   chain local { type filter hook output priority raw;
//!     th sport 65001-65080 accept
//!     fib daddr type local notrack }
//!   chain wall { type filter hook output priority mangle;
//!     fib daddr type local accept
//!     th dport 53 accept
//!     ip daddr @given4 accept                      # and ip6
//!     ip daddr @open4 accept
//!     ip daddr @shut4 goto no }
//!   chain no {
//!     limit rate 100/second burst 100 packets log group 1
//!     meta l4proto tcp reject with tcp reset
//!     reject with icmpx admin-prohibited }
//!   chain out { type nat hook output priority dstnat;
//!     fib daddr type local accept
//!     meta l4proto tcp redirect to :65001
//!     th dport 53 redirect to :65053
//!     meta l4proto udp redirect to :65002 }
//! }
//! ```
//!
//! The sets are the server's to fill. Who serves the doors holds everything against the rules in any case: the wall only makes
//! a program see a refusal where it would see one on a network, when it connects. What programs of one sandbox say to each
//! other is not tracked: a server under load would fill the kernel's table.

use std::net::IpAddr;

use crate::{APPEND, Attributes, Batch, CREATE, log};

const TABLE: &str = "sandhold";
/// `NFPROTO_INET`: both families.
const INET: u8 = 1;
const HEADER: [u8; 4] = [INET, 0, 0, 0];
const MESSAGE: u16 = 10 << 8;
const NEW_TABLE: u16 = MESSAGE;
const NEW_CHAIN: u16 = MESSAGE | 3;
const NEW_RULE: u16 = MESSAGE | 6;
const NEW_SET: u16 = MESSAGE | 9;
const NEW_ELEMENT: u16 = MESSAGE | 12;
const DELETE_ELEMENT: u16 = MESSAGE | 14;
const INTERVAL: u32 = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;
const RTN_LOCAL: u32 = 2;
const EQUAL: u32 = 0;
const LESS_OR_EQUAL: u32 = 3;
const GREATER_OR_EQUAL: u32 = 5;
/// The first register of nf_tables that holds a value; 0 is the verdict.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;

/// The ports of the doors, see `sandhold_runtime::Doors`.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For connections.
    pub tcp: u16,
    /// For datagrams.
    pub udp: u16,
    /// For name queries.
    pub dns: u16,
    /// The lowest and the highest of all.
    pub all: (u16, u16),
}

/// A set of addresses; there is one for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Ranges that rules allow.
    Open,
    /// Ranges that they do not.
    Shut,
    /// Single addresses that names were found to have.
    Given,
}

impl Set {
    const ALL: [Self; 3] = [Self::Open, Self::Shut, Self::Given];

    fn name(self, v6: bool) -> &'static str {
        match (self, v6) {
            (Self::Open, false) => "open4",
            (Self::Open, true) => "open6",
            (Self::Shut, false) => "shut4",
            (Self::Shut, true) => "shut6",
            (Self::Given, false) => "given4",
            (Self::Given, true) => "given6",
        }
    }
}

/// The batch that makes the table; one report is to be waited for. Without the `wall` there are neither it nor the sets: for
/// kernels that lack a part of what it takes.
#[must_use]
pub fn table(ports: Ports, wall: bool) -> Batch {
    let mut batch = begin();
    batch.push(
        NEW_TABLE,
        CREATE,
        &HEADER,
        &Attributes::default().name(1, TABLE).number(2, 0),
    );
    let raw = -300;
    let mangle = -150;
    let dstnat = -100;
    chain(&mut batch, "local", Some(("filter", raw)));
    if wall {
        for (at, (set, v6)) in Set::ALL
            .into_iter()
            .flat_map(|set| [(set, false), (set, true)])
            .enumerate()
        {
            new_set(&mut batch, at as u32 + 1, set, v6);
        }
        chain(&mut batch, "wall", Some(("filter", mangle)));
        chain(&mut batch, "no", None);
    }
    chain(&mut batch, "out", Some(("nat", dstnat)));

    let local = |last| vec![to_local(), compare(EQUAL, &RTN_LOCAL.to_ne_bytes()), last];
    let names = || [transport(2), compare(EQUAL, &53u16.to_be_bytes())];
    rule(
        &mut batch,
        "local",
        &[
            transport(0),
            compare(GREATER_OR_EQUAL, &ports.all.0.to_be_bytes()),
            compare(LESS_OR_EQUAL, &ports.all.1.to_be_bytes()),
            verdict(ACCEPT, None),
        ],
    );
    rule(
        &mut batch,
        "local",
        &local(expression("notrack", &Attributes::default())),
    );
    if wall {
        rule(&mut batch, "wall", &local(verdict(ACCEPT, None)));
        let [load, is] = names();
        rule(&mut batch, "wall", &[load, is, verdict(ACCEPT, None)]);
        for v6 in [false, true] {
            for (set, then) in [
                (Set::Given, verdict(ACCEPT, None)),
                (Set::Open, verdict(ACCEPT, None)),
                (Set::Shut, verdict(GOTO, Some("no"))),
            ] {
                let [family, is, address] = destination(v6);
                rule(&mut batch, "wall", &[family, is, address, within(set, v6), then]);
            }
        }
        rule(&mut batch, "no", &[limit(), write_down()]);
        rule(&mut batch, "no", &[protocol(), compare(EQUAL, &[TCP]), reject(1)]);
        rule(&mut batch, "no", &[reject(2)]);
    }
    rule(&mut batch, "out", &local(verdict(ACCEPT, None)));
    rule(
        &mut batch,
        "out",
        &redirect([protocol(), compare(EQUAL, &[TCP])], ports.tcp),
    );
    rule(&mut batch, "out", &redirect(names(), ports.dns));
    let last = redirect([protocol(), compare(EQUAL, &[UDP])], ports.udp);
    // Errors are always reported, success only where asked for: the first report is the answer for all.
    batch.push_reported(NEW_RULE, CREATE | APPEND, &HEADER, &rule_of("out", &last));
    end(&mut batch);
    batch
}

/// The batch that empties both sets of a kind and puts these ranges in, each by its first and last address. The ranges of a
/// family must neither touch nor overlap. No report is asked for.
#[must_use]
pub fn replace(sets: &[(Set, &[(IpAddr, IpAddr)])]) -> Batch {
    let mut batch = begin();
    for (set, ranges) in sets {
        for v6 in [false, true] {
            let all = Attributes::default().name(1, TABLE).name(2, set.name(v6));
            batch.push(DELETE_ELEMENT, 0, &HEADER, &all);
            put(
                &mut batch,
                *set,
                v6,
                ranges.iter().filter(|(first, _)| first.is_ipv6() == v6),
            );
        }
    }
    end(&mut batch);
    batch
}

/// The batch that adds an address to [`Set::Given`]; one that is there stays there.
#[must_use]
pub fn give(address: IpAddr) -> Batch {
    let mut batch = begin();
    put(
        &mut batch,
        Set::Given,
        address.is_ipv6(),
        [&(address, address)].into_iter(),
    );
    end(&mut batch);
    batch
}

/// Most elements in one message: their attributes have to fit into the 16 bits of a length.
const ELEMENTS: usize = 500;

fn put<'a>(batch: &mut Batch, set: Set, v6: bool, ranges: impl Iterator<Item = &'a (IpAddr, IpAddr)>) {
    const INTERVAL_END: u32 = 1;
    let key = |address: &[u8]| Attributes::default().nest(1, &Attributes::default().with(1, address));
    let mut elements = Vec::new();
    for (first, last) in ranges {
        elements.push(key(&octets(*first)));
        if set != Set::Given
            && let Some(behind) = after(&octets(*last))
        {
            elements.push(key(&behind).number(3, INTERVAL_END));
        }
    }
    for part in elements.chunks(ELEMENTS) {
        let list = part.iter().fold(Attributes::default(), |list, one| list.nest(1, one));
        let all = Attributes::default()
            .name(1, TABLE)
            .name(2, set.name(v6))
            .nest(3, &list);
        batch.push(NEW_ELEMENT, CREATE, &HEADER, &all);
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The next address; `None` behind the last.
fn after(address: &[u8]) -> Option<Vec<u8>> {
    let mut next = address.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, over) = byte.overflowing_add(1);
        *byte = sum;
        if !over {
            return Some(next);
        }
    }
    None
}

fn begin() -> Batch {
    let mut batch = Batch::default();
    batch.push(0x10, 0, &[0, 0, 0, 10], &Attributes::default());
    batch
}

fn end(batch: &mut Batch) {
    batch.push(0x11, 0, &[0, 0, 0, 10], &Attributes::default());
}

fn new_set(batch: &mut Batch, id: u32, set: Set, v6: bool) {
    const IPV4_ADDRESS: u32 = 7;
    const IPV6_ADDRESS: u32 = 8;
    let (kind, len) = if v6 { (IPV6_ADDRESS, 16) } else { (IPV4_ADDRESS, 4) };
    let flags = if set == Set::Given { 0 } else { INTERVAL };
    let set = Attributes::default()
        .name(1, TABLE)
        .name(2, set.name(v6))
        .number(3, flags)
        .number(4, kind)
        .number(5, len)
        .number(10, id);
    batch.push(NEW_SET, CREATE, &HEADER, &set);
}

fn chain(batch: &mut Batch, name: &str, hook: Option<(&str, i32)>) {
    const OUTPUT: u32 = 3;
    let mut chain = Attributes::default().name(1, TABLE).name(3, name);
    if let Some((kind, priority)) = hook {
        let hook = Attributes::default()
            .number(1, OUTPUT)
            .number(2, priority.cast_unsigned());
        chain = chain.name(7, kind).nest(4, &hook);
    }
    batch.push(NEW_CHAIN, CREATE, &HEADER, &chain);
}

fn rule(batch: &mut Batch, chain: &str, expressions: &[Attributes]) {
    batch.push(NEW_RULE, CREATE | APPEND, &HEADER, &rule_of(chain, expressions));
}

fn rule_of(chain: &str, expressions: &[Attributes]) -> Attributes {
    let list = expressions
        .iter()
        .fold(Attributes::default(), |list, one| list.nest(1, one));
    Attributes::default().name(1, TABLE).name(2, chain).nest(4, &list)
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::default().name(1, name).nest(2, data)
}

/// Whether the destination is an address of this namespace.
fn to_local() -> Attributes {
    const BY_DESTINATION: u32 = 2;
    const ADDRESS_TYPE: u32 = 3;
    let data = Attributes::default()
        .number(3, BY_DESTINATION)
        .number(2, ADDRESS_TYPE)
        .number(1, REGISTER);
    expression("fib", &data)
}

fn meta(key: u32) -> Attributes {
    expression("meta", &Attributes::default().number(2, key).number(1, REGISTER))
}

fn protocol() -> Attributes {
    const L4PROTO: u32 = 16;
    meta(L4PROTO)
}

fn payload(base: u32, offset: u32, len: u32) -> Attributes {
    let data = Attributes::default()
        .number(1, REGISTER)
        .number(2, base)
        .number(3, offset)
        .number(4, len);
    expression("payload", &data)
}

/// A port: at 0 the source's, at 2 the destination's.
fn transport(offset: u32) -> Attributes {
    payload(2, offset, 2)
}

/// The destination of a packet of this family.
fn destination(v6: bool) -> [Attributes; 3] {
    const NFPROTO: u32 = 15;
    const NETWORK: u32 = 1;
    let (family, offset, len) = if v6 { (10, 24, 16) } else { (2, 16, 4) };
    [meta(NFPROTO), compare(EQUAL, &[family]), payload(NETWORK, offset, len)]
}

fn within(set: Set, v6: bool) -> Attributes {
    expression(
        "lookup",
        &Attributes::default().name(1, set.name(v6)).number(2, REGISTER),
    )
}

fn compare(how: u32, value: &[u8]) -> Attributes {
    let data = Attributes::default()
        .number(1, REGISTER)
        .number(2, how)
        .nest(3, &Attributes::default().with(1, value));
    expression("cmp", &data)
}

fn immediate(register: u32, data: &Attributes) -> Attributes {
    expression("immediate", &Attributes::default().number(1, register).nest(2, data))
}

fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let mut verdict = Attributes::default().number(1, code.cast_unsigned());
    if let Some(chain) = chain {
        verdict = verdict.name(2, chain);
    }
    immediate(VERDICT, &Attributes::default().nest(2, &verdict))
}

/// A log that a sandbox cannot flood.
fn limit() -> Attributes {
    const A_SECOND: u64 = 100;
    const BURST: u32 = 100;
    let data = Attributes::default()
        .with(1, &A_SECOND.to_be_bytes())
        .with(2, &1u64.to_be_bytes())
        .number(3, BURST)
        .number(4, 0);
    expression("limit", &data)
}

fn write_down() -> Attributes {
    let data = Attributes::default()
        .with(1, &log::GROUP.to_be_bytes())
        .number(3, log::SNAP)
        .with(4, &1u16.to_be_bytes());
    expression("log", &data)
}

/// `1`: a TCP reset, `2`: an ICMP message of the packet's family.
fn reject(kind: u32) -> Attributes {
    const ADMIN_PROHIBITED: u8 = 3;
    expression(
        "reject",
        &Attributes::default().number(1, kind).with(2, &[ADMIN_PROHIBITED]),
    )
}

/// Turns what these find to a port of the loopback.
fn redirect([load, is]: [Attributes; 2], port: u16) -> [Attributes; 4] {
    const PORT_GIVEN: u32 = 2;
    [
        load,
        is,
        immediate(REGISTER, &Attributes::default().with(1, &port.to_be_bytes())),
        expression(
            "redir",
            &Attributes::default().number(1, REGISTER).number(3, PORT_GIVEN),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_behind() {
        assert_eq!(after(&[10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(after(&[255; 4]), None);
    }

    #[test]
    fn ranges_have_an_end_unless_they_reach_the_last_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let count = |ranges: &[(IpAddr, IpAddr)]| {
            let bytes = replace(&[(Set::Shut, ranges)]).bytes().to_vec();
            // Each key is a nested attribute of one value.
            bytes.windows(4).filter(|w| *w == [12, 0, 1, 0x80]).count()
        };
        assert_eq!(count(&[(ip("10.0.0.0"), ip("10.255.255.255"))]), 2);
        assert_eq!(count(&[(ip("0.0.0.0"), ip("255.255.255.255"))]), 1);
        assert_eq!(count(&[]), 0);
    }

    #[test]
    fn long_lists_keep_within_the_length_of_an_attribute() {
        let ranges: Vec<_> = (0..2000u32)
            .map(|n| IpAddr::from(u128::from(n * 2).to_be_bytes()))
            .map(|ip| (ip, ip))
            .collect();
        let batch = replace(&[(Set::Open, &ranges)]);
        assert!(batch.bytes().len() >= 2000 * (28 + 36), "{}", batch.bytes().len());
    }
}
