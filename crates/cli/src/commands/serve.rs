//! `sandhold serve`: the sandboxes of this machine for every E2B SDK.

mod mcp;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail};
use axum::serve::ListenerExt;
use sandhold_gateway::Keys;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::{
    args::ServeArgs,
    local,
    settings::Settings,
    tls::{self, Files, TlsListener},
};

pub(crate) async fn run(args: ServeArgs, settings: Settings) -> Result<ExitCode> {
    let keys = Arc::new(Keys::open(&settings.local.home)?);
    if keys.list()?.iter().all(|key| key.revoked) {
        bail!("there is no API key yet; make one with `sandhold keys create NAME`");
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let files = match (args.tls, args.tls_cert, args.tls_key) {
        (Some(_), ..) => Some(tls::self_signed(&settings.local.home.join("tls"), &args.domain)?),
        (None, Some(certificate), Some(key)) => Some(Files {
            certificate,
            key,
            authority: None,
        }),
        _ => None,
    };
    let tls = files.as_ref().map(tls::config).transpose()?;
    let (scheme, usual_port) = if tls.is_some() { ("https", 443) } else { ("http", 80) };
    // What the SDKs build host names from: the port belongs to it unless it is the usual one.
    let port = address.port();
    let domain = if port == usual_port {
        args.domain.clone()
    } else {
        format!("{}:{port}", args.domain)
    };
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let gateway = local::start_gateway(&settings.local, Some(domain), true, tls.is_some()).await?;
    announce(scheme, address, files.as_ref());
    let stop = CancellationToken::new();
    let policy = mcp::Policy {
        tls: tls.is_some(),
        confirm: settings.confirm,
    };
    let beside = mcp::router(gateway.clone(), keys.clone(), policy, stop.clone());
    let app = gateway.router_with_keys(keys, beside);
    let serving = async {
        match tls {
            Some(config) => axum::serve(TlsListener::new(listener, config)?, app).await,
            None => axum::serve(listener.tap_io(no_delay), app).await,
        }
    };
    // Streams may go on for hours: the sandboxes end first, and with them their streams.
    tokio::select! {
        served = serving => served.context("the server failed")?,
        _ = signals.next() => {}
    }
    stop.cancel();
    gateway.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Small answers must not wait for the acknowledgement of those before them.
fn no_delay(stream: &mut TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
}

#[expect(clippy::print_stderr, reason = "for the person who started it")]
fn announce(scheme: &str, address: std::net::SocketAddr, files: Option<&Files>) {
    let url = format!("{scheme}://{address}");
    eprintln!("listening on {url}");
    eprintln!("for E2B's SDKs: E2B_API_URL={url} E2B_SANDBOX_URL={url} E2B_API_KEY=…");
    eprintln!("for MCP clients: {url}/mcp with an API key as the bearer token");
    if let Some(authority) = files.and_then(|f| f.authority.as_ref()) {
        let path = authority.display();
        eprintln!("to trust its certificate: SSL_CERT_FILE={path} (Python), NODE_EXTRA_CA_CERTS={path} (Node)");
    }
}
