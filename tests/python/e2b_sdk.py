"""E2B's own Python SDK, unmodified, against `sandhold serve`: the same gateway and daemon that MCP goes through."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from kit import BIN, call, check, client, equal, main, run, server_env, until


class Serve:
    def __init__(self):
        made = subprocess.run([BIN, "keys", "create", "suite"], capture_output=True, text=True, check=True, env={**os.environ, **server_env()})
        self.key = made.stdout.strip()
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BIN, "serve", "--listen", "127.0.0.1:0"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr,
            env={**os.environ, **server_env()},
        )  # fmt: skip
        found = until(lambda: re.search(r"listening on (http://\S+)", self.said()) or self.process.poll() is not None, 15)
        if not isinstance(found, re.Match):
            raise RuntimeError(f"no server: {self.said()}")
        self.url = found[1]

    def said(self) -> str:
        return os.pread(self.stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        equal("serve ends in order", self.process.wait(15), 0)


def commands(sandbox) -> None:
    from e2b import CommandExitException

    done = sandbox.commands.run("echo out; echo err >&2")
    equal("commands.run", (done.stdout, done.stderr, done.exit_code), ("out\n", "err\n", 0))
    try:
        sandbox.commands.run("exit 3")
        check("a failing command raises", False)
    except CommandExitException as failed:
        equal("a failing command raises", failed.exit_code, 3)
    seen: list[str] = []
    sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", on_stdout=seen.append)
    equal("output is streamed", "".join(seen), "1\n2\n3\n")
    where = sandbox.commands.run("pwd; id -un; echo $A", cwd="/tmp", envs={"A": "b"})
    equal("cwd, user, envs", where.stdout, "/tmp\nuser\nb\n")
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    check("commands.list", handle.pid in [process.pid for process in sandbox.commands.list()])
    sandbox.commands.send_stdin(handle.pid, "typed\n")
    sandbox.commands.close_stdin(handle.pid)
    equal("stdin", handle.wait().stdout, "typed\n")
    sleeper = sandbox.commands.run("sleep 600", background=True)
    equal("kill", sandbox.commands.kill(sleeper.pid), True)
    equal("kill of nothing", sandbox.commands.kill(999999), False)


def files(sandbox) -> None:
    from e2b import FileType, InvalidArgumentException, NotFoundException

    info = sandbox.files.write("a/b.txt", "text\n")
    equal("files.write", info.path, "/home/user/a/b.txt")
    equal("files.read", sandbox.files.read("a/b.txt"), "text\n")
    raw = bytes(range(256)) * 4000
    sandbox.files.write("raw.bin", raw)
    equal("bytes survive", bytes(sandbox.files.read("raw.bin", format="bytes")), raw)
    equal("files.list", [(entry.name, entry.type) for entry in sandbox.files.list("a")], [("b.txt", FileType.FILE)])
    equal("files.exists", (sandbox.files.exists("a/b.txt"), sandbox.files.exists("a/c.txt")), (True, False))
    equal("files.make_dir", (sandbox.files.make_dir("d"), sandbox.files.make_dir("d")), (True, False))
    sandbox.files.rename("a/b.txt", "d/c.txt")
    equal("files.get_info", sandbox.files.get_info("d/c.txt").size, 5)
    watcher = sandbox.files.watch_dir("d")
    sandbox.files.write("d/new.txt", "1")
    names = until(lambda: [event.name for event in watcher.get_new_events()], 5)
    check("files.watch_dir", names and "new.txt" in names, names)
    watcher.stop()
    sandbox.files.remove("d/c.txt")
    for name, attempt, error in (
        ("a missing file", lambda: sandbox.files.read("nowhere"), NotFoundException),
        ("a folder read as a file", lambda: sandbox.files.read("d"), InvalidArgumentException),
    ):
        try:
            attempt()
            check(name, False, "nothing was raised")
        except error:
            check(name, True)


async def scenario() -> None:
    import httpx
    from e2b import AuthenticationException, Sandbox, SandboxException

    with Serve() as server:
        os.environ.update(E2B_API_URL=server.url, E2B_SANDBOX_URL=server.url, E2B_API_KEY=server.key)
        try:
            Sandbox.create(api_key="e2b_" + "0" * 40)
            check("a wrong key is refused", False)
        except AuthenticationException:
            check("a wrong key is refused", True)
        sandbox = Sandbox.create(timeout=120, metadata={"suite": "sdk"}, envs={"GREETING": "hello"})
        equal("envs of the sandbox", sandbox.commands.run("echo $GREETING").stdout, "hello\n")
        commands(sandbox)
        files(sandbox)
        equal("is_running", sandbox.is_running(), True)
        info = sandbox.get_info()
        equal("get_info", (info.sandbox_id, info.metadata), (sandbox.sandbox_id, {"suite": "sdk"}))
        sandbox.set_timeout(300)
        check("set_timeout", sandbox.get_info().end_at > info.end_at)
        again = Sandbox.connect(sandbox.sandbox_id)
        equal("connect", again.commands.run("cat a/../raw.bin | wc -c").stdout.strip(), str(256 * 4000))
        from e2b import SandboxQuery

        listed = Sandbox.list(query=SandboxQuery(metadata={"suite": "sdk"})).next_items()
        equal("list", [one.sandbox_id for one in listed], [sandbox.sandbox_id])
        url = sandbox.download_url("raw.bin", use_signature_expiration=60)
        equal("a signed URL downloads", len(httpx.get(url).content), 256 * 4000)
        equal("a URL without its signature does not", httpx.get(url.split("signature")[0]).status_code, 401)
        equal("kill", (sandbox.kill(), sandbox.kill()), (True, False))
        try:
            sandbox.commands.run("true")
            check("a dead sandbox raises", False)
        except SandboxException as error:
            check("a dead sandbox raises", True, error)

        await with_provider(server)
        javascript()


def javascript() -> None:
    """The JavaScript SDK, which has paths of its own: streams for watches, chunked bodies."""
    script = Path(os.environ["SANDHOLD_TEST_DIR"]) / "node/e2b_sdk.mjs"
    # Packages are looked for beside the script.
    folder = Path(os.environ["TMPDIR"])
    (folder / "node_modules").symlink_to(os.environ["NODE_MODULES"])
    copy = folder / script.name
    copy.write_text(script.read_text())
    ended = subprocess.run([os.environ["NODE"], copy], capture_output=True, text=True, timeout=120)
    print(ended.stdout)
    summary = json.loads(ended.stdout.splitlines()[-1])
    check("the JavaScript SDK", ended.returncode == 0 and summary["failed"] == 0 and summary["passed"] > 8, ended.stdout + ended.stderr)


async def with_provider(server: Serve) -> None:
    """`sandhold mcp` with E2B as its provider, the E2B being this very server: everything over HTTP, no engine."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    env = {"E2B_API_URL": server.url, "E2B_SANDBOX_URL": server.url, "E2B_API_KEY": server.key, **server_env()}
    with tempfile.TemporaryFile("w+") as errors:
        parameters = StdioServerParameters(command=BIN, args=["mcp"], env=env)
        async with Client(stdio_client(parameters, errlog=errors), read_timeout_seconds=60) as connected:
            equal("over HTTP: a command", (await run(connected, "echo through; exit 2"))["exit_code"], 2)
            info = await call(connected, "sandbox_info")
            equal("over HTTP: the provider is told", info.get("provider"), "e2b")
            await call(connected, "write_file", {"path": "x/y.txt", "content": "one\ntwo\n"})
            equal("over HTTP: read_file", (await call(connected, "read_file", {"path": "x/y.txt"})).get("text"), "one\ntwo\n")
            edited = await call(connected, "edit_file", {"path": "x/y.txt", "old_text": "two", "new_text": "three"})
            equal("over HTTP: edit_file", edited.get("replacements"), 1)
            found = await call(connected, "search_files", {"pattern": "thr", "path": "x"})
            equal("over HTTP: search_files", [match["line"] for match in found.get("matches", [])], [2])
            job = await call(connected, "run_command_bg", {"cmd": "sleep 0.5; echo job"})
            done = await call(connected, "get_job_status", {"job_id": job.get("job_id"), "wait_s": 10})
            equal("over HTTP: a job", (done.get("status"), done.get("stdout")), ("done", "job\n"))
            ended = await call(connected, "shutdown_sandbox")
            check("over HTTP: shutdown_sandbox", not ended["_error"], ended["_text"])


if __name__ == "__main__":
    main(scenario)
