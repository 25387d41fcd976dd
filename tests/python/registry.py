"""A registry of images on the loopback, and an image made of this machine's own programs: a shell and what goes with it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROGRAMS = (
    "bash sh cat chmod chown cp cut dirname basename echo env false find grep gzip head id ln ls mkdir mv printf pwd readlink rm rmdir sed"
    " seq sleep sort stat tail tar test touch tr true uname wc"
).split()  # fmt: skip
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """A layer that is written entry by entry."""

    def __init__(self):
        self.data = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.data, mode="w", format=tarfile.PAX_FORMAT)

    def folder(self, name: str, mode: int = 0o755) -> Layer:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self.tar.addfile(info)
        return self

    def file(self, name: str, content: bytes = b"", mode: int = 0o644, uid: int = 0) -> Layer:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.uid, info.gid = len(content), mode, uid, uid
        self.tar.addfile(info, io.BytesIO(content))
        return self

    def link(self, name: str, target: str) -> Layer:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self.tar.addfile(info)
        return self

    def done(self) -> bytes:
        self.tar.close()
        return self.data.getvalue()


def host_layer(programs: list[str] = PROGRAMS, bash: bool = True) -> bytes:
    """The programs of this machine with the libraries that they need, in the usual places."""
    files: dict[str, str] = {}
    for name in programs:
        if name == "bash" and not bash:
            continue
        path = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
        if path is None:
            raise RuntimeError(f"this machine has no {name}")
        files[f"usr/bin/{name}"] = os.path.realpath(path)
        linked = subprocess.run(["ldd", os.path.realpath(path)], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+)", linked):
            # Where the loader looks: /lib and /lib64 are links.
            files["usr" + re.sub(r"^/usr", "", library)] = os.path.realpath(library)
    layer = Layer()
    for name in ("etc", "home", "proc", "root", "run", "sys", "dev", "tmp", "usr", "usr/bin", "usr/lib", "usr/lib64", "var", "var/tmp"):
        layer.folder(name, 0o1777 if name.endswith("tmp") else 0o755)
    for name in ("bin", "lib", "lib64"):
        layer.link(name, f"usr/{name}")
    layer.link("sbin", "usr/bin")
    made: set[str] = set()
    for name, source in sorted(files.items()):
        folder = os.path.dirname(name)
        while folder not in ("usr", "usr/bin", "usr/lib", "usr/lib64") and folder not in made:
            made.add(folder)
            layer.folder(folder)
            folder = os.path.dirname(folder)
        with open(source, "rb") as file:
            layer.file(name, file.read(), 0o755)
    layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n")
    layer.file("etc/group", b"root:x:0:\ndaemon:x:1:\n")
    return layer.done()


class Registry:
    """Serves images of the OCI's distribution specification; `login` asks for a name and a password."""

    def __init__(self, login: tuple[str, str] | None = None):
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[str] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.asked.append(self.path)
                if login:
                    import base64

                    wanted = "Basic " + base64.b64encode(":".join(login).encode()).decode()
                    if self.headers.get("Authorization") != wanted:
                        return self.answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="test"'})
                if self.path in ("/v2/", "/v2"):
                    return self.answer(200, b"{}")
                found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(\S+)", self.path)
                if found and found[2] == "manifests":
                    data = registry.manifests.get(f"{found[1]}:{found[3]}") or registry.blobs.get(found[3])
                    kind = MANIFEST
                else:
                    data, kind = registry.blobs.get(found[3]) if found else None, "application/octet-stream"
                if data is None:
                    return self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}')
                return self.answer(200, data, {"Content-Type": kind, "Docker-Content-Digest": digest(data)})

            do_HEAD = do_GET

            def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None):
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name: str, layers: list[bytes], **config) -> str:
        """Adds an image; what it is called by."""
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        zipped = [gzip.compress(layer, 1, mtime=0) for layer in layers]
        settings = json.dumps({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }).encode()  # fmt: skip
        for data in (settings, *zipped):
            self.blobs[digest(data)] = data
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        manifest = json.dumps({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(settings), "size": len(settings)},
            "layers": [{"mediaType": kind, "digest": digest(data), "size": len(data)} for data in zipped],
        }).encode()  # fmt: skip
        self.manifests[f"{name}:latest"] = manifest
        self.blobs[digest(manifest)] = manifest
        return f"{self.host}/{name}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
