//! An image of the host's own files, unpacked by the engine, by umoci and by podman.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use sandhold_runtime::{Archive, Base, Compression, Runtime, StoredRoot};
use serde_json::{Value, json};
use tokio::runtime::Runtime as Tokio;

use super::{Plan, engine, heading, row};
use crate::{peers, stats::Times};

/// Whose files the image is made of; some of each.
const SOURCES: [&str; 2] = ["usr/share", "usr/lib"];
/// Larger files are left out: an image has many small ones.
const LARGEST: u64 = 4 << 20;
const MEDIA: &str = "application/vnd.oci.image";

/// An image in an OCI layout.
struct Image {
    layout: PathBuf,
    /// Each layer's archive and the digest of its tar.
    layers: Vec<(PathBuf, [u8; 32])>,
    files: u64,
    bytes: u64,
}

/// Measures.
pub(super) fn unpacking(tokio: &Tokio, plan: &Plan) -> Result<()> {
    let home = tempfile::tempdir()?;
    let image = Image::make(home.path(), plan.image)?;
    let [mut own, mut umoci, mut umoci_synced, mut podman] = std::array::from_fn(|_| Times::default());
    let (with_umoci, with_podman) = (peers::installed("umoci"), peers::installed("podman"));
    let root = crate::is_root();
    for round in 0..plan.unpacks {
        let folder = tempfile::tempdir_in(home.path())?;
        unpack(tokio, &image, folder.path(), &mut own)?;
        if let Some(program) = &with_umoci {
            for (times, sync) in [(&mut umoci, false), (&mut umoci_synced, true)] {
                let bundle = folder.path().join(format!("bundle{sync}"));
                let mut command = Command::new(program);
                command
                    .arg("unpack")
                    .args((!root).then_some("--rootless"))
                    .arg("--image");
                command.arg(format!("{}:bench", image.layout.display())).arg(&bundle);
                times.measure(|| {
                    peers::whole(&mut command)?;
                    if sync {
                        peers::whole(Command::new("sync").arg("-f").arg(&bundle))?;
                    }
                    Ok(())
                })?;
            }
        }
        if let Some(program) = &with_podman {
            pull(
                program,
                &image,
                &home.path().join(format!("podman{round}")),
                &mut podman,
            )?;
        }
    }
    heading(&format!(
        "An image of {} layers, {} files, {} MiB, unpacked",
        image.layers.len(),
        image.files,
        image.bytes >> 20
    ));
    row("engine: verified, synced to disk, digests of layers", &own);
    for (name, times, there) in [
        ("umoci unpack", &umoci, with_umoci.is_some()),
        ("umoci unpack, then `sync -f`", &umoci_synced, with_umoci.is_some()),
        ("podman pull of the layout", &podman, with_podman.is_some()),
    ] {
        if there {
            row(name, times);
        } else {
            println!("  {name:<52} not measured: not installed");
        }
    }
    Ok(())
}

/// By an engine with an empty store.
fn unpack(tokio: &Tokio, image: &Image, folder: &Path, times: &mut Times) -> Result<()> {
    let engine = engine(tokio, |config| config.store = Some(folder.join("layers")))?;
    let layers = engine.layers().context("this machine has no layers")?;
    let mut files = 0;
    let began = Instant::now();
    tokio.block_on(async {
        let mut below = StoredRoot {
            base: Base::Empty,
            layers: Vec::new(),
        };
        for (path, diff_id) in &image.layers {
            let archive = Archive {
                file: File::open(path)?.into(),
                compression: Compression::Gzip,
                diff_id: Some(*diff_id),
                max_bytes: 16 << 30,
                max_files: 10_000_000,
            };
            let layer = layers.unpack(archive, &below).await?;
            files += layer.files;
            below.layers.push(layer.id);
        }
        anyhow::Ok(())
    })?;
    times.push(began.elapsed());
    // Folders on the way to a file count, too.
    ensure!(files >= image.files, "{files} of {} files", image.files);
    tokio.block_on(engine.shutdown());
    Ok(())
}

/// By podman into a store of its own.
fn pull(program: &Path, image: &Image, store: &Path, times: &mut Times) -> Result<()> {
    let podman = || {
        let mut command = Command::new(program);
        command.arg("--root").arg(store.join("root")).arg("--runroot");
        command.arg(store.join("run")).args(["--storage-driver", "overlay"]);
        command
    };
    fs::create_dir_all(store)?;
    // What it sets up once is not counted.
    peers::whole(podman().arg("info"))?;
    // It takes the path for a name, which a temporary folder's is not.
    let (folder, name) = (image.layout.parent(), image.layout.file_name());
    let (folder, name) = folder.zip(name).context("the layout has no name")?;
    let from = format!("oci:{}:bench", name.to_string_lossy());
    let mut command = podman();
    command.current_dir(folder).args(["pull", "--quiet"]).arg(&from);
    times.measure(|| peers::whole(&mut command))?;
    peers::whole(podman().args(["rmi", "--all", "--force"]))?;
    // It mounts its folder on itself.
    if Command::new("umount")
        .arg(store.join("root/overlay"))
        .output()?
        .status
        .success()
    {
        fs::remove_dir_all(store)?;
    }
    Ok(())
}

impl Image {
    fn make(home: &Path, (mib, layers): (u64, usize)) -> Result<Self> {
        let mut chosen = Vec::new();
        let share = (mib << 20) / SOURCES.len() as u64;
        for source in SOURCES {
            let mut left = share;
            choose(Path::new(source), &mut left, &mut chosen)?;
        }
        let bytes: u64 = chosen.iter().map(|(_, bytes)| bytes).sum();
        let layout = home.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut made = Self {
            files: chosen.len() as u64,
            bytes,
            layers: Vec::new(),
            layout,
        };
        let mut described = Vec::new();
        // Each takes every so-many'th file: small and large ones, and folders in common.
        for number in 0..layers {
            let names: Vec<&Path> = chosen
                .iter()
                .skip(number)
                .step_by(layers)
                .map(|(path, _)| path.as_path())
                .collect();
            described.push(made.layer(home, &names)?);
        }
        let diff_ids: Vec<String> = made
            .layers
            .iter()
            .map(|(_, id)| format!("sha256:{}", hex(id)))
            .collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        let config = made.blob(
            &json!({"architecture": std::env::consts::ARCH.replace("x86_64", "amd64"), "os": "linux", "config": {}, "rootfs": rootfs}),
            "config.v1+json",
        )?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{MEDIA}.manifest.v1+json"), "config": config, "layers": described
        });
        let mut manifest = made.blob(&manifest, "manifest.v1+json")?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "bench"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(made.layout.join("index.json"), index.to_string())?;
        Ok(made)
    }

    /// Packs files as a layer; its descriptor.
    fn layer(&mut self, home: &Path, names: &[&Path]) -> Result<Value> {
        let (list, tar) = (home.join("list"), home.join("layer.tar"));
        let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        fs::write(&list, names.join("\0"))?;
        let mut command = Command::new("tar");
        command.args([
            "--create",
            "--owner=0",
            "--group=0",
            "--no-recursion",
            "--null",
            "-C",
            "/",
        ]);
        command.arg("--files-from").arg(&list).arg("--file").arg(&tar);
        peers::whole(&mut command)?;
        let diff_id = sha256(&tar)?;
        peers::whole(Command::new("gzip").args(["--no-name", "--force"]).arg(&tar))?;
        let packed = home.join("layer.tar.gz");
        let (described, path) = self.place(&packed, "layer.v1.tar+gzip")?;
        self.layers.push((path, diff_id));
        Ok(described)
    }

    fn blob(&self, value: &Value, kind: &str) -> Result<Value> {
        let file = self.layout.join("blob");
        fs::write(&file, value.to_string())?;
        Ok(self.place(&file, kind)?.0)
    }

    /// Moves a file to where its digest says; its descriptor.
    fn place(&self, file: &Path, kind: &str) -> Result<(Value, PathBuf)> {
        let digest = hex(&sha256(file)?);
        let size = fs::metadata(file)?.len();
        let path = self.layout.join("blobs/sha256").join(&digest);
        fs::rename(file, &path)?;
        let described =
            json!({"mediaType": format!("{MEDIA}.{kind}"), "digest": format!("sha256:{digest}"), "size": size});
        Ok((described, path))
    }
}

/// Regular files below a folder of the host, until they are `left` bytes together.
fn choose(folder: &Path, left: &mut u64, chosen: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(Path::new("/").join(folder))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if *left == 0 {
            return Ok(());
        }
        let (path, kind) = (folder.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            choose(&path, left, chosen)?;
        } else if kind.is_file() {
            let bytes = entry.metadata()?.len();
            // Names that a list of lossy text could not hold are left out.
            if bytes <= LARGEST && path.to_str().is_some() {
                *left = left.saturating_sub(bytes);
                chosen.push((path, bytes));
            }
        }
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<[u8; 32]> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    let digits = text.split_whitespace().next().context("sha256sum said nothing")?;
    let id: sandhold_runtime::LayerId = digits.parse()?;
    Ok(id.0)
}

fn hex(digest: &[u8; 32]) -> String {
    sandhold_runtime::LayerId(*digest).to_string()
}
