//! Name resolution with this host's configuration, in this process.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

use crate::limits;

/// Why there are no records.
#[derive(Debug)]
pub(crate) struct Unfound {
    pub(crate) code: ResponseCode,
    /// Tells how long that is so.
    pub(crate) soa: Option<Record>,
}

/// Answers name queries.
#[async_trait]
pub(crate) trait Resolve: Send + Sync {
    /// The records of a name, which is in its one form.
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, Unfound>;
}

/// The addresses of a name, IPv6 and IPv4 in turn. `None` if neither question was answered.
pub(crate) async fn addresses(resolver: &dyn Resolve, name: &str) -> Option<Vec<IpAddr>> {
    let (six, four) = tokio::join!(
        resolver.lookup(name, RecordType::AAAA),
        resolver.lookup(name, RecordType::A)
    );
    let failed = |unfound: &Unfound| unfound.code == ResponseCode::ServFail;
    if six.as_ref().is_err_and(failed) && four.as_ref().is_err_and(failed) {
        return None;
    }
    let mut six = six
        .unwrap_or_default()
        .into_iter()
        .filter_map(|record| address(&record));
    let mut four = four
        .unwrap_or_default()
        .into_iter()
        .filter_map(|record| address(&record));
    let mut both = Vec::new();
    loop {
        let (a, b) = (six.next(), four.next());
        if a.is_none() && b.is_none() || both.len() >= limits::ADDRESSES {
            return Some(both);
        }
        both.extend(a.into_iter().chain(b));
    }
}

/// The address of an A or AAAA record.
pub(crate) fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(crate::name::canonical(IpAddr::V6(ip.0))),
        _ => None,
    }
}

/// This host's resolver. Its configuration is read anew when it changed: machines move between networks.
pub(crate) struct System {
    current: Mutex<Current>,
}

struct Current {
    resolver: TokioResolver,
    changed: Option<SystemTime>,
    looked: Instant,
}

const FILE: &str = "/etc/resolv.conf";
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl System {
    pub(crate) fn new() -> Result<Self, NetError> {
        let current = Current {
            resolver: make()?,
            changed: changed(),
            looked: Instant::now(),
        };
        Ok(Self {
            current: Mutex::new(current),
        })
    }

    fn resolver(&self) -> TokioResolver {
        let mut current = self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if current.looked.elapsed() > LOOK_EVERY {
            current.looked = Instant::now();
            let changed = changed();
            if changed != current.changed
                && let Ok(resolver) = make()
            {
                (current.resolver, current.changed) = (resolver, changed);
            }
        }
        current.resolver.clone()
    }
}

fn changed() -> Option<SystemTime> {
    fs::metadata(FILE).and_then(|meta| meta.modified()).ok()
}

fn make() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // As the C library does without this file.
        tracing::warn!(%error, "{FILE} cannot be used, so names are asked of 127.0.0.1");
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        let config = ResolverConfig::from_name_servers(vec![local]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    });
    builder.options_mut().try_tcp_on_error = true;
    builder.build()
}

#[async_trait]
impl Resolve for System {
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, Unfound> {
        let failed = || Unfound {
            code: ResponseCode::ServFail,
            soa: None,
        };
        // With a dot at its end: the search list of this host is no business of a sandbox.
        let name = Name::from_ascii(format!("{name}.")).map_err(|_| failed())?;
        let resolver = self.resolver();
        match tokio::time::timeout(limits::RESOLVE, resolver.lookup(name, kind)).await {
            Ok(Ok(lookup)) => Ok(lookup.answers().to_vec()),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let soa = none.soa.map(|soa| soa.into_record_of_rdata());
                Err(Unfound {
                    code: none.response_code,
                    soa,
                })
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a name query failed");
                Err(failed())
            }
            Err(_) => Err(failed()),
        }
    }
}
