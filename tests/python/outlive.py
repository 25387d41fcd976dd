"""Jobs outlive the server that started them: `sandhold mcp` with SANDHOLD_URL at a `sandhold serve` is killed, another one
reads on without a gap, writes to the job, learns how it ended and ends it. Another key sees none of it. And what a client
that goes means for its calls, beside what cancelling means, on each transport."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

from kit import BIN, HttpServer, alive_with, call, check, client, descendants, equal, main, mark, run, server_env, until
from serve_kit import Serve, new_key

LINES = 300


def server_pid(before: set[int]) -> int:
    """The `sandhold mcp` that was started since."""
    for pid in descendants(os.getpid()) - before:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as line:
            words = line.read().split(b"\0")
            if words[0] == BIN.encode() and words[1] == b"mcp":
                return pid
    raise AssertionError("no server was started")


@contextlib.asynccontextmanager
async def doomed(era: str = "modern"):
    """A client whose server is killed by SIGKILL when the block ends."""
    before = descendants(os.getpid())
    done = False
    try:
        async with client("stdio", era) as connected:
            yield connected
            done = True
            os.kill(server_pid(before), signal.SIGKILL)
    except Exception:
        # A client may complain of a server that went away.
        if not done:
            raise


async def read_all(connected, job: str, cursor: str | None, enough) -> tuple[str, dict]:
    """Reads on from `cursor` until `enough(answer, text)`."""
    text, answer = "", {}
    for _ in range(120):
        arguments = {"job_id": job, "wait_s": 2, **({"cursor": cursor} if cursor else {})}
        answer = await call(connected, "get_job_status", arguments)
        if answer["_error"]:
            raise AssertionError(answer["_text"])
        text += answer["stdout"]
        cursor = answer["cursor"]
        if not answer["more"] and enough(answer, text):
            break
    return text, answer


async def killed_and_read_on(sleep: str) -> str:
    whole = "".join(f"line {n}\n" for n in range(LINES))
    cmd = f"for ((n = 0; n < {LINES}; n++)); do echo line $n; sleep 0.02; done; echo over >&2; read -r answer; echo got $answer; exit 5"
    async with doomed() as first:
        info = await call(first, "sandbox_info", {"sandbox_id": (await call(first, "create_sandbox", {"set_as_default": True}))["sandbox_id"]})
        equal("the provider", info["provider"], "sandhold")
        equal("what it is called with", (await run(first, "echo $((6 * 7))"))["stdout"], "42\n")
        sandbox = info["sandbox_id"]
        job = (await call(first, "run_command_bg", {"cmd": cmd}))["job_id"]
        short = (await call(first, "run_command_bg", {"cmd": "echo short; echo no >&2; exit 3", "job_id": "short"}))["job_id"]
        await call(first, "run_command_bg", {"cmd": f"sleep {sleep}", "job_id": "sleeper"})
        await call(first, "run_command_bg", {"cmd": "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; sleep 2; echo after", "job_id": "large"})
        seen, answer = await read_all(first, job, None, lambda _, text: len(text) > 100)
        check("control: the job runs and has printed some", answer["status"] == "running" and whole.startswith(seen), seen)
    check("the server was killed, the processes run", alive_with(sleep))
    await asyncio.sleep(1.5)

    async with client("stdio", "legacy") as second:
        jobs = {row["job_id"]: row for row in (await call(second, "list_jobs"))["jobs"]}
        check("another server lists the jobs", {job, "short", "sleeper", "large"} <= set(jobs), jobs)
        row = jobs["short"]
        equal("one that ended meanwhile", (row["status"], row["exit_code"], row["sandbox_id"]), ("done", 3, sandbox))
        equal("and one that runs", jobs["sleeper"]["status"], "running")
        check("with its command", jobs["sleeper"]["cmd"] == f"sleep {sleep}", jobs["sleeper"])

        rest, answer = await read_all(second, job, answer["cursor"], lambda told, _: told["awaiting_input"])
        equal("it reads on without a gap", seen + rest, whole)
        equal("and stands at its question", (answer["status"], answer["awaiting_input"]), ("running", True))
        again, answer = await read_all(second, job, None, lambda told, _: True)
        equal("and reads all from the beginning", (again, answer["stderr"]), (whole, "over\n"))
        await call(second, "send_stdin", {"job_id": job, "data": "an answer\n"})
        rest, answer = await read_all(second, job, answer["cursor"], lambda told, _: told["status"] != "running")
        equal("it is written to", rest, "got an answer\n")
        equal("and told how it ended", (answer["status"], answer["exit_code"]), ("done", 5))
        told = await call(second, "get_job_status", {"job_id": short})
        equal("one that ended without a server", (told["status"], told["stdout"], told["stderr"], told["exit_code"]), ("done", "short\n", "no\n", 3))
        told = await call(second, "run_command_bg", {"cmd": "true", "job_id": "sleeper", "sandbox_id": sandbox})
        check("its name is taken here, too", told["_error"] and "taken" in told["_text"], told["_text"])
        tail, answer = await read_all(second, "large", None, lambda told, _: told["status"] != "running")
        check("of much output the newest part is there", tail.endswith("x\nthe end\nafter\n") and len(tail) >= 500_000, len(tail))
        first = await call(second, "get_job_status", {"job_id": "large"})
        check("and what is not is said", "bytes of stdout before this are not shown" in first["_text"], first["_text"][:300])
    return sandbox


async def another_key(sleep: str, key: str) -> None:
    mine = os.environ["SANDHOLD_API_KEY"]
    os.environ["SANDHOLD_API_KEY"] = key
    async with client() as other:
        equal("another key lists none of them", (await call(other, "list_jobs"))["jobs"], [])
        for tool, arguments in (("get_job_status", {}), ("kill_job", {}), ("send_stdin", {"data": "x"})):
            told = await call(other, tool, {"job_id": "sleeper", **arguments})
            equal(f"another key: {tool}", told["error"]["code"], "job_not_found")
        equal("control: it works in its own", (await run(other, "echo own"))["stdout"], "own\n")
    os.environ["SANDHOLD_API_KEY"] = mine
    check("the job goes on", alive_with(sleep))
    async with client() as third:
        told = await call(third, "kill_job", {"job_id": "sleeper"})
        check("control: with the right key it is ended", told.get("cancelled"), told["_text"])
        check("with all its processes", until(lambda: not alive_with(sleep), 10))
        equal("and is told so", (await call(third, "get_job_status", {"job_id": "sleeper"}))["status"], "cancelled")


class Raw:
    """`sandhold mcp`, spoken to by hand: what a client library does when it goes is not the question here."""

    def __init__(self):
        self.process = subprocess.Popen([BIN, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **server_env()})
        self.send(method="initialize", id=0, params={"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}})
        self.process.stdout.readline()
        self.send(method="notifications/initialized")

    def send(self, **message) -> None:
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, cmd: str) -> None:
        self.send(method="tools/call", id=1, params={"name": "run_command", "arguments": {"cmd": cmd}})

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


def by_stdio() -> None:
    sleeps = [mark(number) for number in (11, 12, 13)]
    goes, cancels, ends = Raw(), Raw(), Raw()
    for raw, sleep in zip((goes, cancels, ends), sleeps):
        raw.start(f"sleep {sleep}")
    for sleep in sleeps:
        check("control: the command runs", until(lambda: alive_with(sleep), 15))
    goes.close()
    ends.process.terminate()
    ends.process.wait(10)
    cancels.send(method="notifications/cancelled", params={"requestId": 1})
    check("cancelling ends its processes", until(lambda: not alive_with(sleeps[1]), 10))
    cancels.close()
    time.sleep(0.5)
    check("the end of standard input ends nothing", alive_with(sleeps[0]))
    check("nor does SIGTERM", alive_with(sleeps[2]))


async def by_http(base: str, headers: dict, name: str) -> None:
    import httpx

    legacy, modern = mark(21), mark(22)
    headers = {**headers, "Accept": "application/json, text/event-stream", "Content-Type": "application/json"}

    def command(sleep: str, **meta) -> dict:
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_command", "arguments": {"cmd": f"sleep {sleep}"}, **meta}}

    async def broken(sleep: str, body: dict, more: dict) -> None:
        """Starts a command and closes the connection while it runs."""
        async with httpx.AsyncClient(timeout=60) as web:
            calling = asyncio.create_task(web.post(base, json=body, headers={**headers, **more}))
            check(f"{name}: control: the command runs", await asyncio.to_thread(until, lambda: alive_with(sleep), 15))
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling

    async with httpx.AsyncClient(timeout=30) as web:
        hello = {
            "jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}},
        }  # fmt: skip
        opened = await web.post(base, json=hello, headers=headers)
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        await web.post(base, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers={**headers, **session})
        await broken(legacy, command(legacy), session)
        deleted = await web.delete(base, headers={**headers, **session})
        check(f"{name}: the session is ended", deleted.status_code < 300, deleted.status_code)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "0"},
    }  # fmt: skip
    names = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "run_command"}
    await broken(modern, command(modern, _meta=meta), names)
    check(f"{name}: without a session, closing the stream cancels", await asyncio.to_thread(until, lambda: not alive_with(modern), 10))
    # A session that ends gives its calls some seconds.
    await asyncio.sleep(7)
    check(f"{name}: a session that breaks and ends leaves its command", alive_with(legacy))


async def second_session(server, name: str) -> None:
    """Over HTTP nothing hangs on a connection."""
    async with client("http", "legacy", http=server) as one:
        job = (await call(one, "run_command_bg", {"cmd": "echo one; read -r x; echo $x"}))["job_id"]
    async with client("http", "modern", http=server) as two:
        await call(two, "send_stdin", {"job_id": job, "data": "two\n"})
        text, answer = await read_all(two, job, None, lambda told, _: told["status"] != "running")
        equal(f"{name}: another session reads and writes", (text, answer["exit_code"]), ("one\ntwo\n", 0))


class At:
    """A server as `kit.client` wants one."""

    def __init__(self, url: str, key: str):
        self.url, self.headers = url, {"Authorization": f"Bearer {key}"}

    def said(self) -> str:
        return ""


def by_tls() -> None:
    """A server with a certificate of its own, and the commands that use it."""
    for name in ("SANDHOLD_URL", "SANDHOLD_API_KEY"):
        os.environ.pop(name)

    def sandhold(*arguments: str, **env: str):
        return subprocess.run([BIN, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **server_env(), **env})

    with Serve("--tls", "self-signed") as server:
        mine = {"SANDHOLD_URL": server.url, "SANDHOLD_API_KEY": server.key}
        refused = sandhold("run", "--", "echo", "hello", **mine)
        check("an authority that nobody trusts", refused.returncode != 0 and "certificate" in refused.stderr.lower(), refused.stderr)
        for name in ("SANDHOLD_CA_FILE", "SSL_CERT_FILE"):
            done = sandhold("run", "--", "echo", "hello", **mine, **{name: str(server.authority)})
            equal(f"trusted by {name}", (done.returncode, done.stdout), (0, "hello\n"))
        trusted = {**mine, "SANDHOLD_CA_FILE": str(server.authority)}
        doctor = sandhold("doctor", "--json", **trusted)
        told = json.loads(doctor.stdout)
        equal("doctor", (told["provider"], told["ok"]), ("sandhold", True))
        demo = sandhold("demo", **trusted)
        check("demo", demo.returncode == 0 and "step 3" in demo.stdout, demo.stdout + demo.stderr)
        wrong = sandhold("run", "--", "true", **{**trusted, "SANDHOLD_API_KEY": "e2b_" + "0" * 40})
        check("a wrong key is told", wrong.returncode != 0 and "key" in wrong.stderr.lower(), wrong.stderr)
        none = sandhold("run", "--", "true", SANDHOLD_URL=server.url)
        check("no key: what to set", none.returncode != 0 and "SANDHOLD_API_KEY" in none.stderr, none.stderr)


async def scenario() -> None:
    with Serve() as server:
        os.environ.update(SANDHOLD_URL=server.url, SANDHOLD_API_KEY=server.key)
        sleep = mark(1)
        await killed_and_read_on(sleep)
        await another_key(sleep, new_key("other"))
        by_stdio()
        with HttpServer() as http:
            await second_session(http, "mcp --http")
            await by_http(http.url, http.headers, "mcp --http")
        served = At(f"{server.url}/mcp", server.key)
        await second_session(served, "serve /mcp")
        await by_http(served.url, served.headers, "serve /mcp")
    by_tls()


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
