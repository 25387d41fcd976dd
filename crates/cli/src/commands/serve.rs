//! `sandhold serve`: the sandboxes of this machine for every E2B SDK.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail};
use axum::serve::ListenerExt;
use sandhold_gateway::Keys;
use tokio::net::TcpListener;

use super::signals::Signals;
use crate::{args::ServeArgs, local, settings::Settings};

pub(crate) async fn run(args: ServeArgs, settings: Settings) -> Result<ExitCode> {
    let keys = Arc::new(Keys::open(&settings.local.home)?);
    if keys.list()?.iter().all(|key| key.revoked) {
        bail!("there is no API key yet; make one with `sandhold keys create NAME`");
    }
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    // What the SDKs build host names from: the port belongs to it unless it is the usual one.
    let domain = if args.domain.contains(':') || address.port() == 80 {
        args.domain
    } else {
        format!("{}:{}", args.domain, address.port())
    };
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let gateway = local::start_gateway(&settings.local, Some(domain)).await?;
    announce(address);
    let app = gateway.router_with_keys(keys);
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for the acknowledgement of those before them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
    });
    let stop = async move {
        signals.next().await;
    };
    // Streams may go on for hours: the sandboxes end first, and with them their streams.
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served.context("the server failed")?,
        () = stop => {}
    }
    gateway.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "for the person who started it")]
fn announce(address: std::net::SocketAddr) {
    eprintln!("listening on http://{address}");
    eprintln!("for E2B's SDKs: E2B_API_URL=http://{address} E2B_SANDBOX_URL=http://{address} E2B_API_KEY=…");
}
