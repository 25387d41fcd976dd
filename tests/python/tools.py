"""Every tool of the toolsets sandbox, files and commands, with good and with bad arguments.

usage: tools.py stdio|http modern|legacy
"""

import base64
import json
import os
import re
import subprocess
import sys

import jsonschema
from kit import BIN, call, check, client, equal, main, shown, text_of

SANDBOX = {
    "create_sandbox", "connect_sandbox", "list_sandboxes", "sandbox_info", "set_sandbox_timeout", "pause_sandbox",
    "shutdown_sandbox", "shutdown_all_sandboxes",
}  # fmt: skip
FILES = {
    "write_file", "write_files", "read_file", "edit_file", "list_dir", "make_dir", "path_info", "move_path",
    "remove_path", "search_files",
}  # fmt: skip
COMMANDS = {"run_command", "run_command_bg", "get_job_status", "list_jobs", "send_stdin", "kill_job"}


class Tools:
    """Calls tools and keeps what a good and a bad call of each has shown."""

    def __init__(self, connected, listed):
        self.client = connected
        self.listed = {tool.name: tool for tool in listed}
        # The list says only that results are objects.
        printed = subprocess.run([BIN, "tools"], check=True, capture_output=True, timeout=60).stdout
        self.outputs = {tool["name"]: tool["outputSchema"] for tool in json.loads(printed)["tools"]}
        self.good_calls: set[str] = set()
        self.bad_calls: set[str] = set()

    async def good(self, tool: str, **arguments) -> dict:
        answer = await call(self.client, tool, arguments)
        said = {key: value for key, value in arguments.items() if len(str(value)) < 200}
        if check(f"{tool} {said}", not answer["_error"], answer["_text"]):
            self.good_calls.add(tool)
            raw = answer["_raw"]
            try:
                jsonschema.validate(raw.structured_content, self.outputs[tool])
                valid = ""
            except jsonschema.ValidationError as error:
                valid = error.message
            check(f"{tool}: the answer keeps to the output schema", not valid, valid)
            equal(f"{tool}: ok", answer.get("ok"), True)
            check(f"{tool}: a model has something to read", text_of(raw).strip(), raw)
        return answer

    async def bad(self, tool: str, arguments: dict, *words: str) -> dict:
        """A call that must be refused as a tool error whose text holds one of `words`."""
        answer = await call(self.client, tool, arguments)
        said = {key: value for key, value in arguments.items() if len(str(value)) < 200}
        check(f"{tool} {said} is refused", answer["_error"], answer["_text"])
        check(f"{tool} {said} is refused by a tool error, not by the protocol", not answer.get("_protocol"), answer["_text"])
        text = answer["_text"]
        check(f"{tool}: the refusal says {' or '.join(words)}", any(word.lower() in text.lower() for word in words), text)
        check(f"{tool}: the refusal is short and without debris", len(text) < 2000 and "panicked" not in text, text)
        if answer["_error"]:
            self.bad_calls.add(tool)
        return answer


async def schemas(connected, listed) -> None:
    names = [tool.name for tool in listed]
    missing = (SANDBOX | FILES | COMMANDS) - set(names)
    check("every tool of the three toolsets is listed", not missing, missing)
    equal("no name twice", len(names), len(set(names)))
    again = (await connected.list_tools(cache_mode="refresh")).tools
    equal("the list's order stands", [tool.name for tool in again], names)
    size = len(json.dumps([tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in listed], separators=(",", ":")))
    check("the list stays under 20 kB", size < 20_000, f"{size} bytes")
    for tool in listed:
        name = tool.name
        hints = tool.annotations
        check(f"{name}: a portable name", re.fullmatch(r"[a-z0-9_]{1,30}", name), name)
        check(f"{name}: a title", tool.title or (hints and hints.title))
        check(f"{name}: a description of at most 300 characters", tool.description and len(tool.description) <= 300)
        four = [hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint] if hints else []
        check(f"{name}: four annotations", len(four) == 4 and None not in four, four)
        for kind, schema in (("input", tool.input_schema), ("output", tool.output_schema)):
            check(f"{name}: the {kind} schema is an object", schema and schema.get("type") == "object", schema)
            text = json.dumps(schema)
            strange = [word for word in ('"$ref"', '"$defs"', '"oneOf"', '"const"', '"additionalProperties": false') if word in text]
            check(f"{name}: the {kind} schema is portable", not strange, strange)


async def sandbox_tools(tools: Tools) -> None:
    made = await tools.good(
        "create_sandbox", template="base", timeout_s=600, metadata=[{"name": "suite", "value": "tools"}],
        envs=[{"name": "GREETING", "value": "hello"}], set_as_default=True,
    )  # fmt: skip
    sandbox = made["sandbox_id"]
    equal("the sandbox runs", made.get("state"), "running")
    equal("its template", made.get("template"), "base")
    check("it says when it ends", made.get("end_at"), made)
    said = await tools.good("run_command", cmd='echo "$GREETING"')
    equal("the sandbox's environment reaches commands", said.get("stdout"), "hello\n")
    equal("the default sandbox is used", said.get("sandbox_id"), sandbox)

    listed = await tools.good("list_sandboxes", metadata=[{"name": "suite", "value": "tools"}])
    check("it is listed by its metadata", sandbox in [row.get("sandbox_id") for row in listed.get("sandboxes", [])], listed)
    none = await tools.good("list_sandboxes", metadata=[{"name": "suite", "value": "other"}])
    equal("other metadata does not find it", none.get("sandboxes"), [])
    info = await tools.good("sandbox_info")
    equal("sandbox_info names it", info.get("sandbox_id"), sandbox)
    equal("sandbox_info: provider", info.get("provider"), os.environ.get("SANDHOLD_PROVIDER", "local"))
    check("sandbox_info: the isolation level", "namespaces" in json.dumps(info.get("isolation", "")), info)
    check("sandbox_info: resources", info.get("resources"), info)
    check("sandbox_info: metadata", "suite" in json.dumps(info.get("metadata", "")), info)
    later = await tools.good("set_sandbox_timeout", timeout_s=1200)
    check("a longer timeout ends later", later.get("end_at", "") > made.get("end_at", "~"), (made.get("end_at"), later))
    connected = await tools.good("connect_sandbox", sandbox_id=sandbox)
    equal("connecting keeps the id", connected.get("sandbox_id"), sandbox)
    check("connecting does not shorten its life", connected.get("end_at", "") >= later.get("end_at", "~"), connected)

    await tools.bad("create_sandbox", {"template": "no-such-template"}, "template")
    await tools.bad("create_sandbox", {"timeout_s": 0}, "timeout_s", "timeout")
    await tools.bad("create_sandbox", {"timeout_s": 10**9}, "timeout")
    await tools.bad("create_sandbox", {"memory_mb": 1}, "memory")
    await tools.bad("create_sandbox", {"tempalte": "base"}, "tempalte")
    await tools.bad("create_sandbox", {"envs": [{"name": "1BAD", "value": "x"}]}, "1BAD", "name")
    await tools.bad("create_sandbox", {"metadata": [{"name": "k", "value": "x" * 2000}]}, "metadata")
    for tool in ("connect_sandbox", "sandbox_info", "pause_sandbox"):
        await tools.bad(tool, {"sandbox_id": "i00000000000000000000"}, "i00000000000000000000")
    await tools.bad("connect_sandbox", {}, "sandbox_id")
    await tools.bad("shutdown_sandbox", {"sandbox": "i00000000000000000000"}, "sandbox_id")
    await tools.bad("connect_sandbox", {"sandbox_id": "../../etc"}, "sandbox_id", "../../etc")
    await tools.bad("set_sandbox_timeout", {"timeout_s": -5}, "timeout_s", "timeout")
    await tools.bad("set_sandbox_timeout", {"timeout_s": "soon"}, "timeout_s", "integer", "number")
    await tools.bad("list_sandboxes", {"state": "asleep"}, "state", "running")
    await tools.bad("list_sandboxes", {"limit": -1}, "limit")
    await tools.bad("shutdown_all_sandboxes", {"really": True}, "really")


async def file_tools(tools: Tools) -> None:
    wrote = await tools.good("write_file", path="a/b/hello.txt", content="one\ntwo\nthree\n")
    equal("write_file: size", wrote.get("size"), 14)
    equal("write_file: the path, absolute", wrote.get("path"), "/home/user/a/b/hello.txt")
    await tools.good("write_file", path="a/b/hello.txt", content="four\n", append=True)
    read = await tools.good("read_file", path="a/b/hello.txt")
    equal("read_file: text", read.get("text"), "one\ntwo\nthree\nfour\n")
    equal("read_file: total_lines", read.get("total_lines"), 4)
    middle = await tools.good("read_file", path="~/a/b/hello.txt", offset_line=2, limit_lines=2)
    equal("read_file: lines two and three", middle.get("text"), "two\nthree\n")
    last = await tools.good("read_file", path="a/b/hello.txt", offset_line=-1)
    equal("read_file: a negative offset reads the end", last.get("text"), "four\n")
    raw = bytes(range(256))
    await tools.good("write_file", path="raw.bin", content=base64.b64encode(raw).decode(), encoding="base64")
    back = await tools.good("read_file", path="raw.bin", encoding="base64")
    same = base64.b64encode(raw).decode()
    check("bytes survive", same in json.dumps(back["_raw"].model_dump(mode="json")), back["_text"][:300])
    await tools.bad("read_file", {"path": "raw.bin"}, "utf-8", "base64")
    some = [{"path": "w/1.txt", "content": "1\n"}, {"path": "w/2.txt", "content": "2\n"}]
    many = await tools.good("write_files", files=some)
    check("write_files: a row a file", "w/1.txt" in shown(many) or "1.txt" in many["_text"], many["_text"])
    await tools.good("write_file", path="crlf.txt", content="a\r\nb\r\n")
    await tools.good("run_command", cmd="chmod 750 crlf.txt")
    edited = await tools.good("edit_file", path="crlf.txt", old_text="b", new_text="c")
    equal("edit_file: replacements", edited.get("replacements"), 1)
    check("edit_file: a diff", "+c" in edited["_text"] or "+c" in json.dumps(edited.get("diff", "")), edited["_text"])
    kept = await tools.good("run_command", cmd="stat -c %a crlf.txt; od -c crlf.txt | head -n 1")
    check("edit_file keeps the mode and CRLF", kept["stdout"].startswith("750\n") and "c  \\r  \\n" in kept["stdout"], kept["stdout"])
    await tools.bad("edit_file", {"path": "a/b/hello.txt", "old_text": "two\nthre\n", "new_text": "x"}, "three")
    await tools.bad("edit_file", {"path": "a/b/hello.txt", "old_text": "o", "new_text": "0"}, "replace_all", "times", "matches")
    every = await tools.good("edit_file", path="a/b/hello.txt", old_text="o", new_text="0", replace_all=True)
    equal("edit_file: replace_all", every.get("replacements"), 3)
    listed = await tools.good("list_dir", path="a", depth=2)
    check("list_dir shows both levels", {"b", "hello.txt"} <= {entry["name"] for entry in listed.get("entries", [])}, listed)
    equal("make_dir: made", (await tools.good("make_dir", path="a/new/deep")).get("created"), True)
    equal("make_dir: stood already", (await tools.good("make_dir", path="a/new/deep")).get("created"), False)
    equal("path_info: there", (await tools.good("path_info", path="a/b/hello.txt")).get("exists"), True)
    equal("path_info: absent", (await tools.good("path_info", path="a/none")).get("exists"), False)
    await tools.good("move_path", **{"from": "w/1.txt", "to": "w/moved.txt"})
    await tools.good("read_file", path="w/moved.txt")
    await tools.good("write_file", path="src/main.py", content="def add(a, b):\n    return a + b\n")
    await tools.good("write_file", path="src/.gitignore", content="ignored.py\n")
    await tools.good("write_file", path="src/ignored.py", content="def add(): pass\n")
    found = await tools.good("search_files", pattern=r"def \w+\(", path="src")
    matches = found.get("matches", [])
    equal("search_files finds by content and honours .gitignore", [(m["path"].rsplit("/")[-1], m["line"]) for m in matches], [("main.py", 1)])
    named = await tools.good("search_files", pattern="main", path="src", mode="name")
    check("search_files by name", ["main.py"] == [m["path"].rsplit("/")[-1] for m in named.get("matches", [])], named)
    await tools.good("remove_path", path="w/moved.txt")
    await tools.good("remove_path", path="w", recursive=True)

    await tools.bad("write_file", {"path": "a/b", "content": "x"}, "director", "folder")
    await tools.bad("write_file", {"path": "a/b/hello.txt/x", "content": "x"}, "hello.txt", "director")
    await tools.bad("write_file", {"path": "x", "content": "not base64!", "encoding": "base64"}, "base64")
    await tools.bad("write_file", {"path": "x", "content": "x", "encoding": "latin1"}, "encoding", "utf8")
    await tools.bad("write_file", {"path": "x"}, "content")
    await tools.bad("write_file", {"path": 7, "content": "x"}, "path", "string")
    await tools.bad("write_file", {"path": "x", "content": "x", "mode": "0644"}, "mode")
    await tools.bad("write_file", {"path": "", "content": "x"}, "path")
    await tools.bad("write_file", {"path": "nul\0byte", "content": "x"}, "path", "nul", "zero")
    await tools.bad("write_file", {"path": "x", "content": "y" * (4 * 1024 * 1024 + 1)}, "content", "4 MiB", "4194304")
    await tools.bad("write_file", {"path": "/usr/bin/new", "content": "x"}, "/usr/bin/new", "read-only", "permission")
    await tools.bad("write_files", {"files": []}, "files")
    await tools.bad("write_files", {"files": [{"path": "ok.txt", "content": "1"}, {"path": "a/b", "content": "2"}]}, "a/b")
    await tools.bad("read_file", {"path": "a/b"}, "director", "folder", "list_dir")
    await tools.bad("read_file", {"path": "nowhere.txt"}, "nowhere.txt")
    await tools.bad("read_file", {"path": "a/b/hello.txt", "limit_lines": 0}, "limit_lines")
    await tools.bad("edit_file", {"path": "nowhere.txt", "old_text": "a", "new_text": "b"}, "nowhere.txt")
    await tools.bad("edit_file", {"path": "a/b/hello.txt", "old_text": "", "new_text": "b"}, "old_text")
    await tools.bad("list_dir", {"path": "a/b/hello.txt"}, "not a director", "not a folder", "is a file")
    await tools.bad("list_dir", {"path": "nowhere"}, "nowhere")
    await tools.bad("make_dir", {"path": "a/b/hello.txt"}, "hello.txt")
    await tools.bad("path_info", {}, "path")
    await tools.bad("move_path", {"from": "nowhere", "to": "x"}, "nowhere")
    await tools.bad("remove_path", {"path": "a"}, "recursive")
    await tools.bad("remove_path", {"path": ""}, "path")
    absent = await tools.good("remove_path", path="nowhere-at-all")
    equal("remove_path: nothing was there", absent.get("removed"), False)
    await tools.bad("search_files", {"pattern": "(", "path": "src"}, "pattern", "regex", "unclosed")
    await tools.bad("search_files", {"pattern": "x", "path": "nowhere"}, "nowhere")
    still = await tools.good("path_info", path="a/b/hello.txt")
    equal("a refused removal removed nothing", still.get("exists"), True)


async def command_tools(tools: Tools) -> None:
    out = await tools.good("run_command", cmd="echo out; echo err >&2; exit 3")
    equal("run_command: streams and exit code", (out.get("stdout"), out.get("stderr"), out.get("exit_code")), ("out\n", "err\n", 3))
    check("run_command: duration_ms", isinstance(out.get("duration_ms"), (int, float)), out)
    where = await tools.good("run_command", cmd="pwd; id -un; echo $A", cwd="/tmp", envs=[{"name": "A", "value": "b c"}])
    equal("run_command: cwd, user, envs", where.get("stdout"), "/tmp\nuser\nb c\n")
    fed = await tools.good("run_command", cmd="cat", stdin="typed\n")
    equal("run_command: stdin", fed.get("stdout"), "typed\n")
    job = await tools.good("run_command_bg", cmd="while read line; do echo got $line; done; echo end", job_id="reader")
    equal("run_command_bg: the id that was asked for", job.get("job_id"), "reader")
    check("run_command_bg: pid", job.get("pid"), job)
    listed = await tools.good("list_jobs")
    check("list_jobs names it", "reader" in [row.get("job_id") for row in listed.get("jobs", [])], listed)
    first = {}
    for turn in range(20):
        await tools.good("send_stdin", job_id="reader", data=f"{turn}\n")
        first = await tools.good("get_job_status", job_id="reader", wait_s=5, cursor=first.get("cursor"))
        got = (first.get("status"), first.get("awaiting_input"), first.get("stdout"))
        equal(f"get_job_status: it waits for input, with what came of turn {turn}", got, ("running", True, f"got {turn}\n"))
    await tools.good("send_stdin", job_id="reader", data="second\n", close=True)
    done = first
    text = ""
    for _ in range(20):
        done = await tools.good("get_job_status", job_id="reader", wait_s=5, cursor=done.get("cursor") or done.get("next_cursor"))
        text += done.get("stdout") or ""
        if done.get("status") != "running":
            break
    equal("get_job_status: done, and no line twice", (done.get("status"), done.get("exit_code"), text), ("done", 0, "got second\nend\n"))
    sleeper = await tools.good("run_command_bg", cmd="sleep 600")
    await tools.good("kill_job", job_id=sleeper["job_id"])
    ended = await tools.good("get_job_status", job_id=sleeper["job_id"], wait_s=5)
    equal("a killed job is cancelled", ended.get("status"), "cancelled")

    await tools.bad("run_command", {"cmd": "true", "cmmd": "x"}, "cmmd")
    await tools.bad("run_command", {}, "cmd")
    await tools.bad("run_command", {"cmd": 5}, "cmd", "string")
    await tools.bad("run_command", {"cmd": ""}, "cmd")
    await tools.bad("run_command", {"cmd": "x" * (64 * 1024 + 1)}, "cmd", "64 KiB", "65536")
    await tools.bad("run_command", {"cmd": "true", "cwd": "/nowhere"}, "/nowhere")
    await tools.bad("run_command", {"cmd": "true", "user": "nobody-such"}, "nobody-such", "user")
    await tools.bad("run_command", {"cmd": "true", "timeout_s": 0}, "timeout_s", "timeout")
    await tools.bad("run_command", {"cmd": "true", "envs": [{"name": "A=B", "value": ""}]}, "A=B", "name")
    await tools.bad("run_command_bg", {"cmd": "true", "job_id": "no such/id!"}, "job_id")
    await tools.bad("run_command_bg", {"cmd": "true", "cwd": "/nowhere"}, "/nowhere")
    gone = await call(tools.client, "get_job_status", {"job_id": "nothing"})
    check("get_job_status: not_found is told", "not_found" in json.dumps(gone.get("status", "")) or "nothing" in gone["_text"], gone["_text"])
    await tools.bad("get_job_status", {"job_id": "reader", "wait_s": 4000}, "wait_s")
    await tools.bad("send_stdin", {"job_id": "nothing", "data": "x"}, "nothing")
    await tools.bad("send_stdin", {"job_id": "reader", "data": "x"}, "reader", "ended", "closed", "done")
    await tools.bad("kill_job", {"job_id": "nothing"}, "nothing")
    await tools.bad("kill_job", {"job_id": "reader", "signal": "SIGWHAT"}, "signal")
    await tools.bad("list_jobs", {"all": 1}, "all")


async def the_rest(tools: Tools, legacy: bool) -> None:
    connected = tools.client
    unknown = await call(connected, "no_such_tool", {})
    check("an unknown tool is refused", unknown["_error"] and "no_such_tool" in unknown["_text"] or "unknown tool" in unknown["_text"].lower(), unknown)
    nulls = await tools.good("run_command", cmd="echo nulls", cwd=None, envs=None, user=None, timeout_s=None, stdin=None)
    equal("null stands for an argument left out", nulls.get("stdout"), "nulls\n")
    check("instructions", connected.instructions and len(connected.instructions) > 40, connected.instructions)
    resources = (await connected.list_resources()).resources
    for resource in resources:
        read = await connected.read_resource(resource.uri)
        check(f"resource {resource.uri}", read.contents, read)
    prompts = (await connected.list_prompts()).prompts
    check("a prompt is there", prompts)
    for prompt in prompts:
        values = {argument.name: "something" for argument in prompt.arguments or []}
        got = await connected.get_prompt(prompt.name, values)
        check(f"prompt {prompt.name}", got.messages, got)
    equal("the era", connected.protocol_version, "2025-11-25" if legacy else "2026-07-28")


async def ends(tools: Tools) -> None:
    one = await tools.good("create_sandbox", set_as_default=False)
    paused = await call(tools.client, "pause_sandbox", {"sandbox_id": one["sandbox_id"]})
    if paused["_error"]:
        # Pausing needs a freezer; where the engine has none it has to say so.
        check("pause_sandbox says why it cannot", "pause" in paused["_text"].lower() or "freez" in paused["_text"].lower(), paused["_text"])
        tools.good_calls.add("pause_sandbox")
    else:
        tools.good_calls.add("pause_sandbox")
        equal("pause_sandbox: state", paused.get("state"), "paused")
        back = await tools.good("connect_sandbox", sandbox_id=one["sandbox_id"])
        equal("connect_sandbox resumes", back.get("state"), "running")
        await tools.good("run_command", cmd="true", sandbox_id=one["sandbox_id"])
    await tools.good("shutdown_sandbox", sandbox_id=one["sandbox_id"])
    gone = await tools.bad("run_command", {"cmd": "true", "sandbox_id": one["sandbox_id"]}, one["sandbox_id"])
    check("a sandbox that ended: the answer says what to call next", "create_sandbox" in gone["_text"], gone["_text"])
    every = await tools.good("shutdown_all_sandboxes")
    check("shutdown_all_sandboxes has rows", "i" in shown(every), every["_text"])
    left = await tools.good("list_sandboxes")
    equal("none is left", left.get("sandboxes"), [])
    fresh = await tools.good("run_command", cmd="echo fresh")
    equal("the default sandbox is made anew at the next use", fresh.get("stdout"), "fresh\n")
    await tools.good("shutdown_all_sandboxes")


async def scenario(transport: str, era: str) -> None:
    async with client(transport, era) as connected:
        listed = (await connected.list_tools()).tools
        await schemas(connected, listed)
        tools = Tools(connected, listed)
        await sandbox_tools(tools)
        await file_tools(tools)
        await command_tools(tools)
        await the_rest(tools, era == "legacy")
        await ends(tools)
        wanted = SANDBOX | FILES | COMMANDS
        equal("every tool was called with success", wanted - tools.good_calls, set())
        equal("every tool was called with bad arguments", wanted - tools.bad_calls, set())
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
