//! A layer stays as it was when it was held, whatever the sandbox's processes had in their hands by then.

use std::sync::Arc;

use sandhold_engine::Engine;
use sandhold_runtime::{Root, Runtime, Sandbox, SandboxSpec};

use super::common::{USER, engine, out, run, sandbox, sh, spec};

async fn of(engine: &Engine, root: Root) -> Arc<dyn Sandbox> {
    engine
        .create(SandboxSpec { root, ..spec() })
        .await
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// Begins each script: what it needs, and `wait`, which waits for the word and says when it came.
const BEFORE: &str = r#"
import ctypes, mmap, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
CLONE_FS, CLONE_FILES = 0x200, 0x400
sys.stdout.flush()
def thread_without(shared):
    # It sleeps: CLONE_VM, CLONE_SIGHAND, CLONE_THREAD and the other of what threads share.
    stack = mmap.mmap(-1, 1 << 20)
    top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 20)
    if libc.clone(libc.sleep, ctypes.c_void_p(top), 0x100 | 0x800 | 0x10000 | shared, ctypes.c_void_p(300)) < 0:
        raise OSError(ctypes.get_errno(), 'clone')
    globals()['kept'] = stack
def ready():
    os.close(os.open('/dev/shm/ready', os.O_CREAT | os.O_WRONLY))
def go():
    ready()
    while not os.path.exists('/dev/shm/go'): time.sleep(0.01)
def done(word='done'):
    fd = os.open('/dev/shm/done', os.O_CREAT | os.O_WRONLY)
    os.write(fd, word.encode())
    os.rename('/dev/shm/done', '/dev/shm/said')
def try_(what):
    try: return str(what())
    except OSError as e: return 'errno %d' % e.errno
os.chdir('/')
PATH = '/home/user/file'
"#;

/// What has a file of the sandbox in hand in a way that a look through `/proc/PID` alone does not show, and writes to it
/// after the checkpoint.
const WRITERS: &[(&str, &str)] = &[
    (
        "an ordinary descriptor (the control)",
        r#"
fd = os.open(PATH, os.O_RDWR)
go()
done(try_(lambda: os.pwrite(fd, b'CHANGED', 0)))
"#,
    ),
    (
        "a shared mapping that can be written to later",
        r#"
fd = os.open(PATH, os.O_RDWR)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
at = libc.mmap(None, 4096, 1, 1, fd, 0)
os.close(fd)
go()
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
if libc.mprotect(at, 4096, 3): done('errno')
else:
    ctypes.memmove(at, b'CHANGED', 7)
    done('7')
"#,
    ),
    (
        "a descriptor in flight",
        r#"
a, b = socket.socketpair()
fd = os.open(PATH, os.O_RDWR)
socket.send_fds(a, [b'x'], [fd])
os.close(fd)
go()
fd = socket.recv_fds(b, 1, 1)[1][0]
done(try_(lambda: os.pwrite(fd, b'CHANGED', 0)))
"#,
    ),
    (
        "a thread with descriptors of its own",
        r#"
fd = os.open(PATH, os.O_RDWR)
thread_without(CLONE_FS)
os.close(fd)
go()
done(try_(lambda: os.pwrite(os.open(PATH, os.O_RDWR), b'CHANGED', 0)))
"#,
    ),
    (
        "a thread with a working folder of its own",
        r#"
os.chdir('/home/user')
thread_without(CLONE_FILES)
os.chdir('/')
go()
done(try_(lambda: os.pwrite(os.open(PATH, os.O_RDWR), b'CHANGED', 0)))
"#,
    ),
    (
        "a thread that outlived the first one",
        r#"
def other():
    time.sleep(0.2)
    fd = os.open(PATH, os.O_RDWR)
    go()
    done(try_(lambda: os.pwrite(fd, b'CHANGED', 0)))
threading.Thread(target=other).start()
libc.syscall(60, 0)
"#,
    ),
    (
        "a mapping behind very many others",
        r#"
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open(PATH, os.O_RDWR)
top = libc.mmap(None, 4096, 3, 1, fd, 0)
null = os.open('/usr/lib/os-release', os.O_RDONLY)
for i in range(60000):
    if libc.mmap(0x100000000000 + i * 8192, 4096, 1 if i % 2 else 0, 0x100002, null, 0) == 2**64 - 1: break
os.close(fd)
go()
ctypes.memmove(top, b'CHANGED', 7)
done('7')
"#,
    ),
];

async fn start(sandbox: &dyn Sandbox, user: u32, name: &str, script: &str) {
    let script = format!("{BEFORE}{script}");
    let hex: String = script.bytes().map(|byte| format!("{byte:02x}")).collect();
    let python = format!("exec(bytes.fromhex(\"{hex}\").decode())");
    let (code, error) = sh(
        sandbox,
        user,
        &format!(
            "rm -f /dev/shm/*; cd /; (setsid python3 -c '{python}' </dev/null >/dev/shm/err 2>&1 &); \
             for i in $(seq 600); do test -e /dev/shm/ready -o -e /dev/shm/said && break; sleep 0.05; done; \
             test -e /dev/shm/ready || (cat /dev/shm/err /dev/shm/said; exit 1)"
        ),
    )
    .await;
    assert_eq!(code, 0, "{name}: {error}");
}

async fn said(sandbox: &dyn Sandbox, user: u32) -> String {
    out(
        sandbox,
        user,
        "touch /dev/shm/go; for i in $(seq 300); do test -e /dev/shm/said && break; sleep 0.05; done; cat /dev/shm/said || cat /dev/shm/err",
    )
    .await
}

#[tokio::test]
async fn a_held_layer_does_not_change_whatever_was_in_hand() {
    let engine = engine().await;
    let mut wrong = Vec::new();
    for (name, script) in WRITERS {
        let sandbox = sandbox(&engine).await;
        out(&*sandbox, USER, "echo as it was > ~/file").await;
        start(&*sandbox, USER, name, script).await;
        let checkpoint = sandbox.checkpoint().await.unwrap();
        let copied = sandbox.root() == Root::default();
        let wrote = said(&*sandbox, USER).await;
        let fork = of(&engine, checkpoint.clone()).await;
        let held = out(&*fork, USER, "head -c 7 ~/file").await;
        // What was said to be written is there.
        let now = out(&*sandbox, USER, "head -c 7 ~/file").await;
        if (held.as_str(), wrote.as_str(), now.as_str(), copied) != ("as it w", "7", "CHANGED", true) {
            wrong.push((name, held, wrote, now, copied));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What does not hold a file of the sandbox goes on in its folder under the new root.
#[tokio::test]
async fn processes_in_folders_that_are_mounted_go_on() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    for folder in ["/usr/lib", "/dev/shm", "/proc", "/sys"] {
        let script = format!(
            r#"
os.chdir('{folder}')
fd = os.open('.', os.O_RDONLY)
before = (os.getcwd(), len(os.listdir('.')) > 0, os.readlink('/proc/self/exe'))
go()
now = (os.getcwd(), len(os.listdir('.')) > 0, os.readlink('/proc/self/exe'))
up = os.path.exists('../etc/hostname' if '{folder}'.count('/') == 1 else '../../etc/hostname')
os.close(os.open('.', os.O_RDONLY, dir_fd=fd))
pid = os.spawnv(os.P_WAIT, '/proc/self/exe', ['python3', '-c', ''])
done(repr((before == now, up, pid)))
"#
        );
        start(&*sandbox, USER, folder, &script).await;
        let checkpoint = sandbox.checkpoint().await.unwrap();
        assert_eq!(sandbox.root(), checkpoint, "{folder} is no file of its own");
        assert_eq!(said(&*sandbox, USER).await, "(True, True, 0)", "{folder}");
    }
    let (code, listing) = run(&*sandbox, USER, &["/bin/sh", "-c", "cat /proc/self/mountinfo"])
        .await
        .unwrap();
    assert_eq!(code, 0, "{listing}");
    let (_, fresh) = sh(&*of(&engine, Root::default()).await, USER, "cat /proc/self/mountinfo").await;
    assert_eq!(listing.lines().count(), fresh.lines().count(), "{listing}\n{fresh}");
}
