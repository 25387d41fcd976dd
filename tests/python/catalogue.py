"""Every tool of the server, by the table of `catalogue_rows.py`, and the laws that hold for all of them. A tool without a
row fails. Run through `remote.py` it does the same with the sandboxes of a `sandhold serve`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import jsonschema
from catalogue_large import LARGE
from catalogue_rows import ROWS, Bad, Good
from kit import BIN, HOME, HttpServer, check, equal, main
from raw import Http, ProtocolError, Stdio

PROVIDER = os.environ.get("SANDHOLD_PROVIDER", "local")
LOCAL = HOME.parent / "shared"
# Of JSON, of what a client is sent.
DEFAULT_LIST = 20_000
WHOLE_LIST = 48_000
ANSWER = 100_000
# What some client refuses: OpenAI's and Google's subsets, and clients that drop a tool or a whole list.
BANNED = {
    "$ref", "$defs", "$schema", "oneOf", "anyOf", "allOf", "not", "if", "const", "format", "default", "prefixItems",
    "patternProperties", "propertyNames", "additionalProperties", "minLength", "maxLength", "pattern", "uniqueItems",
    "contains", "nullable", "title",
}  # fmt: skip
# Arguments that their names explain; the list of tools has to stay small.
SELF_EVIDENT = set(
    "allow_internet_access append body close cmd code content context_lines cpus cwd deny_out dest_dir disk_mb envs from "
    "headers include_ignored job_id limit_lines memory_mb name new_text old_text overwrite path pattern port project_dir "
    "recursive replace_all sandbox_id set_as_default src_dir stdin timeout_s to value zip_path".split()
)


# --- the laws of the list ----------------------------------------------------------------------------------------------


def nodes(schema, at: str):
    """Every schema within a schema; what properties are called does not matter."""
    yield at, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{at}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{at}[]")


def law_of_schemas(tool: dict) -> None:
    name = tool["name"]
    for side in ("inputSchema", "outputSchema"):
        schema = tool.get(side)
        if not check(f"{name}: {side} is an object", schema and schema.get("type") == "object", schema):
            continue
        broken = []
        for at, node in nodes(schema, side):
            broken += [f"{at}: {word}" for word in BANNED & set(node)]
            if not isinstance(node.get("type"), str):
                broken.append(f"{at}: not one type")
            if node.get("type") == "array" and "items" not in node:
                broken.append(f"{at}: a list of anything")
            if not set(node.get("required", [])) <= set(node.get("properties", {})):
                broken.append(f"{at}: requires what it does not have")
        check(f"{name}: {side} is portable", not broken, broken)
        jsonschema.Draft202012Validator.check_schema(schema)
    check(f"{name}: the arguments are told, if there are any or not", "properties" in tool["inputSchema"], tool["inputSchema"])
    silent = [
        at for at, node in nodes(tool["inputSchema"], "")
        if at and not at.endswith("[]") and not node.get("description") and at.rpartition(".")[2] not in SELF_EVIDENT
    ]  # fmt: skip
    check(f"{name}: every argument is described or says it by its name", not silent, silent)


def laws_of_the_list(tools: list[dict]) -> None:
    names = [tool["name"] for tool in tools]
    equal("no name twice", len(names), len(set(names)))
    for tool in tools:
        name = tool["name"]
        check(f"{name}: a portable name", re.fullmatch(r"[a-z0-9_]{1,30}", name))
        check(f"{name}: a title", tool.get("title"))
        check(f"{name}: a description of 20 to 300 characters", 20 <= len(tool.get("description", "")) <= 300, tool.get("description"))
        hints = {hint: value for hint, value in tool["annotations"].items() if hint.endswith("Hint")}
        four = {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        check(f"{name}: four annotations", set(hints) == four and all(isinstance(value, bool) for value in hints.values()), hints)
        check(f"{name}: what only reads destroys nothing", not (hints["readOnlyHint"] and hints["destructiveHint"]), hints)
        law_of_schemas(tool)
    equal("every tool has a row in the table, and every row its tool", sorted(row.tool for row in ROWS), sorted(names))


def laws_of_selection(tools: list[dict]) -> None:
    """What the switches offer, and that the list is one and the same however it is asked for."""
    names = [tool["name"] for tool in tools]
    whole = compact({"tools": tools})
    check("the whole list stays small", whole <= WHOLE_LIST, f"{whole} bytes")
    with Stdio() as server:
        first = server.tools()
        size = compact({"tools": first})
        check("the default list stays small", size <= DEFAULT_LIST, f"{size} bytes")
        equal("the list's order stands", server.tools(), first)
        equal("the default list is a part of the whole", first, [tool for tool in tools if tool in first])
        hidden = next((name for name in names if name not in {tool["name"] for tool in first}), None)
        if hidden:
            check("what is not offered cannot be called", refused(server, hidden), hidden)
    with Stdio("--toolsets", "all", "--read-only") as server:
        reading = [tool["name"] for tool in tools if tool["annotations"]["readOnlyHint"]]
        equal("--read-only offers what only reads", [tool["name"] for tool in server.tools()], reading)
        check("--read-only: nothing else can be called", refused(server, "write_file"))
    other = {"local": "e2b", "e2b": "local"}[PROVIDER]
    if PROVIDER == "e2b":
        with Stdio("--toolsets", "all", "--provider", other) as server:
            equal("the list is the same for local sandboxes", server.tools(), tools)
    with HttpServer("--toolsets", "all") as server:
        here = Http(server)
        over_http = here.tools()
        differs = [tool["name"] for tool in over_http if tool not in tools] + sorted(set(names) - {tool["name"] for tool in over_http})
        equal("the list is the same over HTTP", (differs, [tool["name"] for tool in over_http]), ([], names))
        narrow = Http(server, "?toolsets=files,commands")
        few = narrow.tools()
        equal("/mcp?toolsets= narrows the list", few, [tool for tool in over_http if tool["name"] in {one["name"] for one in few}])
        listed = {tool["name"] for tool in few}
        wanted = ({"read_file", "run_command"} <= listed, listed & {"create_sandbox", "start_service", "open_shell"})
        equal("/mcp?toolsets= offers these toolsets", wanted, (True, set()))
        check("/mcp?toolsets= narrows what can be called", refused(narrow, "create_sandbox"))
        answer = here.call("list_sandboxes", {})
        equal("the control: the whole endpoint can call it", answer["structuredContent"]["ok"], True)
        host = here.call("upload_file", {"local_path": "/etc/hostname", "path": "h"})["structuredContent"]
        equal("over HTTP no file of the server's machine is read", host.get("error", {}).get("code"), "not_allowed")
        unknown = Http(server, "?toolsets=nonsense")
        check("/mcp?toolsets= with a name that is none is refused", failure(unknown.tools), "it listed")


def refused(server, tool: str) -> bool:
    try:
        answer = server.call(tool, {})
    except ProtocolError:
        return True
    # A tool that is there would complain of its arguments.
    return answer.get("isError", False) and "unknown tool" in json.dumps(answer).lower()


def failure(what) -> bool:
    try:
        what()
    except ProtocolError:
        return True
    return False


def compact(value) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


# --- the laws of every answer --------------------------------------------------------------------------------------------


class Caller:
    def __init__(self, server: Stdio, tools: list[dict]):
        self.server = server
        self.tools = {tool["name"]: tool for tool in tools}
        # The list says of results only that they are objects; what is in them is told elsewhere.
        printed = subprocess.run([BIN, "tools", "--format", "mcp", "--toolsets", "all"], capture_output=True, check=True).stdout
        self.schemas = {tool["name"]: tool["outputSchema"] for tool in json.loads(printed)["tools"]}
        equal("`sandhold tools` tells of the same tools", set(self.schemas), set(self.tools))
        self.kept = {"provider": PROVIDER, "local": str(LOCAL)}

    def fill(self, value):
        """`$name` by what was kept under it; a text may also begin with it, as a path."""
        if isinstance(value, str) and value.startswith("$"):
            name, slash, rest = value[1:].partition("/")
            return f"{self.kept[name]}/{rest}" if slash else self.kept[name]
        if isinstance(value, dict):
            return {key: self.fill(child) for key, child in value.items()}
        if isinstance(value, list):
            return [self.fill(child) for child in value]
        return value

    def call(self, tool: str, arguments: dict, what: str) -> dict:
        """The structured content of the answer, after the laws that hold for all answers."""
        result = self.server.call(tool, arguments)
        content = result.get("structuredContent")
        what = f"{tool}, {what}"
        if not check(f"{what}: structured", isinstance(content, dict) and isinstance(content.get("ok"), bool), result):
            return {"ok": False, "error": {"code": "none", "message": ""}}
        failed = not content["ok"]
        equal(f"{what}: isError says what ok says", result.get("isError", False), failed)
        equal(f"{what}: an error exactly where it failed", "error" in content, failed)
        if failed:
            error = content["error"]
            good = set(error) <= {"code", "message", "hint"} and re.fullmatch(r"[a-z_]+", error["code"]) and all(error.values())
            check(f"{what}: {{code, message, hint?}}", good, error)
        text = "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
        check(f"{what}: a model has something to read", text.strip(), result["content"])
        own = {key: value for key, value in content.items() if key not in ("ok", "sandbox_id", "error")}
        whole = self.schemas[tool]
        for schema in (self.tools[tool]["outputSchema"], whole):
            broken = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]
            check(f"{what}: keeps to the output schema", not broken, broken)
        equal(f"{what}: nothing that the whole schema does not name", set(own) - set(whole["properties"]), set())
        # Pictures, and bytes that were asked for as such, have limits of their own.
        bytes_asked_for = sum(len(part.get("data", "")) for part in result["content"]) + len(content.get("base64") or "")
        size = compact(result) - bytes_asked_for
        check(f"{what}: at most {ANSWER} bytes", size <= ANSWER, f"{size} bytes")
        if failed:
            check(f"{what}: the refusal is short and without debris", len(text) < 2000 and "panicked" not in text, text)
            equal(f"{what}: the text says what the error says", error["message"] in text, True)
        return content

    def good(self, row_tool: str, step: Good) -> None:
        tool = step.tool or row_tool
        arguments, wanted = self.fill(step.arguments), self.fill(step.answer)
        end = time.monotonic() + 60
        while True:
            answer = self.call(tool, arguments, f"good {brief(arguments)}")
            found = unlike(answer, wanted, "answer")
            if not (step.again and found and answer["ok"] and time.monotonic() < end):
                break
        if not answer["ok"] and answer["error"]["code"] in step.unless:
            check(f"{tool}: says why it cannot", len(answer["error"]["message"]) > 20, answer)
            return
        if check(f"{tool} {brief(arguments)} works", answer["ok"], answer):
            check(f"{tool} {brief(arguments)}: the answer", not found, f"{found} in {answer}")
        for name, key in step.keep.items():
            self.kept[name] = answer.get(key)

    def bad(self, tool: str, kind: str, step: Bad | str) -> None:
        if isinstance(step, str):
            return
        arguments = self.fill(step.arguments)
        answer = self.call(tool, arguments, kind)
        if not check(f"{tool} {brief(arguments)} ({kind}) is refused", not answer["ok"], answer):
            return
        error = answer["error"]
        check(f"{tool} ({kind}): the refusal names {step.word}", step.word.lower() in error["message"].lower(), error)
        if kind == "a wrong argument":
            equal(f"{tool} ({kind}): the code", error["code"], "invalid_argument")
        blunt = {"internal", "server_error", "unreachable"}
        check(f"{tool} ({kind}): a code that says what it is", error["code"] not in blunt, error)


def brief(arguments: dict) -> str:
    return json.dumps({key: value if len(str(value)) < 80 else "…" for key, value in arguments.items()})


def unlike(got, wanted, at: str) -> list[str]:
    """Where `got` is not like the example `wanted`."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return [f"{at} is {got!r}"]
        return [found for key, child in wanted.items() for found in unlike(got.get(key), child, f"{at}.{key}")]
    if isinstance(wanted, list):
        if not isinstance(got, list):
            return [f"{at} is {got!r}"]
        return [f"{at} has none like {one}" for one in wanted if all(unlike(entry, one, at) for entry in got)]
    if isinstance(wanted, re.Pattern):
        good = isinstance(got, str) and wanted.search(got)
    elif isinstance(wanted, type):
        good = isinstance(got, wanted) and not (wanted is int and isinstance(got, bool))
    elif callable(wanted):
        good = wanted(got)
    else:
        good = got == wanted and type(got) is type(wanted)
    return [] if good else [f"{at} is {got!r}"]


def switches() -> list[str]:
    """All tools, and a folder of the host for those that need one."""
    LOCAL.mkdir()
    (LOCAL / "up.txt").write_text("from me\n")
    known = subprocess.run([BIN, "mcp", "--help"], capture_output=True, text=True, check=True).stdout
    return ["--toolsets", "all", *(["--allow-dir", str(LOCAL)] if "--allow-dir" in known else [])]


async def scenario() -> None:
    with Stdio(*switches()) as server:
        tools = server.tools()
        laws_of_the_list(tools)
        caller = Caller(server, tools)
        for row in ROWS:
            if row.tool == "shutdown_sandbox":
                for step in LARGE:
                    caller.good(row.tool, step)
            for step in row.good:
                caller.good(row.tool, step)
            for kind, step in [("a wrong argument", row.wrong), ("a missing object", row.missing), ("a limit", row.limit)]:
                caller.bad(row.tool, kind, step)
        check("the server wrote no panic", "panicked" not in server.said(), server.said())
    laws_of_selection(tools)


if __name__ == "__main__":
    main(scenario)
