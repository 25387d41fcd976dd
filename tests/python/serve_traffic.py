"""Traffic to the ports of a sandbox through `sandhold serve`: a WebSocket and plain HTTP servers written by hand, reached by
host name and by header, with clients written by hand, so that no library smooths anything over."""

import base64
import hashlib
import json
import os
import socket
import struct
import threading
import time

from kit import check, equal, main, until
from serve_kit import Serve, read_answer, request

# Answers each text frame with its text reversed, in as many frames as it has words; a close frame with the same.
WEBSOCKET = r'''
import base64, hashlib, socket, struct
listener = socket.create_server(("127.0.0.1", 7000))
def exactly(c, n):
    data = b""
    while len(data) < n:
        piece = c.recv(n - len(data))
        if not piece: raise EOFError
        data += piece
    return data
while True:
    c, _ = listener.accept()
    try:
        head = b""
        while not head.endswith(b"\r\n\r\n"): head += exactly(c, 1)
        lines = {l.split(b":")[0].lower(): l.split(b":", 1)[1].strip() for l in head.split(b"\r\n")[1:] if b":" in l}
        accept = base64.b64encode(hashlib.sha1(lines[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\nX-Host: " + lines[b"host"] + b"\r\n\r\n")
        while True:
            first, second = exactly(c, 2)
            size = second & 127
            if size == 126: size = struct.unpack(">H", exactly(c, 2))[0]
            elif size == 127: size = struct.unpack(">Q", exactly(c, 8))[0]
            mask = exactly(c, 4)
            text = bytes(b ^ mask[i % 4] for i, b in enumerate(exactly(c, size)))
            if first & 15 == 8:
                c.sendall(b"\x88" + bytes([len(text)]) + text); break
            for word in text.split(b" "):
                word = word[::-1]
                size = bytes([len(word)]) if len(word) < 126 else b"\x7e" + struct.pack(">H", len(word))
                c.sendall(b"\x81" + size + word)
    except EOFError: open("/tmp/cut", "w").close()
    finally: c.close()
'''
# Tells what it was sent; /slow streams a line each 100 ms for as long as one reads; /echo sends a body back as it comes.
HTTP = r'''
import hashlib, json, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        if self.path == "/slow":
            self.send_response(200); self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
            try:
                for n in range(600):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(str(n)) + 1, b"%d\n" % n)); time.sleep(0.1)
            except OSError: open("/tmp/gone", "w").close()
            return
        if self.path == "/echo":
            self.send_response(200); self.send_header("Content-Length", str(size)); self.end_headers()
            while size:
                piece = self.rfile.read1(min(size, 65536))
                if not piece: return
                size -= len(piece); self.wfile.write(piece); self.wfile.flush()
            return
        total, digest = 0, hashlib.sha256()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while chunk := int(self.rfile.readline(), 16):
                data = self.rfile.read(chunk); total += len(data); digest.update(data); self.rfile.readline()
            self.rfile.readline()
        while total < size:
            data = self.rfile.read(min(size - total, 1 << 16)); total += len(data); digest.update(data)
        said = json.dumps({"method": self.command, "path": self.path, "host": self.headers["Host"], "total": total,
            "sha256": digest.hexdigest(), "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(said))); self.send_header("X-Method", self.command); self.end_headers()
        if self.command != "HEAD": self.wfile.write(said)
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = do_PROPFIND = answer
ThreadingHTTPServer(("127.0.0.1", 7001), Handler).serve_forever()
'''
KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()


class WebSocket:
    def __init__(self, port: int, head: str):
        self.connection = socket.create_connection(("127.0.0.1", port), 10)
        upgrade = f"\nUpgrade: websocket\nConnection: keep-alive, Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: {KEY}"
        self.connection.sendall(((head + upgrade).replace("\n", "\r\n") + "\r\n\r\n").encode())
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            piece = self.connection.recv(1)
            if not piece:
                break
            raw += piece
        self.head = raw.decode()

    def send(self, payload: bytes, kind: int = 1) -> None:
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
        mask = b"\1\2\3\4"
        self.connection.sendall(bytes([0x80 | kind]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.connection.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def receive(self) -> tuple[int, bytes]:
        first, size = self.exactly(2)
        if size == 126:
            size = struct.unpack(">H", self.exactly(2))[0]
        return first & 15, self.exactly(size)


def websocket(server: Serve, sandbox) -> None:
    host = sandbox.get_host(7000)
    heads = {
        "by host name": f"GET /chat?x=1 HTTP/1.1\nHost: {host}",
        "by headers": f"GET /chat HTTP/1.1\nHost: 127.0.0.1\nE2b-Sandbox-Id: {sandbox.sandbox_id}\nE2b-Sandbox-Port: 7000",
    }
    for way, head in heads.items():
        socket_ = WebSocket(server.port, head)
        check(f"a WebSocket opens {way}", " 101 " in socket_.head and ACCEPT in socket_.head, socket_.head)
        socket_.send(b"hello websocket")
        equal(f"frames come back {way}", [socket_.receive(), socket_.receive()], [(1, b"olleh"), (1, b"tekcosbew")])
        long = os.urandom(30000).hex().encode()
        socket_.send(long)
        equal(f"a long frame {way}", socket_.receive(), (1, long[::-1]))
        socket_.send(struct.pack(">H", 1000), 8)
        equal(f"it closes {way}", socket_.receive(), (8, struct.pack(">H", 1000)))
        socket_.connection.close()
    cut = WebSocket(server.port, heads["by host name"])
    cut.send(b"one")
    cut.receive()
    cut.connection.close()
    check("a client that goes is seen inside", until(lambda: sandbox.files.exists("/tmp/cut"), 5, 0.1))
    closed = WebSocket(server.port, f"GET / HTTP/1.1\nHost: {sandbox.get_host(7002)}")
    check("a WebSocket to a closed port is refused", " 502 " in closed.head, closed.head)


def http(server: Serve, sandbox) -> None:
    host = sandbox.get_host(7001)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND"):
        body = b"" if method in ("GET", "HEAD") else b"body"
        status, headers, answer = request(server.port, f"{method} /a%20b?c=d HTTP/1.1\nHost: {host}\nX-Own: yes\nContent-Length: {len(body)}", body)
        equal(f"{method} arrives", (status, headers.get("x-method")), (200, method))
        if answer:
            said = json.loads(answer)
            equal(f"{method} is whole", (said["path"], said["total"], said["headers"].get("x-own")), ("/a%20b?c=d", len(body), "yes"))
    by_header = f"GET / HTTP/1.1\nHost: 127.0.0.1\nE2b-Sandbox-Id: {sandbox.sandbox_id}\nE2b-Sandbox-Port: 7001"
    equal("by headers", request(server.port, by_header)[0], 200)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (b"one", b"two" * 1000)) + b"0\r\n\r\n"
    status, _, answer = request(server.port, f"POST / HTTP/1.1\nHost: {host}\nTransfer-Encoding: chunked", chunks)
    equal("a chunked body", (status, json.loads(answer)["sha256"]), (200, hashlib.sha256(b"one" + b"two" * 1000).hexdigest()))

    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(f"PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        first = connection.recv(4096)
        check("Expect: 100-continue is answered", first.startswith(b"HTTP/1.1 100"), first)
        connection.sendall(b"after")
        status, _, answer = read_answer(connection)
        equal("and then the body goes", (status, json.loads(answer)["total"]), (200, 5))

    # Both ways at once: what is sent comes back before all of it was sent.
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(f"POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 8\r\nConnection: close\r\n\r\nfour".encode())
        seen = b""
        while not seen.endswith(b"four"):
            seen += connection.recv(4096)
        check("half a body comes back before the rest is sent", seen.startswith(b"HTTP/1.1 200"), seen)
        connection.sendall(b"more")
        check("and then the rest", until(lambda: b"more" in connection.recv(4096), 5))

    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(f"GET /slow HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        seen, start = b"", time.monotonic()
        while b"\r\n2\n" not in seen:
            seen += connection.recv(4096)
        check("a stream comes as it is made", time.monotonic() - start < 3)
    check("a reader that goes is seen inside", until(lambda: sandbox.files.exists("/tmp/gone"), 10, 0.1))


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) << 10


def large(server: Serve, sandbox) -> None:
    """256 MiB in, at a steady size of the server."""
    size, piece = 256 << 20, os.urandom(1 << 20)
    digest = hashlib.sha256()
    most = rss(server.process.pid)
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(f"POST /up HTTP/1.1\r\nHost: {sandbox.get_host(7001)}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode())
        for n in range(size >> 20):
            connection.sendall(piece)
            digest.update(piece)
            if n % 16 == 0:
                most = max(most, rss(server.process.pid))
        status, _, answer = read_answer(connection)
    said = json.loads(answer)
    equal("a large body arrives", (status, said["total"], said["sha256"]), (200, size, digest.hexdigest()))
    check("the server holds little of it", most < 96 << 20, most)


def pages(server: Serve, sandbox) -> None:
    host = sandbox.get_host(7002)
    status, headers, body = request(server.port, f"GET / HTTP/1.1\nHost: {host}")
    wanted = {"sandboxId": sandbox.sandbox_id, "message": "The sandbox is running but port is not open", "port": 7002, "code": 502}
    equal("a closed port, for programs", (status, json.loads(body)), (502, wanted))
    check("as JSON", headers["content-type"].startswith("application/json"), headers)
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    status, headers, body = request(server.port, f"GET / HTTP/1.1\nHost: {host}\nUser-Agent: {agent}\nAccept: text/html,*/*;q=0.8")
    check("for browsers it is a page", status == 502 and headers["content-type"].startswith("text/html") and b"7002" in body, body)
    status, headers, body = request(server.port, f"GET / HTTP/1.1\nHost: 80-inobody.{server.domain}\nUser-Agent: {agent}")
    check("nobody's sandbox, for browsers", status == 502 and b"<html" in body and b"inobody" in body, body)


def private(server: Serve) -> None:
    from e2b import Sandbox

    sandbox = Sandbox.create(timeout=120, network={"allow_public_traffic": False, "mask_request_host": "masked.example:${PORT}"})
    sandbox.files.write("/tmp/server.py", HTTP)
    sandbox.commands.run("exec python3 /tmp/server.py", background=True)
    token = sandbox.traffic_access_token
    head = f"GET / HTTP/1.1\nHost: {sandbox.get_host(7001)}"
    opened = until(lambda: request(server.port, f"{head}\nE2b-Traffic-Access-Token: {token}")[0] == 200, 15, 0.2)
    check("a private port opens with its token", opened)
    for name, extra in (("without", ""), ("with a wrong", "\nE2b-Traffic-Access-Token: wrong")):
        status, _, body = request(server.port, head + extra)
        equal(f"{name} token it stays shut", (status, json.loads(body)["code"]), (403, 403))
    _, _, body = request(server.port, f"{head}\nE2b-Traffic-Access-Token: {token}")
    equal("the Host header is masked", json.loads(body)["host"], "masked.example:7001")
    sandbox.kill()


def killed(server: Serve, sandbox) -> None:
    """A stream whose sandbox is killed ends with an error that says so."""
    from e2b import SandboxException

    handle = sandbox.commands.run("sleep 600", background=True)
    told: list[BaseException] = []

    def wait():
        try:
            handle.wait()
        except BaseException as error:  # noqa: BLE001 it is looked at below
            told.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    time.sleep(0.3)
    sandbox.kill()
    waiting.join(10)
    check("a command whose sandbox is killed raises", told and isinstance(told[0], SandboxException), told)


async def scenario() -> None:
    from e2b import Sandbox

    with Serve() as server:
        server.use()
        sandbox = Sandbox.create(timeout=300)
        for name, program in (("websocket", WEBSOCKET), ("http", HTTP)):
            sandbox.files.write(f"/tmp/{name}_server.py", program)
            sandbox.commands.run(f"exec python3 /tmp/{name}_server.py", background=True, timeout=0)
        listening = "test $(grep -c ':1B5[89] .* 0A ' /proc/net/tcp) = 2 && echo up || true"  # ports 7000 and 7001
        check("the servers inside listen", until(lambda: sandbox.commands.run(listening).stdout, 15, 0.2))
        websocket(server, sandbox)
        http(server, sandbox)
        large(server, sandbox)
        pages(server, sandbox)
        private(server)
        killed(server, sandbox)


if __name__ == "__main__":
    main(scenario)
