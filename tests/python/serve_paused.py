"""Pause and resume through E2B's SDK, over restarts of `sandhold serve` and its SIGKILL: paused sandboxes come back with
their files, running ones are ended and said to be."""

import json
import os
import sqlite3
import stat
import subprocess
import time
from pathlib import Path

from kit import BIN, HOME, alive_with, check, equal, main, note, server_env, until
from serve_kit import Serve

FILES = r"""
set -e
mkdir -p ~/kept/deep/er && cd ~/kept
printf 'text' > plain && chmod 640 plain && touch -d '2001-02-03 04:05:06' plain
ln -s plain link && ln plain hard && printf '#!/bin/sh\necho ran' > tool && chmod 755 tool
printf 'e' > 'name with ünïcode and space' && : > empty && mkdir -m 700 private
head -c 3000000 /dev/urandom > deep/er/random && sha256sum deep/er/random > sum
"""
LOOK = r"""cd ~/kept && cat plain link && ./tool && stat -c '%n %a %h %Y %U' plain hard tool private && readlink link && ls && sha256sum -c sum && cat /root-was-here"""


def can_freeze() -> bool:
    """Whether this machine gives this user a cgroup: only that stops processes where they stand."""
    report = subprocess.run([BIN, "doctor", "--json"], capture_output=True, text=True, env={**os.environ, **server_env()})
    return any(one["name"] == "cgroups" and one["status"] == "ok" for one in json.loads(report.stdout)["checks"])


def sandbox_ids(states: list) -> set:
    from e2b import Sandbox, SandboxQuery

    pages = Sandbox.list(query=SandboxQuery(state=states))
    found = set()
    while pages.has_next:
        found |= {one.sandbox_id for one in pages.next_items()}
    return found


def frozen(sandbox) -> None:
    """While the server lives, processes go on where they stood."""
    from e2b import Sandbox

    counter = sandbox.commands.run("n=0; while :; do n=$((n+1)); echo $n > ~/count; sleep 0.05; done", background=True, timeout=0)
    until(lambda: sandbox.files.exists("count"), 5, 0.1)
    equal("pause", sandbox.pause() is not False, True)
    check("pause of a paused one is told", sandbox.pause() is False)
    equal("its state", sandbox.get_info().state.value, "paused")
    equal("is_running", sandbox.is_running(), False)
    time.sleep(0.5)
    back = Sandbox.connect(sandbox.sandbox_id, timeout=300)
    first = int(back.files.read("count"))
    check("a process goes on", until(lambda: int(back.files.read("count") or 0) > first, 5, 0.1))
    equal("it is the same", counter.pid in [one.pid for one in back.commands.list()], True)
    back.commands.kill(counter.pid)


async def scenario() -> None:
    import httpx
    from e2b import NotFoundException, Sandbox, SandboxException, SandboxState

    if not can_freeze():
        # Pausing then keeps the files and ends the processes.
        note("no cgroup here: a paused sandbox's processes cannot be frozen")
        with Serve() as server:
            server.use()
            sandbox = Sandbox.create(timeout=300)
            sandbox.files.write("kept", "text")
            sandbox.pause()
            equal("its state", sandbox.get_info().state, SandboxState.PAUSED)
            back = Sandbox.connect(sandbox.sandbox_id, timeout=300)
            equal("its files come back", back.files.read("kept"), "text")
            back.kill()
        return

    PAUSED, RUNNING = [SandboxState.PAUSED], [SandboxState.RUNNING]
    with Serve() as first:
        first.use()
        sandbox = Sandbox.create(timeout=300, metadata={"suite": "paused"}, envs={"GREETING": "hello"})
        frozen(sandbox)
        sandbox.commands.run(FILES)
        sandbox.commands.run("echo root > /root-was-here; chmod 600 /root-was-here; chown user /root-was-here", user="root")
        before = sandbox.commands.run(LOOK).stdout
        sandbox.commands.run("exec sleep 86411", background=True, timeout=0)
        running = Sandbox.create(timeout=300)
        running.commands.run("exec sleep 86412", background=True, timeout=0)
        again = Sandbox.create(timeout=300)
        again.pause()
        again = Sandbox.connect(again.sandbox_id, timeout=300)
        auto = Sandbox.create(timeout=2, lifecycle={"on_timeout": "pause", "auto_resume": True})
        auto.files.write("auto", "woken")
        check("a timeout can pause", until(lambda: auto.get_info().state == SandboxState.PAUSED, 10, 0.2))
        sandbox.pause()
        layers = [one for one in (HOME / "layers" / "store").iterdir() if one.name != "tmp"]
        check("two are kept, as layers", len(layers) >= 2 and not list((HOME / "paused").iterdir()), layers)
        modes = [stat.S_IMODE(one.stat().st_mode) for one in (HOME / "sandboxes.db", HOME / "snapshots.db", HOME / "layers")]
        equal("what is secret is its owner's alone", modes, [0o600, 0o600, 0o700])
        check("its process is there, frozen", alive_with("86411"))
        first.kill()
    check("SIGKILL of the server leaves no process", until(lambda: not alive_with("86411") and not alive_with("86412"), 10, 0.2))
    whole = sqlite3.connect(f"file:{HOME / 'sandboxes.db'}?mode=ro", uri=True).execute("PRAGMA integrity_check").fetchone()[0]
    equal("the registry is whole", whole, "ok")

    with Serve(key=first.key, listen=f"127.0.0.1:{first.port}") as second:
        second.use()
        equal("paused ones are listed", sandbox_ids(PAUSED), {sandbox.sandbox_id, auto.sandbox_id})
        equal("and nothing runs", sandbox_ids(RUNNING), set())
        for name, gone in (("a running one", running), ("a resumed one", again)):
            try:
                Sandbox.connect(gone.sandbox_id)
                check(f"{name} has ended", False)
            except NotFoundException:
                check(f"{name} has ended", True)
            told = httpx.get(f"{second.url}/sandboxes/{gone.sandbox_id}", headers={"X-API-Key": second.key})
            check(f"{name} is said to have ended with the server", told.status_code == 404 and "with the server" in told.text, told.text)
        try:
            Sandbox.connect(sandbox.sandbox_id, api_key=second_key())
            check("another key does not get it", False)
        except SandboxException as error:
            check("another key does not get it", "not found" in str(error), error)
        info = Sandbox.get_info(sandbox.sandbox_id)
        equal("its metadata is kept", info.metadata, {"suite": "paused"})
        back = Sandbox.connect(sandbox.sandbox_id, timeout=300)
        equal("files, modes, links, times and owners come back", back.commands.run(LOOK).stdout, before)
        equal("its environment too", back.commands.run("echo $GREETING").stdout, "hello\n")
        equal("a handle of before works on", sandbox.files.read("kept/plain"), "text")
        check("processes did not come back", not alive_with("86411"))
        back.files.write("kept/plain", "changed")
        equal("traffic wakes one that wants it", auto.files.read("auto"), "woken")
        auto.kill()
        back.pause(mode="filesystem")
        equal("it is paused again", sandbox_ids(PAUSED), {sandbox.sandbox_id})
        equal("an orderly stop", second.stop(), 0)

    with Serve(key=first.key) as third:
        third.use()
        equal("kept over an orderly stop", sandbox_ids(PAUSED), {sandbox.sandbox_id})
        back = Sandbox.connect(sandbox.sandbox_id, timeout=60)
        equal("with the last change", back.files.read("kept/plain"), "changed")
        idle = back.commands.run("exec sleep 86413", background=True, timeout=0)
        back.pause()
        anew = Sandbox.connect(sandbox.sandbox_id, timeout=60, on_resume="reboot")
        check("one may start anew from the files", idle.pid not in [one.pid for one in anew.commands.list()] and not alive_with("86413"))
        equal("which are there", anew.files.read("kept/plain"), "changed")
        anew.pause()
        equal("kill of a paused one", Sandbox.kill(sandbox.sandbox_id), True)
        equal("nothing is left of it", (sandbox_ids(PAUSED), list((HOME / "paused").iterdir())), (set(), []))


def second_key() -> str:
    from serve_kit import new_key

    return new_key("another")


if __name__ == "__main__":
    assert Path(os.environ["SANDHOLD_HOME"]).is_absolute()
    main(scenario)
