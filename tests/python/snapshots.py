"""Snapshots and forks through E2B's own SDKs and over MCP, undo, and sandboxes that outlive `sandhold mcp`, its SIGKILL
included.

usage: snapshots.py sdk|mcp|exit|killed
"""

import os
import sys
import threading
import time
from pathlib import Path

from kit import HttpServer, alive_with, call, check, client, equal, main, mark, node, run, shown, until
from serve_kit import Serve

TREE = r"""
set -e
mkdir -p ~/tree/a ~/tree/b && cd ~/tree
printf one > a/one && printf two > b/two && ln -s a/one link && printf '#!/bin/sh\necho ran' > tool && chmod 755 tool
"""
CHANGE = "cd ~/tree && printf changed > a/one && rm -r b && mkdir new && printf x > new/file && rm link"
LOOK = "cd ~/tree && find . | sort && cat a/one && ./tool && readlink link"


async def sdk() -> None:
    from e2b import NotFoundException, Sandbox, SandboxException

    with Serve() as first:
        first.use()
        source = Sandbox.create(timeout=300, metadata={"suite": "snapshots"}, envs={"GREETING": "hello"})
        source.commands.run(TREE)
        before = source.commands.run(LOOK).stdout
        number = mark(11)
        source.commands.run(f"exec sleep {number}", background=True, timeout=0)
        taken = source.create_snapshot()
        check("a snapshot without a name has an id and a tag", taken.snapshot_id.endswith(":default") and taken.names == [], taken)
        named = source.create_snapshot(name="kept:v1")
        equal("one with a name", (named.snapshot_id, named.names), ("kept:v1", ["kept:v1"]))
        check("the sandbox goes on with its processes", alive_with(number))
        source.commands.run(CHANGE)
        copy = Sandbox.create(named.snapshot_id, timeout=300)
        equal("a sandbox of it has the files of then", copy.commands.run(LOOK).stdout, before)
        copy.files.write("tree/a/one", "own")
        other = Sandbox.create(taken.snapshot_id, timeout=60)
        equal("each has its own", other.files.read("tree/a/one"), "one")
        other.kill()

        pages, listed = Sandbox.list_snapshots(limit=1), []
        while pages.has_next:
            listed += pages.next_items()
        equal("both are listed, the newest first", [s.snapshot_id for s in listed], [named.snapshot_id, taken.snapshot_id])
        mine = source.list_snapshots().next_items()
        equal("and by their sandbox", len(mine), 2)
        equal("of another there are none", copy.list_snapshots().next_items(), [])

        forks = source.fork(timeout=120, count=3)
        check("three forks", len(forks) == 3 and all(isinstance(f, Sandbox) for f in forks), forks)
        equal("with ids of their own", len({f.sandbox_id for f in forks} | {source.sandbox_id}), 4)
        for fork in forks:
            equal("a fork has the files of now", fork.files.read("tree/a/one"), "changed")
            check("what was removed is not there", not fork.files.exists("tree/b"))
            equal("its metadata", fork.get_info().metadata, {"suite": "snapshots"})
            equal("its environment", fork.commands.run("echo $GREETING").stdout, "hello\n")
            fork.files.write("tree/a/one", fork.sandbox_id)
        equal("they share nothing from then on", [f.files.read("tree/a/one") for f in forks], [f.sandbox_id for f in forks])
        equal("nor with their source", source.files.read("tree/a/one"), "changed")
        again = forks[0].fork(timeout=60)[0]
        equal("a fork of a fork", again.files.read("tree/a/one"), forks[0].sandbox_id)
        forks[0].kill()
        equal("which lives without it", again.files.read("tree/a/one"), forks[0].sandbox_id)
        for bad in ({"timeout": 0}, {"timeout": 10**9}):
            try:
                source.fork(**bad)
                check(f"fork {bad} is refused", False)
            except SandboxException as error:
                check(f"fork {bad} is refused", "400" in str(error), error)

        source.kill()
        try:
            source.fork()
            check("no fork of one that has ended", False)
        except NotFoundException:
            check("no fork of one that has ended", True)
        first.kill()

    with Serve(key=first.key) as second:
        second.use()
        equal("snapshots outlive sandbox and server", len(Sandbox.list_snapshots().next_items()), 2)
        copy = Sandbox.create("kept:v1", timeout=60)
        equal("with all they hold", copy.commands.run(LOOK).stdout, before)
        equal("delete", Sandbox.delete_snapshot("kept:v1"), True)
        equal("delete once more", Sandbox.delete_snapshot("kept:v1"), False)
        try:
            Sandbox.create("kept:v1")
            check("nothing is made of one that is gone", False)
        except SandboxException as error:
            check("nothing is made of one that is gone", "404" in str(error), error)
        equal("what was made of it lives on", copy.commands.run(LOOK).stdout, before)
        node("snapshots.mjs")


async def mcp() -> None:
    async with client("stdio", "modern", "--toolsets", "all", "--checkpoint", "turn") as connected:
        first = await run(connected, TREE)
        sandbox, empty = first["sandbox_id"], first.get("checkpoint_id")
        check("an answer names the checkpoint before it", empty and empty in first["_text"], first["_text"])
        looked = await call(connected, "read_file", {"path": "tree/a/one"})
        check("a call that only reads has none", "checkpoint_id" not in looked, shown(looked))
        before = (await run(connected, LOOK))["stdout"]
        snapshot = await call(connected, "create_snapshot", {"name": "from-mcp"})
        equal("create_snapshot", snapshot.get("snapshot_id"), "from-mcp:default")
        changed = await run(connected, CHANGE)
        point = changed.get("checkpoint_id")
        check("a checkpoint of its own", point not in (None, empty), changed["_text"])
        diff = await call(connected, "diff_sandbox", {"since": "from-mcp"})
        found = {(row["path"].removeprefix("/home/user/tree/"), row["change"]) for row in diff.get("changes", [])}
        for wanted in (("a/one", "changed"), ("b", "removed"), ("link", "removed"), ("new/file", "added")):
            check(f"diff_sandbox: {wanted}", wanted in found, shown(diff))
        check("and nothing that stayed", not any(path == "tool" for path, _ in found), shown(diff))
        whole = await call(connected, "diff_sandbox", {"limit": 2})
        check("diff_sandbox since its creation, cut", whole.get("truncated") and len(whole["changes"]) == 2, shown(whole))

        number = mark(12)
        job = await call(connected, "run_command_bg", {"cmd": f"exec sleep {number}"})
        check("a job runs", until(lambda: alive_with(number), 5), shown(job))
        back = await call(connected, "rollback_sandbox", {"checkpoint": point})
        check("rollback_sandbox to a checkpoint", not back["_error"], back["_text"])
        equal("the files are those of then", (await run(connected, LOOK))["stdout"], before)
        check("processes ended", until(lambda: not alive_with(number), 5))
        there = back.get("checkpoint_id")
        await call(connected, "rollback_sandbox", {"checkpoint": there})
        equal("a rollback can be undone", (await run(connected, "cat ~/tree/a/one"))["stdout"], "changed")
        await call(connected, "write_file", {"path": "tree/a/one", "content": "again"})
        back = await call(connected, "rollback_sandbox", {"snapshot": "from-mcp"})
        check("rollback_sandbox to a snapshot", not back["_error"], back["_text"])
        equal("its files", (await run(connected, LOOK))["stdout"], before)
        none = await call(connected, "rollback_sandbox", {"checkpoint": "cp-none"})
        check("one that is not there is told", none["_error"] and "does not exist" in none["_text"], none["_text"])

        forks = await call(connected, "fork_sandbox", {"count": 2})
        ids = [row.get("sandbox_id") for row in forks.get("forks", [])]
        check("fork_sandbox", len(ids) == 2 and all(ids) and sandbox not in ids, shown(forks))
        for one in ids:
            equal("a fork's files", (await run(connected, LOOK, sandbox_id=one))["stdout"], before)
        await call(connected, "write_file", {"path": "tree/a/one", "content": "fork", "sandbox_id": ids[0]})
        equal("are its own", (await run(connected, "cat ~/tree/a/one", sandbox_id=ids[1]))["stdout"], "one")
        made = await call(connected, "create_sandbox", {"template": "from-mcp", "timeout_s": 60})
        equal("create_sandbox of a snapshot", made.get("template"), "from-mcp:default")
        equal("its files", (await run(connected, LOOK, sandbox_id=made["sandbox_id"]))["stdout"], before)
        listed = await call(connected, "list_snapshots", {})
        equal("list_snapshots", [row["snapshot_id"] for row in listed.get("snapshots", [])], ["from-mcp:default"])
        gone = await call(connected, "delete_snapshot", {"snapshot": "from-mcp"})
        equal("delete_snapshot", gone.get("deleted"), True)
        equal("a sandbox of it lives on", (await run(connected, LOOK, sandbox_id=made["sandbox_id"]))["stdout"], before)


def folder(name: str) -> None:
    """Clients start their server in the folder of a project."""
    path = Path(os.environ["TMPDIR"]) / name
    path.mkdir(exist_ok=True)
    os.chdir(path)


async def paused(connected) -> dict:
    listed = await call(connected, "list_sandboxes", {"state": "paused"})
    return {row["sandbox_id"]: row for row in listed.get("sandboxes", [])}


async def leave() -> None:
    folder("project")
    async with client("stdio", "modern", "--on-exit", "pause", "--toolsets", "default,snapshots") as connected:
        first = await run(connected, TREE)
        default = first["sandbox_id"]
        before = (await run(connected, LOOK))["stdout"]
        number = mark(13)
        await call(connected, "run_command_bg", {"cmd": f"exec sleep {number}"})
        other = (await call(connected, "create_sandbox", {"metadata": [{"name": "which", "value": "other"}]}))["sandbox_id"]
        await call(connected, "write_file", {"path": "mine", "content": "other", "sandbox_id": other})
        ended = (await call(connected, "create_sandbox", {}))["sandbox_id"]
        fork = (await call(connected, "fork_sandbox", {}))["forks"][0]["sandbox_id"]
        await call(connected, "shutdown_sandbox", {"sandbox_id": ended})
    check("the end of the server leaves no process", until(lambda: not alive_with(number), 10))

    folder("another project")
    async with client("stdio", "modern", "--on-exit", "pause") as connected:
        kept = await paused(connected)
        equal("the next server has them, paused", set(kept), {default, other, fork})
        check("with what they take", all(row.get("kept_bytes", 0) > 0 for row in kept.values()), kept)
        equal("and their metadata", [row["metadata"] for row in kept.values() if row["sandbox_id"] == other], [[{"name": "which", "value": "other"}]])
        own = await run(connected, "ls -A ~/tree 2>/dev/null; true")
        check("the default sandbox of another folder is not this one's", own["sandbox_id"] != default and own["stdout"] == "", own["_text"])
        refused = await call(connected, "run_command", {"cmd": "true", "sandbox_id": other})
        check("a paused one has to be connected to", refused["_error"] and "connect_sandbox" in refused["_text"], refused["_text"])
        back = await call(connected, "connect_sandbox", {"sandbox_id": other})
        check("connect_sandbox brings it back and says what did not come", "did not" in back["_text"], back["_text"])
        equal("its files", (await run(connected, "cat mine", sandbox_id=other))["stdout"], "other")
        await call(connected, "write_file", {"path": "mine", "content": "twice", "sandbox_id": other})

    folder("project")
    async with client("stdio", "modern", "--on-exit", "pause") as connected:
        back = await run(connected, LOOK)
        equal("the default sandbox is found again", back["sandbox_id"], default)
        equal("with its files", back["stdout"], before)
        check("and the answer says so", "did not come back" in back["_text"], back["_text"])
        check("its processes are not there", not alive_with(number))
        equal("the other one, again", set(await paused(connected)) & {other}, {other})
        await call(connected, "connect_sandbox", {"sandbox_id": other})
        equal("with its last change", (await run(connected, "cat mine", sandbox_id=other))["stdout"], "twice")
        await call(connected, "shutdown_sandbox", {"sandbox_id": other})

    with HttpServer("--on-exit", "pause") as server:
        async with client("http", http=server) as connected:
            kept = await paused(connected)
            check("one that was ended does not come back", other not in kept and default in kept, kept)
            made = (await call(connected, "create_sandbox", {"timeout_s": 300}))["sandbox_id"]
            await call(connected, "write_file", {"path": "mine", "content": "over http", "sandbox_id": made})
        equal("SIGTERM ends it in order", server.close(), 0)
    async with client("stdio", "modern", "--on-exit", "kill") as connected:
        equal("a server that keeps nothing leaves what is kept alone", await paused(connected), {})
        dies = (await run(connected, "true"))["sandbox_id"]
    async with client("stdio", "modern", "--on-exit", "pause") as connected:
        kept = await paused(connected)
        check("it was paused at SIGTERM", made in kept and dies not in kept, kept)
        await call(connected, "connect_sandbox", {"sandbox_id": made})
        equal("with its files", (await run(connected, "cat mine", sandbox_id=made))["stdout"], "over http")
        for one in set(kept) | {made}:
            await call(connected, "shutdown_sandbox", {"sandbox_id": one})
    async with client("stdio", "modern", "--on-exit", "pause") as connected:
        equal("nothing is left", await paused(connected), {})


SUM = "head -c {size} /dev/urandom > data && sha256sum data > sum && cat sum"


async def killed() -> None:
    """SIGKILL at any moment: what was told as kept is there and whole, what is there is whole."""
    from e2b import Sandbox

    told: dict[str, str] = {}
    key = None
    for turn in range(6):
        with Serve(key=key) as server:
            key = server.key
            server.use()
            for name, wanted in list(told.items()):
                copy = Sandbox.create(name, timeout=60)
                equal(f"{name} is whole", copy.commands.run("cat sum && sha256sum -c --quiet sum").stdout, wanted)
                copy.kill()
            listed = {one.snapshot_id for one in Sandbox.list_snapshots().next_items()}
            check("what was told is there", set(told) <= listed, (told.keys(), listed))
            for name in listed - set(told):
                copy = Sandbox.create(name, timeout=60)
                equal(f"{name}, which nobody was told of, is whole", copy.commands.run("sha256sum -c --quiet sum").exit_code, 0)
                told[name] = copy.commands.run("cat sum").stdout
            source = Sandbox.create(timeout=300)
            source.commands.run(SUM.format(size=20_000_000))

            def take() -> None:
                for n in range(100):
                    try:
                        said = source.commands.run("head -c 100000 /dev/urandom > more; sha256sum data more > sum; cat sum").stdout
                        told[source.create_snapshot(name=f"turn{turn}:n{n}").snapshot_id] = said
                    except Exception:  # noqa: BLE001 the server is gone
                        return

            taking = threading.Thread(target=take)
            taking.start()
            if turn > 2:
                until(lambda: f"turn{turn}:n0" in told, 60)
            time.sleep(0.02 + 0.1 * turn)
            server.kill()
            taking.join()
    check("snapshots were told of", len(told) > 2, told)
    for name in ("E2B_API_URL", "E2B_SANDBOX_URL", "E2B_API_KEY"):
        del os.environ[name]

    for turn in range(5):
        with HttpServer("--on-exit", "pause") as server:
            async with client("http", http=server) as connected:
                for one in await paused(connected):
                    await call(connected, "connect_sandbox", {"sandbox_id": one})
                    whole = await run(connected, "sha256sum -c --quiet sum && cat sum | wc -l", sandbox_id=one)
                    equal("a paused sandbox that is listed is whole", (whole["exit_code"], whole["stdout"]), (0, "1\n"))
                    await call(connected, "shutdown_sandbox", {"sandbox_id": one})
                for _ in range(3):
                    answer = await call(connected, "create_sandbox", {})
                    made = answer.get("sandbox_id") or answer["_text"]
                    await run(connected, SUM.format(size=10_000_000), sandbox_id=made)
                sure = (await call(connected, "create_sandbox", {}))["sandbox_id"]
                await run(connected, SUM.format(size=1000), sandbox_id=sure)
                told_paused = await call(connected, "pause_sandbox", {"sandbox_id": sure})
                check("one was told to be paused", not told_paused["_error"], told_paused["_text"])
            server.process.terminate()
            time.sleep(0.5 * turn)
            server.process.kill()
            server.process.wait(30)
        with HttpServer("--on-exit", "pause") as server:
            async with client("http", http=server) as connected:
                check("it is there", sure in await paused(connected))


if __name__ == "__main__":
    main({"sdk": sdk, "mcp": mcp, "exit": leave, "killed": killed}[sys.argv[1]])
