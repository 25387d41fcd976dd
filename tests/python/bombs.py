"""Programs that take all they can get. Each ends in an answer that says why, while another sandbox and the server go on,
and the sandbox that it ran in can be used afterwards.

All of them end by themselves, or with their sandbox."""

import asyncio
import contextlib
import json
from pathlib import Path

from kit import alive_with, call, check, client, equal, main, mark, note, until

MEMORY_MB, DISK_MB = 192, 48
LIMITS = "pids=96,inodes=6000,open_files=512,output_bytes_per_s=2097152,jobs=6,log_bytes=65536"

THREADS = """
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
"""
ANONYMOUS = """
held = []
while True:
    held.append(bytearray(b'x') * (4 << 20))
"""
MEMORY_FILES = """
import os
held = []
while True:
    held.append(os.memfd_create('held'))
    os.write(held[-1], b'x' * (1 << 20))
"""
SHARED = """
import mmap
held = []
while True:
    held.append(mmap.mmap(-1, 4 << 20))
    held[-1][:] = b'x' * (4 << 20)
"""
SYSTEM_V = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
made = 0
while made < 400:
    id = libc.shmget(0, 4 << 20, 0o1600)
    if id < 0:
        break
    at = libc.shmat(id, None, 0)
    libc.shmctl(id, 0, None)
    if at in (None, ctypes.c_void_p(-1).value):
        break
    ctypes.memset(at, 1, 4 << 20)
    made += 1
raise SystemExit(f'{made} segments: {os.strerror(ctypes.get_errno())}')
"""
PIPES = """
import fcntl, os
held = []
while True:
    read, write = os.pipe()
    held.append((read, write))
    os.set_blocking(write, False)
    try:
        fcntl.fcntl(write, 1031, 1 << 20)
    except OSError:
        pass
    try:
        while os.write(write, b'x' * 65536):
            pass
    except BlockingIOError:
        pass
"""
SOCKETS = """
import socket
held = []
while True:
    pair = socket.socketpair()
    held.append(pair)
    pair[0].setblocking(False)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
    try:
        while pair[0].send(b'x' * 65536):
            pass
    except BlockingIOError:
        pass
"""
ENTRIES = """
import os
os.mkdir('entries')
number = 0
while True:
    os.mkdir(f'entries/{number}')
    number += 1
"""
NAMES = """
import os
for number in range(300_000):
    os.path.exists(f'/tmp/no-such-name-{number:0>200}')
print('looked')
"""
SPARSE = """
import mmap, os
file = os.open('sparse', os.O_RDWR | os.O_CREAT)
os.truncate(file, 8 << 30)
view = mmap.mmap(file, 8 << 30)
for at in range(0, 8 << 30, 4096):
    view[at] = 1
"""
DESCRIPTORS = """
import os
held = []
while True:
    held.append(os.open('/dev/null', os.O_RDONLY))
"""
WATCHES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
made = 0
while made < 3000:
    instance = libc.inotify_init1(0)
    if instance < 0:
        break
    for number in range(200):
        libc.inotify_add_watch(instance, b'/usr/bin' if number else b'/', 1 << (number % 12))
    made += 1
raise SystemExit(f'{made} instances of inotify: {os.strerror(ctypes.get_errno())}')
"""
# A process that waits for its child as vfork makes it wait: no signal but SIGKILL reaches it.
UNINTERRUPTIBLE = """
import ctypes, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('waiting', flush=True)
CLONE_VFORK = 0x4000
child = ctypes.CDLL(None, use_errno=True).syscall(56, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    time.sleep(30)
    os._exit(0)
"""
SPIN = "for i in 1 2 3 4; do (while :; do :; done) & done; wait"
FORKS = "bomb() { bomb | bomb & }; bomb; sleep 30"


def python(program: str) -> str:
    return f"cat > /tmp/bomb.py <<'X'\n{program}X\npython3 /tmp/bomb.py"


# Name, command, its deadline, the limits of which one must be named, whether only a cgroup bounds it.
BOMBS = [
    ("threads", python(THREADS), 20, {"pids"}, False),
    ("anonymous memory", python(ANONYMOUS), 20, {"memory_mb"}, True),
    ("memory in files of nobody", python(MEMORY_FILES), 20, {"memory_mb", "open_files"}, True),
    ("memory that is shared", python(SHARED), 20, {"memory_mb"}, True),
    ("memory of System V", python(SYSTEM_V), 20, None, True),
    ("/dev/shm", "head -c 300M /dev/zero > /dev/shm/big", 20, {"memory_mb"}, False),
    ("pipes", python(PIPES), 20, {"open_files", "memory_mb"}, False),
    ("sockets", python(SOCKETS), 20, {"open_files", "memory_mb"}, False),
    ("files and folders", python(ENTRIES), 20, {"inodes"}, False),
    ("names that are not there", python(NAMES), 20, None, False),
    ("the disk", "head -c 300M /dev/zero > big", 20, {"disk_mb"}, False),
    ("a sparse file", python(SPARSE), 20, {"disk_mb", "memory_mb"}, True),
    ("descriptors", python(DESCRIPTORS), 20, {"open_files"}, False),
    ("watches", python(WATCHES), 20, None, False),
    ("output", "yes", 4, {"output_bytes_per_s"}, False),
    ("output of a job that nobody reads", "(yes >&2 &) ; yes > /dev/null & sleep 2; kill -9 $(jobs -p); pkill yes; exit 3", 8, None, False),
    ("processors", SPIN, 4, None, False),
    ("processes", FORKS, 4, {"pids"}, False),
]  # fmt: skip


def resident(pid: int) -> int:
    """Memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS"))


def server_pid() -> int:
    """The server of this scenario: its only child."""
    children = Path("/proc/self/task").glob("*/children")
    return next(int(pid) for file in children for pid in file.read_text().split() if "sandhold" in Path(f"/proc/{pid}/cmdline").read_text())


class Neighbour:
    """Another sandbox, used all the time: nothing that happens beside it may be seen in its answers."""

    def __init__(self, connected, sandbox: str):
        self.connected, self.sandbox = connected, sandbox
        self.answered, self.wrong = 0, []

    async def once(self) -> None:
        said = await call(self.connected, "run_command", {"sandbox_id": self.sandbox, "cmd": "echo fine", "timeout_s": 20})
        read = await call(self.connected, "read_file", {"sandbox_id": self.sandbox, "path": "kept.txt"})
        listed = await call(self.connected, "list_sandboxes")
        if said.get("stdout") != "fine\n" or read["_error"] or "kept" not in read["_text"] or listed["_error"]:
            self.wrong.append((said["_text"], read["_text"], listed["_text"][:200]))
        self.answered += 1

    @contextlib.asynccontextmanager
    async def beside(self, name: str):
        self.answered, self.wrong = 0, []
        over = asyncio.Event()

        async def use():
            while not over.is_set() or not self.answered:
                await self.once()

        using = asyncio.create_task(use())
        try:
            yield
        finally:
            over.set()
            await using
        check(f"{name}: another sandbox and the server go on", self.answered and not self.wrong, self.wrong[:2])


async def usable(connected, name: str, sandbox: str) -> None:
    """A sandbox is itself again once what ran in it was ended."""
    for _ in range(40):
        said = await call(connected, "run_command", {"sandbox_id": sandbox, "cmd": "rm -rf big entries sparse /dev/shm/big; echo on", "timeout_s": 20})
        if said.get("stdout") == "on\n":
            break
        await asyncio.sleep(0.25)
    check(f"{name}: the sandbox can be used again", said.get("stdout") == "on\n", said["_text"])


async def scenario() -> None:
    async with client("stdio", "modern") as connected:
        asked = {"timeout_s": 900, "memory_mb": MEMORY_MB, "disk_mb": DISK_MB, "limits": LIMITS}
        made = await call(connected, "create_sandbox", asked)
        check("a sandbox with limits", not made["_error"], made["_text"])
        bombed = made["sandbox_id"]
        other = (await call(connected, "create_sandbox", {"timeout_s": 900}))["sandbox_id"]
        await call(connected, "write_file", {"sandbox_id": other, "path": "kept.txt", "content": "kept"})
        info = await call(connected, "sandbox_info", {"sandbox_id": bombed})
        wanted = {"memory_mb": MEMORY_MB, "disk_mb": DISK_MB, **{name: int(value) for name, value in (pair.split("=") for pair in LIMITS.split(","))}}
        have = info.get("resources") or {}
        equal("sandbox_info tells every limit", {name: have.get(name) for name in wanted}, wanted)
        check("sandbox_info tells them to a reader", all(f"{name} {wanted[name]}" in info["_text"] for name in ("pids", "open_files", "log_bytes")), info["_text"])
        held = json.dumps(info.get("isolation")).lower()
        cgroups = "no cgroup" not in held
        if not cgroups:
            note("no cgroup here: bombs of memory are not thrown, for nothing would bound them")

        for arguments, name in (({"limits": "pids=1"}, "pids is 1; 8 to"), ({"limits": "jobs=99999"}, "jobs is 99999; 1 to 4096"), ({"limits": "files=3"}, "open_files"), ({"memory_mb": 17, "limits": "open_files=1.5"}, "whole number")):  # fmt: skip
            refused = await call(connected, "create_sandbox", arguments)
            check(f"what is not allowed is refused by name: {arguments}", refused["_error"] and name in refused["_text"], refused["_text"])

        fine = await call(connected, "run_command", {"sandbox_id": bombed, "cmd": "ls /nowhere"})
        check("control: a command that fails without a limit names none", not fine["_error"] and fine.get("exit_code") == 2, fine["_text"])
        neighbour = Neighbour(connected, other)
        before = resident(server_pid())
        for name, command, deadline, named, needs_cgroup in BOMBS:
            if needs_cgroup and not cgroups:
                continue
            async with neighbour.beside(name):
                answer = await call(connected, "run_command", {"sandbox_id": bombed, "cmd": command, "timeout_s": deadline})
            check(f"{name}: it is answered", "exit_code" in answer or answer["_error"], answer["_text"])
            if named:
                error = answer.get("error") or {}
                limit = error.get("limit") or {}
                check(f"{name}: the limit is named", answer["_error"] and limit.get("name") in named, answer["_text"][:500])
                equal(f"{name}: with its value", limit.get("value"), wanted.get(limit.get("name")))
                check(f"{name}: and what to do", error.get("hint"), error)
            await usable(connected, name, bombed)
        after = resident(server_pid())
        check("the server has not grown by what was thrown at it", after < before + 256, f"{before} MiB, then {after} MiB")

        # A job tells its limit, too, and so does what is read of it later.
        if cgroups:
            await call(connected, "run_command_bg", {"sandbox_id": bombed, "cmd": python(ANONYMOUS), "job_id": "hog"})
            told = await call(connected, "get_job_status", {"job_id": "hog", "wait_s": 30})
            equal("a job: the limit is named", (told.get("limit") or {}).get("name"), "memory_mb")
            check("a job: the reader is told", f"{MEMORY_MB} MiB" in told["_text"], told["_text"])
            metrics = await call(connected, "sandbox_metrics", {"sandbox_id": bombed})
            check("sandbox_metrics tells of processors that were used up, where that is counted", metrics.get("throttled_ms", 0) >= 0, metrics["_text"])

        for number in range(6):
            await call(connected, "run_command_bg", {"sandbox_id": bombed, "cmd": "sleep 60", "job_id": f"many{number}"})
        full = await call(connected, "run_command", {"sandbox_id": bombed, "cmd": "true"})
        check("jobs: one too many is refused with the limit's name", full["_error"] and "its limit jobs" in full["_text"], full["_text"])
        for number in range(6):
            await call(connected, "kill_job", {"job_id": f"many{number}", "signal": "kill"})
        await usable(connected, "jobs", bombed)

        # What a command leaves behind, and what does not want to end.
        left = mark(1)
        async with neighbour.beside("a process that holds the output"):
            answer = await call(connected, "run_command", {"sandbox_id": bombed, "cmd": f"(setsid sh -c 'trap \"\" TERM HUP; sleep {left}' &); echo started", "timeout_s": 20})
        check("a process that holds the output of one that ended: the call is answered", answer.get("stdout") == "started\n", answer["_text"])
        stubborn = mark(2)
        async with neighbour.beside("a process that ignores signals"):
            answer = await call(connected, "run_command", {"sandbox_id": bombed, "cmd": f"trap '' TERM INT HUP; sleep {stubborn} & while :; do wait; done", "timeout_s": 2})
        check("a process that ignores signals: its deadline ends it", answer["_error"] and "deadline" in answer["_text"], answer["_text"])
        check("a process that ignores signals: none of it is left", until(lambda: not alive_with(stubborn), 10), alive_with(stubborn))
        async with neighbour.beside("a process that no signal reaches"):
            answer = await call(connected, "run_command", {"sandbox_id": bombed, "cmd": python(UNINTERRUPTIBLE), "timeout_s": 2})
        check("a process that no signal reaches: its deadline ends it", answer["_error"] and "deadline" in answer["_text"] and answer.get("stdout") == "waiting\n", answer["_text"])
        await usable(connected, "a process that no signal reaches", bombed)

        ended = await call(connected, "shutdown_sandbox", {"sandbox_id": bombed})
        check("the sandbox can be ended", not ended["_error"], ended["_text"])
        check("nothing of it is left", until(lambda: not alive_with(left), 10), alive_with(left))
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())

    # What the operator says holds for everybody.
    async with client("stdio", "modern", "--limits", "pids=64,memory_mb=256", "--max-limits", "memory_mb=512,open_files=256,cpus=1") as connected:
        info = await call(connected, "sandbox_info")
        have = info.get("resources") or {}
        got = {name: have.get(name) for name in ("pids", "memory_mb", "disk_mb", "open_files", "cpus")}
        equal("the operator's defaults", got, {"pids": 64, "memory_mb": 256, "disk_mb": 160, "open_files": 256, "cpus": 1.0})
        bound = await call(connected, "run_command", {"cmd": "ulimit -n"})
        equal("they hold inside", bound.get("stdout"), "256\n")
        for arguments, text in (({"memory_mb": 513}, "memory_mb is 513; 16 to 512"), ({"cpus": 1.5}, "cpus is 1.5; 0.01 to 1 "), ({"limits": "open_files=257"}, "open_files is 257; 64 to 256")):  # fmt: skip
            refused = await call(connected, "create_sandbox", arguments)
            check(f"more than the operator allows is refused: {arguments}", refused["_error"] and text in refused["_text"], refused["_text"])
        allowed = await call(connected, "create_sandbox", {"memory_mb": 512, "limits": "open_files=100"})
        check("control: what the operator allows is given", not allowed["_error"], allowed["_text"])


if __name__ == "__main__":
    main(scenario)
