//! The environment, read here and nowhere else, together with what the command line says about the same things.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result, bail};
use sandhold_client::HttpConfig;
use sandhold_engine::IsolationRequest;

use crate::args::{Args, SPARES_MAX};

/// Names of the environment variables.
pub(crate) mod env {
    /// Folder of the registry.
    pub(crate) const SANDHOLD_HOME: &str = "SANDHOLD_HOME";
    /// `local` or `e2b`.
    pub(crate) const SANDHOLD_PROVIDER: &str = "SANDHOLD_PROVIDER";
    /// Isolation level of local sandboxes.
    pub(crate) const SANDHOLD_ISOLATION: &str = "SANDHOLD_ISOLATION";
    /// Local sandboxes that are made before they are asked for.
    pub(crate) const SANDHOLD_SPARES: &str = "SANDHOLD_SPARES";
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
    /// The local engine's settings.
    pub(crate) local: LocalSettings,
}

/// Where sandboxes run.
#[derive(Debug)]
pub(crate) enum Provider {
    Local,
    E2b(HttpConfig),
}

/// Settings of the local engine.
#[derive(Debug, Clone)]
pub(crate) struct LocalSettings {
    pub(crate) home: PathBuf,
    pub(crate) isolation: IsolationRequest,
    /// Sandboxes that are made before they are asked for.
    pub(crate) spares: usize,
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
        let e2b = || -> Result<Provider> {
            Ok(Provider::E2b(HttpConfig {
                api_key: text(env::E2B_API_KEY)?,
                domain: text(env::E2B_DOMAIN)?,
                api_url: text(env::E2B_API_URL)?,
                sandbox_url: text(env::E2B_SANDBOX_URL)?,
                proxy: env::HTTPS_PROXY
                    .iter()
                    .find_map(|name| text(name).transpose())
                    .transpose()?,
                ..HttpConfig::default()
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
            Some((from, other)) => bail!("{from} is \"{other}\"; it can be local or e2b"),
            None if os(env::E2B_API_KEY).is_some() => e2b()?,
            None => Provider::Local,
        };
        let level = match &args.isolation {
            Some(level) => Some(level.clone()),
            None => text(env::SANDHOLD_ISOLATION)?,
        };
        let isolation = match level.as_deref() {
            None | Some("auto") => IsolationRequest::Auto,
            Some("namespaces") => IsolationRequest::Namespaces,
            Some(other) => bail!(
                "{} is \"{other}\"; it can be auto or namespaces",
                env::SANDHOLD_ISOLATION
            ),
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
        Ok(Self {
            provider,
            log: text(env::SANDHOLD_LOG)?.unwrap_or_else(|| "warn".into()),
            token: text(env::SANDHOLD_TOKEN)?,
            local: LocalSettings {
                home,
                isolation,
                spares,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

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
}
