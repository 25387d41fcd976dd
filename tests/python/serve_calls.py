"""Calls of E2B's SDK, sync and async, that tell about sandboxes or make them: metrics, logs, pages of lists, idempotency,
timeouts; and two keys, each way into the other's sandboxes tried. Then MCP at the server's `/mcp`, for both keys."""

import asyncio
import json
import os
import subprocess
import time
from datetime import datetime, timedelta, timezone

from kit import BIN, call, check, equal, main, run, server_env, until
from serve_kit import Serve, new_key, request

LIST_OF_KEYS = [BIN, "keys", "list"]


def metrics(sandbox) -> None:
    idle = until(lambda: [sample for sample in sandbox.get_metrics() if sample.cpu_used_pct < 2], 25, 1)
    check("control: an idle one is seen as that", idle, sandbox.get_metrics())
    sandbox.files.write("/home/user/large", b"x" * (8 << 20))
    began = time.monotonic()
    burner = sandbox.commands.run("while :; do :; done", background=True, timeout=0)

    def seen():
        found = sandbox.get_metrics()
        return len(found) >= 3 and max(sample.cpu_used_pct for sample in found) > 2 and found

    found = until(seen, 25, 1)
    check("metrics have a history", found, found)
    last = found[-1]
    # How much of the machine the loop gets is the machine's business; the kernel counted it for the loop, too.
    stat = sandbox.commands.run(f"cat /proc/{burner.pid}/stat").stdout.rpartition(")")[2].split()
    burnt = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    share = 100 * burnt / (time.monotonic() - began) / last.cpu_count
    most = max(sample.cpu_used_pct for sample in found)
    check("a busy processor is seen as busy as it is", share > 0 and most > share / 2, (share, found))
    check("and how many there are", 0 < last.cpu_count <= 1024, last)
    check("memory", 0 < last.mem_used <= last.mem_total, last)
    check("disk", 8 << 20 <= last.disk_used <= last.disk_total, last)
    check("one every few seconds", 2 < (found[-1].timestamp - found[-2].timestamp).total_seconds() < 10, found)
    sandbox.commands.kill(burner.pid)
    now = datetime.now(timezone.utc)
    equal("metrics of another time", sandbox.get_metrics(start=now + timedelta(hours=1)), [])
    equal("metrics until a time", len(sandbox.get_metrics(end=found[0].timestamp)), 1)


def logs(server: Serve, sandbox) -> None:
    import httpx

    headers = {"X-API-Key": server.key}
    v2 = httpx.get(f"{server.url}/v2/sandboxes/{sandbox.sandbox_id}/logs", headers=headers).json()
    events = [entry["fields"]["event"] for entry in v2["logs"]]
    check("logs tell what happened", events[0] == "created" and "timeout set" in events, events)
    v1 = httpx.get(f"{server.url}/sandboxes/{sandbox.sandbox_id}/logs", headers=headers).json()
    equal("in both shapes", [len(v1["logs"]), len(v1["logEntries"])], [len(events)] * 2)
    two = httpx.get(f"{server.url}/sandboxes/metrics", params={"sandbox_ids": f"{sandbox.sandbox_id},inobody"}, headers=headers).json()
    equal("metrics of many", list(two["sandboxes"]), [sandbox.sandbox_id])


def pages() -> None:
    from e2b import Sandbox, SandboxQuery

    made = [Sandbox.create(timeout=120, metadata={"k 1": "v&2", "n": str(n)}) for n in range(5)]
    pager = Sandbox.list(query=SandboxQuery(metadata={"k 1": "v&2"}), limit=2)
    sizes, seen = [], []
    while pager.has_next:
        items = pager.next_items()
        sizes.append(len(items))
        seen += [one.sandbox_id for one in items]
    equal("a list in pages", sizes, [2, 2, 1])
    equal("each once, the newest first", seen, [one.sandbox_id for one in reversed(made)])
    equal("by one more pair", [one.metadata["n"] for one in Sandbox.list(query=SandboxQuery(metadata={"n": "3"})).next_items()], ["3"])
    for one in made:
        one.kill()


def idempotency() -> None:
    from e2b import Sandbox, SandboxException

    first = Sandbox.create(timeout=120, idempotency_key="one-two-3")
    second = Sandbox.create(timeout=120, idempotency_key="one-two-3")
    equal("the same key is the same sandbox", first.sandbox_id, second.sandbox_id)
    equal("which works", second.commands.run("echo yes").stdout, "yes\n")
    try:
        Sandbox.create(timeout=121, idempotency_key="one-two-3")
        check("the same key for another request", False)
    except SandboxException as error:
        check("the same key for another request", "Idempotency-Key" in str(error), error)
    first.kill()


def two_keys(server: Serve, sandbox, other: str) -> None:
    """Every method of the SDK that names a sandbox, with the other key."""
    import httpx
    from e2b import NotFoundException, Sandbox, SandboxException

    identity = sandbox.sandbox_id
    ways = {
        "get_info": lambda: Sandbox.get_info(identity, api_key=other),
        "connect": lambda: Sandbox.connect(identity, api_key=other),
        "set_timeout": lambda: Sandbox.set_timeout(identity, 5, api_key=other),
        "pause": lambda: Sandbox.pause(identity, api_key=other),
        "get_metrics": lambda: Sandbox.get_metrics(identity, api_key=other),
    }
    for name, way in ways.items():
        try:
            way()
            check(f"another key: {name}", False, "nothing was raised")
        except (NotFoundException, SandboxException) as error:
            check(f"another key: {name}", "not found" in str(error).lower() or "doesn't exist" in str(error), error)
    equal("another key: kill", Sandbox.kill(identity, api_key=other), False)
    equal("another key: list", Sandbox.list(api_key=other).next_items(), [])
    foreign = httpx.get(f"{server.url}/v2/sandboxes/{identity}/logs", headers={"X-API-Key": other})
    unknown = httpx.get(f"{server.url}/v2/sandboxes/inobody/logs", headers={"X-API-Key": other})
    equal("another key: logs", foreign.text.replace(identity, "inobody"), unknown.text)
    for name, headers in (("no token", {}), ("the other's API key", {"X-API-Key": other}), ("a wrong token", {"X-Access-Token": "0" * 64})):
        answer = httpx.post(
            f"{server.url}/process.Process/List", json={}, headers={"E2b-Sandbox-Id": identity, "Connect-Protocol-Version": "1", **headers}
        )
        equal(f"the daemon with {name}", answer.status_code, 401)
    equal("it goes on", sandbox.commands.run("echo on").stdout, "on\n")


async def asynchronous() -> None:
    """The async SDK, whose transport is another one."""
    from e2b import AsyncSandbox, CommandExitException

    sandbox = await AsyncSandbox.create(timeout=120, metadata={"suite": "async"})
    equal("async: a command", (await sandbox.commands.run("echo $((6*7))")).stdout, "42\n")
    try:
        await sandbox.commands.run("exit 4")
        check("async: a failing command raises", False)
    except CommandExitException as failed:
        equal("async: a failing command raises", failed.exit_code, 4)
    many = await asyncio.gather(*(sandbox.commands.run(f"echo {n}") for n in range(16)))
    equal("async: side by side", [one.stdout for one in many], [f"{n}\n" for n in range(16)])
    seen: list[str] = []
    watcher = await sandbox.files.watch_dir("/home/user", on_event=lambda event: seen.append(event.name))
    await sandbox.files.write("watched.txt", "1")
    for _ in range(50):
        if "watched.txt" in seen:
            break
        await asyncio.sleep(0.1)
    check("async: a streamed watch", "watched.txt" in seen, seen)
    await watcher.stop()
    handle = await sandbox.commands.run("cat", background=True, stdin=True)
    await sandbox.commands.send_stdin(handle.pid, "typed\n")
    await sandbox.commands.close_stdin(handle.pid)
    equal("async: stdin", (await handle.wait()).stdout, "typed\n")
    equal("async: pause", await sandbox.pause(), True)
    back = await AsyncSandbox.connect(sandbox.sandbox_id, timeout=60)
    equal("async: resume", await back.files.read("watched.txt"), "1")
    check("async: metrics", isinstance(await back.get_metrics(), list))
    equal("async: kill", (await back.kill(), await back.kill()), (True, False))


def timeouts() -> None:
    from e2b import Sandbox

    short = Sandbox.create(timeout=2)
    longer = Sandbox.create(timeout=2)
    Sandbox.connect(longer.sandbox_id, timeout=60)
    began = time.monotonic()
    check("a timeout ends a sandbox", until(lambda: not short.is_running(), 10, 0.1))
    check("in its time", time.monotonic() - began < 4, time.monotonic() - began)
    equal("one that was extended goes on", longer.is_running(), True)
    longer.kill()


def operator(server: Serve) -> None:
    status, headers, text = request(server.port, "GET /metrics HTTP/1.1\nHost: 127.0.0.1")
    check("metrics for Prometheus", status == 200 and headers["content-type"].startswith("text/plain") and b'sandhold_sandboxes{state="running"}' in text)
    equal("health", request(server.port, "GET /health HTTP/1.1\nHost: 127.0.0.1")[0], 204)
    status, _, body = request(server.port, "GET /v2/sandboxes HTTP/1.1\nHost: 127.0.0.1")
    equal("the API asks for a key", (status, json.loads(body)["code"]), (401, 401))


async def mcp(server: Serve, sandbox, other: str) -> None:
    """MCP on the same server: the key is the bearer token, and whose sandboxes one sees hangs on it."""
    import httpx
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    url = f"{server.url}/mcp"
    for name, headers in (("no key", {}), ("a wrong key", {"Authorization": "Bearer e2b_" + "0" * 40})):
        equal(f"MCP with {name}", httpx.post(url, json={}, headers=headers).status_code, 401)

    async def with_key(key: str, work) -> None:
        async with create_mcp_http_client(headers={"Authorization": f"Bearer {key}"}) as session:
            async with Client(streamable_http_client(url, http_client=session), read_timeout_seconds=60) as connected:
                await work(connected)

    async def mine(connected):
        listed = await call(connected, "list_sandboxes")
        check("MCP sees what the SDK made", sandbox.sandbox_id in json.dumps(listed["sandboxes"]), listed["_text"])
        done = await run(connected, "echo from mcp > note; cat note", sandbox_id=sandbox.sandbox_id)
        equal("MCP works in it", done["stdout"], "from mcp\n")
        equal("MCP makes its own", (await run(connected, "echo default"))["stdout"], "default\n")

    async def theirs(connected):
        equal("MCP with another key sees none", (await call(connected, "list_sandboxes"))["sandboxes"], [])
        for tool, arguments in (
            ("run_command", {"cmd": "true"}),
            ("read_file", {"path": "note"}),
            ("connect_sandbox", {}),
            ("pause_sandbox", {}),
            ("shutdown_sandbox", {}),
            ("set_sandbox_timeout", {"timeout_s": 5}),
        ):
            answer = await call(connected, tool, {**arguments, "sandbox_id": sandbox.sandbox_id})
            check(f"MCP with another key: {tool}", answer["_error"] or "ended already" in answer["_text"], answer["_text"])
        check("and works in its own", (await run(connected, "id -un"))["stdout"] == "user\n")

    await with_key(server.key, mine)
    await with_key(other, theirs)
    equal("the sandbox goes on", sandbox.files.read("note"), "from mcp\n")


def revoked(server: Serve, other: str) -> None:
    import httpx

    listed = subprocess.run(LIST_OF_KEYS, capture_output=True, text=True, check=True, env=server_env()).stdout
    number = next(line.split()[0] for line in listed.splitlines() if other[:10] in line)
    subprocess.run([BIN, "keys", "revoke", number], check=True, env=server_env())
    refused = lambda: httpx.get(f"{server.url}/v2/sandboxes", headers={"X-API-Key": other}).status_code == 401  # noqa: E731
    check("a revoked key is refused", until(refused, 3, 0.2))
    equal("at /mcp too", httpx.post(f"{server.url}/mcp", json={}, headers={"Authorization": f"Bearer {other}"}).status_code, 401)


async def scenario() -> None:
    from e2b import Sandbox

    with Serve() as server:
        server.use()
        other = new_key("other")
        sandbox = Sandbox.create(timeout=600)
        sandbox.set_timeout(900)
        for part in (lambda: metrics(sandbox), lambda: logs(server, sandbox), lambda: two_keys(server, sandbox, other), pages, idempotency, timeouts):
            await asyncio.to_thread(part)
        await asynchronous()
        operator(server)
        await mcp(server, sandbox, other)
        revoked(server, other)
        sandbox.kill()
        equal("it ends in order", server.stop(), 0)


if __name__ == "__main__":
    main(scenario)
