use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use super::*;

#[test]
fn names_are_held_to_debians_rules() {
    for good in ["bash", "libstdc++6", "g++", "python3.11", "0ad", "x11-apps"] {
        assert!(is_package(good), "{good}");
    }
    for bad in [
        "",
        "a",
        "Bash",
        "-x",
        "a b",
        "a,b",
        "a=1",
        "a/b",
        "a:amd64",
        "a-",
        "?essential",
        "a\n",
        "./x.deb",
        "*",
    ] {
        assert!(!is_package(bad), "{bad}");
    }
    let debian = |suite: &str, mirror: Option<&str>| Debian {
        suite: suite.into(),
        mirror: mirror.map(str::to_owned),
        ..Debian::default()
    };
    assert!(check(&debian("bookworm", None)).is_ok());
    assert!(check(&debian("bookworm-backports", Some("http://127.0.0.1:3142/debian"))).is_ok());
    for (suite, mirror) in [
        ("", None),
        ("--x", None),
        ("Stable", None),
        ("a b", None),
        ("stable", Some("-")),
        ("stable", Some("file:///")),
        ("stable", Some("copy:/x")),
        ("stable", Some("deb http://x stable main")),
        ("stable", Some("http://x y")),
        ("stable", Some("/etc/passwd")),
    ] {
        assert!(
            matches!(check(&debian(suite, mirror)), Err(DebianError::Name(..))),
            "{suite} {mirror:?}"
        );
    }
}

#[test]
fn the_hosts_release_is_taken_if_it_is_debians() {
    assert_eq!(suite_of("NAME=x\nID=debian\nVERSION_CODENAME=bookworm\n"), "bookworm");
    assert_eq!(suite_of("ID=\"debian\"\nVERSION_CODENAME=\"trixie\"\n"), "trixie");
    assert_eq!(suite_of("ID=debian\n"), "stable");
    assert_eq!(suite_of("ID=ubuntu\nVERSION_CODENAME=noble\n"), "stable");
    assert_eq!(suite_of("ID=debian\nVERSION_CODENAME=--x\n"), "stable");
}

/// A program in the place of mmdebstrap: its ways to end.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join(PROGRAM);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn the_log_is_told_and_the_last_of_it_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("root.tar");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = {
        let lines = Arc::clone(&lines);
        move |line: &str| lines.lock().unwrap().push(line.to_owned())
    };
    let cancel = CancellationToken::new();
    let debian = Debian {
        packages: vec!["ca-certificates".into(), "git".into()],
        ..Debian::default()
    };
    let good = program(folder.path(), r#"echo "I: $*" >&2; printf 'a tar'"#);
    assert_eq!(find(&["/nowhere".into(), folder.path().into()]), Some(good.clone()));
    let image = build(&good, &debian, &into, &log, &cancel).await.unwrap();
    assert_eq!(
        (image.layers[0].size, image.layers[0].diff_id),
        (5, crate::Digest::of(b"a tar"))
    );
    let told = lines.lock().unwrap().join("\n");
    assert!(told.contains("--include=ca-certificates,git -- stable -"), "{told}");
    let bad = program(folder.path(), "echo 'E: no such suite' >&2; exit 3");
    let failed = build(&bad, &debian, &into, &log, &cancel)
        .await
        .unwrap_err()
        .to_string();
    assert!(failed.contains("no such suite") && !into.exists(), "{failed}");
    let missing = build(Path::new("/nowhere/x"), &debian, &into, &log, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(missing, DebianError::NoProgram));
}

#[tokio::test]
async fn it_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("root.tar");
    // The second process holds the write end of a pipe that the first shell made: its end tells that it is gone.
    let slow = program(folder.path(), "sleep 1000 & echo $! >&2; wait");
    let ids = Arc::new(Mutex::new(Vec::<i32>::new()));
    for how in ["cancel", "time", "drop"] {
        let cancel = CancellationToken::new();
        let log = {
            let (ids, cancel) = (Arc::clone(&ids), cancel.clone());
            move |line: &str| {
                ids.lock().unwrap().push(line.parse().unwrap());
                if how == "cancel" {
                    cancel.cancel();
                }
            }
        };
        let debian = Debian {
            time: Duration::from_millis(if how == "time" { 300 } else { 60_000 }),
            ..Debian::default()
        };
        {
            let built = build(&slow, &debian, &into, &log, &cancel);
            tokio::pin!(built);
            match how {
                "cancel" => assert!(matches!(built.await, Err(DebianError::Cancelled))),
                "time" => assert!(matches!(built.await, Err(DebianError::Timeout(_)))),
                _ => {
                    let before = ids.lock().unwrap().len();
                    while ids.lock().unwrap().len() == before {
                        let _ = tokio::time::timeout(Duration::from_millis(20), &mut built).await;
                    }
                }
            }
        }
        let id = *ids.lock().unwrap().last().unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{id}/stat")) {
            Ok(stat) => stat.rsplit(')').next().unwrap_or_default().trim().starts_with('Z'),
            Err(_) => true,
        };
        while !gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
