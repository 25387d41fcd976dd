"""A page whose script opens a WebSocket to the page's own host, and the server of both. Runs inside a sandbox.

It has loaded when its script is done, so that a browser that prints a page once it has loaded prints all of it.

usage: page.py PORT
"""

import base64
import hashlib
import http.server
import struct
import sys
import threading

PAGE = b"""<!doctype html><html><head><meta charset="utf-8"><title>served</title><style>
body{font:20px sans-serif;background:#113355;color:#fff;padding:40px}</style></head>
<body><h1>From the sandbox</h1><p id="http">page</p><p id="socket">waiting</p><p id="posted">waiting</p><img src="/hold" alt=""><script>
let left = 2;
const say = (id, text) => { document.getElementById(id).textContent = text; if (--left === 0) fetch("/done") };
const socket = new WebSocket("ws://" + location.host + "/socket");
socket.onopen = () => socket.send("hello from the browser");
socket.onmessage = (event) => say("socket", "socket: " + event.data);
socket.onerror = () => { document.getElementById("socket").textContent = "socket failed" };
fetch("/echo", {method: "PUT", body: "\\u00fc".repeat(1000)}).then((r) => r.text()).then((t) => say("posted", "put: " + t));
</script></body></html>"""


# Set once a page has shown everything: its picture is held until then, and with it the end of its loading.
DONE = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes, kind: str = "text/html; charset=utf-8", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.answer(PAGE)

    def do_GET(self) -> None:
        if self.path == "/socket":
            return self.socket()
        if self.path == "/hold":
            DONE.wait(20)
            return self.answer(b"", "image/png", 404)
        if self.path == "/done":
            DONE.set()
            return self.answer(b"", "text/plain")
        if self.path == "/binary":
            return self.answer(bytes(range(256)), "application/octet-stream")
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path == "/head":
            return self.answer(str(self.headers).encode(), "text/plain")
        if self.path == "/long":
            return self.answer(b"x" * 100_000, "text/plain")
        DONE.clear()
        self.answer(PAGE)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(f"{self.command} {len(body)} bytes".encode(), "text/plain")

    do_POST = do_PUT

    def socket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        _, length = struct.unpack("BB", self.rfile.read(2))
        mask = self.rfile.read(4)
        text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length & 0x7F)))
        said = b"echo of " + text
        self.wfile.write(struct.pack("BB", 0x81, len(said)) + said)
        self.wfile.flush()
        self.rfile.read(1)
        self.close_connection = True


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
