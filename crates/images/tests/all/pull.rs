//! Pulls from a real registry.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use sandhold_images::{Credentials, DockerConfig, ImageError, Images, Platform, Secret, Settings, Source};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::kit::{self, Layout, PASSWORD, Registry, USER};

const NEEDED: [&str; 2] = ["docker-registry", "skopeo"];

fn platform(architecture: &str) -> Platform {
    Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: String::new(),
    }
}

fn images(credentials: Credentials) -> Images {
    Images::new(Settings {
        credentials,
        ..Settings::default()
    })
    .unwrap()
}

fn source(text: String) -> Source {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled() {
    if !kit::have(&NEEDED) {
        return;
    }
    let registry = Registry::start(false).await;
    let layout = Layout::one(300_000);
    registry.push(&layout, "some/image:1", &[]);
    // The other format of manifests, and all layers compressed.
    registry.push(&layout, "some/image:docker", &["--format=v2s2"]);
    let images = images(Credentials::Anonymous);
    let amd64 = platform("amd64");
    let image = images
        .open(&source(format!("{}/some/image:1", registry.host)), &amd64)
        .await
        .unwrap();
    assert_eq!(
        image.config.env,
        [("PATH", "/bin"), ("EMPTY", ""), ("X", "a=b")].map(|(a, b)| (a.into(), b.into()))
    );
    assert_eq!((&*image.config.user, &*image.config.workdir), ("1:2", "/w"));
    assert_eq!((image.config.entrypoint.len(), &*image.config.cmd[1]), (1, "b c"));
    assert_eq!(
        (&image.config.exposed_ports[..], &image.config.volumes[..]),
        (&["80/tcp".into()][..], &["/v".into()][..])
    );
    assert_eq!(image.config.labels["l"], "v");
    assert_eq!(image.layers.len(), 2, "a history's empty layer is none");
    for index in 0..2 {
        assert_eq!(kit::layer(&images, &image, index).await, layout.tars[index]);
    }
    // Progress ends with all bytes.
    let told = Mutex::new(Vec::new());
    let told = Arc::new(told);
    let report = {
        let told = Arc::clone(&told);
        move |progress| told.lock().unwrap().push(progress)
    };
    let file = tempfile::tempfile().unwrap();
    images.fetch(&image, 1, file, &report).await.unwrap();
    let told = told.lock().unwrap().clone();
    let last = told.last().unwrap();
    assert_eq!(
        (last.layer, last.done, last.total),
        (1, image.layers[1].size, image.layers[1].size)
    );
    assert!(told.len() > 2 && told.windows(2).all(|two| two[0].done <= two[1].done));
    // By digest, and in Docker's format.
    let by_digest = source(format!("{}/some/image@{}", registry.host, image.digest));
    assert_eq!(images.open(&by_digest, &amd64).await.unwrap().id, image.id);
    let docker = source(format!("{}/some/image:docker", registry.host));
    let docker = images.open(&docker, &amd64).await.unwrap();
    assert_ne!(docker.digest, image.digest);
    let diff_ids = |image: &sandhold_images::Image| image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
    assert_eq!(diff_ids(&docker), diff_ids(&image));
    assert_eq!(kit::layer(&images, &docker, 1).await, layout.tars[1]);
    // Less is allowed than it has.
    let few = Images::new(Settings {
        image_bytes: 1000,
        ..Settings::default()
    });
    let large = few.unwrap().open(&by_digest, &amd64).await.unwrap_err();
    assert!(matches!(large, ImageError::TooLarge { limit: 1000, .. }), "{large}");
    // What is not there.
    for name in ["some/image:2", "some/other"] {
        let unknown = images
            .open(&source(format!("{}/{name}", registry.host)), &amd64)
            .await
            .unwrap_err();
        assert!(matches!(unknown, ImageError::Unknown { .. }), "{unknown:?}");
        assert!(unknown.to_string().contains(name), "{unknown}");
    }
    let gone = registry.host.clone();
    drop(registry);
    let gone = images
        .open(&source(format!("{gone}/some/image:1")), &amd64)
        .await
        .unwrap_err();
    assert!(matches!(gone, ImageError::Unreachable { .. }), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_own_platform_is_taken() {
    if !kit::have(&NEEDED) {
        return;
    }
    let registry = Registry::start(false).await;
    registry.push(&Layout::several(&["amd64", "arm64"]), "multi", &["--all"]);
    let images = images(Credentials::Anonymous);
    let source = source(format!("{}/multi", registry.host));
    let mut digests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let image = images.open(&source, &platform(architecture)).await.unwrap();
        assert_eq!(image.platform.architecture, architecture);
        let arch = kit::layer(&images, &image, 0).await;
        assert!(String::from_utf8_lossy(&arch[512..]).starts_with(architecture));
        digests.push(image.digest);
    }
    assert_ne!(digests[0], digests[1]);
    let none = images.open(&source, &platform("riscv64")).await.unwrap_err();
    assert_eq!(
        none.to_string(),
        format!(
            "{}/multi:latest is not made for linux/riscv64; it is for: linux/amd64, linux/arm64",
            registry.host
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_changed_is_refused() {
    if !kit::have(&NEEDED) {
        return;
    }
    let registry = Registry::start(false).await;
    registry.push(&Layout::one(10_000), "a", &[]);
    let images = images(Credentials::Anonymous);
    let source = source(format!("{}/a", registry.host));
    let image = images.open(&source, &platform("amd64")).await.unwrap();
    kit::layer(&images, &image, 1).await;
    let path = registry.blob(&image.layers[1].digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let into = || tempfile::tempfile().unwrap();
    let changed = images.fetch(&image, 1, into(), &|_| {}).await.unwrap_err();
    assert!(matches!(changed, ImageError::WrongDigest { .. }), "{changed:?}");
    bytes.push(0);
    std::fs::write(&path, &bytes).unwrap();
    let longer = images.fetch(&image, 1, into(), &|_| {}).await.unwrap_err();
    assert!(matches!(longer, ImageError::TooLarge { .. }), "{longer:?}");
    // The configuration, too.
    let path = registry.blob(&image.id);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("1:2", "0:0")).unwrap();
    let changed = images.open(&source, &platform("amd64")).await.unwrap_err();
    assert!(matches!(changed, ImageError::WrongDigest { .. }), "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_given_or_taken_from_docker() {
    if !kit::have(&NEEDED) {
        return;
    }
    let registry = Registry::start(true).await;
    let login = format!("--dest-creds={USER}:{PASSWORD}");
    registry.push(&Layout::one(1000), "private", &[&login]);
    let source = source(format!("{}/private", registry.host));
    let open = |credentials: Credentials| {
        let source = source.clone();
        async move { images(credentials).open(&source, &platform("amd64")).await }
    };
    let given = |password: &str| Credentials::Given {
        user: USER.into(),
        password: Secret::new(password.into()),
    };
    assert!(open(given(PASSWORD)).await.is_ok());
    let unknown = open(Credentials::Anonymous).await.unwrap_err();
    assert!(
        matches!(unknown, ImageError::Unauthorized { known: false, .. }),
        "{unknown:?}"
    );
    assert!(unknown.to_string().contains("docker login"), "{unknown}");
    let wrong = open(given("wr0ng")).await.unwrap_err();
    assert!(
        matches!(wrong, ImageError::Unauthorized { known: true, .. }),
        "{wrong:?}"
    );
    assert!(!format!("{wrong} {wrong:?}").contains("wr0ng"));
    // As `docker login` writes it: base64 of tester:pa55word.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let auths = serde_json::json!({"auths": {registry.host.clone(): {"auth": "dGVzdGVyOnBhNTV3b3Jk"}}});
    std::fs::write(&path, auths.to_string()).unwrap();
    let docker = || {
        Credentials::Docker(DockerConfig {
            path: path.clone(),
            programs: Vec::new(),
        })
    };
    let image = open(docker()).await.unwrap();
    kit::layer(&images(docker()), &image, 1).await;
    std::fs::write(&path, r#"{"auths": {"other.io": {"auth": "dGVzdGVyOnBhNTV3b3Jk"}}}"#).unwrap();
    assert!(open(docker()).await.is_err(), "a login for another registry");
}

/// Passes connections on, and cuts each after some bytes of the answer.
struct Cutter {
    host: String,
    most: Arc<AtomicU64>,
    connections: Arc<AtomicUsize>,
    passed: Arc<AtomicU64>,
}

impl Cutter {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cutter = Self {
            host: listener.local_addr().unwrap().to_string(),
            most: Arc::new(AtomicU64::new(u64::MAX)),
            connections: Arc::default(),
            passed: Arc::default(),
        };
        let (most, connections, passed) = (
            Arc::clone(&cutter.most),
            Arc::clone(&cutter.connections),
            Arc::clone(&cutter.passed),
        );
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&to).await.unwrap();
                let (most, passed) = (Arc::clone(&most), Arc::clone(&passed));
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let up = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    });
                    let mut part = vec![0; 1 << 14];
                    let mut done = 0;
                    while let Ok(read @ 1..) = from_server.read(&mut part).await {
                        let left = most.load(Ordering::SeqCst).saturating_sub(done);
                        let read = read.min(usize::try_from(left).unwrap_or(usize::MAX));
                        if read == 0 || to_client.write_all(&part[..read]).await.is_err() {
                            break;
                        }
                        done += read as u64;
                        passed.fetch_add(read as u64, Ordering::SeqCst);
                    }
                    up.abort();
                });
            }
        });
        cutter
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_again_and_goes_on() {
    if !kit::have(&NEEDED) {
        return;
    }
    let registry = Registry::start(false).await;
    let layout = Layout::one(3 << 20);
    registry.push(&layout, "a", &[]);
    let cutter = Cutter::start(registry.host.clone()).await;
    let images = images(Credentials::Anonymous);
    let source = source(format!("{}/a", cutter.host));
    let image = images.open(&source, &platform("amd64")).await.unwrap();
    let size = image.layers[1].size;
    // The connection that is still open has passed some bytes already; each new one passes a third.
    cutter.most.store(size / 3, Ordering::SeqCst);
    let (before, passed) = (
        cutter.connections.load(Ordering::SeqCst),
        cutter.passed.load(Ordering::SeqCst),
    );
    assert_eq!(kit::layer(&images, &image, 1).await, layout.tars[1]);
    let made = cutter.connections.load(Ordering::SeqCst) - before;
    let passed = cutter.passed.load(Ordering::SeqCst) - passed;
    // Two, besides the one that was open and was cut as well.
    assert!(made >= 2, "{made} connections");
    assert!(
        passed < size + size / 2,
        "{passed} bytes passed for a layer of {size}: it went on, and did not begin anew"
    );
    // When nothing comes at all, it gives up.
    cutter.most.store(100, Ordering::SeqCst);
    let broken = images
        .fetch(&image, 1, tempfile::tempfile().unwrap(), &|_| {})
        .await
        .unwrap_err();
    assert!(matches!(broken, ImageError::Broken { .. }), "{broken:?}");
    // The control: whole connections.
    cutter.most.store(u64::MAX, Ordering::SeqCst);
    kit::layer(&images, &image, 1).await;
}
