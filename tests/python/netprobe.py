"""Runs inside a sandbox: tries connections and says what came of each. `netprobe.py '[["http", ...], ...]'`."""

import json
import socket
import ssl
import struct
import sys

TIMEOUT = 6


def request(connection, host: str) -> dict:
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    data = b""
    while True:
        more = connection.recv(65536)
        data += more
        head, found, body = data.partition(b"\r\n\r\n")
        if not more or (found and b"}" in body) or (found and b"403" in head.split(b"\r\n")[0]):
            break
    status = data.split(b" ", 2)[1].decode() if data else "closed"
    body = data.partition(b"\r\n\r\n")[2].decode(errors="replace")
    return {"status": status, "body": json.loads(body) if body.startswith("{") else body}


def http(address, host, port=80):
    with socket.create_connection((address, port), TIMEOUT) as connection:
        return request(connection, host)


def http_twice(address, first, second):
    """Two requests on one connection."""
    with socket.create_connection((address, 80), TIMEOUT) as connection:
        request(connection, first)
        return request(connection, second)


def https(address, sni, host=None):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, 443), TIMEOUT) as connection:
        with context.wrap_socket(connection, server_hostname=sni) as secured:
            return request(secured, host or sni or address)


def tcp(address, port=22):
    with socket.create_connection((address, port), TIMEOUT) as connection:
        connection.settimeout(TIMEOUT)
        said = connection.recv(200).decode()
        if not said:
            raise ConnectionError("closed")
        connection.sendall(b"ping")
        return {"said": said.strip(), "echo": connection.recv(4).decode()}


def udp(address, port=7777):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(3)
        one.connect((address, port))
        one.send(b"ping")
        return one.recv(200).decode()


def resolve(name):
    return sorted({found[4][0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})


def query(name, kind, server):
    """One name query by hand to any server; the code of the answer and how many records it has."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(3)
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        one.sendto(struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1), (server, 53))
        answer = one.recv(4096)
        _, flags, _, answers, _, _ = struct.unpack("!HHHHHH", answer[:12])
        return {"code": flags & 15, "answers": answers}


def connect_by_proxy(target, sni=None, port=65080):
    """HTTP CONNECT, then a banner or TLS."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(1)
            if not more:
                break
            head += more
        status = head.split(b" ", 2)[1].decode() if head else "closed"
        if status != "200":
            return {"status": status}
        if sni is None:
            return {"status": status, "said": connection.recv(200).decode().strip()}
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(connection, server_hostname=sni) as secured:
            return request(secured, sni)


def get_by_proxy(url, port=65080):
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        host = url.split("/")[2]
        connection.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        data = connection.recv(65536)
        return {"status": data.split(b" ", 2)[1].decode() if data else "closed"}


def socks(host, port, proxy=65080):
    with socket.create_connection(("127.0.0.1", proxy), TIMEOUT) as connection:
        connection.sendall(b"\x05\x01\x00")
        connection.recv(2)
        connection.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack("!H", port))
        reply = connection.recv(10)
        if reply[1]:
            return {"reply": reply[1]}
        return {"reply": 0, "said": connection.recv(200).decode().strip()}


def open_socket(family, kind, protocol):
    socket.socket(family, kind, protocol).close()
    return "made"


def interfaces():
    return [name for _, name in socket.if_nameindex()]


tries = []
for name, *arguments in json.loads(sys.argv[1]):
    try:
        tries.append({"ok": globals()[name](*arguments)})
    except Exception as error:  # noqa: BLE001 what it is, is the result
        tries.append({"error": f"{type(error).__name__}: {error}"})
print(json.dumps(tries))
