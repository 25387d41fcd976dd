use std::{collections::BTreeMap, fmt, path::PathBuf, process::Stdio};

use base64::Engine as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{ImageError, limits};

/// The name by which Docker keeps the login for docker.io.
const DOCKER_IO_KEY: &str = "https://index.docker.io/v1/";

/// What may be known by nobody else. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password or token.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who asks a registry.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// This user, at whatever registry is asked.
    Given {
        /// The user's name.
        user: String,
        /// The password, or a token that is used as one.
        password: Secret,
    },
    /// Whoever is logged in with `docker login`.
    Docker(DockerConfig),
}

/// Where Docker keeps logins.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The file `config.json`. If there is none, nobody is logged in.
    pub path: PathBuf,
    /// Folders where programs are looked for: `docker-credential-…`.
    pub programs: Vec<PathBuf>,
}

/// How somebody shows who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Password {
        user: String,
        password: Secret,
    },
    /// Is exchanged for a token of its own for each image.
    Identity(Secret),
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Credentials {
    /// The login for a registry, if there is one.
    pub(crate) async fn login(&self, registry: &str) -> Result<Option<Login>, ImageError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Given { user, password } => Ok(Some(Login::Password {
                user: user.clone(),
                password: password.clone(),
            })),
            Self::Docker(config) => config.login(registry).await,
        }
    }
}

impl DockerConfig {
    async fn login(&self, registry: &str) -> Result<Option<Login>, ImageError> {
        let fault = |why: String| ImageError::Credentials {
            registry: registry.to_owned(),
            why,
        };
        let name = self.path.display();
        let file = match tokio::fs::File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fault(format!("{name} cannot be opened: {error}"))),
        };
        let mut bytes = Vec::new();
        file.take(limits::DOCKER_CONFIG_BYTES + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| fault(format!("{name} cannot be read: {error}")))?;
        if bytes.len() as u64 > limits::DOCKER_CONFIG_BYTES {
            return Err(fault(format!("{name} is too large")));
        }
        // serde_json's own words may repeat what it read; where it is tells enough.
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|error| fault(format!("{name} is no JSON of Docker's: line {}", error.line())))?;
        let key = if registry == "docker.io" {
            DOCKER_IO_KEY
        } else {
            registry
        };
        let helper = file.helpers.as_ref().and_then(|helpers| find(helpers, registry));
        if let Some(helper) = helper {
            return self.ask(helper, key).await.map_err(fault);
        }
        let auths = file.auths.unwrap_or_default();
        let entry = find(&auths, registry);
        // With a store, Docker leaves an empty entry here.
        if let Some(entry) = entry
            && let Some(login) = read(entry).map_err(|why| fault(format!("{name}: {why}")))?
        {
            return Ok(Some(login));
        }
        match &file.store {
            Some(store) if !store.is_empty() => self.ask(store, key).await.map_err(fault),
            _ => Ok(None),
        }
    }

    /// Asks one of Docker's credential helpers.
    async fn ask(&self, helper: &str, key: &str) -> Result<Option<Login>, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if helper.is_empty() || !helper.bytes().all(plain) {
            return Err("the name of its credential helper is not one".to_owned());
        }
        let name = format!("docker-credential-{helper}");
        let program = self
            .programs
            .iter()
            .map(|folder| folder.join(&name))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("the program {name}, which keeps it, is not installed"))?;
        let asked = async {
            let mut child = tokio::process::Command::new(program)
                .arg("get")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A helper may answer without having read all.
                let _ = stdin.write_all(key.as_bytes()).await;
            }
            let mut told = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(limits::ANSWER_BYTES).read_to_end(&mut told).await?;
            }
            std::io::Result::Ok((child.wait().await?, told))
        };
        let (status, told) = tokio::time::timeout(limits::HELPER_TIME, asked)
            .await
            .map_err(|_| format!("{name} gave no answer for {} s", limits::HELPER_TIME.as_secs()))?
            .map_err(|error| format!("{name} could not be asked: {error}"))?;
        if !status.success() {
            // What Docker's own library for helpers says when it has none.
            let none = String::from_utf8_lossy(&told).contains("credentials not found");
            return if none {
                Ok(None)
            } else {
                Err(format!("{name} failed ({status})"))
            };
        }
        let helped: Helped =
            serde_json::from_slice(&told).map_err(|_| format!("{name} gave an answer of no known form"))?;
        let secret = Secret::new(helped.secret);
        Ok(Some(if helped.username == "<token>" {
            Login::Identity(secret)
        } else {
            Login::Password {
                user: helped.username,
                password: secret,
            }
        }))
    }
}

/// The entry of a registry: Docker writes its host, with or without a scheme and a path.
fn find<'a, T>(entries: &'a BTreeMap<String, T>, registry: &str) -> Option<&'a T> {
    if let Some(entry) = entries.get(registry) {
        return Some(entry);
    }
    let host = |key: &str| {
        let rest = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key);
        rest.split('/').next().unwrap_or_default().to_ascii_lowercase()
    };
    let same = |key: &str| match host(key).as_str() {
        "index.docker.io" | "registry-1.docker.io" => registry == "docker.io",
        host => host == registry,
    };
    entries.iter().find(|(key, _)| same(key)).map(|(_, entry)| entry)
}

fn read(entry: &Entry) -> Result<Option<Login>, &'static str> {
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = some(&entry.identitytoken) {
        return Ok(Some(Login::Identity(Secret::new(token))));
    }
    if let Some(auth) = some(&entry.auth) {
        let config = base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
        let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config);
        let decoded = engine.decode(auth.trim()).map_err(|_| "the login in it is no base64")?;
        let decoded = String::from_utf8(decoded).map_err(|_| "the login in it is no text")?;
        let (user, password) = decoded
            .trim_end_matches('\0')
            .split_once(':')
            .ok_or("the login in it has no password")?;
        return Ok(Some(Login::Password {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
        }));
    }
    Ok(some(&entry.username)
        .zip(some(&entry.password))
        .map(|(user, password)| Login::Password {
            user,
            password: Secret::new(password),
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &std::path::Path, json: &str) -> DockerConfig {
        let path = folder.join("config.json");
        std::fs::write(&path, json).unwrap();
        DockerConfig {
            path,
            programs: vec!["/nowhere".into(), folder.to_owned()],
        }
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password {
            user: user.into(),
            password: Secret::new(password.into()),
        })
    }

    #[tokio::test]
    async fn logins_are_found_where_docker_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let auth = base64::engine::general_purpose::STANDARD.encode("me:pa:55word");
        let config = config(
            folder.path(),
            &format!(
                r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}}, "https://x.io:5000/v2/": {{"auth": "{auth}"}},
                    "y.io": {{"identitytoken": "t0ken"}}, "z.io": {{}}, "w.io": {{"username": "u", "password": "p"}},
                    "bad.io": {{"auth": "%%%"}}}}, "other": 1}}"#
            ),
        );
        assert_eq!(config.login("docker.io").await.unwrap(), password("me", "pa:55word"));
        assert_eq!(config.login("x.io:5000").await.unwrap(), password("me", "pa:55word"));
        assert_eq!(config.login("w.io").await.unwrap(), password("u", "p"));
        assert_eq!(
            config.login("y.io").await.unwrap(),
            Some(Login::Identity(Secret::new("t0ken".into())))
        );
        for none in ["z.io", "x.io", "io"] {
            assert_eq!(config.login(none).await.unwrap(), None, "{none}");
        }
        assert!(config.login("bad.io").await.unwrap_err().to_string().contains("base64"));
        let shown = format!("{:?}", config.login("docker.io").await.unwrap());
        assert!(shown.contains("me") && !shown.contains("55"), "{shown}");
        let missing = DockerConfig {
            path: folder.path().join("none"),
            programs: Vec::new(),
        };
        assert_eq!(missing.login("x.io").await.unwrap(), None);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_are_asked() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let config = config(
            folder.path(),
            r#"{"auths": {"x.io": {}}, "credsStore": "all", "credHelpers": {"y.io": "none", "z.io": "gone", "w.io": "../x"}}"#,
        );
        for (name, script) in [
            (
                "all",
                r#"read -r url; [ "$1" = get ] && echo '{"ServerURL":"'$url'","Username":"'$url'","Secret":"s3cret"}'"#,
            ),
            ("none", "echo 'credentials not found in native keychain'; exit 1"),
        ] {
            let path = folder.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(config.login("x.io").await.unwrap(), password("x.io", "s3cret"));
        assert_eq!(
            config.login("docker.io").await.unwrap(),
            password(DOCKER_IO_KEY, "s3cret")
        );
        assert_eq!(config.login("y.io").await.unwrap(), None);
        let gone = config.login("z.io").await.unwrap_err().to_string();
        assert!(
            gone.contains("docker-credential-gone") && gone.contains("not installed"),
            "{gone}"
        );
        assert!(config.login("w.io").await.is_err());
    }
}
