"""Runs another scenario, unchanged, with the sandboxes of a server whose daemon has none of Sandhold's own endpoints, as
E2B's has none: `sandhold serve` behind a proxy that answers them as E2B's daemon answers what it does not know.

usage: plain.py SCRIPT ARGUMENTS…
"""

import os
import runpy
import socket
import sys
import threading
from pathlib import Path

from serve_kit import Serve

UNKNOWN = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 19\r\nConnection: close\r\n\r\n404 page not found\n"


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def answer(client: socket.socket, port: int) -> None:
    """One request, then the connection ends: so its head alone has to be looked at."""
    with client:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        if head.split(b" ", 2)[1].startswith(b"/sandhold/"):
            client.settimeout(0.2)
            try:
                while client.recv(65536):
                    pass
            except OSError:
                pass
            client.sendall(UNKNOWN)
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            start, _, rest = head.partition(b"\r\n")
            server.sendall(start + b"\r\nConnection: close\r\n" + rest)
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            # The client may end its connection, which ends the server's, or the other way round.
            copy(client, server)
            back.join()


def listen(port: int) -> int:
    """A proxy of the server on `port`; returns its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(client, port), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


if __name__ == "__main__":
    with Serve() as serve:
        serve.use()
        url = f"http://127.0.0.1:{listen(serve.port)}"
        os.environ.update(SANDHOLD_PROVIDER="e2b", E2B_API_URL=url, E2B_SANDBOX_URL=url, SANDHOLD_TEST_PLAIN="1")
        sys.argv = sys.argv[1:]
        runpy.run_path(str(Path(__file__).with_name(sys.argv[0])), run_name="__main__")
