//! A registry that answers as no real one would, or as real ones do that cannot be had here.

use std::{collections::HashMap, sync::Arc};

use sandhold_images::{Credentials, DockerConfig, Image, ImageError, Images, Platform, Secret, Settings};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// A request: its method and target, and its headers in lower case; the body is under "".
type Request = (String, HashMap<String, String>);
/// Status, headers, body.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

async fn serve(answer: impl Fn(&str, Request) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let own = host.clone();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, own) = (Arc::clone(&answer), own.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut first = String::new();
                stream.read_line(&mut first).await.unwrap_or_default();
                let mut headers = HashMap::new();
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.unwrap_or_default();
                    let Some((name, value)) = line.trim().split_once(": ") else {
                        break;
                    };
                    headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
                let mut body = vec![
                    0;
                    headers
                        .get("content-length")
                        .map_or(0, |length| length.parse().unwrap())
                ];
                stream.read_exact(&mut body).await.unwrap();
                headers.insert(String::new(), String::from_utf8(body).unwrap());
                let target = first.rsplit_once(' ').map_or("", |(target, _)| target).to_owned();
                let (status, headers, body) = answer(&own, (target, headers));
                let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
                if !headers.iter().any(|(name, _)| *name == "transfer-encoding") {
                    head.push_str(&format!("content-length: {}\r\n", body.len()));
                }
                headers
                    .iter()
                    .for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
                let _ = stream.write_all(format!("{head}\r\n").as_bytes()).await;
                let _ = stream.write_all(&body).await;
            });
        }
    });
    host
}

async fn open(host: &str, credentials: Credentials) -> Result<Image, ImageError> {
    let images = Images::new(Settings {
        credentials,
        ..Settings::default()
    });
    let amd64 = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
    };
    images
        .unwrap()
        .open(&format!("{host}/a").parse().unwrap(), &amd64)
        .await
}

fn plain(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    (status, Vec::new(), body.into())
}

/// An image without layers: its manifest, its configuration.
fn image() -> (String, String) {
    let config =
        json!({"os": "linux", "architecture": "amd64", "config": null, "rootfs": {"type": "layers", "diff_ids": null}});
    let config = config.to_string();
    let digest = sandhold_images::Digest::of(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": digest.to_string(), "size": config.len()},
        "layers": null,
    });
    (manifest.to_string(), config)
}

fn give(target: &str) -> Answer {
    let (manifest, config) = image();
    match target {
        _ if target.starts_with("GET /v2/a/manifests/") => plain(200, manifest),
        _ if target.starts_with("GET /v2/a/blobs/") => plain(200, config),
        _ => plain(404, ""),
    }
}

#[tokio::test]
async fn a_token_is_asked_for_and_shown() {
    let host = serve(|own, (target, headers)| {
        let auth = headers.get("authorization").map(String::as_str);
        if target.starts_with("GET /token?") {
            assert!(
                target.contains("scope=repository%3Aa%3Apull") && target.contains("service=it"),
                "{target}"
            );
            // base64 of me:pa55
            let token = match auth {
                Some("Basic bWU6cGE1NQ==") => "known",
                Some(_) => return plain(401, ""),
                None => "anybody",
            };
            return plain(200, json!({"token": token}).to_string());
        }
        if target == "POST /token" {
            assert!(headers[""].contains("grant_type=refresh_token&") && headers[""].contains("refresh_token=1dent"));
            return plain(200, json!({"access_token": "known"}).to_string());
        }
        match auth {
            Some("Bearer known") => give(&target),
            Some("Bearer anybody") => plain(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
            _ => {
                let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"it\"");
                (401, vec![("www-authenticate", challenge)], Vec::new())
            }
        }
    })
    .await;
    let given = |password: &str| Credentials::Given {
        user: "me".into(),
        password: Secret::new(password.into()),
    };
    let image = open(&host, given("pa55")).await.unwrap();
    assert!(image.layers.is_empty());
    assert!(matches!(
        open(&host, given("no")).await,
        Err(ImageError::Unauthorized { known: true, .. })
    ));
    let anybody = open(&host, Credentials::Anonymous).await;
    assert!(matches!(anybody, Err(ImageError::Unauthorized { known: false, .. })));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(
        &path,
        json!({"auths": {host.clone(): {"identitytoken": "1dent"}}}).to_string(),
    )
    .unwrap();
    let docker = Credentials::Docker(DockerConfig {
        path,
        programs: Vec::new(),
    });
    open(&host, docker).await.unwrap();
}

#[tokio::test]
async fn what_a_registry_says_is_held_to_limits() {
    let large = serve(|_, _| {
        (200, vec![("transfer-encoding", "chunked".into())], {
            let mut body = b"500000\r\n".to_vec();
            body.resize(body.len() + 0x50_0000, b' ');
            body.extend(b"\r\n0\r\n\r\n");
            body
        })
    })
    .await;
    let error = open(&large, Credentials::Anonymous).await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error:?}");
    let busy = serve(|_, _| (429, vec![("retry-after", "1800".into())], Vec::new())).await;
    let error = open(&busy, Credentials::Anonymous).await.unwrap_err();
    assert!(
        matches!(error, ImageError::RateLimited { .. }) && error.to_string().contains("30 minutes"),
        "{error}"
    );
    let broken = serve(|_, _| plain(500, r#"{"errors":[{"code":"UNKNOWN","message":"disk\u0007 full"}]}"#)).await;
    let error = open(&broken, Credentials::Anonymous).await.unwrap_err().to_string();
    assert!(
        error.contains("answered 500") && error.contains("\"disk full\""),
        "{error}"
    );
    let round = serve(|own, (target, _)| {
        let to = format!("http://{own}{}x", target.trim_start_matches("GET "));
        (307, vec![("location", to)], Vec::new())
    })
    .await;
    let error = open(&round, Credentials::Anonymous).await.unwrap_err();
    assert!(matches!(error, ImageError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn documents_that_are_none_are_refused() {
    let digest = sandhold_images::Digest::of(b"x").to_string();
    let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": 1});
    let config = json!({"digest": digest, "size": 1});
    for (body, part) in [
        ("<html>".to_owned(), "not understood"),
        ("[]".to_owned(), "not understood"),
        ("{}".to_owned(), "neither"),
        (json!({"schemaVersion": 1, "fsLayers": []}).to_string(), "2016"),
        // Two programs could read two images out of it.
        (json!({"manifests": [], "config": config, "layers": []}).to_string(), "neither"),
        (json!({"config": config, "layers": vec![layer.clone(); 128]}).to_string(), "128 layers"),
        (json!({"config": {"digest": digest, "size": 5_000_000}, "layers": []}).to_string(), "too large"),
        (json!({"config": config, "layers": [{"mediaType": "x/helm", "digest": digest, "size": 1}]}).to_string(), "x/helm"),
        (json!({"config": {"digest": "sha256:../../x", "size": 1}, "layers": []}).to_string(), "sha256:"),
        (json!({"config": config, "layers": [{"mediaType": layer["mediaType"], "digest": digest, "size": u64::MAX}]}).to_string(), "too large"),
        (json!({"manifests": []}).to_string(), "not made for"),
    ] {
        let text = body.clone();
        let host = serve(move |_, _| plain(200, text.clone())).await;
        let error = open(&host, Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains(part), "{body}: {error}");
    }
    // An index that leads to itself.
    let host = serve(|_, (target, _)| {
        let index = |digest: &str| json!({"manifests": [{"digest": digest, "size": 1}]}).to_string();
        let mut body = index("sha256:0000000000000000000000000000000000000000000000000000000000000000");
        for _ in 0..6 {
            let digest = sandhold_images::Digest::of(body.as_bytes()).to_string();
            if target.ends_with(&digest) {
                break;
            }
            body = index(&digest);
        }
        plain(200, body)
    })
    .await;
    let error = open(&host, Credentials::Anonymous).await.unwrap_err().to_string();
    assert!(error.contains("too deep"), "{error}");
}
