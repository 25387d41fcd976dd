"""What the scenarios share: servers to talk to, checks that are counted, and the report that the harness reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

BIN = os.environ["SANDHOLD_BIN"]
HOME = Path(os.environ["SANDHOLD_HOME"])
ROOT = os.getuid() == 0

_passed = 0
_failed = 0
_notes: list[str] = []


def check(name: str, good: object, detail: object = "") -> bool:
    """Counts one check; `detail` is shown when it fails."""
    global _passed, _failed
    if good:
        _passed += 1
        print(f"ok    {name}")
    else:
        _failed += 1
        print(f"FAIL  {name}: {str(detail)[:2000]}")
    return bool(good)


def equal(name: str, got: object, wanted: object) -> bool:
    return check(name, got == wanted, f"got {got!r}, wanted {wanted!r}")


def note(text: str) -> None:
    """Says what the machine could not show. Never a way round a check that the machine could have run."""
    _notes.append(text)
    print(f"note  {text}")


def report() -> None:
    print(json.dumps({"passed": _passed, "failed": _failed, "notes": _notes}), flush=True)


def main(scenario, *arguments) -> None:
    """Runs the coroutine function `scenario` and reports, whatever happens."""
    global _failed
    try:
        asyncio.run(scenario(*arguments))
    except BaseException:  # noqa: BLE001 the report has to come
        _failed += 1
        print("FAIL  the scenario broke off")
        traceback.print_exc(file=sys.stdout)
    report()
    sys.exit(1 if _failed else 0)


def until(what, seconds: float, every: float = 0.05):
    """Calls `what` until it returns something true or the time is over; returns what it returned last."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found or time.monotonic() > end:
            return found
        time.sleep(every)


def server_env(**more: str) -> dict[str, str]:
    """Where Sandhold keeps its things and, below `remote.py`, whose sandboxes it uses."""
    remote = (
        "SANDHOLD_PROVIDER", "E2B_API_URL", "E2B_SANDBOX_URL", "E2B_API_KEY", "SANDHOLD_URL", "SANDHOLD_API_KEY", "SANDHOLD_CA_FILE",
    )  # fmt: skip
    return {"SANDHOLD_HOME": str(HOME), **{name: os.environ[name] for name in remote if name in os.environ}, **more}


class HttpServer:
    """`sandhold mcp --http 127.0.0.1:0`, found by what it prints."""

    def __init__(self, *arguments: str, bind: str = "127.0.0.1:0", env: dict[str, str] | None = None):
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BIN, "mcp", "--http", bind, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env={**os.environ, **server_env(**(env or {}))},
        )
        self.url = self.token = None

        def printed():
            said = self.said()
            url = re.search(r"listening on (http://\S+)", said)
            token = re.search(r"token: (\S+)", said)
            if url and (token or "--no-token" in arguments or "--token" in arguments):
                self.url = url[1]
                self.token = token[1] if token else None
                return True
            return self.process.poll() is not None

        until(printed, 15)
        if not self.url:
            raise RuntimeError(f"no server: exit code {self.process.poll()}: {self.said()}")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def said(self) -> str:
        return os.pread(self.stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    def close(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.close()


@contextlib.asynccontextmanager
async def client(transport: str = "stdio", era: str = "modern", *arguments: str, http: HttpServer | None = None,
                 env: dict[str, str] | None = None, **settings):  # fmt: skip
    """A client of the PyPI package mcp 2, over stdio or HTTP, of the modern or the legacy era.

    `client.stderr()` is what the server wrote there."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    mode = {"modern": "auto", "legacy": "legacy"}[era]
    async with contextlib.AsyncExitStack() as stack:
        if transport == "stdio":
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            parameters = StdioServerParameters(command=BIN, args=["mcp", *arguments], env=server_env(**(env or {})))
            target = stdio_client(parameters, errlog=errors)
            said = lambda: os.pread(errors.fileno(), os.fstat(errors.fileno()).st_size, 0).decode(errors="replace")  # noqa: E731
        else:
            server = http or stack.enter_context(HttpServer(*arguments))
            session = await stack.enter_async_context(create_mcp_http_client(headers=server.headers))
            target = streamable_http_client(server.url, http_client=session)
            said = server.said
        connected = await stack.enter_async_context(Client(target, mode=mode, read_timeout_seconds=60, **settings))
        connected.stderr = said
        yield connected


def text_of(result) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


def shown(answer: dict) -> str:
    """The structured content of an answer, as text to look into."""
    return json.dumps({key: value for key, value in answer.items() if not key.startswith("_")})


async def call(connected, tool: str, arguments: dict | None = None, **settings):
    """Calls a tool. Returns its structured content, with the text in `_text` and whether it is an error in `_error`.

    A refusal by protocol error is an answer too: it comes back as an error with the protocol's message."""
    from mcp.shared.exceptions import MCPError

    try:
        result = await connected.call_tool(tool, arguments or {}, **settings)
    except MCPError as error:
        return {"ok": False, "_error": True, "_text": str(error), "_protocol": True}
    answer = dict(result.structured_content or {})
    answer["_error"] = bool(result.is_error)
    answer["_text"] = text_of(result)
    answer["_raw"] = result
    return answer


async def run(connected, cmd: str, **more) -> dict:
    """`run_command`, which must have worked as a call."""
    answer = await call(connected, "run_command", {"cmd": cmd, **more})
    if answer["_error"]:
        raise AssertionError(f"run_command {cmd!r}: {answer['_text']}")
    return answer


def node(script: str, *arguments: str, seconds: float = 150) -> str:
    """Runs `tests/node/<script>`; each of its lines `ok    …` and `FAIL  …` counts as a check, and its last is `end`.

    Returns what it wrote to standard error."""
    source = Path(os.environ["SANDHOLD_TEST_DIR"]) / "node" / script
    # Packages are looked for beside the script.
    folder = Path(os.environ["TMPDIR"])
    (folder / "node_modules").symlink_to(os.environ["NODE_MODULES"])
    copy = folder / source.name
    copy.write_text(source.read_text())
    ended = subprocess.run([os.environ["NODE"], copy, *arguments], capture_output=True, text=True, timeout=seconds)
    lines = ended.stdout.splitlines()
    for line in lines:
        if line.startswith(("ok    ", "FAIL  ")):
            name, _, detail = line[6:].partition(": ") if line.startswith("FAIL") else (line[6:], "", "")
            check(name, line.startswith("ok"), detail)
    check("the program ended in order", ended.returncode == 0 and lines[-1:] == ["end"], ended.stdout[-500:] + ended.stderr)
    return ended.stderr


def mark(number: int) -> str:
    """A time to sleep that nobody else on the machine sleeps: its process is known by it."""
    return f"{86000 + number}.{os.getpid()}"


def descendants(pid: int) -> set[int]:
    """The processes below `pid`, as the host sees them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    front = [pid]
    while front:
        for child in children.get(front.pop(), []):
            if child not in found:
                found.add(child)
                front.append(child)
    return found


def alive_with(mark: str) -> list[int]:
    """Host processes whose command line holds `mark`. The way to see a process of a sandbox from outside."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes()
                if mark.encode() in line:
                    found.append(int(name))
    return found
