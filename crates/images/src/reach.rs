//! Which addresses registries are reached at, where not every one of them is for whoever asks.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Says of an address whether it may be reached.
#[derive(Clone)]
pub struct Reach(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

/// A registry, or where it sends us to, is at an address that is not for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is at an address that is not of the internet")]
pub struct OutOfReach(pub String);

impl Reach {
    /// Reaches the addresses that `allows` is true for. Where a proxy is used, the proxy decides.
    pub fn new(allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }

    /// Refuses a URL whose host is an address out of reach. Names are looked at when they are resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), OutOfReach> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(ip) if !(self.0)(ip) => Err(OutOfReach(host.to_owned())),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reach")
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One that leads to both kinds is tried at those that may be reached.
            let open: Vec<SocketAddr> = found.into_iter().filter(|address| (this.0)(address.ip())).collect();
            if open.is_empty() {
                return Err(OutOfReach(name.as_str().to_owned()).into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names_of_addresses_are_looked_at() {
        let reach = Reach::new(|ip| !ip.is_loopback());
        for (url, open) in [
            ("https://127.0.0.1:5000/v2/", false),
            ("https://[::1]/v2/", false),
            ("https://0x7f.1/", false),
            ("https://192.0.2.1/", true),
            ("https://registry.example/", true),
        ] {
            assert_eq!(reach.check(&Url::parse(url).unwrap()).is_ok(), open, "{url}");
        }
        assert!(reach.resolve("localhost".parse().unwrap()).await.is_err());
        assert!(Reach::new(|_| true).resolve("localhost".parse().unwrap()).await.is_ok());
    }
}
