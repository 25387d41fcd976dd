"""A small internet for `network.py`: two sites, a metadata service, a private network and a name server, all in one network
namespace. `world.py LOG CERTIFICATE KEY FOLDER` serves until its standard input ends, and notes in LOG who came and what was asked.
"""

import functools
import http.server
import ipaddress
import json
import socket
import ssl
import struct
import subprocess
import sys
import threading

ADDRESSES = [
    "203.0.113.10/32", "203.0.113.20/32", "203.0.113.53/32", "169.254.169.254/32", "10.9.9.9/32", "192.168.7.7/32",
    "2001:db8:1::10/128", "2001:db8:1::20/128", "fd00:ec2::254/128",
]  # fmt: skip
NAMES = {
    "a.test": ["203.0.113.10", "2001:db8:1::10"],
    "b.test": ["203.0.113.20", "2001:db8:1::20"],
    "one.w.test": ["203.0.113.10"],
    "w.test": ["203.0.113.10"],
    "private.test": ["10.9.9.9"],
    "metadata.test": ["169.254.169.254", "fd00:ec2::254"],
    "mapped.test": ["::ffff:10.9.9.9"],
    "local.test": ["127.0.0.1", "::1"],
    "mixed.test": ["10.9.9.9", "203.0.113.10"],
}
# Answers in turn: what is looked up first is not what is reached.
REBIND = ["203.0.113.10", "10.9.9.9"]

log_lock = threading.Lock()
asked: dict[str, int] = {}


def log(**what) -> None:
    with log_lock, open(sys.argv[1], "a") as file:
        file.write(json.dumps(what) + "\n")


def plain(address: str) -> str:
    return address.removeprefix("::ffff:") if "." in address else address


def listener(port: int) -> socket.socket:
    one = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    return one


def accept(one: socket.socket, serve) -> None:
    def run(connection):
        try:
            connection.settimeout(20)
            serve(connection)
        except OSError:
            pass
        finally:
            connection.close()

    while True:
        threading.Thread(target=run, args=(one.accept()[0],), daemon=True).start()


def web(connection, sni=None) -> None:
    """Says on which address it was reached, by which names; any number of requests."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head, data = data.split(b"\r\n\r\n", 1)
        lines = head.decode(errors="replace").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        at = plain(connection.getsockname()[0])
        log(kind="http", at=at, host=headers.get("host"), sni=sni, headers=headers)
        answer = {"at": at, "host": headers.get("host"), "sni": sni, "headers": headers}
        if lines[0].split()[1:2] == ["/quiet"]:
            del answer["headers"]
        body = json.dumps(answer).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def tls(context: ssl.SSLContext):
    def serve(connection):
        names = []
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(sys.argv[2], sys.argv[3])
        own.sni_callback = lambda _socket, name, _context: names.append(name)
        with own.wrap_socket(connection, server_side=True) as secured:
            web(secured, names[0] if names else None)

    return serve


def banner(connection) -> None:
    """A protocol in which the server speaks first, then an echo."""
    connection.sendall(b"SSH-2.0-world at %s\r\n" % plain(connection.getsockname()[0]).encode())
    log(kind="banner", at=plain(connection.getsockname()[0]))
    while data := connection.recv(65536):
        connection.sendall(data)


def echo_datagrams(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.bind((address, 7777))
    while True:
        data, sender = one.recvfrom(65536)
        log(kind="udp", at=address)
        one.sendto(address.encode() + b" " + data, sender)


def name_server() -> None:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("203.0.113.53", 53))
    while True:
        query, sender = one.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
            at += 1 + query[at]
        end = at + 5
        kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        log(kind="dns", name=name, type=kind)
        addresses = NAMES.get(name)
        if name == "rebind.test" and kind == 1:
            asked[name] = asked.get(name, -1) + 1
            addresses = [REBIND[min(asked[name], len(REBIND) - 1)]]
        answers = b""
        count = 0
        for address in map(ipaddress.ip_address, addresses or []):
            if kind == (1 if address.version == 4 else 28):
                answers += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(address.packed)) + address.packed
                count += 1
        if kind == 16 and addresses:
            text = b"a text of the world"
            answers += b"\xc0\x0c" + struct.pack("!HHIHB", 16, 1, 1, len(text) + 1, len(text)) + text
            count += 1
        known = addresses is not None or name.endswith("tunnel.test")
        flags = 0x8180 if known else 0x8183
        head = query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0)
        one.sendto(head + query[12:end] + answers, sender)


class Files(http.server.SimpleHTTPRequestHandler):
    """The folder, on every address."""

    def log_message(self, *_):
        pass


class FileServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in ADDRESSES:
        more = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", "lo", *more], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for port, serve in [(80, web), (443, tls(context)), (22, banner)]:
        threading.Thread(target=accept, args=(listener(port), serve), daemon=True).start()
    for address in ADDRESSES:
        threading.Thread(target=echo_datagrams, args=(address.split("/")[0],), daemon=True).start()
    threading.Thread(target=name_server, daemon=True).start()
    files = functools.partial(Files, directory=sys.argv[4])
    threading.Thread(target=FileServer(("::", 8080), files).serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


main()
