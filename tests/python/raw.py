"""MCP by hand, message for message: what a client's library would hide, and what the libraries are compared with."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import subprocess
import tempfile
import time
from urllib.parse import urlsplit

from kit import BIN, HttpServer, server_env

# Beyond the 45 seconds that every tool keeps to.
SECONDS = 90


class ProtocolError(Exception):
    """The answer was an error of the protocol, not a tool's."""


class Stdio:
    """`sandhold mcp` over standard input and output, protocol 2025-11-25."""

    def __init__(self, *arguments: str):
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BIN, "mcp", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
            env={**os.environ, **server_env()},
        )  # fmt: skip
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.process.stdout, selectors.EVENT_READ)
        self.unread = b""
        self.number = 0
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "by hand", "version": "0"}}
        self.instructions = self.request("initialize", hello).get("instructions")
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: dict) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def request(self, method: str, params: dict | None = None) -> dict:
        self.number += 1
        self.send({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params or {}})
        end = time.monotonic() + SECONDS
        while True:
            line, found, rest = self.unread.partition(b"\n")
            if found:
                self.unread = rest
                answer = json.loads(line)
                if answer.get("id") == self.number and "method" not in answer:
                    return result_of(answer)
            elif not self.ready.select(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"{method}: no answer; the server wrote {self.said()}")
            else:
                piece = os.read(self.process.stdout.fileno(), 1 << 20)
                if not piece:
                    raise EOFError(f"{method}: the server ended; it wrote {self.said()}")
                self.unread += piece

    def call(self, tool: str, arguments: dict) -> dict:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def tools(self) -> list[dict]:
        return self.request("tools/list")["tools"]

    def said(self) -> str:
        return os.pread(self.stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Http:
    """Single requests to a server over HTTP, protocol 2026-07-28. `query` goes behind the path, with its `?`."""

    VERSION = "2026-07-28"

    def __init__(self, server: HttpServer, query: str = ""):
        self.headers = server.headers
        self.url = urlsplit(server.url + query)
        self.number = 0

    def request(self, method: str, params: dict | None = None) -> dict:
        self.number += 1
        meta = {
            "io.modelcontextprotocol/protocolVersion": self.VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "by hand", "version": "0"},
        }
        body = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": {**(params or {}), "_meta": meta}}
        headers = {
            **self.headers, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": self.VERSION, "Mcp-Method": method,
        }  # fmt: skip
        if params and "name" in params:
            headers["Mcp-Name"] = params["name"]
        connection = http.client.HTTPConnection(self.url.netloc, timeout=SECONDS)
        path = self.url.path + (f"?{self.url.query}" if self.url.query else "")
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.headers.get_content_type() == "text/event-stream":
            events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]
            return result_of(next(event for event in events if event.get("id") == self.number))
        try:
            return result_of(json.loads(text))
        except json.JSONDecodeError:
            raise ProtocolError(f"{answer.status} {text[:500]}") from None

    def call(self, tool: str, arguments: dict) -> dict:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def tools(self) -> list[dict]:
        return self.request("tools/list")["tools"]


def result_of(answer: dict) -> dict:
    if "result" not in answer:
        raise ProtocolError(json.dumps(answer.get("error", answer)))
    return answer["result"]
