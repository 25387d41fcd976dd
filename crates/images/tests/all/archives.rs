//! The same image from a folder, from archives, and from a registry.

use sandhold_images::{Credentials, Digest, Image, ImageError, Images, Platform, Settings, Source};

use crate::kit::{self, Layout, Registry};

fn amd64() -> Platform {
    Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
    }
}

fn images() -> Images {
    Images::new(Settings {
        credentials: Credentials::Anonymous,
        ..Settings::default()
    })
    .unwrap()
}

async fn open(text: &str) -> Result<Image, ImageError> {
    let source: Source = text.parse().unwrap();
    images().open(&source, &amd64()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_image_is_the_same_from_everywhere() {
    if !kit::have(&["docker-registry", "skopeo"]) {
        return;
    }
    let registry = Registry::start(false).await;
    let layout = Layout::one(2 << 20);
    registry.push(&layout, "a", &["--preserve-digests"]);
    let from = layout.source();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    kit::copy(
        &["--preserve-digests"],
        &from,
        &format!("oci-archive:{}:test", at("oci.tar")),
    );
    kit::copy(&[], &from, &format!("docker-archive:{}:x.io/a:test", at("docker.tar")));
    let pulled = open(&format!("{}/a", registry.host)).await.unwrap();
    for text in [
        from.clone(),
        format!("oci:{}", layout.path().display()),
        layout.path().display().to_string(),
        format!("oci-archive:{}", at("oci.tar")),
        format!("oci-archive:{}:test", at("oci.tar")),
        at("oci.tar"),
        format!("docker-archive:{}", at("docker.tar")),
        format!("docker-archive:{}:x.io/a:test", at("docker.tar")),
        at("docker.tar"),
    ] {
        let image = open(&text).await.unwrap();
        assert_eq!(image.id, pulled.id, "{text}");
        assert_eq!(image.config, pulled.config, "{text}");
        assert_eq!(image.platform, pulled.platform, "{text}");
        for (index, tar) in layout.tars.iter().enumerate() {
            assert_eq!(image.layers[index].diff_id, Digest::of(tar), "{text}");
            assert_eq!(kit::layer(&images(), &image, index).await, *tar, "{text}");
        }
        if !text.contains("docker.tar") {
            assert_eq!(image.digest, pulled.digest, "{text}");
        }
    }
    for (text, part) in [
        (format!("oci:{}:no", layout.path().display()), "it has: test"),
        (format!("docker-archive:{}:no", at("docker.tar")), "it has: x.io/a:test"),
        (format!("oci:{}", at("oci.tar")), "oci-archive:"),
        (format!("oci-archive:{}", layout.path().display()), "oci:"),
        (folder.path().display().to_string(), "not an image"),
        (at("none"), "could not be read"),
    ] {
        let error = open(&text).await.unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[tokio::test]
async fn what_was_changed_in_a_folder_is_refused() {
    let layout = Layout::one(1000);
    let from = layout.source();
    let image = open(&from).await.unwrap();
    let blob = |digest: &Digest| layout.path().join("blobs").join(digest.to_string().replace(':', "/"));
    let change = |digest: &Digest, at: usize| {
        let path = blob(digest);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    };
    let layer = image.layers[1].digest;
    change(&layer, 700);
    let into = || tempfile::tempfile().unwrap();
    let changed = images().fetch(&image, 1, into(), &|_| {}).await.unwrap_err();
    assert!(matches!(changed, ImageError::WrongDigest { .. }), "{changed:?}");
    change(&layer, 700);
    images().fetch(&image, 1, into(), &|_| {}).await.unwrap();
    std::fs::File::options()
        .append(true)
        .open(blob(&layer))
        .unwrap()
        .set_len(10)
        .unwrap();
    assert!(images().fetch(&image, 1, into(), &|_| {}).await.is_err());
    assert!(open(&from).await.unwrap_err().to_string().contains("10 bytes"));
    change(&image.id, 3);
    assert!(matches!(open(&from).await, Err(ImageError::WrongDigest { .. })));
    std::fs::remove_file(blob(&image.digest)).unwrap();
    assert!(open(&from).await.unwrap_err().to_string().contains("missing"));
}

#[tokio::test]
async fn a_folder_that_docker_would_not_read_is_not_a_way_out() {
    // manifest.json names files; in a folder these would be paths of this machine.
    let folder = tempfile::tempdir().unwrap();
    let text = r#"[{"Config": "../../../etc/passwd", "Layers": ["/etc/passwd"]}]"#;
    std::fs::write(folder.path().join("manifest.json"), text).unwrap();
    assert!(
        open(&folder.path().display().to_string())
            .await
            .unwrap_err()
            .to_string()
            .contains("not an image")
    );
}
