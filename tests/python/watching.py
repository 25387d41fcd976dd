"""The tools of the toolsets watch and processes: what changes in folders, and all that runs in a sandbox.

usage: watching.py
"""

import asyncio
import re
import time

from kit import call, check, client, equal, main, mark, note, run

SECONDS = 15
HOME = "/home/user"


async def good(connected, tool: str, **arguments) -> dict:
    answer = await call(connected, tool, arguments)
    if answer["_error"]:
        raise AssertionError(f"{tool} {arguments}: {answer['_text']}")
    return answer


async def bad(connected, tool: str, arguments: dict, code: str, *words: str) -> None:
    answer = await call(connected, tool, arguments)
    check(f"{tool} {arguments} is refused", answer["_error"] and not answer.get("_protocol"), answer["_text"])
    equal(f"{tool} {arguments}: the code", (answer.get("error") or {}).get("code"), code)
    for word in words:
        check(f"{tool} {arguments}: it says {word!r}", word in answer["_text"], answer["_text"])


async def seen(connected, watch: str, *wanted: tuple[str, str]) -> list[tuple[str, str]]:
    """Fetches until all of `wanted` came; returns all that came."""
    found: list[tuple[str, str]] = []
    end = time.monotonic() + SECONDS
    while not set(wanted) <= set(found) and time.monotonic() < end:
        answer = await good(connected, "get_watch_events", watch_id=watch, wait_ms=2000)
        found += [(event["event"], event["path"]) for event in answer["events"]]
    return found


async def watches(connected) -> None:
    await run(connected, "mkdir -p w/sub; echo old > w/old.txt; ln -s w link")
    watch = await good(connected, "watch_dir", path="w")
    equal("watch_dir: the absolute path", watch.get("path"), f"{HOME}/w")
    watch = watch["watch_id"]
    nothing = await good(connected, "get_watch_events", watch_id=watch)
    equal("no change yet", (nothing["events"], nothing["more"], nothing["lost"]), ([], False, 0))
    check("no change yet: in words", "nothing changed" in nothing["_text"], nothing["_text"])
    # The events of E2B's documentation of its SDKs: create, write, chmod, rename (the old name), create (the new one), remove.
    for cmd, wanted in (
        ("echo 1 > w/new.txt", [("create", "new.txt"), ("write", "new.txt")]),
        ("chmod 600 w/new.txt", [("chmod", "new.txt")]),
        ("mv w/new.txt w/other.txt", [("rename", "new.txt"), ("create", "other.txt")]),
        ("rm w/other.txt", [("remove", "other.txt")]),
    ):
        await run(connected, cmd)
        wanted = [(event, f"{HOME}/w/{name}") for event, name in wanted]
        found = await seen(connected, watch, *wanted)
        check(f"{cmd}: {[event for event, _ in wanted]}", set(wanted) <= set(found), found)
    await good(connected, "write_file", path="w/written.txt", content="x")
    found = await seen(connected, watch, ("create", f"{HOME}/w/written.txt"))
    check("write_file is seen", any(path == f"{HOME}/w/written.txt" for _, path in found), found)
    await run(connected, "echo 1 > w/sub/deep.txt; echo 2 > w/last.txt")
    found = await seen(connected, watch, ("write", f"{HOME}/w/last.txt"))
    check("without recursive: nothing that is deeper", not any("deep.txt" in path for _, path in found), found)

    # Who waits is told at once, not at the end of the wait.
    waiting = asyncio.create_task(call(connected, "get_watch_events", {"watch_id": watch, "wait_ms": 40_000}))
    await asyncio.sleep(0.3)
    check("a wait lasts while nothing happens", not waiting.done())
    began = time.monotonic()
    await run(connected, "echo 3 > w/awaited.txt")
    answer = await waiting
    check("a wait ends with the change", time.monotonic() - began < 20 and "awaited.txt" in answer["_text"], answer["_text"])
    await seen(connected, watch, ("write", f"{HOME}/w/awaited.txt"))
    for _ in range(2):
        await good(connected, "get_watch_events", watch_id=watch, wait_ms=100)
    await run(connected, "for i in $(seq 200); do echo $i; done >> w/last.txt")
    found = await seen(connected, watch, ("write", f"{HOME}/w/last.txt"))
    equal("many writes to one file are one", found, [("write", f"{HOME}/w/last.txt")])

    deep = (await good(connected, "watch_dir", path="/home/user/w", recursive=True))["watch_id"]
    await run(connected, "echo 1 > w/sub/deep.txt; mkdir -p w/a/b")
    wanted = [("write", f"{HOME}/w/sub/deep.txt"), ("create", f"{HOME}/w/a/b")]
    found = await seen(connected, deep, *wanted)
    check("recursive: folders below, new ones too", set(wanted) <= set(found), found)
    linked = (await good(connected, "watch_dir", path="link"))["watch_id"]
    await run(connected, "touch w/by-link")
    found = await seen(connected, linked, ("create", f"{HOME}/link/by-link"))
    check("a link to a folder", ("create", f"{HOME}/link/by-link") in found, found)

    # More than is kept: the first part is there, the loss is told at its end.
    await run(connected, "mkdir many")
    many = (await good(connected, "watch_dir", path="many"))["watch_id"]
    await run(connected, "cd many; for i in $(seq 12000); do : > f$i; done", timeout_s=120)
    events, lost, calls = [], 0, 0
    end = time.monotonic() + SECONDS
    while not lost and time.monotonic() < end:
        answer = await good(connected, "get_watch_events", watch_id=many, wait_ms=500)
        events += answer["events"]
        lost = answer["lost"]
        calls += 1
        if answer.get("note"):
            lost = lost or 1
    check("too many changes: what was kept comes in pieces", len(events) >= 1000 and calls > 5, (len(events), calls))
    check("too many changes: the loss is told", lost > 0, (len(events), lost))

    others = await good(connected, "unwatch_dir", watch_id=watch)
    equal("unwatch_dir", others.get("path"), f"{HOME}/w")
    await bad(connected, "get_watch_events", {"watch_id": watch}, "watch_not_found", watch, "watch_dir")
    await bad(connected, "unwatch_dir", {"watch_id": watch}, "watch_not_found")
    await bad(connected, "watch_dir", {"path": "w/nowhere"}, "not_found", "nowhere", "list_dir")
    await bad(connected, "watch_dir", {"path": "w/old.txt"}, "invalid_argument", "old.txt", "no folder")
    await bad(connected, "watch_dir", {}, "invalid_argument", "path")
    await bad(connected, "get_watch_events", {"watch_id": deep, "wait_ms": 99_999}, "invalid_argument", "40000")
    mounts = (await run(connected, "cat /proc/mounts"))["stdout"]
    network = [line.split()[1] for line in mounts.splitlines() if re.match(r"\S+ \S+ (nfs\d?|cifs|smb3|fuse\S*) ", line)]
    if network:
        await bad(connected, "watch_dir", {"path": network[0]}, "invalid_argument", "network", "list_dir")
    else:
        note("no sandbox here has a network mount that a watch could refuse")

    # The folder itself goes.
    await run(connected, "mkdir gone")
    gone = (await good(connected, "watch_dir", path="gone"))["watch_id"]
    await run(connected, "rm -r gone")
    end = time.monotonic() + SECONDS + 15
    while True:
        answer = await call(connected, "get_watch_events", {"watch_id": gone, "wait_ms": 3000})
        if answer["_error"] or any(e["event"] == "remove" for e in answer["events"]) or time.monotonic() > end:
            break
    check("a folder that is removed: it is told", answer["_error"] or answer["events"], answer["_text"])

    for _ in range(32 - 4):
        await good(connected, "watch_dir", path="w")
    await bad(connected, "watch_dir", {"path": "w"}, "too_many_watches", "32", "unwatch_dir")


async def processes(connected) -> None:
    # A process that no client of the daemon started: the child of a shell that has gone.
    slept = mark(31)
    await run(connected, f"(setsid sleep {slept} > /dev/null 2>&1 &) ; exit 0")
    spin = await good(connected, "run_command_bg", cmd="exec -a spinner bash -c 'while :; do :; done' 'two  words'")
    await asyncio.sleep(0.5)
    listed = await good(connected, "list_processes")
    rows = listed["processes"]
    by_pid = {row["pid"]: row for row in rows}
    check("list_processes: process 1", 1 in by_pid, listed["_text"][:500])
    sleeper = [row for row in rows if row["command"] == f"sleep {slept}"]
    check("list_processes: one that no client started", len(sleeper) == 1, listed["_text"][:2000])
    sleeper = sleeper[0]
    equal("list_processes: its user", sleeper["user"], "user")
    inside = (await run(connected, f"awk '/^PPid/{{print $2}} /^VmRSS/{{print $2*1024}}' /proc/{sleeper['pid']}/status"))["stdout"].split()
    equal("list_processes: its parent and memory are the kernel's", [str(sleeper["ppid"]), str(sleeper["memory"])], inside)
    started = time.strptime(sleeper["started"], "%Y-%m-%dT%H:%M:%SZ")
    check("list_processes: when it was started", abs(time.mktime(started) - time.timezone - time.time()) < 600, sleeper)
    spinner = by_pid.get(spin["pid"], {})
    check("list_processes: a busy one comes first, with its share", spinner.get("cpu", 0) > 0 and rows[0]["cpu"] >= spinner["cpu"], (spinner, rows[0]))
    check("list_processes: its command line", spinner.get("command", "").startswith("spinner -c while :; do :; done two  words"), spinner)
    equal("list_processes: sorted by share", [row["cpu"] for row in rows], sorted((row["cpu"] for row in rows), reverse=True))
    check("list_processes: not truncated", listed["truncated"] is False, listed["truncated"])
    own = [row["command"] for row in rows if "VmRSS" in row["command"]]
    equal("list_processes: its own work is not listed", own, [])

    await good(connected, "kill", pid=spin["pid"], signal="stop")
    # A signal reaches a process on another processor a little later.
    state = await run(connected, f"for i in $(seq 100); do awk '/^State/{{print $2}}' /proc/{spin['pid']}/status | grep T && break; sleep 0.1; done; true")
    equal("kill: stop", state["stdout"], "T\n")
    await good(connected, "kill", pid=spin["pid"], signal="cont")
    ended = await good(connected, "kill", pid=spin["pid"])
    equal("kill: term is the default", ended.get("ended"), True)
    ended = await good(connected, "kill", pid=sleeper["pid"], signal="hup")
    equal("kill: one that no client started", (ended.get("ended"), ended.get("pid")), (True, sleeper["pid"]))
    deaf = await good(connected, "run_command_bg", cmd="trap '' TERM INT HUP; echo deaf; while :; do sleep 0.1; done")
    await good(connected, "get_job_status", job_id=deaf["job_id"], wait_s=1)
    still = await good(connected, "kill", pid=deaf["pid"])
    check("kill: one that is deaf to it still runs, and that is said", still.get("ended") is False and "signal kill" in still["_text"], still["_text"])
    ended = await good(connected, "kill", pid=deaf["pid"], signal="kill")
    equal("kill: kill", ended.get("ended"), True)
    await bad(connected, "kill", {"pid": deaf["pid"]}, "not_found", str(deaf["pid"]), "list_processes")
    await bad(connected, "kill", {"pid": 1}, "invalid_argument", "process 1", "shutdown_sandbox")
    await bad(connected, "kill", {"pid": 0}, "invalid_argument")
    await bad(connected, "kill", {"pid": 4_000_000_000}, "not_found")
    await bad(connected, "kill", {"pid": 2, "signal": "nine"}, "invalid_argument", "signal")
    await bad(connected, "kill", {}, "invalid_argument", "pid")
    root = await call(connected, "run_command_bg", {"cmd": "sleep 1000", "user": "root"})
    if root["_error"]:
        note("kill was not tried on a process of root's: this user has one id to give")
    else:
        rows = (await good(connected, "list_processes"))["processes"]
        equal("list_processes: root's", [row["user"] for row in rows if row["pid"] == root["pid"]], ["root"])
        ended = await good(connected, "kill", pid=root["pid"])
        equal("kill: a process of root's", ended.get("ended"), True)
    alive = await run(connected, "echo alive")
    equal("the sandbox lives on", alive["stdout"], "alive\n")

    # A crowd: the answer is bounded and says so.
    await run(connected, "for i in $(seq 180); do sleep 300 & done; exit 0")
    crowd = await good(connected, "list_processes")
    check("a crowd: bounded", len(crowd["_text"]) < 40_000, len(crowd["_text"]))
    sleeps = [row for row in crowd["processes"] if row["command"] == "sleep 300"]
    check("a crowd: it is there, or cut with notice", len(sleeps) == 180 or crowd["truncated"], (len(sleeps), crowd["truncated"]))
    await run(connected, "pkill -f '^sleep 300$'; true")


async def metrics(connected) -> None:
    await good(connected, "sandbox_metrics")
    job = await good(connected, "run_command_bg", cmd="while :; do :; done")
    end = time.monotonic() + 40
    while True:
        answer = await good(connected, "sandbox_metrics", since_s=60)
        samples = answer["samples"]
        if (len(samples) >= 2 and samples[-1]["cpu"] > 1) or time.monotonic() > end:
            break
        await asyncio.sleep(2)
    await good(connected, "kill_job", job_id=job["job_id"])
    check("sandbox_metrics: samples over time", len(samples) >= 2 and [s["at"] for s in samples] == sorted(s["at"] for s in samples), answer["_text"])
    check("sandbox_metrics: a busy sandbox is seen", samples[-1]["cpu"] > 1, answer["_text"])
    check("sandbox_metrics: limits and use", answer["cpus"] > 0 and answer["memory_limit"] > 0 and samples[-1]["memory"] > 0, answer["_text"])
    await bad(connected, "sandbox_metrics", {"since_s": 0}, "invalid_argument", "since_s")
    await bad(connected, "sandbox_metrics", {"since_s": 1 << 40}, "invalid_argument", "86400")


async def ends(connected) -> None:
    """Watches of a sandbox that ends, end and say so."""
    other = await good(connected, "create_sandbox", set_as_default=False)
    watch = (await good(connected, "watch_dir", path="/tmp", sandbox_id=other["sandbox_id"]))["watch_id"]
    await good(connected, "shutdown_sandbox", sandbox_id=other["sandbox_id"])
    end = time.monotonic() + SECONDS
    while True:
        answer = await call(connected, "get_watch_events", {"watch_id": watch, "wait_ms": 2000})
        if answer["_error"] or time.monotonic() > end:
            break
    equal("a sandbox that ended: so has its watch", (answer.get("error") or {}).get("code"), "watch_ended")
    check("a sandbox that ended: that is said", "ended" in answer["_text"].partition("has ended")[2], answer["_text"])
    await good(connected, "unwatch_dir", watch_id=watch)
    await bad(connected, "list_processes", {"sandbox_id": other["sandbox_id"]}, "sandbox_not_found")
    await bad(connected, "sandbox_metrics", {"sandbox_id": other["sandbox_id"]}, "sandbox_not_found")


async def scenario() -> None:
    async with client("stdio", "modern", "--toolsets", "default,watch,processes") as connected:
        await ends(connected)
        await processes(connected)
        await metrics(connected)
        await watches(connected)
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())


if __name__ == "__main__":
    main(scenario)
