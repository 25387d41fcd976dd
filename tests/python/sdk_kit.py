"""What the scenarios with E2B's own Python SDKs share. The same checks run with every version from 1.5.0 on; what a
version's documentation does not have yet is left out by its number, never by trying."""

from __future__ import annotations

import base64
import os
import socket
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from kit import check, until
from serve_kit import Serve


@dataclass
class World:
    """One server, one version of the SDK, and the sandbox that the checks share."""

    server: Serve
    version: tuple[int, ...]
    sandbox: Any = None

    def since(self, *wanted: int) -> bool:
        """Whether the SDK is at least of this version."""
        return self.version >= wanted

    def make(self, **options):
        """A new sandbox. Version 1 makes it with the constructor, which is secure only if told so."""
        from e2b import Sandbox

        if not self.since(2):
            return Sandbox(secure=True, **options)
        return Sandbox.create(**options)

    def kill(self, sandbox) -> bool:
        """Ends a sandbox; whether there was something to end. In version 1 the method of an instance says nothing."""
        if not self.since(2):
            return type(sandbox).kill(sandbox.sandbox_id)
        return sandbox.kill()

    @property
    def scheme(self) -> str:
        return self.server.url.partition(":")[0]

    def one_id(self) -> bool:
        """Whether the sandbox has a single user id, so that there is no root in it to run a command as."""
        return self.sandbox.commands.run("wc -l < /proc/self/uid_map; cut -c1- /proc/self/uid_map | awk '{n += $3} END {print n}'").stdout.split()[1] == "1"


def installed() -> tuple[int, ...]:
    return tuple(int(part) for part in version("e2b").split("."))


def raised(attempt) -> BaseException | None:
    """What `attempt` raises."""
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 it is looked at
        return error
    return None


def raises(name: str, kinds, attempt, *texts: str) -> None:
    """A check that `attempt` raises one of `kinds`, and that its message holds `texts`."""
    error = raised(attempt)
    good = isinstance(error, kinds) and all(text in str(error) for text in texts)
    check(name, good, f"{type(error).__name__}: {error}")


def pages(world: World, query=None, limit: int | None = None, **more) -> list[list]:
    """Every page of the list of sandboxes. Version 1 has one list without pages."""
    from e2b import Sandbox

    if not world.since(2):
        return [Sandbox.list(query=query)]
    paginator = Sandbox.list(query=query, limit=limit, **more)
    found = []
    while paginator.has_next and len(found) < 50:
        found.append(paginator.next_items())
    return found


def plain_id(sandbox_id: str) -> str:
    """Version 1 appends the client's id."""
    return sandbox_id.split("-")[0]


HTTP_SERVER = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        said = f"{self.command} {self.path} {self.headers.get('Host')} {self.headers.get('X-Asked')} ".encode() + body
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"one", b"two"):
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        self.send_response(418 if self.path == "/teapot" else 200)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("X-Told", "yes")
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"""

# RFC 6455, as little of it as an echo needs.
WEBSOCKET_SERVER = """
import base64, hashlib, socketserver, struct, sys

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        key = None
        while (line := self.rfile.readline().strip()):
            if line.lower().startswith(b"sec-websocket-key:"):
                key = line.split(b":", 1)[1].strip()
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            size = head[1] & 127
            if size == 126:
                size = struct.unpack(">H", self.rfile.read(2))[0]
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))
            if head[0] & 15 == 8:
                self.wfile.write(b"\\x88\\x00")
                return
            data = b"echo " + data
            self.wfile.write(bytes([0x80 | head[0] & 15]) + (bytes([len(data)]) if len(data) < 126 else b"\\x7e" + struct.pack(">H", len(data))) + data)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"""


class WebSocket:
    """A client's end, by hand: what is sent and what comes back."""

    def __init__(self, world: World, host: str, headers: dict[str, str] | None = None):
        import ssl

        self.connection = socket.create_connection(("127.0.0.1", world.server.port), 10)
        if world.scheme == "https":
            context = ssl.create_default_context(cafile=str(world.server.authority))
            self.connection = context.wrap_socket(self.connection, server_hostname=host.partition(":")[0])
        lines = [
            "GET /chat HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.input = self.connection.makefile("rb")
        self.status = int(self.input.readline().split()[1])
        while self.input.readline().strip():
            pass

    def echo(self, data: bytes) -> bytes:
        mask = os.urandom(4)
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
        self.connection.sendall(b"\x82" + size + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))
        head = self.input.read(2)
        length = head[1] if head[1] < 126 else int.from_bytes(self.input.read(2), "big")
        return self.input.read(length)

    def close(self) -> bytes:
        """Says goodbye; what the server answers, up to the end of the connection."""
        self.connection.sendall(b"\x88\x80" + os.urandom(4))
        said = self.input.read()
        self.connection.close()
        return said


def serving(world: World, sandbox, name: str, program: str, port: int) -> None:
    """Starts a server inside `sandbox` and waits for its port."""
    sandbox.files.write(f"/tmp/{name}_server.py", program)
    sandbox.commands.run(f"exec python3 /tmp/{name}_server.py {port}", background=True, timeout=0)
    listening = f"grep -qi ':{port:04x} 00000000:0000 0A' /proc/net/tcp"
    check(f"a server listens on port {port}", until(lambda: raised(lambda: sandbox.commands.run(listening)) is None, 10, 0.1))
