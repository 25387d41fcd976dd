"""The transport of 2024-11-05 as the `sse_client` of the PyPI package mcp 1 uses it: at `sandhold mcp --http` and at
`sandhold serve`; whose a session is, what ends it, and what cancelling does."""

import asyncio
import json
import re

import httpx
from kit import HttpServer, alive_with, check, equal, main, mark
from serve_kit import Serve, new_key

HELLO = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize",
    "params": {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}},
}  # fmt: skip


async def until(what, seconds: float = 15):
    for _ in range(int(seconds / 0.1)):
        if found := what():
            return found
        await asyncio.sleep(0.1)
    return what()


async def use(name: str, base: str, headers: dict) -> None:
    from mcp import ClientSession
    from mcp.client.sse import sse_client
    from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

    async with sse_client(f"{base}/sse", headers=headers) as streams, ClientSession(*streams) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        check(f"{name}: tools", {"run_command", "read_file", "create_sandbox"} <= tools, tools)
        seen = []

        async def told(value, total, message):
            seen.append(value)

        result = await session.call_tool("run_command", {"cmd": "for i in 1 2 3; do echo $i; sleep 0.6; done"}, progress_callback=told)
        equal(f"{name}: a call", result.structuredContent["stdout"], "1\n2\n3\n")
        check(f"{name}: progress", seen, seen)
        large = await session.call_tool("run_command", {"cmd": "head -c 200000 /dev/zero | tr '\\0' x"})
        check(f"{name}: a long answer", large.structuredContent["truncated"], large)
        missing = await session.call_tool("read_file", {"path": "nowhere.txt"})
        check(f"{name}: a tool error", missing.isError and "nowhere.txt" in missing.content[0].text, missing)
        many = await asyncio.gather(*(session.call_tool("run_command", {"cmd": f"echo {n}"}) for n in range(8)))
        equal(f"{name}: side by side", [one.structuredContent["stdout"] for one in many], [f"{n}\n" for n in range(8)])

        sleep = mark(1)
        number = session._request_id
        running = asyncio.create_task(session.call_tool("run_command", {"cmd": f"sleep {sleep}"}))
        check(f"{name}: control: a command runs", await until(lambda: alive_with(sleep)))
        cancelled = CancelledNotification(params=CancelledNotificationParams(requestId=number, reason="no longer needed"))
        await session.send_notification(ClientNotification(cancelled))
        check(f"{name}: cancelling ends its processes", await until(lambda: not alive_with(sleep)))
        running.cancel()

        lasting = mark(2)
        running = asyncio.create_task(session.call_tool("run_command", {"cmd": f"sleep {lasting}"}))
        check(f"{name}: control: another runs", await until(lambda: alive_with(lasting)))
    running.cancel()
    await asyncio.sleep(1)
    check(f"{name}: the end of the session leaves it running", alive_with(lasting))
    async with sse_client(f"{base}/sse", headers=headers) as streams, ClientSession(*streams) as session:
        await session.initialize()
        jobs = (await session.call_tool("list_jobs", {})).structuredContent["jobs"]
        job = next(row for row in jobs if lasting in row["cmd"])
        equal(f"{name}: the next session has it as a job", job["status"], "running")
        await session.call_tool("kill_job", {"job_id": job["job_id"]})
        check(f"{name}: and ends it", await until(lambda: not alive_with(lasting)))
    async with sse_client(f"{base}/sse?toolsets=files", headers=headers) as streams, ClientSession(*streams) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        check(f"{name}: the endpoint narrows the tools", "read_file" in tools and "run_command" not in tools, tools)


class Stream:
    """A session by hand."""

    def __init__(self, web: httpx.AsyncClient, base: str, headers: dict):
        self.web, self.base, self.headers = web, base, headers

    async def __aenter__(self):
        self.opened = self.web.stream("GET", f"{self.base}/sse", headers=self.headers)
        self.response = await self.opened.__aenter__()
        equal("the stream opens", (self.response.status_code, self.response.headers["content-type"]), (200, "text/event-stream"))
        self.lines = self.response.aiter_lines()
        equal("its first event", await anext(self.lines), "event: endpoint")
        self.path = (await anext(self.lines)).removeprefix("data: ")
        check("names where messages go", re.fullmatch(r"/messages\?session_id=[0-9a-f]{32}", self.path), self.path)
        return self

    async def __aexit__(self, *_):
        await self.opened.__aexit__(None, None, None)

    async def post(self, message: dict, headers: dict | None = None, path: str | None = None) -> int:
        answer = await self.web.post(self.base + (path or self.path), json=message, headers=self.headers if headers is None else headers)
        return answer.status_code

    async def message(self) -> dict:
        async for line in self.lines:
            if line.startswith("data: "):
                return json.loads(line[6:])
        raise AssertionError("the stream ended")


async def by_hand(base: str, headers: dict, others: dict) -> None:
    async with httpx.AsyncClient(timeout=20) as web:
        async with Stream(web, base, headers) as mine, Stream(web, base, headers) as second:
            equal("a message is accepted", await mine.post(HELLO), 202)
            equal("and answered on the stream", (await mine.message())["result"]["protocolVersion"], "2024-11-05")
            check("no two sessions are one", mine.path != second.path)
            equal("without a key", await mine.post(HELLO, headers={}), 401)
            equal("with another's key", await mine.post(HELLO, headers=others), 404)
            equal("another path of mine", await mine.post(HELLO, path="/messages?session_id=" + "0" * 32), 404)
            equal("control: with mine", await mine.post(HELLO), 202)
            async with Stream(web, base, others) as theirs:
                equal("their own session takes their key", await theirs.post(HELLO), 202)
                equal("and not mine", await theirs.post(HELLO, headers=headers), 404)
            path = mine.path
        await asyncio.sleep(0.5)
        answer = await web.post(base + path, json=HELLO, headers=headers)
        equal("a session ends with its stream", answer.status_code, 404)
        equal("the stream asks for a key", (await web.get(f"{base}/sse")).status_code, 401)
        foreign = await web.get(f"{base}/sse", headers={**headers, "Origin": "https://evil.example"})
        equal("a foreign Origin", foreign.status_code, 403)


async def scenario() -> None:
    with HttpServer() as server:
        await use("mcp --http", server.url.removesuffix("/mcp"), server.headers)
    with Serve() as serve:
        mine, others = ({"Authorization": f"Bearer {key}"} for key in (serve.key, new_key("other")))
        await use("serve", serve.url, mine)
        await by_hand(serve.url, mine, others)


if __name__ == "__main__":
    main(scenario)
