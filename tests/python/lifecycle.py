"""Ends that nobody asked for: the client goes away mid-call, standard input closes, the server is killed, a sandbox dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

from kit import BIN, ROOT, HttpServer, alive_with, call, check, client, descendants, equal, main, mark, note, run, server_env, until

HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}},
}  # fmt: skip


class Raw:
    """A server spoken to by hand, to treat it worse than any client would."""

    def __init__(self, *arguments: str):
        self.process = subprocess.Popen(
            [BIN, "mcp", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **server_env()},
        )  # fmt: skip
        self.next = 2
        self.send(HELLO)
        self.receive(1)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: dict | bytes) -> None:
        self.process.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, tool: str, **arguments) -> int:
        self.next += 1
        self.send({"jsonrpc": "2.0", "id": self.next, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
        return self.next

    def receive(self, wanted: int) -> dict:
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the server ended: {self.process.stderr.read().decode()}")
            message = json.loads(line)
            if message.get("id") == wanted and "method" not in message:
                return message

    def call(self, tool: str, **arguments) -> dict:
        return self.receive(self.start(tool, **arguments)).get("result", {})


def running(slept: str) -> bool:
    return bool(until(lambda: alive_with(f"sleep\0{slept}"), 10))


def over(slept: str, seconds: float = 10) -> bool:
    return bool(until(lambda: not alive_with(f"sleep\0{slept}"), seconds))


def stdin_closed() -> None:
    server = Raw()
    server.call("run_command_bg", cmd=f"sleep {mark(11)}")
    check("control: the job runs on the host", running(mark(11)))
    tree = descendants(server.process.pid)
    check("control: the server has processes", tree)
    server.start("run_command", cmd=f"sleep {mark(12)}")
    check("control: the call runs on the host", running(mark(12)))
    began = time.monotonic()
    server.process.stdin.close()
    code = server.process.wait(20)
    took = time.monotonic() - began
    equal("stdin closed mid-call: the server ends in order", code, 0)
    check("stdin closed mid-call: within the patience of clients", took < 8, f"{took:.1f} s")
    check("stdin closed: nothing of it is left", over(mark(11)) and over(mark(12)) and until(lambda: not [p for p in tree if alive(p)], 5), tree)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def signalled(number: int, name: str) -> None:
    slept = mark(200 + number)
    server = Raw()
    server.call("run_command_bg", cmd=f"trap '' TERM HUP INT; sleep {slept}; sleep {slept}")
    check(f"control: the job runs before {name}", running(slept))
    tree = descendants(server.process.pid)
    server.process.send_signal(number)
    server.process.wait(15)
    check(f"{name} to the server: nothing of it is left", over(slept) and until(lambda: not [p for p in tree if alive(p)], 5), [p for p in tree if alive(p)])


def garbage() -> None:
    server = Raw()
    server.send(b"this is no JSON\n")
    server.send(b"\xff\xfe\x00\n")
    server.send(b'{"jsonrpc":"2.0","id":"x","method":"no/such/method"}\n')
    answer = server.receive("x")
    check("a method that is not there is refused", answer.get("error", {}).get("code") == -32601, answer)
    for number, params in enumerate(({"name": "run_command", "arguments": '{"cmd": "' + "x" * 100_000}, {"name": 5}, None)):
        server.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode() + b"\n")
        error = server.receive(number).get("error", {})
        check("params of no shape are called that", error.get("code") == -32602 and len(error["message"]) < 1000, error)
    fine = server.call("run_command", cmd="echo fine")
    equal("after garbage on stdin the server still works", fine["structuredContent"]["stdout"], "fine\n")
    server.process.stdin.close()
    equal("and ends in order", server.process.wait(15), 0)


async def sandbox_died() -> None:
    async with client("stdio", "modern") as connected:
        made = await call(connected, "create_sandbox", {"set_as_default": True})
        await call(connected, "run_command_bg", {"cmd": f"sleep {mark(31)}"})
        check("control: the sandbox runs", running(mark(31)))
        # Pid 1 of the sandbox ends when somebody on the host kills it. An ordinary user may not touch it where it has a
        # sub-id; the launcher, which is the user's own, is killed instead.
        inits = [pid for pid in descendants(os.getpid()) if ns_pid(pid) == 1]
        check("control: pid 1 of the sandbox is found on the host", inits)
        for pid in inits:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                for launcher in launchers(pid):
                    os.kill(launcher, signal.SIGKILL)
        check("its processes are gone", over(mark(31)))
        began = time.monotonic()
        dead = await call(connected, "run_command", {"cmd": "echo alive", "sandbox_id": made["sandbox_id"]})
        check("a dead sandbox is told as such", dead["_error"] and made["sandbox_id"] in dead["_text"], dead["_text"])
        check("with what to call next", "create_sandbox" in dead["_text"] or "without sandbox_id" in dead["_text"], dead["_text"])
        check("and at once", time.monotonic() - began < 5)
        await call(connected, "run_command", {"cmd": "echo default"})
        again = await call(connected, "create_sandbox", {"set_as_default": True})
        check("another can be made", not again["_error"], again["_text"])
        equal("and works", (await run(connected, "echo again"))["stdout"], "again\n")
        # Now in the middle of a call.
        waiting = asyncio.create_task(call(connected, "run_command", {"cmd": f"sleep {mark(32)}"}))
        await asyncio.to_thread(running, mark(32))
        began = time.monotonic()
        ended = await call(connected, "shutdown_sandbox", {"sandbox_id": again["sandbox_id"]})
        check("a sandbox can be shut down in the middle of a call", not ended["_error"], ended["_text"])
        answer = await asyncio.wait_for(waiting, 20)
        check("the call in it is answered, as an error", answer["_error"] and time.monotonic() - began < 10, answer["_text"])
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())


def ns_pid(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as status:
            line = next(line for line in status if line.startswith("NSpid"))
            numbers = line.split()[1:]
            return int(numbers[-1]) if len(numbers) > 1 else 0
    except (OSError, StopIteration):
        return 0


def launchers(pid: int) -> list[int]:
    """The processes of this user between `pid` and this test, without the server itself."""
    chain = []
    while pid > 1 and pid != os.getpid():
        with open(f"/proc/{pid}/stat") as stat:
            pid = int(stat.read().rpartition(")")[2].split()[1])
        chain.append(pid)
    # … launcher, server, this test
    return [one for one in chain[:-2] if os.stat(f"/proc/{one}").st_uid == os.getuid()][-1:]


async def timeout() -> None:
    async with client("stdio", "modern") as connected:
        made = await call(connected, "create_sandbox", {"timeout_s": 2})
        await call(connected, "run_command_bg", {"cmd": f"sleep {mark(41)}", "sandbox_id": made["sandbox_id"]})
        check("control: it runs before its timeout", running(mark(41)))
        check("a sandbox ends at its timeout", over(mark(41), 6))
        late = await call(connected, "run_command", {"cmd": "true", "sandbox_id": made["sandbox_id"]})
        check("and is told as ended", late["_error"] and "create_sandbox" in late["_text"], late["_text"])


async def disconnected() -> None:
    """A client of the modern era that closes its connection in the middle of a call: that is its cancellation."""
    import httpx

    with HttpServer() as server:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "0"},
        }  # fmt: skip
        headers = {
            **server.headers, "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call", "Mcp-Name": "run_command",
        }  # fmt: skip
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "run_command", "arguments": {"cmd": f"sleep {mark(51)}"}, "_meta": meta},
        }  # fmt: skip
        async with httpx.AsyncClient() as raw:
            sent = asyncio.create_task(raw.post(server.url, json=body, headers=headers, timeout=30))
            check("control: the call runs on the host", await asyncio.to_thread(running, mark(51)), server.said())
            sent.cancel()
        check("a client that goes away mid-call cancels it", await asyncio.to_thread(over, mark(51)))
        async with client("http", "modern", http=server) as connected:
            equal("the server works on", (await run(connected, "echo on"))["stdout"], "on\n")


async def scenario() -> None:
    if not ROOT and not os.access("/proc/1/cmdline", os.R_OK):
        note("/proc hides other users' processes: what is left on the host is not seen")
    stdin_closed()
    signalled(signal.SIGTERM, "SIGTERM")
    signalled(signal.SIGINT, "SIGINT")
    signalled(signal.SIGHUP, "SIGHUP")
    signalled(signal.SIGKILL, "SIGKILL")
    garbage()
    await timeout()
    await sandbox_died()
    await disconnected()


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
