//! What a sandbox sees and can touch.

use std::os::unix::fs::PermissionsExt;

use super::common::{USER, engine, has_root, is_root, out, probe_inside, probe_outside, sandbox, sh, skip};

#[tokio::test]
async fn usual_programs_work_for_user() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    assert_eq!(out(&*sandbox, USER, "id -un").await, "user");
    assert_eq!(out(&*sandbox, USER, "hostname || cat /etc/hostname").await, "testbox");
    assert_eq!(
        out(&*sandbox, USER, "cd && pwd && touch here && ls -A | tr '\\n' ' '").await,
        "/home/user\n.bashrc .profile here"
    );
    for (program, script, expected) in [
        (
            "git",
            "git init -q /tmp/r && cd /tmp/r && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git log --format=%s",
            "x",
        ),
        (
            "python3",
            "python3 -c 'import json, ssl, sqlite3, hashlib; print(json.dumps(6*7))'",
            "42",
        ),
        ("perl", "perl -MFile::Temp -e 'print 6*7'", "42"),
        ("awk", "echo 6 7 | awk '{print $1*$2}'", "42"),
        (
            "bash",
            "bash -lc 'echo $((6*7)) $PATH' | cut -d: -f1",
            "42 /opt/sandhold/bin",
        ),
    ] {
        if std::path::Path::new("/usr/bin").join(program).exists() {
            let (code, output) = sh(&*sandbox, USER, script).await;
            assert_eq!((code, output.trim()), (0, expected), "{program}: {output}");
        } else {
            skip(program);
        }
    }
}

#[tokio::test]
async fn a_terminal_can_be_opened() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return skip("terminals: no python3");
    }
    let script = "python3 -c 'import os, pty; m, s = pty.openpty(); os.write(m, b\"hi\\n\"); print(os.ttyname(s), os.read(s, 9))'";
    let said = out(&*sandbox, USER, script).await;
    assert!(said.starts_with("/dev/pts/") && said.contains("hi"), "{said}");
}

#[tokio::test]
async fn root_is_root_of_the_sandbox_only() {
    let engine = engine().await;
    if !has_root(&engine) {
        return;
    }
    let sandbox = sandbox(&engine).await;
    assert_eq!(
        out(
            &*sandbox,
            0,
            "id -u && touch /root/x /etc/y && chown user /root/x && stat -c %U /root/x"
        )
        .await,
        "0\nuser"
    );
    assert_eq!(
        out(&*sandbox, 0, "grep CapBnd /proc/self/status | cut -f2").await,
        "00000000a80425fb"
    );
    assert_eq!(
        out(&*sandbox, USER, "grep CapEff /proc/self/status | cut -f2").await,
        "0000000000000000"
    );
    assert_eq!(
        out(
            &*sandbox,
            USER,
            "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '"
        )
        .await,
        "1 2"
    );
    if is_root() {
        let map = out(&*sandbox, 0, "cat /proc/self/uid_map").await;
        let map: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!((map[0], map[2]), (0, 65_536));
        assert!(map[1] >= 1_500_000_000, "{map:?}");
        assert_eq!(
            out(&*sandbox, USER, "stat -c %U /usr/bin").await,
            "root",
            "the host tree is id-mapped"
        );
    }
    assert_ne!(
        sh(&*sandbox, USER, "cat /root/.profile").await.0,
        0,
        "root's home is root's"
    );
    // A device node on a mount that forbids them is no way to the disk either.
    let made = sh(&*sandbox, 0, "mknod /tmp/d b 254 0 && cat /tmp/d").await;
    assert_ne!(made.0, 0, "{}", made.1);
}

#[tokio::test]
async fn two_sandboxes_have_different_ids_on_the_host() {
    if !is_root() {
        return skip("private id ranges: not root");
    }
    let engine = engine().await;
    let (one, two) = (sandbox(&engine).await, sandbox(&engine).await);
    let map = "cut -c11-22 /proc/self/uid_map";
    assert_ne!(out(&*one, 0, map).await, out(&*two, 0, map).await);
}

#[tokio::test]
async fn no_host_file_but_usr_is_visible() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = secret.path().display();
    assert_ne!(
        sh(&*sandbox, USER, &format!("cat {path}")).await.0,
        0,
        "a host file in /tmp"
    );
    let root = out(&*sandbox, USER, "ls -A / | tr '\\n' ' '").await;
    let allowed = [
        "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc", "root", "run",
        "sbin", "srv", "sys", "tmp", "usr", "var",
    ];
    for name in root.split_whitespace() {
        assert!(allowed.contains(&name), "/{name}");
    }
    assert_eq!(
        out(
            &*sandbox,
            USER,
            "ls -A /srv /mnt /media /var/lib | grep -v : | tr -d '\\n'"
        )
        .await,
        ""
    );
    // The daemon's own programs, such as sudo.
    assert_eq!(out(&*sandbox, USER, "ls -A /opt").await, "sandhold");
    assert_eq!(out(&*sandbox, USER, "ls /home").await, "user");
    // The control: the same account lines are there outside, and not inside.
    let host = std::fs::read_to_string("/etc/passwd").unwrap();
    let inside = out(&*sandbox, USER, "cat /etc/passwd").await;
    assert!(inside.contains("user:x:1000:1000:"));
    for line in host.lines().filter(|line| line.contains("/home/")) {
        assert!(!inside.contains(line), "{line}");
    }
    let mounts = out(&*sandbox, USER, "cut -d' ' -f4,5,6 /proc/self/mountinfo").await;
    for line in mounts.lines().filter(|line| line.contains(" /usr")) {
        assert!(line.contains(" ro,nosuid,nodev"), "{line}");
    }
}

#[tokio::test]
async fn certificates_and_libraries_are_the_hosts() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    if !std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        return skip("the certificate bundle: this host keeps it elsewhere or has none");
    }
    let host = std::fs::metadata("/etc/ssl/certs/ca-certificates.crt")
        .unwrap()
        .len()
        .to_string();
    assert_eq!(
        out(&*sandbox, USER, "wc -c < /etc/ssl/certs/ca-certificates.crt")
            .await
            .trim(),
        host
    );
    assert_eq!(
        out(&*sandbox, USER, "wc -c < /etc/pki/tls/certs/ca-bundle.crt")
            .await
            .trim(),
        host
    );
    assert_ne!(
        sh(&*sandbox, USER, "echo x >> /etc/ssl/certs/ca-certificates.crt")
            .await
            .0,
        0
    );
}

#[tokio::test]
async fn proc_and_sys_give_nothing_away_and_take_nothing() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let users: &[u32] = if has_root(&engine) { &[USER, 0] } else { &[USER] };
    for user in users {
        for file in [
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/vm/drop_caches",
            "/proc/sys/user/max_user_namespaces",
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sysrq-trigger",
            "/proc/1/oom_score_adj",
            "/sys/kernel/mm/ksm/run",
            "/proc/1/mem",
        ] {
            let (code, output) = sh(&*sandbox, *user, &format!("echo 1 > {file}")).await;
            assert_ne!(code, 0, "{file} as {user}: {output}");
        }
        for file in [
            "/proc/kcore",
            "/proc/keys",
            "/proc/kallsyms",
            "/proc/timer_list",
            "/proc/kmsg",
        ] {
            assert_eq!(
                out(
                    &*sandbox,
                    *user,
                    &format!("[ ! -e {file} ] || head -c 1 {file} | wc -c")
                )
                .await
                .trim_start_matches('0'),
                "",
                "{file}"
            );
        }
        assert_eq!(
            out(&*sandbox, *user, "for d in firmware devices/virtual/powercap kernel/debug kernel/tracing kernel/security kernel/config; do ls -A /sys/$d 2>/dev/null; done; true").await,
            ""
        );
        // Process 1 does not let anybody look inside.
        for what in [
            "cat /proc/1/environ",
            "cat /proc/1/maps",
            "ls /proc/1/fd/",
            "head -c 1 /proc/1/mem",
            "readlink /proc/1/exe",
            "ls /proc/1/root/",
            "readlink /proc/1/cwd",
        ] {
            let (code, output) = sh(&*sandbox, *user, what).await;
            assert_ne!(code, 0, "{what} as {user}: {output}");
        }
    }
    // Controls: the same look at one's own process works, and the sandbox has a /proc and /sys worth the name.
    out(
        &*sandbox,
        USER,
        "cat /proc/self/environ /proc/self/maps > /dev/null && ls /proc/self/fd/ /proc/self/root/ > /dev/null",
    )
    .await;
    out(
        &*sandbox,
        USER,
        "grep -q MemTotal /proc/meminfo && grep -q processor /proc/cpuinfo && ls /sys/class/net/lo > /dev/null",
    )
    .await;
}

#[tokio::test]
async fn other_processes_are_not_there() {
    let engine = engine().await;
    let (one, two) = (sandbox(&engine).await, sandbox(&engine).await);
    let listed = out(&*one, USER, "ls /proc | grep -c '^[0-9]'").await;
    assert!(listed.parse::<u32>().unwrap() < 10, "{listed}");
    out(&*two, USER, "sleep 60 >/dev/null 2>&1 &").await;
    assert_eq!(
        out(&*two, USER, "grep -l ^sleep /proc/[0-9]*/comm | wc -l").await,
        "1",
        "the control"
    );
    assert_eq!(
        out(&*one, USER, "cat /proc/[0-9]*/comm | grep -c sleep; true").await,
        "0"
    );
    // Abstract sockets and shared memory are per sandbox too.
    out(&*one, USER, "echo x > /dev/shm/mark").await;
    assert_ne!(sh(&*two, USER, "cat /dev/shm/mark").await.0, 0);
}

#[tokio::test]
async fn the_network_is_loopback_only() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    assert_eq!(out(&*sandbox, USER, "ls /sys/class/net").await, "lo");
    assert_eq!(
        out(&*sandbox, USER, "tail -qn +2 /proc/net/route | cut -f1 | uniq").await,
        "lo"
    );
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return skip("connections: no python3");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("the control: it listens on the host");
    let connect = format!("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 2)'");
    assert_ne!(sh(&*sandbox, USER, &connect).await.0, 0, "the host's loopback");
    let own = "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 80)); socket.create_connection((\"127.0.0.1\", 80), 2); print(1)'";
    assert_eq!(
        out(&*sandbox, USER, own).await,
        "1",
        "its own loopback, and a low port as user"
    );
}

/// What leaves a sandbox arrives at its doors, of both families, and nowhere else.
#[tokio::test]
async fn what_leaves_arrives_at_the_doors() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let doors = sandbox.take_doors().expect("doors");
    assert!(sandbox.take_doors().is_none(), "they are given once");
    if !doors.transparent {
        return skip("doors: the kernel has no nf_tables");
    }
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return skip("doors: no python3");
    }
    let tcp = tokio::net::TcpListener::from_std(doors.tcp.into()).unwrap();
    let answers = tokio::spawn(async move {
        let mut from = Vec::new();
        while let Ok((stream, peer)) = tcp.accept().await {
            stream.writable().await.unwrap();
            stream.try_write(b"door").unwrap();
            from.push(peer);
        }
    });
    let connect = |host: &str| {
        format!(
            "python3 -c 'import socket; s = socket.create_connection((\"{host}\", 443), 5); print(s.recv(9), s.getpeername()[0])'"
        )
    };
    for host in ["192.0.2.77", "2001:db8::77"] {
        let said = out(&*sandbox, USER, &connect(host)).await;
        assert_eq!(said, format!("b'door' {host}"));
    }
    for (door, port) in [(doors.udp, 9999), (doors.dns, 53)] {
        let door = tokio::net::UdpSocket::from_std(door.into()).unwrap();
        for (family, host) in [("INET", "192.0.2.78"), ("INET6", "2001:db8::78")] {
            let send = format!(
                "python3 -c 'import socket; socket.socket(socket.AF_{family}, socket.SOCK_DGRAM).sendto(b\"{family}\", (\"{host}\", {port}))'"
            );
            out(&*sandbox, USER, &send).await;
            let mut buffer = [0; 64];
            let (len, _) = door.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], family.as_bytes(), "port {port}");
        }
    }
    answers.abort();
    let _ = answers.await;
    // With nobody behind it, the door is closed, not open.
    assert_ne!(sh(&*sandbox, USER, &connect("192.0.2.77")).await.0, 0);
}

#[tokio::test]
async fn nothing_is_inherited() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let fds = out(&*sandbox, USER, "ls -l /proc/self/fd").await;
    let targets: Vec<&str> = fds.lines().filter_map(|line| line.split(" -> ").nth(1)).collect();
    assert!(targets.len() <= 4, "{targets:?}");
    for target in targets {
        let known = target == "/dev/null" || target.starts_with("pipe:") || target.starts_with("/proc/");
        assert!(known, "{target}");
    }
    let signals = out(
        &*sandbox,
        USER,
        "grep -E '^Sig(Ign|Blk):' /proc/self/status | cut -f2 | tr '\\n' ' '",
    )
    .await;
    assert_eq!(signals, "0000000000000000 0000000000000000");
    assert_eq!(
        out(&*sandbox, USER, "cut -d: -f3 /proc/self/cgroup | sort -u").await,
        "/",
        "the cgroup namespace hides where it is"
    );
}

#[tokio::test]
async fn set_user_id_programs_have_no_effect() {
    let engine = engine().await;
    if !has_root(&engine) {
        return;
    }
    let sandbox = sandbox(&engine).await;
    out(&*sandbox, 0, "cp /usr/bin/id /usr/bin/env /tmp/ && chmod 4755 /tmp/id").await;
    assert_eq!(out(&*sandbox, USER, "/tmp/id -u").await, "1000");
    assert_eq!(
        out(&*sandbox, 0, "stat -c %a /tmp/id").await,
        "4755",
        "the control: the bit is there"
    );
}

#[tokio::test]
async fn the_daemon_cannot_be_killed_or_stopped_from_inside() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let users: &[u32] = if has_root(&engine) { &[USER, 0] } else { &[USER] };
    for user in users {
        sh(&*sandbox, *user, "kill -9 1; kill -STOP 1; kill -TERM 1").await;
        assert_eq!(out(&*sandbox, *user, "echo alive").await, "alive");
    }
}

#[tokio::test]
async fn device_nodes_cannot_be_made_but_the_usual_ones_work() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    assert_eq!(probe_inside(&*sandbox, USER, "mknod-block").await, 1);
    if is_root() {
        assert_eq!(probe_outside("mknod-block"), 0, "the control");
    }
    let devices =
        "head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c && echo x > /dev/null && ls /dev | tr '\\n' ' '";
    let expected = "3\n3\nfd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(out(&*sandbox, USER, devices).await, expected);
}
