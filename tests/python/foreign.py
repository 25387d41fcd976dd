"""What other people's clients and agent stacks make of the tools: every tool is listed and converted to what a model's
API takes, calls go through, arguments of null stand for none, and a tool's error is the client's own kind of error.
None of them talks to a model: where a stack wants one, a script stands in for it.

usage: foreign.py mcp2|fastmcp|openai|pydantic|gemini    with the packages of venv-agents.txt
       foreign.py mcp1|langchain                         with those of venv-v1.txt
       foreign.py typescript|claude                      with those of tests/node/package.json, and any Python
"""

import asyncio
import contextlib
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
from kit import BIN, HOME, HttpServer, check, client, equal, main, node, server_env, text_of
from raw import Stdio

ARGUMENTS = ["mcp", "--toolsets", "all"]
# A busy machine is not an error.
SECONDS = 90


def served() -> list[dict]:
    """The tools as the server lists them, by hand."""
    with Stdio(*ARGUMENTS[1:]) as server:
        return server.tools()


def nulls(tools: list[dict], name: str, **given) -> dict:
    """Arguments as strict stacks send them: all that there are, with null where none is meant."""
    schema = next(tool for tool in tools if tool["name"] == name)["inputSchema"]
    return {**dict.fromkeys(schema["properties"]), **given}


def same_tools(who: str, names, tools: list[dict]) -> None:
    equal(f"{who}: every tool, in the server's order", list(names), [tool["name"] for tool in tools])


def converted(who: str, tool: dict, schema: dict, strict: bool) -> None:
    """A converted schema of arguments: valid, with every argument, and by OpenAI's rules where it claims to be strict."""
    name = tool["name"]
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        broken = ""
    except jsonschema.SchemaError as error:
        broken = error.message
    check(f"{who}: {name}: the converted schema is one", not broken, broken)
    equal(f"{who}: {name}: no argument is lost", set(schema.get("properties", {})), set(tool["inputSchema"]["properties"]))
    if strict:
        check(f"{who}: {name}: strict", not not_strict(schema, "$"), not_strict(schema, "$"))


# https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
STRICT = {"type", "properties", "required", "additionalProperties", "items", "enum", "description", "anyOf", "$ref", "$defs", "minimum", "maximum"}  # fmt: skip


def not_strict(node: dict, at: str) -> list[str]:
    found = [f"{at}: {key}" for key in node if key not in STRICT]
    if node.get("type") == "object":
        if node.get("additionalProperties") is not False:
            found.append(f"{at}: open")
        if set(node.get("required", [])) != set(node.get("properties", {})):
            found.append(f"{at}: not all required")
    for key, child in node.get("properties", {}).items():
        found += not_strict(child, f"{at}.{key}")
    return found + (not_strict(node["items"], f"{at}[]") if "items" in node else [])


def stdio() -> dict:
    return {"command": BIN, "args": ARGUMENTS, "env": server_env()}


# --- the SDKs of the protocol ----------------------------------------------------------------------------------------


async def mcp2() -> None:
    tools = served()
    for transport, era in [("stdio", "modern"), ("stdio", "legacy"), ("http", "modern"), ("http", "legacy")]:
        who = f"mcp 2, {transport}, {era}"
        async with client(transport, era, *ARGUMENTS[1:]) as connected:
            same_tools(who, [tool.name for tool in (await connected.list_tools()).tools], tools)
            arguments = nulls(tools, "run_command", cmd="echo seen")
            good = await connected.call_tool("run_command", arguments)
            equal(f"{who}: a call", good.structured_content["stdout"], "seen\n")
            bad = await connected.call_tool("read_file", {"path": "nowhere.txt"})
            check(f"{who}: an error", bad.is_error and "nowhere.txt" in text_of(bad), bad)


async def mcp1() -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamablehttp_client

    tools = served()

    async def use(who, streams) -> None:
        async with ClientSession(streams[0], streams[1]) as session:
            await session.initialize()
            same_tools(who, [tool.name for tool in (await session.list_tools()).tools], tools)
            # It validates structured results by the output schemas it has listed.
            good = await session.call_tool("run_command", nulls(tools, "run_command", cmd="echo seen"))
            equal(f"{who}: a call", good.structuredContent["stdout"], "seen\n")
            bad = await session.call_tool("read_file", {"path": "nowhere.txt"})
            check(f"{who}: an error", bad.isError and "nowhere.txt" in text_of(bad), bad)

    with open(os.devnull, "w") as errors:
        async with stdio_client(StdioServerParameters(**stdio()), errlog=errors) as streams:
            await use("mcp 1, stdio", streams)
    with HttpServer(*ARGUMENTS[1:]) as server:
        async with streamablehttp_client(server.url, headers=server.headers) as streams:
            await use("mcp 1, http", streams)


async def typescript() -> None:
    """Its checks are in tests/node/foreign.mjs."""
    settings = HOME.parent / "settings.json"
    with HttpServer(*ARGUMENTS[1:]) as server:
        settings.write_text(json.dumps({**stdio(), "url": server.url, "headers": server.headers, "tools": served()}))
        # Its validators tell there what they do not know in a schema.
        equal("the SDKs complain of nothing", node("foreign.mjs", str(settings), seconds=4 * SECONDS), "")


async def fastmcp() -> None:
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
    from fastmcp.exceptions import ToolError

    tools = served()

    async def use(who, transport) -> None:
        async with Client(transport, timeout=SECONDS, init_timeout=SECONDS) as connected:
            same_tools(who, [tool.name for tool in await connected.list_tools()], tools)
            await connected.call_tool("write_file", {"path": "notes.txt", "content": "one\ntwo\n"})
            good = await connected.call_tool("run_command", nulls(tools, "run_command", cmd="wc -l < notes.txt"))
            equal(f"{who}: the structured result", good.structured_content["stdout"], "2\n")
            equal(f"{who}: the result as data", (good.data["stdout"], good.data["exit_code"]), ("2\n", 0))
            try:
                await connected.call_tool("read_file", {"path": "nowhere.txt"})
                check(f"{who}: an error is raised", False)
            except ToolError as error:
                check(f"{who}: an error names the file", "nowhere.txt" in str(error), error)

    transport = StdioTransport(BIN, ARGUMENTS, env=server_env(), keep_alive=False, log_file=HOME.parent / "fastmcp.log")
    await use("fastmcp, stdio", transport)
    with HttpServer(*ARGUMENTS[1:]) as server:
        await use("fastmcp, http", StreamableHttpTransport(server.url, headers=server.headers))


# --- agent stacks ----------------------------------------------------------------------------------------------------


async def openai() -> None:
    from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
    from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

    set_tracing_disabled(True)
    tools = served()

    class Script(Model):
        """In place of a model: makes one prepared call a turn, and keeps the tools it was offered."""

        def __init__(self, calls):
            self.calls = list(calls)
            self.offered = []

        async def get_response(self, *_, tools, **__):
            self.offered = tools
            if not self.calls:
                text = ResponseOutputText(text="done", type="output_text", annotations=[])
                said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
                return ModelResponse(output=[said], usage=Usage(), response_id=None)
            name, arguments = self.calls.pop(0)
            call = ResponseFunctionToolCall(
                call_id=f"call{len(self.calls)}", name=name, arguments=json.dumps(arguments), type="function_call"
            )
            return ModelResponse(output=[call], usage=Usage(), response_id=None)

        def stream_response(self, *_, **__):
            raise NotImplementedError("the script does not stream")

    calls = [
        ("write_file", nulls(tools, "write_file", path="notes.txt", content="one\ntwo\n")),
        ("run_command", nulls(tools, "run_command", cmd="wc -l < notes.txt")),
        ("read_file", nulls(tools, "read_file", path="nowhere.txt")),
        ("list_sandboxes", nulls(tools, "list_sandboxes")),
    ]

    async def use(who, server) -> None:
        async with server:
            script = Script(calls)
            agent = Agent("tester", model=script, mcp_servers=[server], mcp_config={"convert_schemas_to_strict": True})
            ended = await Runner.run(agent, "go on", max_turns=len(calls) + 2)
            offered = script.offered
            same_tools(who, [tool.name for tool in offered], tools)
            for tool, listed in zip(offered, tools):
                # It takes an object without properties for an open one and leaves it as it is.
                equal(f"{who}: {tool.name} is strict", tool.strict_json_schema, bool(listed["inputSchema"]["properties"]))
                converted(who, listed, tool.params_json_schema, tool.strict_json_schema)
            outputs = [item.output for item in ended.new_items if item.type == "tool_call_output_item"]
            equal(f"{who}: an output a call", len(outputs), len(calls))
            equal(f"{who}: a call with nulls", json.loads(outputs[1])["stdout"], "2\n")
            check(f"{who}: an error reaches the model", "nowhere.txt" in str(outputs[2]), outputs[2])
            equal(f"{who}: the list of sandboxes", json.loads(outputs[3])["ok"], True)

    settings = {"client_session_timeout_seconds": SECONDS, "use_structured_content": True}
    await use("openai-agents, stdio", MCPServerStdio(params=stdio(), **settings))
    with HttpServer(*ARGUMENTS[1:]) as server:
        params = {"url": server.url, "headers": server.headers, "timeout": SECONDS}
        await use("openai-agents, http", MCPServerStreamableHttp(params=params, **settings))


async def pydantic() -> None:
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
    from google.genai import types
    from pydantic_ai import Agent, ModelRetry
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.messages import ToolReturnPart
    from pydantic_ai.models.test import TestModel
    from pydantic_ai.profiles.google import GoogleJsonSchemaTransformer, GoogleOpenAPISchemaTransformer
    from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer

    tools = served()
    for tool in tools:
        name = tool["name"]
        strict = OpenAIJsonSchemaTransformer(copy.deepcopy(tool["inputSchema"]), strict=True)
        converted("pydantic-ai for OpenAI", tool, strict.walk(), True)
        plain = GoogleJsonSchemaTransformer(copy.deepcopy(tool["inputSchema"])).walk()
        equal(f"pydantic-ai for Google: {name} has nothing that it must drop", plain, tool["inputSchema"])
        narrow = GoogleOpenAPISchemaTransformer(copy.deepcopy(tool["inputSchema"])).walk()
        taken = types.Schema.model_validate(narrow)
        equal(f"pydantic-ai for Google: {name}: every argument", set(taken.properties or {}), set(tool["inputSchema"]["properties"]))

    # The model for tests makes arguments up from the schemas; these have a good end with any text.
    called = ["write_file", "run_command", "list_sandboxes", "list_jobs"]

    async def use(who, transport) -> None:
        toolset = MCPToolset(Client(transport, timeout=SECONDS, init_timeout=SECONDS))
        model = TestModel(call_tools=called)
        async with toolset:
            ended = await Agent(model, toolsets=[toolset]).run("go on")
            offered = model.last_model_request_parameters.function_tools
            same_tools(who, [tool.name for tool in offered], tools)
            returned = [part for message in ended.all_messages() for part in message.parts if isinstance(part, ToolReturnPart)]
            equal(f"{who}: the tools that were called", {part.tool_name for part in returned}, set(called))
            for part in returned:
                check(f"{who}: {part.tool_name} answered", part.outcome == "success" and part.content, part)
            good = await toolset.direct_call_tool("run_command", nulls(tools, "run_command", cmd="echo seen"))
            check(f"{who}: a call with nulls", "seen" in str(good), good)
            try:
                await toolset.direct_call_tool("read_file", {"path": "nowhere.txt"})
                check(f"{who}: an error asks the model to try again", False)
            except ModelRetry as error:
                check(f"{who}: an error names the file", "nowhere.txt" in str(error), error)

    transport = StdioTransport(BIN, ARGUMENTS, env=server_env(), keep_alive=False, log_file=HOME.parent / "pydantic.log")
    await use("pydantic-ai, stdio", transport)
    with HttpServer(*ARGUMENTS[1:]) as server:
        await use("pydantic-ai, http", StreamableHttpTransport(server.url, headers=server.headers))


async def langchain() -> None:
    from langchain_core.messages import ToolMessage
    from langchain_core.utils.function_calling import convert_to_openai_tool
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools

    tools = served()

    async def use(who, connection) -> None:
        several = MultiServerMCPClient({"sandhold": connection})
        async with several.session("sandhold") as session:
            loaded = await load_mcp_tools(session)
            same_tools(who, [tool.name for tool in loaded], tools)
            by_name = {tool.name: tool for tool in loaded}
            for tool in tools:
                function = convert_to_openai_tool(by_name[tool["name"]], strict=True)["function"]
                equal(f"{who}: {tool['name']} for OpenAI", (function["name"], function["strict"]), (tool["name"], True))
                converted(who, tool, function["parameters"], True)

            async def use_tool(name, **given):
                call = {"type": "tool_call", "id": "1", "name": name, "args": nulls(tools, name, **given)}
                return await by_name[name].ainvoke(call)

            await use_tool("write_file", path="notes.txt", content="one\ntwo\n")
            good = await use_tool("run_command", cmd="wc -l < notes.txt")
            check(f"{who}: a message", isinstance(good, ToolMessage) and good.status == "success", good)
            equal(f"{who}: the structured result", good.artifact["structured_content"]["stdout"], "2\n")
            bad = await use_tool("read_file", path="nowhere.txt")
            check(f"{who}: an error is a message that says so", bad.status == "error" and "nowhere.txt" in str(bad.content), bad)

    with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
        await use("langchain, stdio", {"transport": "stdio", **stdio()})
    with HttpServer(*ARGUMENTS[1:]) as server:
        await use("langchain, http", {"transport": "streamable_http", "url": server.url, "headers": server.headers})


async def gemini() -> None:
    from google.genai import types
    from google.genai._mcp_utils import mcp_to_gemini_tool
    from mcp.types import Tool

    for tool in served():
        name = tool["name"]
        made = mcp_to_gemini_tool(Tool.model_validate(tool)).function_declarations
        equal(f"google-genai: one function of {name}", [(one.name, one.description) for one in made], [(name, tool["description"])])
        wanted = tool["inputSchema"]
        got = made[0].parameters
        equal(f"google-genai: {name} takes an object", got.type, types.Type.OBJECT)
        same_schema(f"google-genai: {name}", got, wanted)


def same_schema(at: str, got, wanted: dict) -> None:
    """That a `google.genai.types.Schema` says the same as a schema of ours."""
    equal(f"{at}: the type", got.type.value.lower(), wanted["type"])
    equal(f"{at}: the description", got.description, wanted.get("description"))
    equal(f"{at}: the allowed values", got.enum, wanted.get("enum"))
    equal(f"{at}: what is required", got.required or [], wanted.get("required", []))
    equal(f"{at}: the properties", set(got.properties or {}), set(wanted.get("properties", {})))
    for key, child in wanted.get("properties", {}).items():
        same_schema(f"{at}.{key}", got.properties[key], child)
    if "items" in wanted:
        same_schema(f"{at}[]", got.items, wanted["items"])


# --- Claude Code -----------------------------------------------------------------------------------------------------


async def claude() -> None:
    """Its own check of a server it was told of, without an account: it connects and lists."""
    cpu = "arm64" if platform.machine() == "aarch64" else "x64"
    program = Path(os.environ["NODE_MODULES"], f"@anthropic-ai/claude-code-linux-{cpu}/claude")
    with tempfile.TemporaryDirectory() as home, HttpServer(*ARGUMENTS[1:]) as server:
        # Nothing of the caller's, and no way out: what it may say to its maker goes to a port where nobody listens.
        environment = {
            "HOME": home, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": home,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1", "MCP_TIMEOUT": str(SECONDS * 1000), "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost",
        }  # fmt: skip

        def run(*arguments: str) -> subprocess.CompletedProcess:
            return subprocess.run(
                [program, "mcp", *arguments], cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, timeout=2 * SECONDS,
            )  # fmt: skip

        settings = [argument for name, value in server_env().items() for argument in ("-e", f"{name}={value}")]
        added = [
            run("add", "local", *settings, "--", BIN, *ARGUMENTS),
            run("add", "--transport", "http", "remote", server.url, "--header", f"Authorization: Bearer {server.token}"),
            # The control: one that is no server is not connected.
            run("add", "nothing", "--", "/bin/false"),
        ]
        for made in added:
            equal("claude mcp add", made.returncode, 0) or print(made.stdout, made.stderr)
        listed = run("list")
        equal("claude mcp list", listed.returncode, 0)
        lines = {line.partition(":")[0]: line for line in listed.stdout.splitlines()}
        for name, connected in [("local", True), ("remote", True), ("nothing", False)]:
            line = lines.get(name, "")
            check(f"claude mcp list: {name}", line and ("✔ Connected" in line) == connected, listed.stdout + listed.stderr)
        one = run("get", "local")
        check("claude mcp get", "✔ Connected" in one.stdout, one.stdout + one.stderr)


CLIENTS = {
    "mcp1": mcp1, "mcp2": mcp2, "fastmcp": fastmcp, "openai": openai, "pydantic": pydantic, "langchain": langchain,
    "gemini": gemini, "typescript": typescript, "claude": claude,
}  # fmt: skip


async def scenario(name: str) -> None:
    await CLIENTS[name]()


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
