//! `sudo`, asked from inside. Run by root it becomes another user; run by anyone else there is one user to become.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, send};
use tempfile::TempDir;

use crate::harness::*;

struct Inside {
    daemon: Daemon,
    folder: TempDir,
}

fn inside(switches: bool) -> Inside {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(program(), folder.path().join("sudo")).unwrap();
    let mut spec = spec();
    spec.can_switch_user &= switches;
    spec.sudo_socket = Some(socket(folder.path()));
    Inside {
        daemon: Daemon::with(&spec),
        folder,
    }
}

fn socket(folder: &Path) -> String {
    folder.join("run/sudo.sock").to_str().unwrap().to_owned()
}

/// The name of a user that can be become, and whether it is another one.
fn somebody() -> (String, bool) {
    let root = rustix::process::geteuid().is_root();
    (if root { "nobody".to_owned() } else { own_name() }, root)
}

impl Inside {
    async fn sh(&self, script: &str) -> Run {
        let folder = self.folder.path().display();
        let script = format!("export SANDHOLD_SUDO_SOCKET={folder}/run/sudo.sock PATH={folder}:$PATH; cd /\n{script}");
        self.daemon.client().await.sh(&script).await
    }

    async fn text(&self, script: &str) -> String {
        let run = self.sh(script).await;
        assert_eq!(run.end["exited"], true, "{script}: {run:?}");
        String::from_utf8(run.stdout).unwrap().trim().to_owned()
    }
}

#[tokio::test]
async fn a_command_runs_as_the_user_with_the_callers_descriptors() {
    let inside = inside(true);
    let (user, other) = somebody();
    let uid = inside.text(&format!("sudo -u {user} id -u")).await;
    assert_eq!(uid, inside.text(&format!("id -u {user}")).await);
    if other {
        assert_ne!(uid, inside.text("id -u").await, "the control");
    }
    assert_eq!(
        inside.text(&format!("echo through | sudo -nu {user} cat")).await,
        "through"
    );
    let run = inside.sh(&format!("sudo -u {user} sh -c 'echo err >&2'")).await;
    assert_eq!((run.stdout.len(), &run.stderr[..]), (0, &b"err\n"[..]));
    assert_eq!(
        inside.text(&format!("cd /usr/lib; sudo -u {user} pwd")).await,
        "/usr/lib"
    );
    // ls itself opens the folder it lists.
    let open = inside.text(&format!("sudo -u {user} ls /proc/self/fd")).await;
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(
        inside
            .text(&format!("sudo -u {user} A=1 sh -c 'echo $A $USER $SUDO_UID' && id -u"))
            .await,
        format!("1 {user} {0}\n{0}", rustix::process::geteuid().as_raw())
    );
    assert_eq!(
        inside
            .text(&format!(
                "B=2 sudo -u {user} sh -c 'echo [$B]'; B=2 sudo -Eu {user} sh -c 'echo [$B]'"
            ))
            .await,
        "[]\n[2]"
    );
    assert_eq!(
        inside
            .text(&format!("sudo -Eu {user} $(command -v sudo) -u {user} id -u"))
            .await,
        uid
    );
}

#[tokio::test]
async fn ends_are_told_as_they_were() {
    let inside = inside(true);
    let (user, _) = somebody();
    for (command, code) in [
        ("exit 7", "7"),
        ("exit 255", "255"),
        ("kill -9 $$", "137"),
        ("kill -15 $$", "143"),
    ] {
        let said = inside.text(&format!("sudo -u {user} sh -c '{command}'; echo $?")).await;
        assert_eq!(said, code, "{command}");
    }
    // Not only its number: the process itself ended so.
    let run = inside.sh(&format!("exec sudo -u {user} sh -c 'kill -9 $$'")).await;
    assert_eq!(
        (run.end["exited"].as_bool(), run.end["status"].as_str()),
        (None, Some("signal: killed")),
        "{run:?}"
    );
}

#[tokio::test]
async fn signals_reach_the_command_and_its_end_the_caller() {
    let inside = inside(true);
    let (user, _) = somebody();
    let script = format!(
        "sudo -u {user} sh -c 'trap \"echo got; exit 5\" TERM; echo ready; while :; do sleep 0.05; done' > out &
         until grep -q ready out; do sleep 0.05; done
         kill -TERM $!; wait $!; echo $?; cat out"
    );
    let said = inside
        .text(&format!("cd {}; {script}", inside.folder.path().display()))
        .await;
    assert_eq!(said, "5\nready\ngot");
}

#[tokio::test]
async fn the_command_ends_with_a_caller_who_is_killed() {
    let inside = inside(true);
    let (user, _) = somebody();
    let script = format!(
        "cd {}; sudo -u {user} sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 0.05; done' > pid &
         until grep -q . pid; do sleep 0.05; done
         kill -KILL $!; cat pid",
        inside.folder.path().display()
    );
    let pid: u64 = inside.text(&script).await.parse().unwrap();
    eventually("the command's end", || !alive(pid)).await;
}

#[tokio::test]
async fn what_is_refused_is_said() {
    let inside = inside(true);
    let (user, _) = somebody();
    for (line, said) in [
        ("sudo -u no-such-user id".to_owned(), "unknown user no-such-user"),
        (
            format!("sudo -u {user} no-such-command"),
            "no-such-command: command not found",
        ),
        ("sudo -x id".to_owned(), "unknown option -x"),
        ("sudo".to_owned(), "there is nothing to run"),
        (format!("sudo -u {user} /etc/passwd"), "cannot be executed"),
        (format!("sudo -u {user} -D /nowhere id"), "'/nowhere' cannot be entered"),
        ("SANDHOLD_SUDO_SOCKET=/nowhere sudo id".to_owned(), "made without sudo"),
    ] {
        let run = inside.sh(&line).await;
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(
            stderr.starts_with("sudo: ") && stderr.contains(said),
            "{line}: {stderr}"
        );
        assert_eq!(run.end["exitCode"].as_i64(), Some(1), "{line}: {run:?}");
        assert_eq!(run.text(), "", "{line}");
    }
    assert_eq!(
        inside
            .text(&format!("sudo -u {user} -v && sudo -k && sudo -K && echo fine"))
            .await,
        "fine"
    );
}

#[tokio::test]
async fn with_one_user_id_there_is_no_root() {
    let inside = inside(false);
    let nobody = if rustix::process::geteuid().is_root() {
        "nobody"
    } else {
        "root"
    };
    let run = inside.sh(&format!("sudo -u {nobody} id")).await;
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(stderr.contains("there is no root here"), "{stderr}");
    assert_eq!(run.end["exitCode"].as_i64(), Some(1));
    let own = own_name();
    assert_eq!(inside.text(&format!("sudo -u {own} id -un")).await, own);
}

#[tokio::test]
async fn callers_who_talk_nonsense_or_say_nothing_hold_nobody_up() {
    let inside = inside(true);
    let (user, _) = somebody();
    let address = SocketAddrUnix::new(socket(inside.folder.path())).unwrap();
    let connect = || {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&socket, &address).map(|()| socket)
    };
    for nonsense in [&b"x"[..], b"r\xff\xff", b"", &[b'r'; 5000], &[b'r'; 60_000]] {
        let socket = connect().unwrap();
        let _ = send(socket.as_fd(), nonsense, SendFlags::NOSIGNAL);
        drop(socket);
    }
    // Fewer than are answered at once, so that the next one need not wait for their time to be over.
    let silent: Vec<_> = (0..20).map(|_| connect().unwrap()).collect();
    let said = tokio::time::timeout(
        Duration::from_secs(8),
        inside.text(&format!("sudo -u {user} echo here")),
    )
    .await;
    assert_eq!(said.unwrap(), "here");
    drop(silent);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", inside.daemon.pid())).map_or(0, Iterator::count);
    let before = open();
    for _ in 0..5 {
        inside.text(&format!("sudo -u {user} true")).await;
    }
    eventually("the daemon's descriptors are as many as before", || open() <= before).await;
}
