"""The HTTP transport: who is let in, from where, and how fast small answers travel."""

import asyncio
import statistics
import subprocess
import time

import httpx
from kit import BIN, HttpServer, call, check, client, equal, main, run, server_env

HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}},
}  # fmt: skip
ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def post(server: HttpServer, url: str | None = None, **headers: str) -> httpx.Response:
    return httpx.post(url or server.url, json=HELLO, headers={**ACCEPT, **{k.replace("_", "-"): v for k, v in headers.items()}}, timeout=20)


async def scenario() -> None:
    with HttpServer() as server:
        check("it listens on loopback", "://127.0.0.1:" in server.url, server.url)
        check("its token is long enough", server.token and len(server.token) >= 32, "")
        bearer = f"Bearer {server.token}"
        equal("control: the token opens", post(server, Authorization=bearer).status_code, 200)
        none = post(server)
        equal("no token: 401", none.status_code, 401)
        check("no token: WWW-Authenticate names the scheme", none.headers.get("www-authenticate", "").startswith("Bearer"), none.headers)
        equal("a wrong token: 401", post(server, Authorization=bearer[:-1] + ("A" if bearer[-1] != "A" else "B")).status_code, 401)
        equal("another scheme: 401", post(server, Authorization=f"Basic {server.token}").status_code, 401)
        in_query = post(server, url=f"{server.url}?token={server.token}")
        equal("a token in the URL is none", in_query.status_code, 401)
        evil = post(server, Authorization=bearer, Origin="https://evil.example")
        equal("a foreign Origin: 403", evil.status_code, 403)
        own = post(server, Authorization=bearer, Origin="http://localhost:3000")
        equal("control: an Origin on this machine passes", own.status_code, 200)
        rebound = post(server, Authorization=bearer, Host="evil.example")
        equal("a foreign Host: 403", rebound.status_code, 403)
        huge = httpx.post(server.url, content=b"x" * (32 << 20), headers={**ACCEPT, "Authorization": bearer}, timeout=30)
        check("a body of 32 MiB is refused", 400 <= huge.status_code < 500, huge.status_code)
        elsewhere = httpx.get(server.url.replace("/mcp", "/elsewhere"), headers={"Authorization": bearer})
        equal("another path: 404", elsewhere.status_code, 404)
        check("the token is written once, and in no log of a request", server.said().count(server.token) == 1, "")

        async with client("http", "modern", http=server) as connected:
            await run(connected, "true")
            times = []
            for _ in range(60):
                began = time.perf_counter()
                await call(connected, "path_info", {"path": "/tmp"})
                times.append((time.perf_counter() - began) * 1000)
            check("no answer waits for a delayed acknowledgement", statistics.median(times) < 30, f"median {statistics.median(times):.1f} ms")
        async with client("http", "legacy", http=server) as connected:
            await run(connected, "true")
            times = []
            for _ in range(60):
                began = time.perf_counter()
                await call(connected, "path_info", {"path": "/tmp"})
                times.append((time.perf_counter() - began) * 1000)
            check("nor in the legacy era", statistics.median(times) < 30, f"median {statistics.median(times):.1f} ms")
        async with client("http", "modern", http=server) as one, client("http", "legacy", http=server) as two:
            first = (await run(one, "echo one > shared.txt"))["sandbox_id"]
            seen = await run(two, "cat shared.txt")
            equal("one principal has one default sandbox, whatever the connection", (seen["sandbox_id"], seen["stdout"]), (first, "one\n"))

    with HttpServer("--token", "a-token-of-my-own-0123456789abcdef") as server:
        equal("--token: it opens", post(server, Authorization="Bearer a-token-of-my-own-0123456789abcdef").status_code, 200)
        equal("--token: nothing else does", post(server).status_code, 401)
        check("--token: it is not printed", "a-token-of-my-own" not in server.said(), "")
    with HttpServer("--no-token") as server:
        equal("--no-token: open", post(server).status_code, 200)
        equal("--no-token: a foreign Host is refused all the same", post(server, Host="evil.example").status_code, 403)
    with HttpServer("--toolsets", "files") as server:
        async with client("http", "modern", http=server) as connected:
            names = {tool.name for tool in (await connected.list_tools()).tools}
            check("--toolsets files: those alone", "read_file" in names and "run_command" not in names, names)
    async with client("stdio", "modern", "--read-only") as connected:
        tools = (await connected.list_tools()).tools
        check("--read-only: nothing that writes", tools and all(tool.annotations.read_only_hint for tool in tools), [tool.name for tool in tools])
    async with client("stdio", "modern", "--exclude-tools", "run_command") as connected:
        names = {tool.name for tool in (await connected.list_tools()).tools}
        check("--exclude-tools: all but that", "run_command" not in names and "read_file" in names, names)
        refused = await call(connected, "run_command", {"cmd": "true"})
        check("--exclude-tools: it cannot be called either", refused["_error"], refused["_text"])
    async with client("stdio", "modern", "--tools", "run_command,read_file") as connected:
        equal("--tools: exactly those", {tool.name for tool in (await connected.list_tools()).tools}, {"run_command", "read_file"})
    for arguments in (["--toolsets", "filez"], ["--http", "nonsense"], ["--tools", "no_such_tool"], ["--isolation", "wishful"]):
        ended = await asyncio.to_thread(
            subprocess.run, [BIN, "mcp", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, env=server_env(PATH="/usr/bin:/bin")
        )  # fmt: skip
        check(f"{' '.join(arguments)}: refused, and named", ended.returncode != 0 and arguments[1] in ended.stderr, (ended.returncode, ended.stderr))
        equal(f"{' '.join(arguments)}: stdout stays the protocol's", ended.stdout, "")


if __name__ == "__main__":
    main(scenario)
