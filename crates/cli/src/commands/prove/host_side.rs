//! Group 12: what the host reads of a sandbox, and what it writes for it.

use std::{future::Future, path::Path, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use sandhold_client::{ReadOptions, Sandbox, UnzipRequest, WriteOptions};
use sandhold_prove::{Found, Outcome, judge};

use super::{host::Host, report::Row, sandboxes::output};

/// How long one of these may take.
const TIME: Duration = Duration::from_secs(20);
/// What is read of a file at most.
const MOST: u64 = 1 << 20;
/// Where they are tried, in the sandbox.
const FOLDER: &str = "/tmp/sandhold-host-side";
/// The name of what must not come to stand on the host.
const PLANTED: &str = "planted";
const EXPECTED: &str = "the sandbox's own tree, or an error";
const CONTROL: &str = "a plain file comes and goes";

pub(super) async fn rows(sandbox: &Sandbox, host: &Host) -> Vec<Row> {
    let control = found(
        async {
            let path = format!("{FOLDER}/plain");
            write(sandbox, &path).await?;
            ensure!(read(sandbox, &path).await? == "planted", "it reads differently");
            Ok(Some("a plain file comes and goes".to_owned()))
        }
        .await,
    );
    let (file, secret) = host.facts.file.clone().unwrap_or_default();
    let shown = |text: Result<String>| {
        Ok(text
            .is_ok_and(|text| text == secret)
            .then(|| "the host's file is read".to_owned()))
    };
    let planted = || {
        host.folder
            .join(PLANTED)
            .exists()
            .then(|| "the host's folder is written to".to_owned())
    };
    let folder = host.folder.display().to_string();
    let up = "/..".repeat(12);
    let shell = |script: String| output(sandbox, "user", "/bin/sh", vec!["-c".into(), script]);
    let mut rows = Vec::new();
    let mut put = |id: &str, title: &str, expected: &'static str, found: Found| {
        let judged = judge(&[("user", &found)], &[&control]);
        rows.push(Row::new(12, id, title, expected, CONTROL, judged));
    };

    let tried = timed(async { shown(read(sandbox, &format!("{FOLDER}{up}{file}")).await) }).await;
    put("download-dots", "download a file of the host by ../..", EXPECTED, tried);
    let tried = timed(async {
        shell(format!("ln -sfn {file} {FOLDER}/link")).await?;
        shown(read(sandbox, &format!("{FOLDER}/link")).await)
    })
    .await;
    put(
        "download-link",
        "download a file of the host through a link",
        EXPECTED,
        tried,
    );
    let tried = timed(async {
        for root in ["/proc/1/root", "/proc/self/root", "/proc/thread-self/root"] {
            if let Some(said) = shown(read(sandbox, &format!("{root}{file}")).await)? {
                return Ok(Some(said));
            }
        }
        Ok(None)
    })
    .await;
    put(
        "download-proc",
        "download a file of the host through /proc/PID/root",
        EXPECTED,
        tried,
    );
    let tried = timed(async {
        let _ = write(sandbox, &format!("{FOLDER}{up}{folder}/{PLANTED}")).await;
        Ok(planted())
    })
    .await;
    put(
        "upload-dots",
        "upload to a folder of the host by ../..",
        EXPECTED,
        tried,
    );
    let tried = timed(async {
        shell(format!("ln -sfn {folder} {FOLDER}/out")).await?;
        let _ = write(sandbox, &format!("{FOLDER}/out/{PLANTED}")).await;
        Ok(planted())
    })
    .await;
    put(
        "upload-link",
        "upload to a folder of the host through a link",
        EXPECTED,
        tried,
    );
    let tried = timed(async {
        // The folder is swapped for a link and back while it is written to.
        let swap = format!(
            "mkdir -p {FOLDER}/swap && (for i in $(seq 300); do mv -T {FOLDER}/swap {FOLDER}/away; ln -s {folder} {FOLDER}/swap; \
             rm {FOLDER}/swap; mv -T {FOLDER}/away {FOLDER}/swap; done) >/dev/null 2>&1; true"
        );
        let writing = async {
            for _ in 0..100 {
                let _ = write(sandbox, &format!("{FOLDER}/swap/{PLANTED}")).await;
            }
        };
        let (swapped, ()) = tokio::join!(shell(swap), writing);
        swapped?;
        Ok(planted())
    })
    .await;
    put("upload-race", "the same while the link comes and goes", EXPECTED, tried);
    let tried = timed(archive(sandbox, &host.folder)).await;
    put(
        "archive-climbs",
        "unpack an archive that climbs out of its folder",
        "refused, or within its folder",
        tried,
    );
    let tried = timed(async {
        let name = "a\n\u{1b}[2J\u{1b}]0;x\u{7} {\"b\":1}";
        write(sandbox, &format!("{FOLDER}/names/{name}")).await?;
        let listed = sandbox.files().list(&format!("{FOLDER}/names"), 1, None).await?;
        let names: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
        Ok((names != [name]).then(|| format!("it is listed as {names:?}")))
    })
    .await;
    put(
        "names",
        "list a name with line ends and terminal codes",
        "one entry, its name unchanged",
        tried,
    );
    for (id, title, make, path) in [
        (
            "download-pipe",
            "download a pipe that nobody writes to",
            "mkfifo pipe",
            "pipe",
        ),
        (
            "download-endless",
            "download a file without an end",
            "ln -sfn /dev/zero zero",
            "zero",
        ),
    ] {
        let tried = timed(async {
            shell(format!("cd {FOLDER} && {make}")).await?;
            let read = read(sandbox, &format!("{FOLDER}/{path}")).await;
            Ok(read.is_ok().then(|| "it is read".to_owned()))
        })
        .await;
        put(id, title, "an error in time", tried);
    }
    rows
}

/// `Some`: it got through.
fn found(result: Result<Option<String>>) -> Found {
    let (outcome, detail) = match result {
        Ok(Some(detail)) => (Outcome::NotHeld, detail),
        Ok(None) => (Outcome::Held, "it stays in the sandbox".to_owned()),
        Err(error) => (Outcome::Untestable, format!("{error:#}")),
    };
    Found {
        outcome,
        detail: detail.into(),
    }
}

/// What hangs holds the host up: that is not held either.
async fn timed(work: impl Future<Output = Result<Option<String>>>) -> Found {
    let ended = tokio::time::timeout(TIME, work).await;
    found(ended.unwrap_or_else(|_| Ok(Some(format!("it holds the host up for {} s", TIME.as_secs())))))
}

async fn read(sandbox: &Sandbox, path: &str) -> Result<String> {
    let bytes = sandbox.files().read(path, ReadOptions::default(), MOST).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn write(sandbox: &Sandbox, path: &str) -> Result<()> {
    let data = Bytes::from_static(PLANTED.as_bytes());
    sandbox.files().write(path, data, WriteOptions::default()).await?;
    Ok(())
}

/// Unpacks a tar file with names that climb. A good one beside them shows that it was read at all.
async fn archive(sandbox: &Sandbox, folder: &Path) -> Result<Option<String>> {
    let unpack = async |names: &[&str]| {
        let path = format!("{FOLDER}/archive.tar");
        sandbox
            .files()
            .write(&path, tar(names).into(), WriteOptions::default())
            .await?;
        let request = UnzipRequest {
            archive: path,
            dest: format!("{FOLDER}/unpacked"),
            user: None,
        };
        Ok::<_, anyhow::Error>(sandbox.files().unzip(request).await?.done().await?)
    };
    unpack(&["good"]).await?;
    ensure!(
        read(sandbox, &format!("{FOLDER}/unpacked/good")).await? == PLANTED,
        "a plain archive is not unpacked"
    );
    let absolute = format!("{}/{PLANTED}", folder.display());
    let up = format!("{}{absolute}", "../".repeat(12));
    // One that is refused as a whole is held.
    let _ = unpack(&["good", "../climbed", &absolute, &up]).await;
    if folder.join(PLANTED).exists() {
        return Ok(Some("the host's folder is written to".to_owned()));
    }
    let climbed = read(sandbox, &format!("{FOLDER}/climbed")).await;
    Ok(climbed.is_ok().then(|| "it wrote outside of its folder".to_owned()))
}

/// A tar file of small files.
fn tar(names: &[&str]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut all = Vec::new();
    for name in names {
        let mut head = [0u8; BLOCK];
        let name = &name.as_bytes()[..name.len().min(100)];
        head[..name.len()].copy_from_slice(name);
        head[100..107].copy_from_slice(b"0000644");
        head[108..115].copy_from_slice(b"0000000");
        head[116..123].copy_from_slice(b"0000000");
        head[124..135].copy_from_slice(format!("{:011o}", PLANTED.len()).as_bytes());
        head[136..147].copy_from_slice(b"00000000000");
        head[148..156].copy_from_slice(b"        ");
        head[156] = b'0';
        head[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        all.extend_from_slice(&head);
        let mut content = [0u8; BLOCK];
        content[..PLANTED.len()].copy_from_slice(PLANTED.as_bytes());
        all.extend_from_slice(&content);
    }
    all.extend_from_slice(&[0; 2 * BLOCK]);
    all
}
