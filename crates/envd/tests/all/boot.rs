use std::process::{Command, Stdio};

use rustix::net::SendFlags;
use sandhold_wire::boot::{VERSION_END, VERSION_MARK};
use serde_json::json;

use crate::harness::*;

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn says_its_version() {
    let out = Command::new(program()).arg("--version").output().unwrap();
    assert!(out.status.success());
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        format!("sandhold-envd {VERSION}\n")
    );
    let file = std::fs::read(program()).unwrap();
    let mark = format!("{VERSION_MARK}{VERSION}{VERSION_END}");
    assert!(
        file.windows(mark.len()).any(|w| w == mark.as_bytes()),
        "the file says its version too"
    );
}

#[test]
fn by_hand_it_says_what_it_is() {
    for line in [r#"exec "$0""#, r#"exec "$0" 3</dev/null"#] {
        let out = Command::new("/bin/sh")
            .args(["-c", line])
            .arg(program())
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2));
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(
            text.contains("without its control socket") && text.contains("daemon inside"),
            "{text}"
        );
    }
}

#[test]
fn a_message_it_does_not_understand_ends_it() {
    for (message, wanted) in [
        (&b"{}"[..], "not understood: missing field"),
        (&[b' '; 140_000], "longer than"),
    ] {
        let (host, inside) = control_pair();
        let child = command(inside).stderr(Stdio::piped()).spawn().unwrap();
        rustix::net::send(&host, message, SendFlags::empty()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
    let (host, inside) = control_pair();
    let child = command(inside).stderr(Stdio::piped()).spawn().unwrap();
    drop(host);
    let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(text.contains("before it said anything"), "{text}");
}

#[test]
fn answers_with_its_version_and_what_it_lacks() {
    assert_eq!(Daemon::start().ready.version, VERSION);
    let mut odd = spec();
    odd.default_user = "nobody-of-that-name".into();
    let ready = Daemon::with(&odd).ready.warnings.join("\n");
    assert!(ready.contains("error looking up user 'nobody-of-that-name'"), "{ready}");
}

#[tokio::test]
async fn without_its_host_it_ends_and_so_do_its_processes() {
    let mut daemon = Daemon::start();
    let mut events = daemon
        .client()
        .await
        .stream("Start", &script("exec sleep 1000"), &[])
        .await;
    let pid = events.pid().await;
    assert!(alive(pid));
    assert!(daemon.hang_up().success());
    eventually("the process is gone", || !alive(pid)).await;
}

#[tokio::test]
async fn processes_inherit_nothing_of_the_daemon() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let run = client
        .sh("for i in $(seq 0 40); do [ -e /proc/$$/fd/$i ] && echo $i; done; umask; ulimit -c")
        .await;
    assert_eq!(run.text(), "0\n1\n2\n0022\n0\n");
    let limit = client.sh("ulimit -n").await;
    let here = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap();
    assert_eq!(limit.text().trim(), here.to_string());
}

#[tokio::test]
async fn orphans_are_reaped() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let run = client.sh("(sleep 0.2 </dev/null >/dev/null 2>&1 & echo $!)").await;
    let orphan: u64 = run.text().trim().parse().unwrap();
    assert!(alive(orphan));
    let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
    eventually("it becomes the daemon's child", || {
        !alive(orphan)
            || std::fs::read_to_string(&children)
                .unwrap()
                .contains(&orphan.to_string())
    })
    .await;
    eventually("no zombie is left", || {
        std::fs::read_to_string(&children).unwrap().is_empty()
    })
    .await;
    assert!(!std::path::Path::new(&format!("/proc/{orphan}")).exists());
}

#[tokio::test]
async fn exit_statuses_are_not_mixed_up() {
    let daemon = Daemon::start();
    let mut running = Vec::new();
    for code in 0..40 {
        let mut client = daemon.client().await;
        running.push((
            code,
            client
                .stream("Start", &script(&format!("(exit 99) & exit {code}")), &[])
                .await,
        ));
    }
    for (code, events) in running {
        let run = events.rest().await;
        assert_eq!(run.end["status"], json!(format!("exit status {code}")), "{run:?}");
    }
}
