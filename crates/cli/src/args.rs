//! The command line.

mod template;

use std::{ffi::OsString, net::SocketAddr};

use clap::{Parser, Subcommand, value_parser};
use sandhold_engine::Level;
use sandhold_mcp::{Format, Selection};

pub(crate) use self::template::{BuildArgs, TemplateCommand};

/// Gives an agent a computer: an MCP server whose tools write files and run commands in isolated sandboxes, on this
/// machine or on E2B.
#[derive(Debug, Parser)]
#[command(name = "sandhold", version, propagate_version = true, max_term_width = 100, after_help = AFTER)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Where the registry is kept [default: $SANDHOLD_HOME, else the XDG state folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) home: Option<OsString>,
    /// Where sandboxes run: local, e2b, or sandhold, a `sandhold serve` elsewhere [default: sandhold if SANDHOLD_URL is
    /// set, else e2b if E2B_API_KEY is set, else local]
    #[arg(long, global = true, value_name = "PROVIDER", value_parser = ["local", "e2b", "sandhold"])]
    pub(crate) provider: Option<String>,
    /// How local sandboxes are isolated: namespaces; landlock, for containers that forbid namespaces: it holds less; gvisor,
    /// which needs `runsc`. A level that cannot be had is an error [default: $SANDHOLD_ISOLATION, else namespaces]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = Level::ALL.map(Level::name))]
    pub(crate) isolation: Option<String>,
    /// Local sandboxes that always wait for a client to ask for one, 0 to 16. Of templates and limits that are asked for, more
    /// are made ahead for a while; 0: none is [default: 1]
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u64).range(0..=SPARES_MAX))]
    pub(crate) spares: Option<u64>,
    /// What local sandboxes may reach at most: public (the internet, but neither this machine nor private networks),
    /// allowlist (what --allow-out names) or none [default: public]
    #[arg(long, global = true, value_name = "MODE", value_parser = ["none", "allowlist", "public"])]
    pub(crate) network: Option<String>,
    /// A name, *.name, address or range that local sandboxes may reach; can be given several times
    #[arg(long, global = true, value_name = "TARGET")]
    pub(crate) allow_out: Vec<String>,
    /// One that they may not reach; can be given several times
    #[arg(long, global = true, value_name = "TARGET")]
    pub(crate) deny_out: Vec<String>,
    /// A private range, or an address of this machine, that the rules of a sandbox may open, and where holders of `serve`'s
    /// keys may have images fetched from; can be given several times
    #[arg(long, global = true, value_name = "RANGE")]
    pub(crate) allow_private_network: Vec<String>,
    /// Secrets that requests of local sandboxes get on their way out and that no sandbox sees: a JSON list of {"host":
    /// "api.example.com", "header": "Authorization", "value": "Bearer ..."}; instead of "value", "value_env" names a
    /// variable of this program's environment, "value_file" a file; "env" names a variable that sandboxes get with a
    /// placeholder in it. Nobody but you may be able to read the file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) secrets: Option<OsString>,
    /// Limits of local sandboxes that ask for none, as NAME=VALUE: cpus, memory_mb, disk_mb, pids, inodes, open_files,
    /// output_bytes_per_s, jobs, log_bytes
    #[arg(long, global = true, value_name = "LIMIT", value_delimiter = ',')]
    pub(crate) limits: Vec<String>,
    /// The most that may be asked for, as NAME=VALUE with the same names. No default is above it
    #[arg(long, global = true, value_name = "LIMIT", value_delimiter = ',')]
    pub(crate) max_limits: Vec<String>,
}

/// Most sandboxes that are made before a client asks.
pub(crate) const SPARES_MAX: u64 = 16;

const AFTER: &str = "\
Add it to an MCP client:
  {\"mcpServers\": {\"sandhold\": {\"command\": \"sandhold\", \"args\": [\"mcp\"]}}}

Environment:
  SANDHOLD_HOME        where the registry is kept
  SANDHOLD_PROVIDER    as --provider
  SANDHOLD_URL         use the sandboxes of a `sandhold serve`: https://host:port
  SANDHOLD_API_KEY     its API key [default: $E2B_API_KEY]
  SANDHOLD_CA_FILE     certificates (PEM) to trust beside the system's, as of `serve --tls self-signed`
  SANDHOLD_ISOLATION   as --isolation
  SANDHOLD_SPARES      as --spares
  SANDHOLD_NETWORK     as --network; SANDHOLD_ALLOW_OUT, SANDHOLD_DENY_OUT and SANDHOLD_ALLOW_PRIVATE_NETWORK
                       as the options of these names, with commas between targets
  SANDHOLD_SECRETS     as --secrets: the name of the file
  SANDHOLD_LIMITS      as --limits: memory_mb=1024,pids=256
  SANDHOLD_MAX_LIMITS  as --max-limits
  SANDHOLD_TOKEN       the token of `mcp --http`
  SANDHOLD_CONFIRM     as --confirm of `mcp`; for `serve`, too
  SANDHOLD_ON_EXIT     as --on-exit of `mcp`; SANDHOLD_CHECKPOINT as its --checkpoint
  SANDHOLD_LOG         what is logged to stderr: error, warn (default), info, debug, trace, or a filter
  E2B_API_KEY          use E2B; with E2B_DOMAIN, E2B_API_URL, E2B_SANDBOX_URL as in E2B's own SDKs";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the tools to an MCP client, over stdin and stdout or over HTTP
    Mcp(McpArgs),
    /// Run one command in a new sandbox; its output, input and exit code are yours
    Run(RunArgs),
    /// Say what this machine can do, what is missing and what mends it
    Doctor(DoctorArgs),
    /// Show an agent's calls and their answers: a real MCP session with a real sandbox
    Demo,
    /// Print the tools' schemas for a model's API
    Tools(ToolsArgs),
    /// Offer this machine's sandboxes to E2B's SDKs: E2B's API over HTTP
    Serve(ServeArgs),
    /// Build, list and remove templates: what sandboxes are made of
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Make, list and revoke the API keys of `serve`
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The engine's helper process
    #[command(name = "__launcher", hide = true)]
    Launcher,
}

#[derive(Debug, clap::Args)]
pub(crate) struct McpArgs {
    /// Serve HTTP at this address instead of stdin and stdout, path /mcp, for older clients /sse; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// The bearer token HTTP clients must send [default: $SANDHOLD_TOKEN, else a new one, printed at the start]
    #[arg(long, requires = "http", value_name = "TOKEN", conflicts_with = "no_token")]
    pub(crate) token: Option<String>,
    /// Ask HTTP clients for no token. Anyone who reaches the address can then run commands
    #[arg(long, requires = "http")]
    pub(crate) no_token: bool,
    /// Further host names under which HTTP clients may call, beside the loopback ones
    #[arg(long, requires = "http", value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_host: Vec<String>,
    /// Further origins from which browsers may call, beside the loopback ones
    #[arg(long, requires = "http", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) allow_origin: Vec<String>,
    /// Let upload_file and download_file use this folder of this machine; may be given several times
    #[arg(long, value_name = "FOLDER", conflicts_with = "http")]
    pub(crate) allow_dir: Vec<std::path::PathBuf>,
    /// When the user is asked before something is destroyed: never; destructive: before what cannot be undone, where the
    /// client can ask (where it cannot, the tool goes on); always: before every tool that may destroy something, and where
    /// the client cannot ask the tool is refused [default: $SANDHOLD_CONFIRM, else destructive]
    #[arg(long, value_name = "WHEN", value_parser = ["never", "destructive", "always"])]
    pub(crate) confirm: Option<String>,
    /// What becomes of local sandboxes when this server ends: kill, or pause, which keeps their files for the next server:
    /// list_sandboxes shows them there, connect_sandbox brings them back without their processes, and the default sandbox
    /// comes back by itself to clients that start the server in the same folder. They take disk until they are ended
    /// [default: $SANDHOLD_ON_EXIT, else kill]
    #[arg(long, value_name = "WHAT", value_parser = ["kill", "pause"])]
    pub(crate) on_exit: Option<String>,
    /// Keep a checkpoint of a sandbox's files before each call that may change them (turn); answers name it, and
    /// rollback_sandbox takes it [default: $SANDHOLD_CHECKPOINT, else off]
    #[arg(long, value_name = "WHEN", value_parser = ["turn", "off"])]
    pub(crate) checkpoint: Option<String>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
}

/// Which tools.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SelectionArgs {
    /// Toolsets to offer: sandbox, files, commands, services, transfer, watch, processes, shell, network,
    /// snapshots, templates, default (the first five) or all
    #[arg(long, value_name = "TOOLSET", value_delimiter = ',')]
    toolsets: Vec<String>,
    /// Single tools to offer beside the toolsets; without --toolsets only these
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    tools: Vec<String>,
    /// Single tools to leave out
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    exclude_tools: Vec<String>,
    /// Offer only tools that change nothing
    #[arg(long)]
    read_only: bool,
}

impl SelectionArgs {
    /// As the server takes it.
    pub(crate) fn selection(self) -> Selection {
        Selection {
            toolsets: Some(self.toolsets).filter(|names| !names.is_empty()),
            tools: self.tools,
            exclude_tools: self.exclude_tools,
            read_only: self.read_only,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ToolsArgs {
    /// mcp: the result of tools/list; openai: tools of Chat Completions, strict; anthropic: tools of Messages; gemini:
    /// function declarations
    #[arg(long, default_value = "mcp", value_parser = Format::ALL.map(Format::name))]
    pub(crate) format: String,
    /// Without any choice all tools are printed
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Make the sandbox of this template, or of a snapshot [default: base]
    #[arg(long, value_name = "NAME")]
    pub(crate) template: Option<String>,
    /// Run as root of the sandbox instead of as `user`
    #[arg(long)]
    pub(crate) root: bool,
    /// Set an environment variable
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE")]
    pub(crate) envs: Vec<String>,
    /// The folder to run in [default: the user's home]
    #[arg(long, short = 'w', value_name = "FOLDER")]
    pub(crate) cwd: Option<String>,
    /// Kill it after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Give it a terminal [default: if stdin and stdout are terminals]
    #[arg(long, short = 't', conflicts_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give it no terminal
    #[arg(long)]
    pub(crate) no_tty: bool,
    /// The program and its arguments, looked up in the sandbox's PATH
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) cmd: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Try to break out of a local sandbox of this configuration in some 200 ways, each with a control that shows the try
    /// is sound, and print what held. Exit code 0: all that can be tested here held; 1: something did not; 2: nothing could
    /// be tested
    #[arg(long)]
    pub(crate) prove: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The address to listen at; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// The domain of the sandboxes' host names `<port>-<id>.<domain>`; browsers and curl resolve names under localhost
    /// to this machine by themselves
    #[arg(long, default_value = "sandhold.localhost", value_name = "DOMAIN")]
    pub(crate) domain: String,
    /// Serve HTTPS: `self-signed` makes a certificate for the domain, with an authority that clients can be told to trust
    #[arg(long, value_name = "self-signed", value_parser = ["self-signed"], conflicts_with_all = ["tls_cert", "tls_key"])]
    pub(crate) tls: Option<String>,
    /// Serve HTTPS with this certificate chain (PEM)
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub(crate) tls_cert: Option<std::path::PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub(crate) tls_key: Option<std::path::PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, this once
    Create {
        /// What to call it
        name: String,
    },
    /// List the keys
    List,
    /// Make a key useless
    Revoke {
        /// Its number, as the list shows it
        id: i64,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Args::command().debug_assert();
    }
}
