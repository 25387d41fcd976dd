"""The controls of `network.py`: the same attempts on the host's side."""

import json
import socket


def http(target: str) -> str | None:
    """Where a request arrives."""
    with socket.create_connection((target, 80), 5) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while b"}" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
    return json.loads(data.partition(b"\r\n\r\n")[2])["at"]
