//! What of the host sandboxes are to look for, made for the time of the proof; and the controls.

use std::{
    net::{IpAddr, Ipv6Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sandhold_prove::{FLAG, Facts, Line, Queue};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, UnixListener},
    process::{Child, Command},
    task::AbortHandle,
};

/// How long the controls may take.
const CONTROL_TIME: Duration = Duration::from_secs(300);
/// What the program may say, in bytes.
pub(super) const OUTPUT: usize = 4 << 20;
/// An address that is given to nobody (RFC 5737): asking the way there tells the host's own address, and sends nothing.
const NOWHERE: &str = "192.0.2.1:9";

/// The host's side.
pub(super) struct Host {
    /// What the program is told.
    pub(super) facts: Facts,
    /// A folder that sandboxes are to write to, or not.
    pub(super) folder: PathBuf,
    daemon: PathBuf,
    shm: Option<PathBuf>,
    _queue: Option<Queue>,
    _sleeper: Option<Child>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let _ = std::fs::remove_dir_all(&self.folder);
        if let Some(shm) = &self.shm {
            let _ = std::fs::remove_file(shm);
        }
    }
}

impl Host {
    pub(super) async fn prepare(daemon: &Path) -> Result<Self> {
        let word = random()?;
        let name = format!("sandhold-prove-{}", random()?);
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let mut host = Self {
            facts: Facts {
                greeting: Some(format!("hello from the host {}", random()?)),
                ..Facts::default()
            },
            folder,
            daemon: daemon.to_owned(),
            shm: None,
            _queue: None,
            _sleeper: None,
            tasks: Vec::new(),
        };
        // Readable and writable for all, so that only the sandbox's walls stand in between.
        std::fs::set_permissions(&host.folder, std::fs::Permissions::from_mode(0o777))?;
        host.files(&name)?;
        host.unix_sockets(&name)?;
        host.network().await?;
        host.names();
        host.facts.queue = None;
        host._queue = Queue::make(&name).ok();
        if let Some(queue) = &host._queue {
            queue.tell(&mut host.facts);
        }
        // Its environment is what is looked for. In two parts, so that the facts themselves are not found.
        let sleeper = Command::new("sleep")
            .arg("3600")
            .env("SANDHOLD_PROVE_WORD", &word)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        host._sleeper = sleeper.ok();
        if host._sleeper.is_some() {
            let (first, second) = word.split_at(word.len() / 2);
            host.facts.word = Some((first.to_owned(), second.to_owned()));
        }
        Ok(host)
    }

    fn files(&mut self, name: &str) -> Result<()> {
        let file = self.folder.join("file");
        let content = random()?;
        std::fs::write(&file, &content).context("a file cannot be made")?;
        self.facts.file = Some((file.display().to_string(), content));
        let shm = Path::new("/dev/shm").join(name);
        if std::fs::write(&shm, "of the host").is_ok() {
            self.shm = Some(shm);
            self.facts.shm = Some(name.to_owned());
        }
        Ok(())
    }

    fn unix_sockets(&mut self, name: &str) -> Result<()> {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        self.greet(UnixListener::from_std(listener)?);
        self.facts.abstract_socket = Some(name.to_owned());
        let path = self.folder.join("socket");
        self.greet(UnixListener::bind(&path)?);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
        self.facts.socket = Some(path.display().to_string());
        Ok(())
    }

    fn greet(&mut self, listener: UnixListener) {
        let greeting = self.facts.greeting.clone().unwrap_or_default();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(greeting.as_bytes()).await;
            }
        });
        self.tasks.push(task.abort_handle());
    }

    async fn network(&mut self) -> Result<()> {
        let greeting = self.facts.greeting.clone().unwrap_or_default();
        // Both families; without IPv6 the one.
        let tcp = match TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind("0.0.0.0:0").await?,
        };
        self.facts.tcp = Some(tcp.local_addr()?.port());
        let said = greeting.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let said = said.clone();
                tokio::spawn(async move { stream.write_all(said.as_bytes()).await });
            }
        });
        self.tasks.push(task.abort_handle());
        let udp = match tokio::net::UdpSocket::bind("[::]:0").await {
            Ok(socket) => socket,
            Err(_) => tokio::net::UdpSocket::bind("0.0.0.0:0").await?,
        };
        self.facts.udp = Some(udp.local_addr()?.port());
        let task = tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer).await {
                let _ = udp.send_to(greeting.as_bytes(), from).await;
            }
        });
        self.tasks.push(task.abort_handle());
        let v4 = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect(NOWHERE)?;
            socket.local_addr()
        });
        self.facts.addresses.extend(v4.ok().map(|address| address.ip()));
        for (address, scope, index) in v6_addresses() {
            match scope {
                GLOBAL => self.facts.addresses.push(IpAddr::V6(address)),
                LINK => self.facts.link_local = Some((IpAddr::V6(address), index)),
                _ => {}
            }
        }
        Ok(())
    }

    fn names(&mut self) {
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "time", "cgroup"] {
            if let Ok(own) = std::fs::read_link(format!("/proc/self/ns/{kind}")) {
                self.facts.namespaces.insert(kind.to_owned(), own.display().to_string());
            }
        }
        self.facts.hostname = Some(rustix::system::uname().nodename().to_string_lossy().into_owned());
        self.facts.passwd = std::fs::read("/etc/passwd").ok().map(|text| Facts::mark(&text));
    }

    /// Runs the program here.
    pub(super) async fn run(&self, facts: &Facts) -> Result<Vec<Line>> {
        let child = Command::new(&self.daemon)
            .arg(FLAG)
            .arg(serde_json::to_string(facts)?)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(CONTROL_TIME, child)
            .await
            .context("they take too long")??;
        ensure!(output.status.success(), "the program ended with {}", output.status);
        lines(&output.stdout)
    }
}

/// The program's output.
pub(super) fn lines(output: &[u8]) -> Result<Vec<Line>> {
    let text = std::str::from_utf8(output).context("the program said something that is no text")?;
    let read = |line: &str| serde_json::from_str(line).with_context(|| format!("the program said {line:?}"));
    text.lines().map(read).collect()
}

/// Scopes in `/proc/net/if_inet6`.
const GLOBAL: u32 = 0x00;
const LINK: u32 = 0x20;

/// Addresses, their scopes and the numbers of their interfaces.
fn v6_addresses() -> Vec<(Ipv6Addr, u32, u32)> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let index = u32::from_str_radix(words.next()?, 16).ok()?;
        let scope = u32::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((Ipv6Addr::from_bits(address), scope, index))
    };
    text.lines().filter_map(read).collect()
}

pub(super) fn random() -> Result<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).context("the system gives no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
