"""The last client of the 1.x line, which many programs still pin: list, call, errors, progress; stdio and HTTP."""

import tempfile

from kit import BIN, HttpServer, check, equal, main, server_env


async def use(name: str, streams) -> None:
    from mcp import ClientSession

    async with ClientSession(streams[0], streams[1]) as session:
        hello = await session.initialize()
        equal(f"{name}: the protocol", hello.protocolVersion, "2025-11-25")
        tools = {tool.name for tool in (await session.list_tools()).tools}
        check(f"{name}: tools", {"run_command", "read_file", "create_sandbox"} <= tools, tools)
        seen = []

        async def told(value, total, message):
            seen.append(value)

        result = await session.call_tool("run_command", {"cmd": "for i in 1 2 3; do echo $i; sleep 0.5; done"}, progress_callback=told)
        equal(f"{name}: a call", result.structuredContent["stdout"], "1\n2\n3\n")
        check(f"{name}: progress", seen, seen)
        missing = await session.call_tool("read_file", {"path": "nowhere.txt"})
        check(f"{name}: a tool error", missing.isError and "nowhere.txt" in missing.content[0].text, missing)


async def scenario() -> None:
    from mcp import StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamablehttp_client

    parameters = StdioServerParameters(command=BIN, args=["mcp"], env=server_env())
    with tempfile.TemporaryFile("w+") as errors:
        async with stdio_client(parameters, errlog=errors) as streams:
            await use("stdio", streams)
    with HttpServer() as server:
        async with streamablehttp_client(server.url, headers=server.headers) as streams:
            await use("http", streams)


if __name__ == "__main__":
    main(scenario)
