"""Tries what a sandbox must not be able to do and prints what came of it, as JSON.

Runs inside a sandbox and, as the control that shows that the attempt itself is sound, on the host. Standard library
only. usage: probe.py JSON, the arguments being {"files": [..], "tcp": [[host, port]..], "unix": [..]}
"""

import ctypes
import errno
import json
import os
import platform
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
# name: (number on x86-64, number on arm64, arguments). The arguments are wrong on purpose where success would do harm:
# what matters is whether the kernel looks at them at all.
CALLS = {
    "bpf": (321, 280, (99, 0, 0)),
    "io_uring_setup": (425, 425, (1, 0)),
    "keyctl": (250, 219, (0, -3, 0)),
    "add_key": (248, 217, (0, 0, 0, 0, -3)),
    "userfaultfd": (323, 282, (0,)),
    "perf_event_open": (298, 241, (0, 0, -1, -1, 0)),
    "process_vm_readv": (310, 270, (os.getpid(), 0, 0, 0, 0, 0)),
    "kcmp": (312, 272, (os.getpid(), os.getpid(), 0, 0, 0)),
    "mount": (165, 40, (0, 0, 0, 0, 0)),
    "umount2": (166, 39, (0, 0)),
    "pivot_root": (155, 41, (0, 0)),
    "setns": (308, 268, (-1, 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "fsopen": (430, 430, (0, 0)),
    "open_tree": (428, 428, (-1, 0, 0)),
    "move_mount": (429, 429, (-1, 0, -1, 0, 0)),
    "mount_setattr": (442, 442, (-1, 0, 0, 0, 0)),
    "kexec_load": (246, 104, (0, 0, 0, 0)),
    "init_module": (175, 105, (0, 0, 0)),
    "finit_module": (313, 273, (-1, 0, 0)),
    "swapon": (167, 224, (0, 0)),
    "settimeofday": (164, 170, (0, 0)),
    "acct": (163, 89, (-1,)),
    "quotactl": (179, 60, (-1, 0, 0, 0)),
    "pidfd_getfd": (438, 438, (-1, 0, 0)),
}


def called(number: int, arguments: tuple) -> str:
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    code = ctypes.get_errno() if result == -1 else 0
    return errno.errorcode.get(code, str(code)) if code else "done"


def attempt(what) -> str:
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return "done"


def in_child(what) -> str:
    """For what changes the process that does it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, attempt(what).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    text = os.read(reading, 100).decode()
    os.close(reading)
    return text


def unshared(flags: int):
    def what():
        if libc.unshare(flags):
            raise OSError(ctypes.get_errno(), "unshare")

    return what


def connected(family: int, address):
    def what():
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.settimeout(2)
            one.connect(address)

    return what


def opened(path: str, flags: int):
    def what():
        os.close(os.open(path, flags | os.O_NONBLOCK))

    return what


def first_byte(path: str):
    def what():
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            # A file that is masked by an empty one can be opened.
            if not os.read(handle, 1):
                raise OSError(errno.ENODATA, path)
        finally:
            os.close(handle)

    return what


def removed(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def traced() -> None:
    if libc.ptrace(0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "ptrace")


def main() -> None:
    asked = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    found = {}
    for name, (x86, arm, arguments) in CALLS.items():
        found[f"call {name}"] = called(arm if ARM else x86, arguments)
    found["call ptrace"] = in_child(traced)
    for name, flag in (("user", 0x10000000), ("net", 0x40000000), ("mount", 0x00020000), ("pid", 0x20000000)):
        found[f"unshare {name}"] = in_child(unshared(flag))
    for name, family, kind in (
        ("AF_VSOCK", 40, socket.SOCK_STREAM), ("AF_ALG", 38, socket.SOCK_SEQPACKET), ("AF_PACKET", 17, socket.SOCK_RAW),
        ("AF_KEY", 15, socket.SOCK_RAW), ("AF_RXRPC", 33, socket.SOCK_DGRAM), ("AF_TIPC", 30, socket.SOCK_STREAM),
        ("AF_INET", 2, socket.SOCK_STREAM), ("AF_UNIX", 1, socket.SOCK_STREAM),
    ):  # fmt: skip
        found[f"socket {name}"] = attempt(lambda family=family, kind=kind: socket.socket(family, kind).close())
    for path in asked.get("files", []):
        found[f"read {path}"] = attempt(first_byte(path))
    for host, port in asked.get("tcp", []):
        found[f"tcp {host}:{port}"] = attempt(connected(socket.AF_INET, (host, port)))
    for name in asked.get("unix", []):
        found[f"unix {name}"] = attempt(connected(socket.AF_UNIX, name if "/" in name else "\0" + name))
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe"):
        found[f"write {path}"] = attempt(opened(path, os.O_WRONLY))
    for path in ("/proc/kcore", "/proc/kallsyms", "/proc/keys", "/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/kvm", "/dev/fuse"):
        found[f"read {path}"] = attempt(first_byte(path))
    for name in ("environ", "mem", "maps", "root/etc", "fd"):
        kind = os.O_DIRECTORY if name in ("fd", "root/etc") else 0
        found[f"init {name}"] = attempt(lambda name=name, kind=kind: look(f"/proc/1/{name}", kind))
        found[f"own {name}"] = attempt(lambda name=name, kind=kind: look(f"/proc/self/{name}", kind))
    found["write /usr"] = attempt(opened("/usr/.sandhold-probe", os.O_WRONLY | os.O_CREAT))
    found["write home"] = attempt(opened(os.path.expanduser("~/.probe"), os.O_WRONLY | os.O_CREAT))
    found["mknod"] = attempt(lambda: os.mknod("/tmp/.probe-device", 0o020666, os.makedev(1, 3)))
    for path in ("/usr/.sandhold-probe", os.path.expanduser("~/.probe"), "/tmp/.probe-device"):
        removed(path)
    found["chroot"] = in_child(lambda: os.chroot("/tmp"))
    found["reach init"] = attempt(lambda: os.kill(1, 0))
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    found["status"] = {key: status.get(key, "").strip() for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups")}
    found["descriptors"] = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
    found["processes"] = sum(name.isdigit() for name in os.listdir("/proc"))
    found["interfaces"] = [line.split(":")[0].strip() for line in open("/proc/net/dev").read().splitlines()[2:]]
    found["mounts"] = [line.split()[1:4] for line in open("/proc/self/mounts").read().splitlines()]
    found["root"] = sorted(os.listdir("/"))
    found["environment"] = dict(os.environ)
    found["users"] = [line.split(":")[0] for line in open("/etc/passwd")]
    found["hostname"] = socket.gethostname()
    found["uid"] = os.getuid()
    print(json.dumps(found))


def look(path: str, kind: int) -> None:
    handle = os.open(path, os.O_RDONLY | kind)
    try:
        if kind:
            os.listdir(handle)
        elif not path.endswith("/mem"):
            os.read(handle, 64)
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
