//! `sandhold mcp`

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use sandhold_mcp::{Door, HostFolder, HttpOptions, Keeping, Provider, Server, ServerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::{
    args::McpArgs,
    dockerfile::Dockerfiles,
    provider::Connected,
    settings::{self, Settings},
};

const TOKEN_BYTES: usize = 24;

pub(crate) async fn run(args: McpArgs, mut settings: Settings) -> Result<ExitCode> {
    let pause = args
        .on_exit
        .as_ref()
        .map_or(settings.pause_on_exit, |what| what == "pause");
    let checkpoint = args
        .checkpoint
        .as_ref()
        .map_or(settings.checkpoint, |when| when == "turn");
    // Elsewhere sandboxes outlive this server in any case.
    settings.local.pause_at_end = pause && matches!(settings.provider, settings::Provider::Local);
    let connected = Connected::with_door(&settings)?;
    let selection = args.selection.clone().selection();
    let open = |path: &PathBuf| {
        HostFolder::open(path).with_context(|| format!("--allow-dir {} cannot be used", path.display()))
    };
    let folders = args.allow_dir.iter().map(open).collect::<Result<_>>()?;
    let provider = describe(&settings.provider, settings.local.pause_at_end);
    let keeping = keeping(settings.local.pause_at_end, args.http.is_some());
    let confirm = match &args.confirm {
        Some(name) => settings::confirm(name).context("--confirm can be never, destructive or always")?,
        None => settings.confirm,
    };
    let server = Server::new(ServerConfig {
        client: connected.client.clone(),
        provider,
        selection,
        door: connected.door.clone().map(|door| door as Arc<dyn Door>),
        dockerfiles: Some(Arc::new(Dockerfiles)),
        folders,
        confirm,
        keeping,
        checkpoint,
    })?;
    let stop = CancellationToken::new();
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let on_signal = stop.clone();
    let watcher = tokio::spawn(async move {
        signals.next().await;
        on_signal.cancel();
    });
    // The first sandbox should not wait for the engine's start; what fails here is told again by the first call.
    if let Some(local) = connected.local.clone() {
        tokio::spawn(async move {
            if let Err(error) = local.start().await {
                tracing::warn!("{error:#}");
            }
        });
    }
    let served = match args.http {
        None => sandhold_mcp::serve_stdio(server, stop)
            .await
            .context("the MCP session over stdin and stdout failed"),
        Some(address) => http(server, address, args, settings.token, stop).await,
    };
    watcher.abort();
    connected.shutdown().await;
    served.map(|()| ExitCode::SUCCESS)
}

async fn http(
    server: Server,
    address: std::net::SocketAddr,
    args: McpArgs,
    env_token: Option<String>,
    stop: CancellationToken,
) -> Result<()> {
    let (token, is_new) = match (args.no_token, args.token.or(env_token)) {
        (true, _) => (None, false),
        (false, Some(token)) => (Some(token), false),
        (false, None) => (Some(new_token()?), true),
    };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    announce(listener.local_addr()?, token.as_deref(), is_new);
    let options = HttpOptions {
        listener,
        token,
        allowed_hosts: args.allow_host,
        allowed_origins: args.allow_origin,
    };
    sandhold_mcp::serve_http(server, options, stop)
        .await
        .context("the MCP server over HTTP failed")
}

/// Whether sandboxes outlive this server. Over HTTP callers may be many, and none is known to be the same the next time.
fn keeping(pause: bool, http: bool) -> Keeping {
    if !pause {
        return Keeping::default();
    }
    match std::env::current_dir() {
        Ok(folder) if !http => Keeping::in_folder(&folder),
        _ => Keeping {
            pause,
            default_mark: None,
        },
    }
}

/// What `sandbox_info` says of where sandboxes run.
fn describe(provider: &settings::Provider, paused_at_end: bool) -> Provider {
    let (life, paused) = match paused_at_end {
        false => (
            "its sandboxes end with this server",
            "pausing keeps memory and is lost when the server ends",
        ),
        true => (
            "when this server ends its sandboxes are paused, and the next one has them",
            "of a paused sandbox the files outlive the server, its processes do not",
        ),
    };
    let text = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect();
    match provider {
        settings::Provider::Local => Provider {
            name: "local".into(),
            description: format!("the embedded engine on this machine; {life}"),
            cannot: text(&[
                "of the network TCP, UDP and names only: no ping; rules allow at most what this server was started with",
                "/usr is the host's and read-only: packages install into the home folder only",
                paused,
            ]),
        },
        settings::Provider::Sandhold(_) => Provider {
            name: "sandhold".into(),
            description: "a Sandhold server elsewhere; sandboxes and jobs live on when this server ends".into(),
            cannot: text(&[
                "of the network TCP, UDP and names only: no ping; rules allow at most what that server was started with",
                "/usr is that server's and read-only: packages install into the home folder only",
            ]),
        },
        settings::Provider::E2b(_) => Provider {
            name: "e2b".into(),
            description: "E2B; sandboxes live on until their timeout when this server ends".into(),
            cannot: text(&[
                "cpus, memory_mb and disk_mb are fixed by the template",
                "of a job that another server started, what it printed before and an end long ago are not known",
                "the build of a template goes on to its end, also after kill_job",
            ]),
        },
    }
}

#[expect(clippy::print_stderr, reason = "for the person who started it")]
fn announce(address: std::net::SocketAddr, token: Option<&str>, is_new: bool) {
    eprintln!("listening on http://{address}/mcp");
    match token {
        Some(token) if is_new => eprintln!("token: {token}"),
        // Their own secret is not repeated to them.
        Some(_) => {}
        None => eprintln!("no token is asked: anyone who reaches this address can run commands"),
    }
}

fn new_token() -> Result<String> {
    let mut bytes = [0u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
