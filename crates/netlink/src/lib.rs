//! Netlink messages, written by hand: a sandbox needs the same few packets each time, and a program that writes them (`ip`,
//! `nft`) takes longer than the whole sandbox. No I/O.
//!
//! Numbers are those of `linux/{netlink,rtnetlink,if_addr}.h` and `linux/netfilter/{nfnetlink,nf_tables,nfnetlink_log}.h`.
#![forbid(unsafe_code)]

mod attributes;
pub mod firewall;
pub mod log;

pub use attributes::{APPEND, Attributes, Batch, CREATE, attribute, report};
