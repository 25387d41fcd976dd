//! What the fake daemon does when it is asked to run something, and images for it.
//!
//! A script is not run. `say X` prints, `fail` ends with 3, `hang` runs on, `write X` becomes a line of the files. What the
//! gateway's own scripts do is one line each.

use std::{io::Write, sync::Arc};

use async_trait::async_trait;
use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::header;
use sandhold_gateway::{ImageCredentials, ImageFailure, ImageLayer, ImageSource, OpenImage};
use sandhold_runtime::Compression;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fake::Files;

fn frame(message: &Value, flags: u8) -> Vec<u8> {
    let text = message.to_string();
    let mut frame = vec![flags];
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.into_bytes());
    frame
}

/// `process.Process/Start`.
pub(crate) async fn start(request: Request, files: Files) -> Response {
    let user = request.headers().get(header::AUTHORIZATION).cloned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let asked: Value = serde_json::from_slice(&body[5..]).unwrap();
    let process = &asked["process"];
    let script = process["args"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let mut frames = vec![frame(&json!({"event": {"start": {"pid": 7}}}), 0)];
    let mut code = 0;
    let mut printed = String::new();
    for line in script.lines() {
        if let Some(said) = line.strip_prefix("say ") {
            printed.push_str(said);
            printed.push('\n');
        } else if let Some(written) = line.strip_prefix("write ") {
            writeln!(files.lock().unwrap(), "{written}").unwrap();
        } else if line == "fail" {
            code = 3;
        } else if line == "hang" {
            let first = futures::stream::iter(frames.into_iter().map(Ok::<_, std::io::Error>));
            return (
                [(header::CONTENT_TYPE, "application/connect+json")],
                Body::from_stream(first.chain(futures::stream::pending())),
            )
                .into_response();
        } else if line == "who" {
            let envs = &process["envs"];
            writeln!(files.lock().unwrap(), "{} {} {envs}", user.is_some(), process["cwd"]).unwrap();
        }
    }
    // The gateway's own.
    let env = |name: &str| process["envs"][name].as_str().unwrap_or_default().to_owned();
    if !env("SH_PATH").is_empty() && script.contains("pwd") {
        printed = format!("{}\n", env("SH_PATH"));
        writeln!(files.lock().unwrap(), "folder {}", env("SH_PATH")).unwrap();
    } else if !env("SH_SRC").is_empty() {
        writeln!(files.lock().unwrap(), "copied {} to {}", env("SH_SRC"), env("SH_DEST")).unwrap();
    } else if script.contains("the image has no bash") {
        writeln!(files.lock().unwrap(), "prepared").unwrap();
    }
    if !printed.is_empty() {
        let text = base64(printed.as_bytes());
        frames.push(frame(&json!({"event": {"data": {"stdout": text}}}), 0));
    }
    let status = format!("exit status {code}");
    let end = json!({"event": {"end": {"exitCode": code, "exited": true, "status": status}}});
    frames.push(frame(&end, 0));
    frames.push(frame(&json!({}), 2));
    ([(header::CONTENT_TYPE, "application/connect+json")], frames.concat()).into_response()
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// Images whose layers are the words of their names, parted by `.`; `nowhere` is not there.
pub(crate) struct FakeImages;

struct FakeImage(Vec<String>);

#[async_trait]
impl ImageSource for FakeImages {
    async fn open(
        &self,
        reference: &str,
        credentials: Option<&ImageCredentials>,
        local: bool,
    ) -> Result<Arc<dyn OpenImage>, ImageFailure> {
        if reference == "nowhere" {
            return Err(ImageFailure("there is no such image".into()));
        }
        if reference == "private" && credentials.is_none_or(|c| c.password != "right") {
            return Err(ImageFailure("the registry wants a password".into()));
        }
        if reference == "file" && !local {
            return Err(ImageFailure("files are not for strangers".into()));
        }
        Ok(Arc::new(FakeImage(reference.split('.').map(str::to_owned).collect())))
    }
}

#[async_trait]
impl OpenImage for FakeImage {
    fn envs(&self) -> Vec<(String, String)> {
        vec![("PATH".into(), "/image/bin:/bin".into()), ("LANG".into(), "C".into())]
    }

    fn layers(&self) -> Vec<ImageLayer> {
        let layer = |word: &String| ImageLayer {
            diff_id: Sha256::digest(word).into(),
            size: word.len() as u64,
            compression: Compression::None,
        };
        self.0.iter().map(layer).collect()
    }

    async fn fetch(&self, layer: usize, mut into: std::fs::File) -> Result<(), ImageFailure> {
        into.write_all(self.0[layer].as_bytes()).unwrap();
        Ok(())
    }
}
