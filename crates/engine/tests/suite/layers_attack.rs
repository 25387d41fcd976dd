//! Code inside a sandbox against the overlay that it stands on.

use std::sync::Arc;

use sandhold_engine::Engine;
use sandhold_runtime::{Root, Runtime, RuntimeError, Sandbox, SandboxSpec};

use super::common::{USER, engine, has_root, out, sandbox, sh, spec};

async fn of(engine: &Engine, root: Root) -> Arc<dyn Sandbox> {
    engine
        .create(SandboxSpec { root, ..spec() })
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

async fn python(sandbox: &dyn Sandbox, user: u32, script: &str) -> String {
    let hex: String = script.bytes().map(|byte| format!("{byte:02x}")).collect();
    let (code, said) = sh(
        sandbox,
        user,
        &format!("python3 -c 'exec(bytes.fromhex(\"{hex}\").decode())' 2>&1"),
    )
    .await;
    assert_eq!(code, 0, "{said}");
    said.trim_end().to_owned()
}

/// Leaves its root in the two classic ways and says what it sees there, and what it could open below it.
const LEAVE: &str = r#"
import os, shutil
def look(how):
    try: seen = sorted(os.listdir('.'))
    except PermissionError: seen = []
    opened = []
    for name in ['t', 'o', 't/u', 't/w', 'o/etc/hostname', 'v', 'l', 'h', 's', 'b']:
        for path in [name, '../' + name, '/' + name]:
            try: opened.append((path, os.close(os.open(path, os.O_RDONLY))))
            except OSError: pass
    try: made = os.mkdir('made-here')
    except OSError as error: made = error.errno
    print(how, seen, opened, made, flush=True)
def above():
    for _ in range(40): os.chdir('..')
shutil.rmtree('/tmp/jail', ignore_errors=True)
os.makedirs('/tmp/jail/inner')
before = os.open('/', os.O_RDONLY)
os.chdir('/tmp/jail/inner')
os.chroot('/tmp/jail')
if os.fork() == 0:
    os.fchdir(before)
    above()
    look('by a descriptor')
    os._exit(0)
os.wait()
os.mkdir('deeper')
os.chroot('deeper')
above()
look('by a folder left outside')
os.chroot('.')
look('as its root')
"#;

#[tokio::test]
async fn who_leaves_the_root_comes_into_an_empty_folder() {
    let engine = engine().await;
    if !has_root(&engine) {
        return;
    }
    let sandbox = sandbox(&engine).await;
    for round in 0..2 {
        let said = python(&*sandbox, 0, LEAVE).await;
        let read_only = rustix::io::Errno::ROFS.raw_os_error();
        for line in said.lines() {
            assert!(
                line.ends_with(&format!(" [] [] {read_only}")) || line.ends_with(" [] [] 13"),
                "round {round}: {said}"
            );
        }
        assert_eq!(said.lines().count(), 3, "{said}");
        sandbox.checkpoint().await.unwrap();
    }
}

/// Does everything that a checkpoint might trip over, in many processes, and marks files with what it does.
const CHURN: &str = r#"
import mmap, os, random, socket, sys, time
random.seed(int(sys.argv[1]) if len(sys.argv) > 1 else os.getpid())
home = '/home/user/churn'
os.makedirs(home, exist_ok=True)
end = time.time() + 60
def once(number):
    path = f'{home}/{number % 20}'
    kind = number % 8
    if kind == 0:
        with open(path, 'w') as file: file.write(str(number) * 100)
    elif kind == 1:
        if os.fork() == 0:
            try: open(path, 'a').write('child')
            finally: os._exit(0)
        os.wait()
    elif kind == 2:
        # Its own: another one that cuts it off would end it.
        with open(f'{path}.{os.getpid()}', 'w+b') as file:
            file.truncate(4096)
            with mmap.mmap(file.fileno(), 4096) as shared: shared[:5] = b'hello'
    elif kind == 3:
        a, b = socket.socketpair()
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        socket.send_fds(a, [b'x'], [fd])
        os.close(fd)
        fd = socket.recv_fds(b, 1, 1)[1][0]
        os.write(fd, b'passed')
        os.close(fd); a.close(); b.close()
    elif kind == 4:
        os.chdir(home)
        with open(os.path.basename(path), 'a') as file: file.write('here')
        os.chdir('/')
    elif kind == 5:
        try: os.rename(path, f'{home}/{random.randrange(20)}')
        except FileNotFoundError: pass
    elif kind == 6:
        try: os.link(path, f'{path}.link')
        except OSError: pass
        try: os.unlink(f'{path}.link')
        except OSError: pass
    else:
        with open(path, 'w') as file:
            os.unlink(path)
            file.write('gone')
os.chdir('/')
number = random.randrange(1000)
while time.time() < end:
    number += 1
    try: once(number)
    except FileNotFoundError: pass
"#;

#[tokio::test]
async fn layers_made_in_the_middle_of_everything_do_not_change() {
    let engine = engine().await;
    let first = sandbox(&engine).await;
    let hex: String = CHURN.bytes().map(|byte| format!("{byte:02x}")).collect();
    out(
        &*first,
        USER,
        &format!(
            "cd /; for i in 1 2 3; do (setsid python3 -c 'exec(bytes.fromhex(\"{hex}\").decode())' $i \
             </dev/null >/dev/null 2>/dev/shm/err.$i &); done; \
             for i in $(seq 300); do test -d ~/churn && break; sleep 0.05; done; sleep 0.3"
        ),
    )
    .await;
    let sum = "cd ~/churn; for f in *; do stat -c %n:%s:%y:%h $f; cat $f; done | sha256sum";
    let mut kept: Vec<(Arc<dyn Sandbox>, String)> = Vec::new();
    let mut whole = 0;
    for _ in 0..12 {
        let before = first.root();
        let checkpoint = first.checkpoint().await.unwrap();
        whole += usize::from(first.root() != before);
        let fork = of(&engine, checkpoint).await;
        let seen = out(&*fork, USER, sum).await;
        kept.push((fork, seen));
    }
    eprintln!("{whole} of 12 were made without a copy");
    // All of them are at work still.
    assert_eq!(out(&*first, USER, "cat /dev/shm/err.*").await, "");
    let left: u32 = out(&*first, USER, "pgrep -c python3").await.parse().unwrap();
    assert!(left >= 3, "{left}");
    for (fork, seen) in &kept {
        assert_eq!(&out(&**fork, USER, sum).await, seen);
    }
    // In the middle of everything it goes back, too, and nothing goes on.
    first.roll_back(&Root::default()).await.unwrap();
    assert_eq!(out(&*first, USER, "ls ~; pgrep -c -r R,S,D,T python3 || :").await, "0");
}

#[tokio::test]
async fn marks_of_overlays_mean_nothing_when_the_sandbox_made_them() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let root = if has_root(&engine) { 0 } else { USER };
    out(
        &*sandbox,
        USER,
        "mkdir ~/d; echo below > ~/d/below; echo target > ~/target",
    )
    .await;
    sandbox.checkpoint().await.unwrap();
    let script = r#"
import os, stat
said = []
def attempt(what):
    try: what(); said.append('done')
    except OSError as error: said.append(str(error.errno))
os.chdir('/home/user')
for name, value in [('opaque', b'y'), ('whiteout', b'y'), ('redirect', b'/etc'), ('metacopy', b''), ('origin', b'\0' * 20)]:
    attempt(lambda: os.setxattr('d', 'user.overlay.' + name, value))
    attempt(lambda: os.setxattr('target', 'user.overlay.' + name, value))
    attempt(lambda: os.setxattr('d', 'trusted.overlay.' + name, value))
attempt(lambda: os.mknod('d/below2', stat.S_IFCHR | 0o600, os.makedev(0, 0)))
attempt(lambda: os.mknod('/dev/shm/w', stat.S_IFCHR | 0o600, os.makedev(0, 0)))
attempt(lambda: os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3)))
os.makedirs('/'.join(['deep'] * 60), exist_ok=True)
open('a\nb\x7f', 'w').close()
print(' '.join(said))
"#;
    let said = python(&*sandbox, root, script).await;
    let look = "cat ~/d/below ~/target; ls ~/d";
    let before = out(&*sandbox, USER, look).await;
    assert!(before.starts_with("below\ntarget\nbelow"), "{said}: {before}");
    let checkpoint = sandbox.checkpoint().await.unwrap();
    let fork = of(&engine, checkpoint.clone()).await;
    for sandbox in [&sandbox, &fork] {
        assert_eq!(out(&**sandbox, USER, look).await, before, "{said}");
    }
}

/// Half of one base, half of the other: refused, not made.
#[tokio::test]
async fn a_sandbox_does_not_go_back_to_other_files() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    out(&*sandbox, USER, "echo x > ~/x").await;
    let other = Root {
        base: sandhold_runtime::Base::Empty,
        layers: Vec::new(),
    };
    let error = sandbox.roll_back(&other).await.unwrap_err();
    assert!(matches!(error, RuntimeError::InvalidSpec(_)), "{error}");
    assert_eq!(out(&*sandbox, USER, "cat ~/x").await, "x");
}

/// Whoever asked goes away in the middle: the sandbox goes on, and what it stands on is known.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_sandbox_standing_still() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    for round in 0_u64..40 {
        let pause = std::time::Duration::from_micros(round * 300);
        out(&*sandbox, USER, &format!("echo {round} > ~/round")).await;
        let _ = tokio::time::timeout(pause, sandbox.checkpoint()).await;
        assert_eq!(out(&*sandbox, USER, "cat ~/round").await, round.to_string());
    }
    let last = sandbox.checkpoint().await.unwrap();
    let fork = of(&engine, last).await;
    assert_eq!(out(&*fork, USER, "cat ~/round").await, "39");
}

/// The disk is full, or there is no room for a file: a checkpoint works, and so does what comes after it.
#[tokio::test]
async fn a_full_disk_is_no_hindrance() {
    let engine = engine().await;
    for script in [
        "head -c 100M /dev/zero > ~/big 2>/dev/null; :",
        "mkdir ~/many; for i in $(seq 600); do touch ~/many/$i || break; done 2>/dev/null; :",
    ] {
        let resources = sandhold_runtime::Resources {
            disk_bytes: Some(8 << 20),
            inodes: Some(400),
            ..sandhold_runtime::Resources::default()
        };
        let sandbox = super::common::sandbox_with(&engine, resources).await;
        out(&*sandbox, USER, script).await;
        let (code, _) = sh(&*sandbox, USER, "echo more > ~/more && mkdir ~/more.d && cat ~/more").await;
        assert_ne!(code, 0, "{script}: it is full");
        let checkpoint = sandbox.checkpoint().await.unwrap();
        assert_eq!(sandbox.root(), checkpoint);
        let fork = of(&engine, checkpoint.clone()).await;
        out(&*fork, USER, "echo room > ~/room; cat ~/room").await;
        sandbox.roll_back(&Root::default()).await.unwrap();
        assert_eq!(
            out(&*sandbox, USER, "echo room > ~/room; ls ~").await,
            "room",
            "{script}"
        );
    }
}
