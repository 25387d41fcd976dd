//! A large file up to a sandbox of `sandhold serve` and down again, beside nginx that takes and serves the same file. The
//! client is curl every time, and what is uploaded ends in memory every time.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sandhold_client::CreateOptions;
use tokio::runtime::Runtime as Tokio;

use crate::{Aim, serve::Serve};

/// How often each way is measured; the median counts.
const TIMES: usize = 3;

/// Measures with a file of `mib` MiB.
pub(crate) fn transfer(tokio: &Tokio, mib: u64, nginx: Option<&Path>, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    // nginx's workers are other users.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let file = home.path().join("large");
    let mut out = fs::File::create(&file)?;
    for at in 0..mib {
        out.write_all(&at.to_le_bytes().repeat((1 << 20) / 8))?;
    }
    out.sync_all()?;

    let serve = Serve::start(home.path())?;
    let peer = nginx.map(|program| Nginx::start(program, home.path())).transpose()?;
    let sandbox = tokio.block_on(serve.client()?.create(CreateOptions {
        disk_mb: Some(mib + 256),
        memory_mb: Some(2 * mib + 1024),
        timeout: Some(Duration::from_secs(1800)),
        ..CreateOptions::default()
    }))?;
    let files = sandbox.files();
    let (up_url, down_url) = (
        files.upload_url("large", None, None)?,
        files.download_url("large", None, None)?,
    );

    let done = AtomicBool::new(false);
    let (ours, theirs, most) = std::thread::scope(|scope| -> Result<_> {
        let watch = scope.spawn(|| {
            let mut most = 0_f64;
            while !done.load(Ordering::Relaxed) {
                most = most.max(serve.memory().unwrap_or(0.0));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let measured = (|| {
            let (mut ours, mut theirs) = (Speeds::default(), Speeds::default());
            for _ in 0..TIMES {
                ours.measure("POST", &file, &up_url, &down_url)?;
                if let Some(nginx) = &peer {
                    theirs.measure("PUT", &file, &nginx.put_url, &nginx.url)?;
                }
            }
            anyhow::Ok((ours, theirs))
        })();
        done.store(true, Ordering::Relaxed);
        let most = watch
            .join()
            .map_err(|_| anyhow::anyhow!("the memory was not watched"))?;
        let (ours, theirs) = measured?;
        Ok((ours, theirs, most))
    })?;
    tokio.block_on(sandbox.kill())?;
    serve.stop()?;

    println!("\nA file of {mib} MiB by curl, medians of {TIMES}, MiB/s");
    println!("  {:<24} {:>8} {:>8}", "", "up", "down");
    let row = |name, speeds: &Speeds| {
        println!("  {name:<24} {:>8.0} {:>8.0}", median(&speeds.up), median(&speeds.down));
    };
    row("a sandbox of serve", &ours);
    aims.push(Aim {
        what: "memory of serve meanwhile".to_owned(),
        got: most,
        most: 64.0,
        unit: "MiB",
    });
    if peer.is_none() {
        println!("  nginx                    not measured: not installed");
        return Ok(());
    }
    row("nginx", &theirs);
    for (what, own, other) in [("up", &ours.up, &theirs.up), ("down", &ours.down, &theirs.down)] {
        aims.push(Aim {
            what: format!("a large file {what}: nginx's speed over ours"),
            got: median(other) / median(own),
            most: 2.0,
            unit: "×",
        });
    }
    Ok(())
}

/// MiB/s of every transfer.
#[derive(Default)]
struct Speeds {
    up: Vec<f64>,
    down: Vec<f64>,
}

impl Speeds {
    fn measure(&mut self, method: &str, file: &Path, up: &str, down: &str) -> Result<()> {
        let source = file.to_str().context("a path in Unicode")?;
        let kind = "Content-Type: application/octet-stream";
        self.up
            .push(curl("speed_upload", &["-X", method, "-H", kind, "-T", source, up])?);
        self.down.push(curl("speed_download", &[down])?);
        Ok(())
    }
}

/// MiB/s of one transfer.
fn curl(speed: &str, arguments: &[&str]) -> Result<f64> {
    let said = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--output",
            "/dev/null",
            "--write-out",
        ])
        .arg(format!("%{{{speed}}}"))
        .args(arguments)
        .output()
        .context("curl has to be installed")?;
    ensure!(said.status.success(), "curl: {}", String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8(said.stdout)?.trim().parse::<f64>()? / f64::from(1 << 20))
}

fn median(of: &[f64]) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// An nginx of its own that serves a folder.
struct Nginx {
    child: Child,
    url: String,
    put_url: String,
    /// In memory, as the files of a sandbox are.
    _uploads: tempfile::TempDir,
}

impl Nginx {
    fn start(program: &Path, folder: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let shown = folder.display();
        let settings = folder.join("nginx.conf");
        let uploads = tempfile::tempdir_in("/dev/shm")?;
        fs::set_permissions(uploads.path(), fs::Permissions::from_mode(0o777))?;
        fs::create_dir(uploads.path().join("put"))?;
        fs::set_permissions(uploads.path().join("put"), fs::Permissions::from_mode(0o777))?;
        let into = uploads.path().display();
        let scratch: String = ["proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {shown}/nginx-{kind};\n"))
            .concat();
        fs::write(
            &settings,
            format!(
                "daemon off;\nworker_processes 2;\npid {shown}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{scratch}  \
                 access_log off;\n  sendfile on;\n  client_body_temp_path {into}/body;\n  client_max_body_size 0;\n  \
                 server {{ listen 127.0.0.1:{port}; root {shown}; location /put {{ root {into}; dav_methods PUT; }} }}\n}}\n"
            ),
        )?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&settings)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let nginx = Self {
            child,
            url: format!("http://127.0.0.1:{port}/large"),
            put_url: format!("http://127.0.0.1:{port}/put/large"),
            _uploads: uploads,
        };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(nginx);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("{} did not listen", program.display())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers on this signal, not on SIGKILL.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// nginx, where it is installed or was unpacked.
pub(crate) fn nginx() -> Option<PathBuf> {
    std::env::var_os("SANDHOLD_BENCH_NGINX")
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .or_else(|| crate::peers::installed("nginx"))
}
