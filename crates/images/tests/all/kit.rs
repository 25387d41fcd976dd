//! A registry of our own, and images to put into it.

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use flate2::{Compression as Level, write::GzEncoder};
use sandhold_images::{Digest, Image, Images};
use sandhold_tests::scenario;
use serde_json::{Value, json};

/// Whether the programs are here; says so if not.
pub(crate) fn have(programs: &[&str]) -> bool {
    let found = |program: &str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).is_file()))
    };
    let missing: Vec<&&str> = programs.iter().filter(|program| !found(program)).collect();
    if !missing.is_empty() {
        scenario::note(&format!(
            "images: not tried, these programs are not installed: {missing:?}"
        ))
        .unwrap();
    }
    missing.is_empty()
}

/// Debian's package docker-registry, in a folder of its own.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "pa55word";
/// The same, as bcrypt writes it.
const HTPASSWD: &str = "tester:$2b$04$3OPj23sXn27cJcDVbFLf/eGvadjuZU6RL5ZoLQWLSxWOk6yRa8LYC\n";

impl Registry {
    /// Starts it. With `login`, only [`USER`] may do anything.
    pub(crate) async fn start(login: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Whoever takes the port in between makes the start fail: then another is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let mut config = json!({
                "version": 0.1,
                "log": {"level": "error", "accesslog": {"disabled": true}},
                "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
                "http": {"addr": host},
            });
            if login {
                let path = folder.path().join("htpasswd");
                std::fs::write(&path, HTPASSWD).unwrap();
                config["auth"] = json!({"htpasswd": {"realm": "test", "path": path}});
            }
            let path = folder.path().join("config.yml");
            // JSON is YAML.
            std::fs::write(&path, config.to_string()).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            for _ in 0..500 {
                if tokio::net::TcpStream::connect(&host).await.is_ok() {
                    return Self { child, host, folder };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    /// Puts an image of a layout into it.
    pub(crate) fn push(&self, layout: &Layout, name: &str, more: &[&str]) {
        let to = format!("docker://{}/{name}", self.host);
        let mut arguments = vec!["--dest-tls-verify=false"];
        arguments.extend(more);
        copy(&arguments, &layout.source(), &to);
    }

    /// Where it keeps a blob.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string().replace("sha256:", "");
        self.folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(&hex)
            .join("data")
    }
}

/// `skopeo copy`.
pub(crate) fn copy(arguments: &[&str], from: &str, to: &str) {
    let ended = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet"])
        .args(arguments)
        .args([from, to])
        .output()
        .unwrap();
    assert!(
        ended.status.success(),
        "{from} {to}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// A folder in the OCI's layout.
pub(crate) struct Layout {
    pub(crate) folder: tempfile::TempDir,
    /// The layers of the last image, without compression.
    pub(crate) tars: Vec<Vec<u8>>,
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

impl Layout {
    pub(crate) fn source(&self) -> String {
        format!("oci:{}:test", self.folder.path().display())
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn put(&self, bytes: &[u8], media: &str) -> Value {
        let digest = Digest::of(bytes).to_string();
        let path = self.path().join("blobs").join(digest.replace(':', "/"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        json!({"mediaType": media, "digest": digest, "size": bytes.len()})
    }

    /// An image with a small layer that is compressed and one of `bytes` random ones that is not, and an empty one in its
    /// history between them.
    fn image(&mut self, architecture: &str, bytes: usize) -> Value {
        let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect();
        self.tars = vec![tar("arch", architecture.as_bytes()), tar("big", &random)];
        let mut gzip = GzEncoder::new(Vec::new(), Level::default());
        gzip.write_all(&self.tars[0]).unwrap();
        let layers = [
            self.put(&gzip.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip"),
            self.put(&self.tars[1], "application/vnd.oci.image.layer.v1.tar"),
        ];
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {
                "Env": ["PATH=/bin", "EMPTY=", "X=a=b"], "Entrypoint": ["/bin/e"], "Cmd": ["a", "b c"], "User": "1:2",
                "WorkingDir": "/w", "Labels": {"l": "v"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": self.tars.iter().map(|tar| Digest::of(tar).to_string()).collect::<Vec<_>>()},
            "history": [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": true}, {"created_by": "COPY"}],
        });
        let config = self.put(
            config.to_string().as_bytes(),
            "application/vnd.oci.image.config.v1+json",
        );
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
        });
        let mut entry = self.put(
            manifest.to_string().as_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    }

    fn finish(&self, mut entry: Value) {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "test"});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
        std::fs::write(self.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            tars: Vec::new(),
        }
    }

    /// One image for amd64.
    pub(crate) fn one(bytes: usize) -> Self {
        let mut layout = Self::empty();
        let entry = layout.image("amd64", bytes);
        layout.finish(entry);
        layout
    }

    /// An index with an image for each.
    pub(crate) fn several(architectures: &[&str]) -> Self {
        let mut layout = Self::empty();
        let entries: Vec<Value> = architectures.iter().map(|one| layout.image(one, 1000)).collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        });
        let entry = layout.put(index.to_string().as_bytes(), "application/vnd.oci.image.index.v1+json");
        layout.finish(entry);
        layout
    }
}

/// A layer of an image, without compression.
pub(crate) async fn layer(images: &Images, image: &Image, layer: usize) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    images
        .fetch(image, layer, file.reopen().unwrap(), &|_| {})
        .await
        .unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(Digest::of(&bytes), image.layers[layer].digest);
    match image.layers[layer].compression {
        sandhold_runtime::Compression::None => bytes,
        _ => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*bytes), &mut plain).unwrap();
            plain
        }
    }
}
