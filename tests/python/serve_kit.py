"""`sandhold serve` as the scenarios start it, and requests made by hand."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from kit import BIN, server_env, until


def new_key(name: str) -> str:
    made = subprocess.run([BIN, "keys", "create", name], capture_output=True, text=True, check=True, env={**os.environ, **server_env()})
    return made.stdout.strip()


class Serve:
    """One server. `key` is an API key of its own; more are made with `new_key`."""

    def __init__(self, *arguments: str, listen: str = "127.0.0.1:0", key: str | None = None):
        self.key = key or new_key("suite")
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BIN, "serve", "--listen", listen, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr,
            env={**os.environ, **server_env()},
        )  # fmt: skip
        found = until(lambda: re.search(r"listening on (https?://\S+)", self.said()) or self.process.poll() is not None, 20)
        if not isinstance(found, re.Match):
            raise RuntimeError(f"no server: {self.said()}")
        self.url = found[1]
        self.port = int(self.url.rpartition(":")[2])
        self.domain = f"sandhold.localhost:{self.port}"
        authority = re.search(r"SSL_CERT_FILE=(\S+)", self.said())
        self.authority = Path(authority[1]) if authority else None

    def said(self) -> str:
        return os.pread(self.stderr.fileno(), 1 << 20, 0).decode(errors="replace")

    def use(self) -> None:
        """Points the SDKs of this process at the server by URL."""
        os.environ.update(E2B_API_URL=self.url, E2B_SANDBOX_URL=self.url, E2B_API_KEY=self.key)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


def localhost_names() -> None:
    """Resolves names under `localhost` in this process, as RFC 6761 says and browsers and curl do; glibc's resolver does
    it only where systemd-resolved or nss-myhostname is set up."""
    original = socket.getaddrinfo

    def resolve(host, *arguments, **settings):
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and name.endswith(".localhost"):
            host = "127.0.0.1"
        return original(host, *arguments, **settings)

    socket.getaddrinfo = resolve


def request(port: int, head: str, body: bytes = b"", seconds: float = 10) -> tuple[int, dict[str, str], bytes]:
    """One HTTP/1.1 exchange by hand. `head` is without its last empty line; the answer is read until its end."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.sendall((head.replace("\n", "\r\n") + "\r\nConnection: close\r\n\r\n").encode() + body)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    raw = b""
    while piece := connection.recv(65536):
        raw += piece
    start, _, body = raw.partition(b"\r\n\r\n")
    lines = start.decode(errors="replace").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, body
