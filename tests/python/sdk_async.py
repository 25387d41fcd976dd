"""E2B's Python SDK 2.63.0, unmodified, against `sandhold serve`: its asynchronous client. It has ways of its own: watches
are streams, callbacks may be coroutines, and everything may run at once."""

import asyncio
import contextlib
import hashlib
import os
import time
from datetime import datetime, timezone

import httpx

from kit import check, equal, main
from sdk_kit import HTTP_SERVER, World, installed
from serve_kit import Serve, localhost_names


async def raises(name: str, kinds, awaitable, *texts: str) -> None:
    try:
        await awaitable
    except Exception as error:  # noqa: BLE001 it is looked at
        check(name, isinstance(error, kinds) and all(text in str(error) for text in texts), f"{type(error).__name__}: {error}")
    else:
        check(name, False, "nothing was raised")


async def sees(what, seconds: float = 6):
    """Waits until `what()` is true, or until the time is over."""
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return found


async def ended(handle) -> None:
    with contextlib.suppress(Exception):
        await handle.wait()


async def files(sandbox) -> None:
    import e2b
    from e2b import FileType

    equal("write", (await sandbox.files.write("a/b.txt", "text ü")).path, "/home/user/a/b.txt")
    equal("read", await sandbox.files.read("a/b.txt"), "text ü")
    raw = bytes(range(256)) * 8192
    await sandbox.files.write("raw", raw)
    equal("read: bytes", bytes(await sandbox.files.read("raw", format="bytes")), raw)
    sums = hashlib.sha256()
    async with await sandbox.files.read("raw", format="stream") as stream:
        async for piece in stream:
            sums.update(piece)
    equal("read: a stream", sums.hexdigest(), hashlib.sha256(raw).hexdigest())

    async def pieces():
        for number in range(64):
            yield bytes([number]) * 65536
            await asyncio.sleep(0)

    await sandbox.files.write("pieces", pieces())
    equal("write: an async iterable", (await sandbox.files.get_info("pieces")).size, 64 * 65536)
    await sandbox.files.write("packed", pieces(), gzip=True)
    equal("write: one, packed on the way", await sandbox.files.read("packed", format="bytes"), await sandbox.files.read("pieces", format="bytes"))
    written = await sandbox.files.write_files([{"path": "m/1", "data": "one"}, {"path": "m/2", "data": b"two"}], metadata={"k": "v"})
    equal("write_files", [(info.name, info.metadata) for info in written], [("1", {"k": "v"}), ("2", {"k": "v"})])
    await sandbox.files.write("m/3", "three", use_octet_stream=True)
    listed = sorted(await sandbox.files.list("m"), key=lambda entry: entry.name)
    equal("list", [(entry.name, entry.type) for entry in listed], [(name, FileType.FILE) for name in "123"])
    equal("make_dir", (await sandbox.files.make_dir("d/e"), await sandbox.files.make_dir("d/e")), (True, False))
    equal("rename", (await sandbox.files.rename("m/3", "d/3")).path, "/home/user/d/3")
    equal("exists", (await sandbox.files.exists("d/3"), await sandbox.files.exists("m/3")), (True, False))
    await sandbox.files.remove("d")
    equal("remove", await sandbox.files.exists("d"), False)
    await raises("read: nothing there", e2b.FileNotFoundException, sandbox.files.read("no"))
    await raises("read: a folder", e2b.InvalidArgumentException, sandbox.files.read("m"))
    await raises("list: nothing there", e2b.FileNotFoundException, sandbox.files.list("no"))
    await raises("get_info: an unknown user", e2b.AuthenticationException, sandbox.files.get_info("m", user="nobody-here"))
    contents = await asyncio.gather(*(echoed(sandbox, number) for number in range(40)))
    equal("forty files at once", contents, [f"number {number}" for number in range(40)])


async def echoed(sandbox, number: int) -> str:
    await sandbox.files.write(f"many/{number}", f"number {number}")
    return await sandbox.files.read(f"many/{number}")


async def commands(sandbox) -> None:
    import e2b

    done = await sandbox.commands.run("echo out; echo err >&2; pwd; echo $A", cwd="/tmp", envs={"A": "b"})
    equal("run", (done.stdout, done.stderr, done.exit_code), ("out\n/tmp\nb\n", "err\n", 0))
    await raises("run: another exit code", e2b.CommandExitException, sandbox.commands.run("exit 3"))
    seen: list[str] = []

    async def slow(text: str) -> None:
        await asyncio.sleep(0.01)
        seen.append(text)

    await sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.05; done", on_stdout=slow)
    equal("run: a coroutine as its callback", "".join(seen), "1\n2\n3\n")
    handle = await sandbox.commands.run("echo begun; sleep 0.5; exit 4", background=True)
    await sees(lambda: handle.stdout)
    equal("background: what is there so far", (handle.stdout, handle.exit_code), ("begun\n", None))
    await raises("background: wait", e2b.CommandExitException, handle.wait())
    equal("background: its exit code", handle.exit_code, 4)
    cat = await sandbox.commands.run("cat", background=True, stdin=True)
    await cat.send_stdin("typed ")
    await sandbox.commands.send_stdin(cat.pid, "twice")
    await cat.close_stdin()
    equal("stdin", (await cat.wait()).stdout, "typed twice")
    sums = await sandbox.commands.run("wc -c", background=True, stdin=True)
    typed = sandbox.commands.stream_input(sums.pid)
    for _ in range(32):
        await typed.send(b"x" * 32768)
    await typed.close()
    await sums.close_stdin()
    equal("stream_input", (await sums.wait()).stdout, f"{32 * 32768}\n")
    sleeper = await sandbox.commands.run("sleep 600", background=True)
    again = await sandbox.commands.connect(sleeper.pid)
    check("list", sleeper.pid in [process.pid for process in await sandbox.commands.list()])
    equal("kill", await sleeper.kill(), True)
    await raises("connect: sees the end", e2b.CommandExitException, again.wait())
    equal("kill of what has ended", await sandbox.commands.kill(sleeper.pid), False)
    await raises("timeout", e2b.TimeoutException, sandbox.commands.run("sleep 60", timeout=1))
    begun = time.monotonic()
    answers = await asyncio.gather(*(sandbox.commands.run(f"sleep 0.3; echo {number}") for number in range(30)))
    equal("thirty commands at once", [answer.stdout.strip() for answer in answers], [str(number) for number in range(30)])
    check("they do run at once", time.monotonic() - begun < 6, time.monotonic() - begun)
    quiet = await sandbox.commands.run("sleep 30", background=True)
    await quiet.disconnect()
    equal("disconnect leaves it running", await sandbox.commands.kill(quiet.pid), True)


async def watches(sandbox) -> None:
    import e2b
    from e2b import FilesystemEventType as Type

    events: list = []
    ends: list = []

    async def on_event(event) -> None:
        events.append(event)

    def has(kind, name: str):
        return lambda: any(event.type == kind and event.name == name for event in events)

    await sandbox.files.make_dir("w/sub")
    watch = await sandbox.files.watch_dir("w", on_event, on_exit=ends.append, include_entry=True)
    await sandbox.commands.run("echo 12345 > w/a.txt")
    check("watch: create", await sees(has(Type.CREATE, "a.txt")), events)
    check("watch: write", await sees(has(Type.WRITE, "a.txt")), events)
    check("watch: the entry", any(event.entry and event.entry.path == "/home/user/w/a.txt" for event in events), events)
    await sandbox.files.rename("w/a.txt", "w/b.txt")
    check("watch: rename", await sees(has(Type.RENAME, "a.txt")) and await sees(has(Type.CREATE, "b.txt")), events)
    await sandbox.files.remove("w/b.txt")
    check("watch: remove", await sees(has(Type.REMOVE, "b.txt")), events)
    await watch.stop()
    equal("watch: on_exit after stop", ends, [None])
    events.clear()
    watch = await sandbox.files.watch_dir("w", on_event, recursive=True)
    await sandbox.files.write("w/sub/deep.txt", "1")
    check("watch: recursive", await sees(lambda: any(event.name == "sub/deep.txt" for event in events)), events)
    await watch.stop()
    ends.clear()
    watch = await sandbox.files.watch_dir("w", on_event, on_exit=ends.append, timeout=1)
    check("watch: its timeout ends it", await sees(lambda: ends, 4) and isinstance(ends[0], e2b.TimeoutException), ends)
    await raises("watch: nothing there", e2b.FileNotFoundException, sandbox.files.watch_dir("no", on_event))


async def terminals(sandbox) -> None:
    from e2b import PtySize

    shown = bytearray()
    shell = await sandbox.pty.create(PtySize(rows=24, cols=80), on_data=shown.extend, envs={"MARK": "given"})
    await sandbox.pty.send_stdin(shell.pid, b"stty size; echo $MARK-$((1 + 1))\n")
    check("pty", await sees(lambda: b"given-2" in shown) and b"24 80" in shown, bytes(shown))
    await sandbox.pty.resize(shell.pid, PtySize(rows=50, cols=132))
    await sandbox.pty.send_stdin(shell.pid, b"stty size\n")
    check("pty: resize", await sees(lambda: b"50 132" in shown), bytes(shown))
    other = bytearray()
    again = await sandbox.pty.connect(shell.pid, on_data=other.extend)
    await sandbox.pty.send_stdin(shell.pid, b"echo both-$((3 + 4))\n")
    check("pty: connect", await sees(lambda: b"both-7" in other and b"both-7" in shown), bytes(other))
    await again.disconnect()
    equal("pty: kill", await sandbox.pty.kill(shell.pid), True)
    await ended(shell)
    equal("pty: kill of what has ended", await sandbox.pty.kill(shell.pid), False)


async def life(server: Serve) -> None:
    import e2b
    from e2b import AsyncSandbox, SandboxQuery, SandboxState

    mark = f"async-{os.getpid()}"
    made = await asyncio.gather(*(AsyncSandbox.create(timeout=60, metadata={"of": mark, "n": str(n)}) for n in range(6)))
    equal("six sandboxes at once", len({sandbox.sandbox_id for sandbox in made}), 6)
    names = await asyncio.gather(*(sandbox.commands.run("echo $E2B_SANDBOX_ID") for sandbox in made))
    equal("each is itself", [answer.stdout.strip() for answer in names], [sandbox.sandbox_id for sandbox in made])
    found = []
    paginator = AsyncSandbox.list(query=SandboxQuery(metadata={"of": mark}), limit=4)
    sizes = []
    while paginator.has_next:
        page = await paginator.next_items()
        sizes.append(len(page))
        found += page
    equal("list: pages", (sizes[:2], {one.sandbox_id for one in found}), ([4, 2], {sandbox.sandbox_id for sandbox in made}))
    one = made[0]
    equal("get_info", (await one.get_info()).metadata["n"], "0")
    equal("is_running", await one.is_running(), True)
    await one.set_timeout(300)
    check("set_timeout", ((await one.get_info()).end_at - datetime.now(timezone.utc)).total_seconds() > 250)
    await one.files.write("kept", "kept")
    equal("pause", (await one.pause(), (await one.get_info()).state), (True, SandboxState.PAUSED))
    back = await AsyncSandbox.connect(one.sandbox_id, timeout=60)
    equal("resume", await back.files.read("kept"), "kept")
    streaming = asyncio.create_task(made[1].commands.run("sleep 100"))
    await asyncio.sleep(0.3)
    equal("kill", await made[1].kill(), True)
    await raises("killed while streaming", e2b.SandboxNotRunningException, streaming)
    ends: list = []
    await made[2].files.watch_dir(".", lambda _: None, on_exit=ends.append, timeout=0)
    await made[2].kill()
    check("killed while watching", await sees(lambda: ends) and isinstance(ends[0], e2b.TimeoutException), ends)
    await made[3].set_timeout(1)
    await raises("its end while streaming", e2b.TimeoutException, made[3].commands.run("sleep 30", timeout=20))
    equal("is_running after its end", await made[3].is_running(), False)
    equal("kill of what has ended", await made[3].kill(), False)
    await raises("connect: nothing there", e2b.SandboxNotFoundException, AsyncSandbox.connect("i" + "0" * 20))
    await raises("a wrong key", e2b.AuthenticationException, AsyncSandbox.create(api_key="e2b_" + "0" * 40))
    await raises("commands after the end", e2b.SandboxNotRunningException, made[3].commands.run("true"))
    equal("kill: the rest", await asyncio.gather(back.kill(), made[4].kill(), made[5].kill()), [True] * 3)
    async with await AsyncSandbox.create(timeout=60) as inside:
        equal("async with", await inside.is_running(), True)
    equal("async with: it ends with the block", await inside.is_running(), False)


async def traffic(world: World) -> None:
    sandbox = world.sandbox
    async with httpx.AsyncClient(timeout=10, trust_env=False) as web:
        await sandbox.files.write("/tmp/served.py", HTTP_SERVER)
        await sandbox.commands.run("exec python3 /tmp/served.py 8080", background=True, timeout=0)
        url = f"http://{sandbox.get_host(8080)}/hello"

        async def answers() -> bool:
            return (await web.get(url)).status_code == 200

        for _ in range(100):
            if await answers():
                break
            await asyncio.sleep(0.1)
        pages = await asyncio.gather(*(web.post(url, content=str(n).encode()) for n in range(40)))
        equal("get_host: forty requests at once", [page.text.rpartition(" ")[2] for page in pages], [str(n) for n in range(40)])
        await sandbox.files.write("signed", "by its signature")
        equal("download_url", (await web.get(sandbox.download_url("signed", use_signature_expiration=30))).text, "by its signature")
        answer = await web.post(sandbox.upload_url("up"), files={"file": b"sent"})
        equal("upload_url", (answer.status_code, await sandbox.files.read("up")), (200, "sent"))
        equal("a wrong signature", (await web.get(sandbox.download_url("signed") + "x")).status_code, 401)


async def git(sandbox) -> None:
    await sandbox.git.configure_user("Suite", "suite@example.com")
    await sandbox.git.init("repo", initial_branch="main")
    await sandbox.files.write("repo/a", "1")
    await sandbox.git.add("repo")
    await sandbox.git.commit("repo", "first")
    status = await sandbox.git.status("repo")
    equal("git", (status.is_clean, status.current_branch), (True, "main"))
    await sandbox.git.clone("/home/user/repo", path="copy")
    equal("git: clone", await sandbox.files.read("copy/a"), "1")


async def metrics(sandbox) -> None:
    for _ in range(24):
        if found := await sandbox.get_metrics():
            break
        await asyncio.sleep(0.5)
    check("get_metrics", found and found[-1].mem_total > 0 and found[-1].cpu_count > 0, found)


async def scenario() -> None:
    with Serve() as server:
        localhost_names()
        server.use()
        from e2b import AsyncSandbox

        sandbox = await AsyncSandbox.create(timeout=600)
        world = World(server, installed(), sandbox)
        await files(sandbox)
        await commands(sandbox)
        await watches(sandbox)
        await terminals(sandbox)
        await traffic(world)
        await git(sandbox)
        await life(server)
        await metrics(sandbox)
        equal("kill", (await sandbox.kill(), await sandbox.kill()), (True, False))


if __name__ == "__main__":
    main(scenario)
