//! Making a sandbox: what was asked is checked, the runtime makes it, its daemon's answer is checked.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sandhold_egress::Egress;
use sandhold_runtime::{
    PROXY_PORT, Reach, Resources, Root, RuntimeInfo, Sandbox as RuntimeSandbox, SandboxSpec, Storage,
};
use sandhold_wire::{
    boot::{BootReady, BootSpec},
    caps::Caps,
    limits, names,
    rest::NewSandbox,
};

use crate::{
    caps,
    entry::{Entry, Recipe, Start},
    error::{Refusal, chain},
    limits::TOKEN_BYTES,
    network::check,
    owner::Owner,
    sandboxes::Sandboxes,
    templates,
};

pub(crate) const ID_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
pub(crate) const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes a sandbox that ends after `default_timeout` seconds unless the request says otherwise.
pub(crate) async fn create(
    sandboxes: &Arc<Sandboxes>,
    owner: Owner,
    request: NewSandbox,
    default_timeout: u64,
) -> Result<Arc<Entry>, Refusal> {
    let timeout = timeout(request.timeout, default_timeout, sandboxes.config.max_timeout_s)?;
    let origin = sandboxes.resolve(owner, &request.template_id).await?;
    let root = origin.root.clone();
    let recipe = recipe(sandboxes, owner, request, origin)?;
    let id = new_id()?;
    let runtime = start(sandboxes, &id, &recipe, root).await?;
    let entry = Entry::running(id, recipe, runtime, timeout);
    entry.open_way_out(&sandboxes.config.egress);
    templates::begin(&entry).await;
    // What it took to be ready is not taken from its life.
    entry.set_timeout(timeout);
    let entry = sandboxes.insert(entry);
    sandboxes.count_spawn(&entry.recipe.template);
    Ok(entry)
}

/// What a sandbox is made of.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The id of a template or snapshot.
    pub(crate) template: String,
    /// Its name.
    pub(crate) alias: String,
    /// What it begins with.
    pub(crate) start: Start,
    /// What its files stand on.
    pub(crate) root: Root,
    /// Its processors, unless the request names others.
    pub(crate) cpus: Option<f64>,
    /// Its memory, unless the request names another.
    pub(crate) memory_mb: Option<u64>,
}

impl Origin {
    /// The sandbox without a template.
    pub(crate) fn base() -> Self {
        Self {
            template: names::DEFAULT_TEMPLATE.to_owned(),
            alias: names::DEFAULT_TEMPLATE.to_owned(),
            start: Start::default(),
            root: Root::default(),
            cpus: None,
            memory_mb: None,
        }
    }
}

/// What is asked for, checked and completed.
fn recipe(sandboxes: &Sandboxes, owner: Owner, mut request: NewSandbox, origin: Origin) -> Result<Recipe, Refusal> {
    request.cpu_count = request.cpu_count.or(origin.cpus);
    request.memory_mb = request.memory_mb.or(origin.memory_mb);
    let asked_caps = caps::asked(&request)?;
    let metadata = request.metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    let envs = request.env_vars.unwrap_or_default();
    check_envs(&envs)?;
    let network = request.network.clone().unwrap_or_default();
    check(sandboxes, request.allow_internet_access, &network)?;
    let (asked, resources) = resources(sandboxes, &asked_caps)?;
    let public = request
        .network
        .as_ref()
        .and_then(|n| n.allow_public_traffic)
        .unwrap_or(true);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut recipe = Recipe {
        owner,
        template: origin.template,
        alias: Some(origin.alias),
        start: origin.start,
        storage: Storage::Memory,
        token: None,
        traffic_token: (!public).then(String::new),
        started_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        metadata,
        envs,
        asked,
        resources,
        daemon: sandboxes.config.caps.daemon(&asked_caps),
        network: request.network,
        internet: request.allow_internet_access,
        auto_pause: request.auto_pause.unwrap_or(false),
        auto_pause_memory: request.auto_pause_memory.unwrap_or(true),
        auto_resume: request.auto_resume.is_some_and(|r| r.enabled),
        files: None,
        origin: None,
        kept_bytes: 0,
    };
    fresh_tokens(&mut recipe)?;
    Ok(recipe)
}

/// Gives a recipe tokens of its own, in place of those that it has.
pub(crate) fn fresh_tokens(recipe: &mut Recipe) -> Result<(), Refusal> {
    recipe.token = Some(random_text(TOKEN_BYTES * 2, HEX)?);
    if let Some(token) = &mut recipe.traffic_token {
        *token = random_text(TOKEN_BYTES * 2, HEX)?;
    }
    Ok(())
}

/// What is asked for, checked, and the same with the engine's defaults.
fn resources(sandboxes: &Sandboxes, asked: &Caps) -> Result<(Resources, Resources), Refusal> {
    let (rules, info) = (&sandboxes.config.caps, sandboxes.info());
    rules.check(asked, &info)?;
    let asked = caps::resources(asked);
    let defaults = info.defaults;
    let all = Resources {
        cpus: asked.cpus.or(defaults.cpus),
        memory_bytes: asked.memory_bytes.or(defaults.memory_bytes),
        disk_bytes: asked.disk_bytes.or_else(|| default_disk(&defaults, asked.memory_bytes)),
        pids: asked.pids.or(defaults.pids),
        inodes: asked.inodes.or(defaults.inodes),
        open_files: asked.open_files.or(defaults.open_files),
    };
    Ok((asked, all))
}

impl Recipe {
    /// That of a sandbox that a build works in, with the network that sandboxes get when nothing is said.
    pub(crate) fn of_build(
        sandboxes: &Sandboxes,
        owner: Owner,
        template: &str,
        start: Start,
        caps: &Caps,
        storage: Storage,
    ) -> Result<Self, Refusal> {
        let (asked, resources) = resources(sandboxes, caps)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            owner,
            template: template.to_owned(),
            alias: None,
            start,
            storage,
            token: Some(random_text(TOKEN_BYTES * 2, HEX)?),
            traffic_token: None,
            started_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            metadata: BTreeMap::new(),
            envs: BTreeMap::new(),
            asked,
            resources,
            daemon: sandboxes.config.caps.daemon(caps),
            network: None,
            internet: None,
            auto_pause: false,
            auto_pause_memory: true,
            auto_resume: false,
            files: None,
            origin: None,
            kept_bytes: 0,
        })
    }
}

/// The disk of a sandbox that was asked for with this much memory: never a larger share of it than by default, for a
/// runtime may keep files in memory.
fn default_disk(defaults: &Resources, memory: Option<u64>) -> Option<u64> {
    let disk = defaults.disk_bytes?;
    let (Some(memory), Some(usual)) = (memory, defaults.memory_bytes.filter(|usual| *usual > 0)) else {
        return Some(disk);
    };
    let share = u128::from(disk) * u128::from(memory) / u128::from(usual);
    Some(u64::try_from(share).unwrap_or(u64::MAX).min(disk))
}

/// Makes the sandbox of a recipe on a root, for the first time or again.
pub(crate) async fn start(
    sandboxes: &Sandboxes,
    id: &str,
    recipe: &Recipe,
    root: Root,
) -> Result<Arc<dyn RuntimeSandbox>, Refusal> {
    let pids = recipe.resources.pids.unwrap_or(u64::from(u32::MAX));
    let boot = BootSpec {
        sandbox_id: id.to_owned(),
        template_id: recipe.template.clone(),
        envs: envs(recipe, &sandboxes.info(), &sandboxes.config.egress),
        access_token: recipe.token.clone(),
        default_user: recipe.start.user.clone().unwrap_or_else(|| names::DEFAULT_USER.into()),
        workdir: recipe.start.workdir.clone(),
        max_processes: u32::try_from(pids).unwrap_or(u32::MAX),
        memory_bytes: recipe.resources.memory_bytes,
        caps: recipe.daemon,
        can_switch_user: sandboxes.info().can_switch_user,
        sudo_socket: Some(names::SUDO_SOCKET.into()),
    };
    let boot = serde_json::to_vec(&boot).map_err(|e| Refusal::internal(e.to_string()))?;
    if boot.len() > limits::BOOT_MESSAGE {
        return Err(Refusal::bad_request(format!(
            "envVars take {} bytes, at most {} fit",
            boot.len(),
            limits::BOOT_MESSAGE
        )));
    }
    let spec = SandboxSpec {
        id: id.to_owned(),
        root,
        storage: recipe.storage,
        hostname: "sandhold".into(),
        resources: recipe.asked,
        boot,
    };
    let runtime = sandboxes.runtime.create(spec).await.inspect_err(|error| {
        tracing::warn!(sandbox = %id, error = %chain(error), "a sandbox could not be made");
    })?;
    if let Err(refusal) = check_answer(runtime.boot_answer()) {
        runtime.kill().await;
        return Err(refusal);
    }
    Ok(runtime)
}

/// Where programs look for certificates; those that bring their own trust nothing that this host alone trusts.
const CERTIFICATES: [&str; 7] = [
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// The environment of every process. Where the kernel does not lead connections out by itself, programs are told of the
/// proxy, by the names that most of them know. Where requests get a secret, a placeholder stands for it.
fn envs(recipe: &Recipe, info: &RuntimeInfo, egress: &Egress) -> BTreeMap<String, String> {
    let mut envs = BTreeMap::new();
    if let Some(bundle) = info.ca_bundle.as_ref().filter(|_| info.reach != Reach::Nothing) {
        envs.extend(CERTIFICATES.map(|name| (name.to_owned(), bundle.clone())));
    }
    if info.reach == Reach::Proxy {
        let http = format!("http://127.0.0.1:{PROXY_PORT}");
        let any = format!("socks5h://127.0.0.1:{PROXY_PORT}");
        for (name, value) in [
            ("http_proxy", http.as_str()),
            ("https_proxy", &http),
            ("all_proxy", &any),
            ("no_proxy", "localhost,127.0.0.1,::1"),
        ] {
            envs.insert(name.to_owned(), value.to_owned());
            envs.insert(name.to_uppercase(), value.to_owned());
        }
    }
    envs.extend(
        egress
            .placeholders()
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    envs.extend(recipe.start.envs.clone());
    envs.extend(recipe.envs.clone());
    envs
}

/// Checks a timeout in seconds.
pub(crate) fn timeout(asked: Option<i64>, default: u64, max: u64) -> Result<Duration, Refusal> {
    let seconds = match asked {
        None => default,
        Some(s) => match u64::try_from(s) {
            Ok(s) if s > 0 => s,
            _ => return Err(Refusal::bad_request("Timeout must be greater than 0")),
        },
    };
    if seconds > max {
        return Err(Refusal::bad_request(format!(
            "Timeout cannot be greater than {max} seconds, it was {seconds}"
        )));
    }
    Ok(Duration::from_secs(seconds))
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if metadata.len() > limits::METADATA_PAIRS {
        return Err(Refusal::bad_request(format!(
            "metadata has {} pairs, at most {} are allowed",
            metadata.len(),
            limits::METADATA_PAIRS
        )));
    }
    for (key, value) in metadata {
        let longest = key.len().max(value.len());
        if longest > limits::METADATA_LEN {
            return Err(Refusal::bad_request(format!(
                "a metadata key or value has {longest} bytes, at most {} are allowed",
                limits::METADATA_LEN
            )));
        }
    }
    Ok(())
}

fn check_envs(envs: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if envs.len() > limits::ENV_PAIRS {
        return Err(Refusal::bad_request(format!(
            "envVars has {} names, at most {} are allowed",
            envs.len(),
            limits::ENV_PAIRS
        )));
    }
    match envs
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        Some((name, _)) => Err(Refusal::bad_request(format!(
            "envVars name {name:?} cannot be set: names hold no `=`, neither holds a NUL"
        ))),
        None => Ok(()),
    }
}

pub(crate) fn check_answer(answer: &[u8]) -> Result<(), Refusal> {
    let internal = |message: String| Refusal::internal(message);
    let ready: BootReady = serde_json::from_slice(answer)
        .map_err(|_| internal("the sandbox's daemon answered something that is not a boot answer".into()))?;
    let ours = env!("CARGO_PKG_VERSION");
    if ready.version != ours {
        return Err(internal(format!(
            "sandhold is version {ours} and its daemon sandhold-envd is version {}: install both from one release",
            ready.version
        )));
    }
    Ok(())
}

/// What a sandbox's daemon said at its start that its user should know.
pub(crate) fn boot_warnings(runtime: &dyn RuntimeSandbox) -> Vec<String> {
    serde_json::from_slice(runtime.boot_answer())
        .map(|ready: BootReady| ready.warnings)
        .unwrap_or_default()
}

pub(crate) fn new_id() -> Result<String, Refusal> {
    Ok(format!("i{}", random_text(names::SANDBOX_ID_LEN - 1, ID_ALPHABET)?))
}

/// `len` random letters, each equally likely.
pub(crate) fn random_text<const N: usize>(len: usize, alphabet: &[u8; N]) -> Result<String, getrandom::Error> {
    let fair = 256 - 256 % N;
    let mut text = String::with_capacity(len);
    let mut bytes = [0u8; 64];
    while text.len() < len {
        getrandom::fill(&mut bytes)?;
        let letters = bytes
            .iter()
            .map(|b| usize::from(*b))
            .filter(|b| *b < fair)
            .map(|b| char::from(alphabet[b % N]));
        text.extend(letters.take(len - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_e2bs() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), names::SANDBOX_ID_LEN);
        assert!(names::is_sandbox_id(&id) && id.starts_with('i'));
        assert_ne!(id, new_id().unwrap());
    }

    #[test]
    fn timeouts() {
        assert_eq!(timeout(None, 15, 100).unwrap().as_secs(), 15);
        assert_eq!(timeout(Some(100), 15, 100).unwrap().as_secs(), 100);
        for bad in [0, -1, 101, i64::MIN, i64::MAX] {
            assert!(timeout(Some(bad), 15, 100).is_err(), "{bad}");
        }
    }

    #[test]
    fn less_memory_brings_less_disk() {
        let defaults = Resources {
            memory_bytes: Some(2048),
            disk_bytes: Some(1280),
            ..Resources::default()
        };
        for (memory, disk) in [
            (None, 1280),
            (Some(2048), 1280),
            (Some(4096), 1280),
            (Some(256), 160),
            (Some(0), 0),
        ] {
            assert_eq!(default_disk(&defaults, memory), Some(disk), "{memory:?}");
        }
        assert_eq!(default_disk(&Resources::default(), Some(5)), None);
    }
}
