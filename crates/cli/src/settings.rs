//! The environment, read here and nowhere else, together with what the command line says about the same things.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result, bail};
use sandhold_client::{HttpConfig, transport::Codec};
use sandhold_egress::{EgressConfig, Mode};
use sandhold_engine::Level;
use sandhold_gateway::{CapRules, Caps};
use sandhold_mcp::Confirm;

use crate::{
    args::{Args, SPARES_MAX},
    images::{ImageSettings, OwnImages},
    secrets,
};

/// Names of the environment variables.
pub(crate) mod env {
    /// Folder of the registry.
    pub(crate) const SANDHOLD_HOME: &str = "SANDHOLD_HOME";
    /// `local`, `e2b` or `sandhold`.
    pub(crate) const SANDHOLD_PROVIDER: &str = "SANDHOLD_PROVIDER";
    /// A `sandhold serve` whose sandboxes are used; its presence selects it.
    pub(crate) const SANDHOLD_URL: &str = "SANDHOLD_URL";
    /// The API key for it; E2B's where it is not set.
    pub(crate) const SANDHOLD_API_KEY: &str = "SANDHOLD_API_KEY";
    /// Certificates to trust beside the system's.
    pub(crate) const SANDHOLD_CA_FILE: &str = "SANDHOLD_CA_FILE";
    /// When users are asked before something is destroyed.
    pub(crate) const SANDHOLD_CONFIRM: &str = "SANDHOLD_CONFIRM";
    /// What becomes of local sandboxes when `mcp` ends.
    pub(crate) const SANDHOLD_ON_EXIT: &str = "SANDHOLD_ON_EXIT";
    /// Whether checkpoints are taken before calls of tools.
    pub(crate) const SANDHOLD_CHECKPOINT: &str = "SANDHOLD_CHECKPOINT";
    /// Isolation level of local sandboxes: `namespaces` (default), `landlock` or `gvisor`.
    pub(crate) const SANDHOLD_ISOLATION: &str = "SANDHOLD_ISOLATION";
    /// Folders of programs: `runsc` is looked for there.
    pub(crate) const PATH: &str = "PATH";
    /// Local sandboxes that are made before they are asked for.
    pub(crate) const SANDHOLD_SPARES: &str = "SANDHOLD_SPARES";
    /// What local sandboxes may reach at most.
    pub(crate) const SANDHOLD_NETWORK: &str = "SANDHOLD_NETWORK";
    /// Targets that they may reach.
    pub(crate) const SANDHOLD_ALLOW_OUT: &str = "SANDHOLD_ALLOW_OUT";
    /// Targets that they may not reach.
    pub(crate) const SANDHOLD_DENY_OUT: &str = "SANDHOLD_DENY_OUT";
    /// Private ranges that rules may open.
    pub(crate) const SANDHOLD_ALLOW_PRIVATE_NETWORK: &str = "SANDHOLD_ALLOW_PRIVATE_NETWORK";
    /// The file with secrets that requests of sandboxes get.
    pub(crate) const SANDHOLD_SECRETS: &str = "SANDHOLD_SECRETS";
    /// Limits of local sandboxes that ask for none.
    pub(crate) const SANDHOLD_LIMITS: &str = "SANDHOLD_LIMITS";
    /// The most that may be asked for.
    pub(crate) const SANDHOLD_MAX_LIMITS: &str = "SANDHOLD_MAX_LIMITS";
    /// Bearer token of `sandhold mcp --http`.
    pub(crate) const SANDHOLD_TOKEN: &str = "SANDHOLD_TOKEN";
    /// Filter of the log on stderr.
    pub(crate) const SANDHOLD_LOG: &str = "SANDHOLD_LOG";
    /// E2B's API key; its presence selects E2B.
    pub(crate) const E2B_API_KEY: &str = "E2B_API_KEY";
    /// E2B's domain.
    pub(crate) const E2B_DOMAIN: &str = "E2B_DOMAIN";
    /// Base of E2B's API.
    pub(crate) const E2B_API_URL: &str = "E2B_API_URL";
    /// Base of every sandbox's envd.
    pub(crate) const E2B_SANDBOX_URL: &str = "E2B_SANDBOX_URL";
    /// A proxy for requests to E2B, with its lower-case twin as curl knows it.
    pub(crate) const HTTPS_PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
    /// Hosts that are reached without it.
    pub(crate) const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
    /// Folder of Docker's settings, in place of `~/.docker`: who is logged in at registries.
    pub(crate) const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
    /// Base folder of state by the XDG specification.
    pub(crate) const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
    /// The user's home.
    pub(crate) const HOME: &str = "HOME";
}

/// Everything a command needs to know that is not its own argument.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) provider: Provider,
    pub(crate) log: String,
    /// Token of the HTTP endpoint, from the environment.
    pub(crate) token: Option<String>,
    /// When users are asked, from the environment.
    pub(crate) confirm: Confirm,
    /// Whether local sandboxes of `mcp` are paused at its end, from the environment.
    pub(crate) pause_on_exit: bool,
    /// Whether checkpoints are taken before calls of tools, from the environment.
    pub(crate) checkpoint: bool,
    /// The local engine's settings.
    pub(crate) local: LocalSettings,
}

/// Where sandboxes run.
#[derive(Debug)]
pub(crate) enum Provider {
    Local,
    E2b(HttpConfig),
    /// A `sandhold serve` elsewhere.
    Sandhold(HttpConfig),
}

/// Settings of the local engine.
#[derive(Debug, Clone)]
pub(crate) struct LocalSettings {
    pub(crate) home: PathBuf,
    pub(crate) isolation: Level,
    /// Where programs that the engine needs are looked for: the folders of `PATH`.
    pub(crate) search_path: OsString,
    /// Sandboxes that are made before they are asked for.
    pub(crate) spares: usize,
    /// What sandboxes may reach at most.
    pub(crate) egress: EgressConfig,
    /// Limits of sandboxes.
    pub(crate) caps: CapRules,
    /// Whether sandboxes that run are paused at the end, and paused ones outlive it.
    pub(crate) pause_at_end: bool,
    /// How images for templates are had.
    pub(crate) images: ImageSettings,
}

/// One costs little more than a mebibyte, and one is there again before most clients ask for another.
const SPARES: u64 = 1;

impl Settings {
    /// Reads the environment; the command line wins.
    pub(crate) fn read(args: &Args) -> Result<Self> {
        Self::from_lookup(args, |name| std::env::var_os(name))
    }

    fn from_lookup(args: &Args, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let os = |name: &str| lookup(name).filter(|v| !v.is_empty());
        let text = |name: &str| -> Result<Option<String>> {
            os(name)
                .map(|v| {
                    v.into_string()
                        .map_err(|_| anyhow::anyhow!("{name} is not valid UTF-8"))
                })
                .transpose()
        };
        let home = match args.home.clone().or_else(|| os(env::SANDHOLD_HOME)) {
            Some(home) => PathBuf::from(home),
            None => match (
                os(env::XDG_STATE_HOME).map(PathBuf::from).filter(|p| p.is_absolute()),
                os(env::HOME),
            ) {
                (Some(state), _) => state.join("sandhold"),
                (None, Some(home)) => PathBuf::from(home).join(".local/state/sandhold"),
                (None, None) => std::env::temp_dir().join("sandhold"),
            },
        };
        let home = std::path::absolute(&home).with_context(|| format!("{} is not a folder name", home.display()))?;
        let first = |names: [&str; 2]| names.iter().find_map(|name| text(name).transpose()).transpose();
        let http = || -> Result<HttpConfig> {
            Ok(HttpConfig {
                proxy: first(env::HTTPS_PROXY)?,
                no_proxy: first(env::NO_PROXY)?,
                authorities: os(env::SANDHOLD_CA_FILE).map(authorities).transpose()?,
                ..HttpConfig::default()
            })
        };
        let e2b = || -> Result<Provider> {
            Ok(Provider::E2b(HttpConfig {
                api_key: text(env::E2B_API_KEY)?,
                domain: text(env::E2B_DOMAIN)?,
                api_url: text(env::E2B_API_URL)?,
                sandbox_url: text(env::E2B_SANDBOX_URL)?,
                ..http()?
            }))
        };
        let sandhold = || -> Result<Provider> {
            let url = text(env::SANDHOLD_URL)?.unwrap_or_default();
            let url = server_url(&url)?;
            let api_key = match text(env::SANDHOLD_API_KEY)? {
                Some(key) => Some(key),
                None => text(env::E2B_API_KEY)?,
            };
            if api_key.is_none() {
                bail!(
                    "{} is set, but no API key: set {} to one that `sandhold keys create` made there",
                    env::SANDHOLD_URL,
                    env::SANDHOLD_API_KEY
                );
            }
            Ok(Provider::Sandhold(HttpConfig {
                api_key,
                api_url: Some(url.clone()),
                sandbox_url: Some(url),
                codec: Codec::Binary,
                ..http()?
            }))
        };
        let named = match &args.provider {
            Some(provider) => Some(("--provider", provider.clone())),
            None => text(env::SANDHOLD_PROVIDER)?.map(|p| (env::SANDHOLD_PROVIDER, p)),
        };
        let provider = match named.as_ref().map(|(from, p)| (*from, p.as_str())) {
            Some((_, "local")) => Provider::Local,
            Some((from, "e2b")) => {
                if os(env::E2B_API_KEY).is_none() {
                    bail!("{from} is e2b, but {} is not set", env::E2B_API_KEY);
                }
                e2b()?
            }
            Some((from, "sandhold")) => {
                if os(env::SANDHOLD_URL).is_none() {
                    bail!("{from} is sandhold, but {} is not set", env::SANDHOLD_URL);
                }
                sandhold()?
            }
            Some((from, other)) => bail!("{from} is \"{other}\"; it can be local, e2b or sandhold"),
            None if os(env::SANDHOLD_URL).is_some() => sandhold()?,
            None if os(env::E2B_API_KEY).is_some() => e2b()?,
            None => Provider::Local,
        };
        let level = match &args.isolation {
            Some(level) => Some(level.clone()),
            None => text(env::SANDHOLD_ISOLATION)?,
        };
        let isolation = match level.as_deref() {
            None => Level::default(),
            Some(name) => Level::named(name).with_context(|| {
                format!(
                    "{} is \"{name}\"; it can be namespaces, landlock or gvisor",
                    env::SANDHOLD_ISOLATION
                )
            })?,
        };
        let spares = match args.spares {
            Some(spares) => spares,
            None => match text(env::SANDHOLD_SPARES)? {
                None => SPARES,
                Some(value) => value
                    .parse()
                    .ok()
                    .filter(|spares| *spares <= SPARES_MAX)
                    .with_context(|| format!("{} is {value:?}; it can be 0 to {SPARES_MAX}", env::SANDHOLD_SPARES))?,
            },
        };
        let spares = usize::try_from(spares)?;
        let network = match &args.network {
            Some(mode) => Some(mode.clone()),
            None => text(env::SANDHOLD_NETWORK)?,
        };
        let targets = |given: &[String], name: &str| -> Result<Vec<String>> {
            if !given.is_empty() {
                return Ok(given.to_vec());
            }
            let listed = text(name)?.unwrap_or_default();
            let entries = listed.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            Ok(entries.map(str::to_owned).collect())
        };
        let secrets = args.secrets.clone().or_else(|| os(env::SANDHOLD_SECRETS));
        let egress = EgressConfig {
            mode: match network.as_deref() {
                None | Some("public") => Mode::Public,
                Some("allowlist") => Mode::Allowlist,
                Some("none") => Mode::None,
                Some(other) => bail!(
                    "{} is \"{other}\"; it can be public, allowlist or none",
                    env::SANDHOLD_NETWORK
                ),
            },
            allow: targets(&args.allow_out, env::SANDHOLD_ALLOW_OUT)?,
            deny: targets(&args.deny_out, env::SANDHOLD_DENY_OUT)?,
            private: targets(&args.allow_private_network, env::SANDHOLD_ALLOW_PRIVATE_NETWORK)?,
            secrets: match secrets {
                Some(file) => secrets::read(&PathBuf::from(file), os)?,
                None => Vec::new(),
            },
        };
        let caps = |flag: (&str, &[String]), name: &'static str| match (flag, text(name)?) {
            ((flag, said), _) if !said.is_empty() => {
                Caps::parse(&said.join(",")).map_err(|why| anyhow::anyhow!("{flag}: {why}"))
            }
            (_, Some(said)) => Caps::parse(&said).map_err(|why| anyhow::anyhow!("{name}: {why}")),
            _ => Ok(Caps::default()),
        };
        let defaults = caps(("--limits", &args.limits), env::SANDHOLD_LIMITS)?;
        let most = caps(("--max-limits", &args.max_limits), env::SANDHOLD_MAX_LIMITS)?;
        let caps = CapRules::new(defaults, most).map_err(|why| anyhow::anyhow!("the limits of sandboxes: {why}"))?;
        let one_of = |name: &str, yes: &str, no: &str| match text(name)?.as_deref() {
            None => Ok(false),
            Some(word) if word == no => Ok(false),
            Some(word) if word == yes => Ok(true),
            Some(other) => bail!("{name} is {other:?}; it can be {yes} or {no}"),
        };
        Ok(Self {
            provider,
            pause_on_exit: one_of(env::SANDHOLD_ON_EXIT, "pause", "kill")?,
            checkpoint: one_of(env::SANDHOLD_CHECKPOINT, "turn", "off")?,
            log: text(env::SANDHOLD_LOG)?.unwrap_or_else(|| "warn".into()),
            token: text(env::SANDHOLD_TOKEN)?,
            confirm: match text(env::SANDHOLD_CONFIRM)? {
                None => Confirm::default(),
                Some(name) => confirm(&name).with_context(|| {
                    format!(
                        "{} is {name:?}; it can be never, destructive or always",
                        env::SANDHOLD_CONFIRM
                    )
                })?,
            },
            local: LocalSettings {
                home,
                isolation,
                search_path: os(env::PATH).unwrap_or_default(),
                spares,
                egress,
                caps,
                pause_at_end: false,
                images: ImageSettings {
                    docker_config: os(env::DOCKER_CONFIG)
                        .map(PathBuf::from)
                        .or_else(|| os(env::HOME).map(|home| PathBuf::from(home).join(".docker")))
                        .map(|folder| folder.join("config.json")),
                    programs: std::env::split_paths(&os(env::PATH).unwrap_or_default()).collect(),
                    proxy: first(env::HTTPS_PROXY)?,
                    no_proxy: first(env::NO_PROXY)?,
                    authorities: os(env::SANDHOLD_CA_FILE).map(authorities).transpose()?,
                    own: OwnImages::default(),
                },
            },
        })
    }
}

/// The policy of this name.
pub(crate) fn confirm(name: &str) -> Option<Confirm> {
    Confirm::ALL.into_iter().find(|policy| policy.name() == name)
}

/// `https://host:port` of a server, without a slash at its end.
fn server_url(url: &str) -> Result<String> {
    let refused = || format!("{} is {url:?}; it is like https://host:port", env::SANDHOLD_URL);
    let parsed: http::Uri = url.parse().with_context(refused)?;
    let scheme = parsed.scheme_str().filter(|s| *s == "http" || *s == "https");
    let (Some(scheme), Some(authority)) = (scheme, parsed.authority()) else {
        bail!(refused());
    };
    if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || authority.as_str().contains('@') {
        bail!(refused());
    }
    Ok(format!("{scheme}://{authority}"))
}

fn authorities(path: OsString) -> Result<Vec<u8>> {
    let path = PathBuf::from(path);
    std::fs::read(&path)
        .with_context(|| format!("cannot read {}, which {} names", path.display(), env::SANDHOLD_CA_FILE))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sandhold_gateway::Cap;

    use super::*;

    fn read(args: &[&str], vars: &[(&str, &str)]) -> Result<Settings> {
        let args = Args::parse_from([&["sandhold", "doctor"], args].concat());
        Settings::from_lookup(&args, |name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn a_key_selects_e2b_unless_the_provider_is_named() {
        assert!(matches!(read(&[], &[]).unwrap().provider, Provider::Local));
        assert!(matches!(
            read(&[], &[("E2B_API_KEY", "e2b_1")]).unwrap().provider,
            Provider::E2b(_)
        ));
        assert!(matches!(
            read(&[], &[("E2B_API_KEY", "")]).unwrap().provider,
            Provider::Local
        ));
        let both = [("E2B_API_KEY", "e2b_1"), ("SANDHOLD_PROVIDER", "local")];
        assert!(matches!(read(&[], &both).unwrap().provider, Provider::Local));
        assert!(matches!(
            read(&["--provider", "e2b"], &both).unwrap().provider,
            Provider::E2b(_)
        ));
        let error = read(&["--provider", "e2b"], &[]).unwrap_err().to_string();
        assert!(error.contains("E2B_API_KEY"), "{error}");
        let spares = |args: &[&str], value| read(args, &[("SANDHOLD_SPARES", value)]).map(|s| s.local.spares);
        assert_eq!(spares(&[], "").unwrap(), 1);
        assert_eq!(spares(&[], "0").unwrap(), 0);
        assert_eq!(spares(&["--spares", "2"], "0").unwrap(), 2);
        assert!(spares(&[], "17").unwrap_err().to_string().contains("0 to 16"));
        assert!(spares(&[], "many").is_err());
        let level = |args: &[&str], value| read(args, &[("SANDHOLD_ISOLATION", value)]).map(|s| s.local.isolation);
        assert_eq!(level(&[], "").unwrap(), Level::Namespaces);
        assert_eq!(level(&[], "landlock").unwrap(), Level::Landlock);
        assert_eq!(level(&["--isolation", "gvisor"], "landlock").unwrap(), Level::Gvisor);
        let error = read(&[], &[("SANDHOLD_ISOLATION", "strong")]).unwrap_err().to_string();
        assert!(
            error.contains("SANDHOLD_ISOLATION") && error.contains("strong"),
            "{error}"
        );
        let error = read(&[], &[("SANDHOLD_PROVIDER", "docker")]).unwrap_err().to_string();
        assert!(
            error.contains("SANDHOLD_PROVIDER") && error.contains("docker"),
            "{error}"
        );
    }

    #[test]
    fn limits_are_named() {
        let caps = |args: &[&str], vars: &[(&str, &str)]| read(args, vars).map(|s| s.local.caps);
        let rules = caps(
            &["--limits", "pids=64,cpus=0.5"],
            &[
                ("SANDHOLD_LIMITS", "pids=9"),
                ("SANDHOLD_MAX_LIMITS", "memory_mb=512, jobs=4"),
            ],
        )
        .unwrap();
        assert_eq!(
            (
                rules.defaults.whole(Cap::Pids),
                rules.defaults.get(Cap::Cpus),
                rules.most.whole(Cap::Jobs)
            ),
            (Some(64), Some(0.5), Some(4))
        );
        let refused = |vars: &[(&str, &str)]| format!("{:#}", caps(&[], vars).unwrap_err());
        assert!(refused(&[("SANDHOLD_LIMITS", "memory=1")]).contains("SANDHOLD_LIMITS: \"memory=1\""));
        assert!(refused(&[("SANDHOLD_MAX_LIMITS", "pids=many")]).contains("SANDHOLD_MAX_LIMITS"));
        assert!(refused(&[("SANDHOLD_LIMITS", "pids=0")]).contains("pids is 0"));
        let both = [("SANDHOLD_LIMITS", "pids=64"), ("SANDHOLD_MAX_LIMITS", "pids=32")];
        assert!(refused(&both).contains("more than the 32"));
        let readme = include_str!("../../../README.md");
        let help = <Args as clap::CommandFactory>::command().render_long_help().to_string();
        for cap in Cap::ALL {
            assert!(readme.contains(&format!("`{}`", cap.name())), "README: {}", cap.name());
            assert!(help.contains(cap.name()), "--help: {}", cap.name());
        }
    }

    #[test]
    fn home_follows_the_xdg_specification() {
        let home = |vars: &[(&str, &str)]| read(&[], vars).unwrap().local.home;
        assert_eq!(home(&[("HOME", "/h")]), PathBuf::from("/h/.local/state/sandhold"));
        assert_eq!(
            home(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]),
            PathBuf::from("/s/sandhold")
        );
        assert_eq!(
            home(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative")]),
            PathBuf::from("/h/.local/state/sandhold")
        );
        assert_eq!(home(&[("SANDHOLD_HOME", "/x"), ("HOME", "/h")]), PathBuf::from("/x"));
    }

    #[test]
    fn a_url_selects_a_server_elsewhere() {
        let url = ("SANDHOLD_URL", "https://there:3000/");
        let own = ("SANDHOLD_API_KEY", "e2b_own");
        let e2b = ("E2B_API_KEY", "e2b_1");
        let config = |vars: &[(&str, &str)]| match read(&[], vars).unwrap().provider {
            Provider::Sandhold(config) => config,
            other => panic!("{other:?}"),
        };
        let both = config(&[url, own, e2b, ("E2B_API_URL", "https://elsewhere")]);
        assert_eq!(both.api_key.as_deref(), Some("e2b_own"));
        assert_eq!(both.api_url.as_deref(), Some("https://there:3000"));
        assert_eq!(both.sandbox_url, both.api_url);
        assert_eq!(config(&[url, e2b]).api_key.as_deref(), Some("e2b_1"));
        let named = |name| read(&["--provider", name], &[url, own, e2b]).unwrap().provider;
        assert!(matches!(named("local"), Provider::Local));
        assert!(matches!(named("e2b"), Provider::E2b(_)));
        let refused = |args: &[&str], vars: &[(&str, &str)]| read(args, vars).unwrap_err().to_string();
        assert!(refused(&[], &[url]).contains("SANDHOLD_API_KEY"));
        assert!(refused(&["--provider", "sandhold"], &[own]).contains("SANDHOLD_URL"));
        for bad in [
            "there:3000",
            "ftp://there",
            "https://there/path",
            "https://me@there",
            "https://",
        ] {
            assert!(
                refused(&[], &[("SANDHOLD_URL", bad), own]).contains("https://host:port"),
                "{bad}"
            );
        }
        assert!(refused(&[], &[url, own, ("SANDHOLD_CA_FILE", "/nowhere.pem")]).contains("/nowhere.pem"));
    }

    #[test]
    fn the_policy_of_questions() {
        for (name, yes, no) in [
            ("SANDHOLD_ON_EXIT", "pause", "kill"),
            ("SANDHOLD_CHECKPOINT", "turn", "off"),
        ] {
            let of = |value| read(&[], &[(name, value)]).map(|s| s.pause_on_exit || s.checkpoint);
            assert!(of(yes).unwrap() && !of(no).unwrap() && !of("").unwrap());
            assert!(of("maybe").unwrap_err().to_string().contains(yes));
        }
        let policy = |value| read(&[], &[("SANDHOLD_CONFIRM", value)]).map(|s| s.confirm);
        assert_eq!(policy("").unwrap(), Confirm::Destructive);
        assert_eq!(policy("always").unwrap(), Confirm::Always);
        assert!(
            policy("sometimes")
                .unwrap_err()
                .to_string()
                .contains("never, destructive or always")
        );
    }
}
