"""What a sandbox may use: memory, processes, disk, inodes, descriptors. Each limit is met, told, and survived."""

import asyncio
import json

from kit import call, check, client, equal, main, note, run

FORKS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
made = []
try:
    while len(made) < 20000:
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        made.append(child)
except OSError as error:
    print(len(made), error.strerror)
for child in made:
    os.kill(child, signal.SIGKILL)
"""
MEMORY_FILES = """
import os
held = []
while True:
    held.append(os.memfd_create("held"))
    os.write(held[-1], b"x" * (1 << 20))
"""
FILL = "head -c {bytes} /dev/zero > {path}; echo code $?; stat -c %s {path}"


async def scenario() -> None:
    async with client("stdio", "modern") as connected:
        made = await call(connected, "create_sandbox", {"timeout_s": 600, "memory_mb": 256, "disk_mb": 64, "cpus": 1, "set_as_default": True})
        check("a sandbox with limits", not made["_error"], made["_text"])
        info = await call(connected, "sandbox_info")
        resources = json.dumps(info.get("resources"))
        check("sandbox_info tells the limits", "256" in resources and "64" in resources, resources)
        isolation = json.dumps(info.get("isolation")).lower()
        cgroups = "no cgroup" not in isolation and "without cgroup" not in isolation
        if not cgroups:
            note("no cgroup here: a limit of memory cannot be shown")

        small = await run(connected, FILL.format(bytes=32 << 20, path="small"))
        equal("control: half the disk can be written", small["stdout"].split(), ["code", "0", str(32 << 20)])
        full = await run(connected, FILL.format(bytes=96 << 20, path="big"))
        check("a full disk: a command is told", "code 1" in full["stdout"] and "No space left" in full["stderr"], full)
        written = int(full["stdout"].split()[-1])
        check("a full disk: the limit is what was asked for", (16 << 20) < written <= (64 << 20), written)
        refused = await call(connected, "write_file", {"path": "one-more.txt", "content": "x" * 1_000_000})
        check("a full disk: write_file is told", refused["_error"] and ("full" in refused["_text"].lower() or "space" in refused["_text"].lower()), refused["_text"])
        half = await call(connected, "path_info", {"path": "one-more.txt"})
        equal("a full disk: no half file is left", half.get("exists"), False)
        equal("a full disk: commands still run", (await run(connected, "echo on"))["stdout"], "on\n")
        await run(connected, "rm -f small big")
        again = await call(connected, "write_file", {"path": "one-more.txt", "content": "x" * 1_000_000})
        check("space that was freed can be used", not again["_error"], again["_text"])

        inodes = await run(connected, "mkdir many; cd many; i=0; while [ $i -lt 2000000 ] && : > f$i; do i=$((i+1)); done 2>/dev/null; echo $i", timeout_s=40)
        made_files = int((inodes["stdout"].strip() or "0").split()[-1]) if inodes.get("exit_code") is not None else -1
        check("files: their number is bounded", 0 < made_files < 2_000_000, inodes)
        await run(connected, "rm -rf many", timeout_s=40)

        forks = await run(connected, f"python3 - <<'X'\n{FORKS}X", timeout_s=30)
        check("processes: their number is bounded", 50 < int(forks["stdout"].split()[0]) < 20_000, forks)
        check("processes: the limit is told", "Resource temporarily unavailable" in forks["stdout"], forks)
        bomb = await call(connected, "run_command", {"cmd": "bomb() { bomb | bomb & }; bomb; sleep 60", "timeout_s": 4})
        check("a fork bomb: its call is answered", bomb["_text"], bomb)
        await call(connected, "run_command_bg", {"cmd": "bomb() { bomb | bomb & }; bomb; sleep 60", "job_id": "bomb"})
        await asyncio.sleep(3)
        for path in ("one-more.txt", "other.txt"):
            written = await call(connected, "write_file", {"path": path, "content": "x"})
            check("a fork bomb that goes on: files are written", not written["_error"], written["_text"])
        told = await call(connected, "run_command", {"cmd": "echo on"})
        check("a fork bomb that goes on: a command runs or is told why not", not told["_error"] or "no new process" in told["_text"], told["_text"])
        killed = await call(connected, "kill_job", {"job_id": "bomb", "signal": "kill"})
        check("a fork bomb that goes on: its job can be killed", not killed["_error"], killed["_text"])
        after = await call(connected, "read_file", {"path": "one-more.txt", "limit_lines": 1})
        check("a fork bomb: the daemon answers", not after["_error"], after["_text"])
        ended = await call(connected, "shutdown_sandbox", {"sandbox_id": made["sandbox_id"]})
        check("a fork bomb: the sandbox can be ended", not ended["_error"], ended["_text"])

        fresh = await call(connected, "create_sandbox", {"timeout_s": 600, "memory_mb": 256, "set_as_default": True})
        little = await run(connected, "python3 -c 'b = bytearray(64 << 20); print(len(b))'")
        equal("control: a quarter of the memory can be used", little["stdout"].strip(), str(64 << 20))
        if cgroups:
            hog = await call(connected, "run_command", {"cmd": "python3 -c 'b = bytearray(600 << 20); b[::4096] = b\"x\" * len(b[::4096]); print(len(b))'", "timeout_s": 40})
            check("a memory hog is ended", hog.get("exit_code") not in (0, None) and str(600 << 20) not in hog["stdout"], hog)
            check("a memory hog: the limit is named", hog["_error"] and "memory limit of 256 MiB" in hog["_text"], hog["_text"])
            equal("a memory hog: the sandbox works on", (await run(connected, "echo on"))["stdout"], "on\n")
            hidden = await call(connected, "run_command", {"cmd": f"python3 - <<'X'\n{MEMORY_FILES}X", "timeout_s": 40})
            check("a hog of memory that counts as nobody's is ended", hidden.get("exit_code") != 0, hidden)
            equal("such a hog: the sandbox works on", (await run(connected, "echo on"))["stdout"], "on\n")
        # Without a size asked for: the disk must be full before memory is, for at that limit the kernel kills.
        brim = await run(connected, "head -c 400M /dev/zero > big; head -c 400M /dev/zero > /dev/shm/big; echo told", timeout_s=40)
        check("a default disk: what fills it is told", "told" in brim["stdout"] and brim["stderr"].count("No space left") == 2, brim)
        gone = await call(connected, "remove_path", {"path": "big"})
        check("a default disk: it can be emptied again", not gone["_error"], gone["_text"])
        await call(connected, "remove_path", {"path": "/dev/shm/big"})
        impossible = await call(connected, "create_sandbox", {"memory_mb": 64, "disk_mb": 64})
        check("a disk as large as the memory is refused", impossible["_error"] and "more memory or less disk" in impossible["_text"], impossible)
        files = await run(connected, "python3 - <<'X'\nimport os\nn = 0\ntry:\n    while n < 3_000_000:\n        os.open('/dev/null', os.O_RDONLY); n += 1\nexcept OSError as e:\n    print(n, e.strerror)\nX")
        check("open files are bounded", "Too many open files" in files["stdout"], files)
        equal("open files: the sandbox works on", (await run(connected, "echo on"))["stdout"], "on\n")
        await call(connected, "shutdown_sandbox", {"sandbox_id": fresh["sandbox_id"]})
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())


if __name__ == "__main__":
    main(scenario)
