"""The toolset transfer: archives of every kind, files of the host under allowed folders, signed URLs.

usage: transfer.py
"""

import asyncio
import ctypes
import hashlib
import io
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from kit import call, check, client, equal, main, run
from serve_kit import localhost_names

REMOTE = os.environ.get("SANDHOLD_PROVIDER") == "e2b"
TRANSFER = {
    "upload_file", "download_file", "zip_dir", "unzip_to", "prepare_project_download", "presigned_download_url",
    "presigned_upload_url",
}  # fmt: skip
MANIFEST = r"""cd "$1" && find . -mindepth 1 -printf '%P\t%y\t%m\t%l\t%Ts\n' | sort
find . -type f -print0 | sort -z | xargs -0 -r sha256sum"""


async def good(connected, tool: str, **arguments) -> dict:
    answer = await call(connected, tool, arguments)
    check(f"{tool} {short(arguments)}", not answer["_error"], answer["_text"])
    return answer


async def bad(connected, tool: str, arguments: dict, *words: str) -> dict:
    answer = await call(connected, tool, arguments)
    text = answer["_text"]
    check(f"{tool} {short(arguments)} is refused", answer["_error"] and not answer.get("_protocol"), text)
    check(f"{tool} {short(arguments)}: it says {' or '.join(words)}", any(w.lower() in text.lower() for w in words), text)
    return answer


def short(arguments: dict) -> dict:
    return {name: value for name, value in arguments.items() if len(str(value)) < 120}


async def manifest(connected, folder: str) -> str:
    """Names, kinds, modes, targets, times and contents below a folder, as one hash and a number of lines."""
    script = f"set -- '{folder}'\n{MANIFEST}"
    whole = await run(connected, f"bash -c {quoted(script)} > /tmp/manifest && wc -l < /tmp/manifest && sha256sum < /tmp/manifest")
    return whole["stdout"]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


async def round_trip(connected) -> None:
    """20,000 files with all that an archive keeps, there and back, by both formats."""
    made = r"""set -e; rm -rf big; mkdir big; cd big
for d in $(seq 0 199); do mkdir "$d"; for f in $(seq 0 98); do printf '%s/%s %*s\n' "$d" "$f" $((f * 20)) x > "$d/$f.txt"; done; done
mkdir -p empty 'with space' deep/er/and/er 'ü€'; head -c 3000000 /dev/urandom > noise.bin; head -c 5000000 /dev/zero > zeros.bin
: > nothing; echo x > 'with space/ä b'; echo y > 'ü€/ß'; echo z > 'back\slash'; ln -s ../noise.bin deep/link; ln -s nowhere dangling
chmod 755 0/0.txt; chmod 600 0/1.txt; chmod 444 0/2.txt; chmod 700 empty; touch -h -d @1000000000 dangling; touch -d @1500000000 1/*.txt 0 empty
find . -exec touch -h -d @1600000000 {} + ; touch -d @1234567890 noise.bin deep empty
mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")' 2>/dev/null || true"""
    await run(connected, made, timeout_s=200)
    await run(connected, "rm -f big/pipe.not; find big | wc -l")
    for archive in ("out.zip", "out.tar.gz", "~/inner/out.tgz"):
        packed = await good(connected, "zip_dir", src_dir="big", dest_zip=archive)
        check(f"{archive}: its entries", packed.get("entries", 0) >= 20_000, packed)
        check(f"{archive}: a pipe is told", "pipe" in packed.get("missing", []), packed.get("missing"))
        size = (await run(connected, f"stat -c %s {archive.replace('~', '$HOME')}"))["stdout"].strip()
        equal(f"{archive}: its size", str(packed.get("size")), size)
        out = await good(connected, "unzip_to", zip_path=archive, dest_dir="back/" + archive.rpartition(".")[2])
        equal(f"{archive}: as many come out", out.get("entries"), packed.get("entries"))
    await run(connected, "rm -f big/pipe big/sock; touch -d @1600000000 big")
    wanted = await manifest(connected, "/home/user/big")
    check("the manifest has all", int(wanted.split()[0]) > 39_000, wanted)
    for folder in ("zip", "gz", "tgz"):
        equal(f"{folder}: names, modes, links, times and contents", await manifest(connected, f"/home/user/back/{folder}"), wanted)
    # Foreign programs read what was made.
    theirs = "python3 -c 'import zipfile,sys; z=zipfile.ZipFile(\"out.zip\"); print(z.testzip(), len(z.infolist()))'"
    said = (await run(connected, theirs, timeout_s=120))["stdout"].split()
    equal("Python's zipfile finds no fault", said[0], "None")
    listed = await run(connected, "tar -tzf out.tar.gz | wc -l")
    equal("GNU tar lists as many", listed["stdout"].strip(), said[1])
    theirs = await run(connected, "command -v unzip >/dev/null || exit 0; unzip -tqq out.zip 2>&1 | tail -5; exit ${PIPESTATUS[0]}")
    equal("unzip finds no fault", (theirs["exit_code"], theirs["stdout"]), (0, ""))
    await run(connected, "rm -rf back big inner out.tar.gz", timeout_s=120)


async def packing(connected) -> None:
    await run(connected, "rm -rf p && mkdir -p p/sub && echo a > p/a && echo b > p/sub/b")
    await good(connected, "zip_dir", src_dir="p", dest_zip="p/self.zip")
    again = await good(connected, "zip_dir", src_dir="p", dest_zip="p/self.zip")
    equal("an archive does not pack itself, nor the one it replaces", again.get("entries"), 3)
    left = (await run(connected, "ls -A p"))["stdout"].split()
    equal("nothing is left beside it", sorted(left), ["a", "self.zip", "sub"])
    await bad(connected, "zip_dir", {"src_dir": "nowhere", "dest_zip": "x.zip"}, "does not exist")
    await bad(connected, "zip_dir", {"src_dir": "p/a", "dest_zip": "x.zip"}, "not a directory")
    await bad(connected, "zip_dir", {"src_dir": "p", "dest_zip": "x.rar"}, ".zip")
    await bad(connected, "zip_dir", {"src_dir": "p", "dest_zip": "p/sub/b/x.zip"}, "directory")
    await bad(connected, "zip_dir", {"src_dir": "p"}, "dest_zip")
    await run(connected, "mkdir -p p/d.zip")
    await bad(connected, "zip_dir", {"src_dir": "p", "dest_zip": "p/d.zip"}, "is a directory")
    await run(connected, "rmdir p/d.zip; chmod 0 p/sub p/a")
    locked = await good(connected, "zip_dir", src_dir="p", dest_zip="locked.zip")
    equal("what cannot be read is told", sorted(locked.get("missing", [])), ["a", "sub"])
    await run(connected, "chmod 755 p/sub p/a")
    before = (await run(connected, "ls -A ~"))["stdout"]
    await bad(connected, "unzip_to", {"zip_path": "nowhere.zip", "dest_dir": "d"}, "does not exist")
    await bad(connected, "unzip_to", {"zip_path": "p", "dest_dir": "d"}, "not a regular file")
    await bad(connected, "unzip_to", {"zip_path": "p/a", "dest_dir": "d"}, "not a zip", "no whole zip")
    await bad(connected, "unzip_to", {"zip_path": "locked.zip", "dest_dir": "p/a"}, "directory", "folder", "exists")
    equal("a refusal makes nothing", (await run(connected, "ls -A ~"))["stdout"], before)
    project = r"""rm -rf app; mkdir -p app/src app/node_modules/x app/.git app/target app/env/bin app/.venv app/pkg/__pycache__
echo 1 > app/src/main.py; echo 1 > app/node_modules/x/i.js; echo 1 > app/.git/HEAD; echo 1 > app/target/CACHEDIR.TAG
echo 1 > app/env/pyvenv.cfg; echo 1 > app/.venv/x; echo 1 > app/pkg/__pycache__/x.pyc; mkdir app/data; echo 1 > app/data/target"""
    await run(connected, project)
    handed = await call(connected, "prepare_project_download", {"project_dir": "app"})
    equal("a project is packed to /tmp", handed.get("zip_path"), "/tmp/app.zip")
    names = (await run(connected, "python3 -c 'import zipfile; print(*sorted(zipfile.ZipFile(\"/tmp/app.zip\").namelist()))'"))["stdout"].split()
    equal("without what tools make again, with .git", names, [".git/", ".git/HEAD", "data/", "data/target", "pkg/", "src/", "src/main.py"])
    equal("what was left out is told", sorted(handed.get("missing", [])), [".venv", "env", "node_modules", "pkg/__pycache__", "target"])
    check("and in words", "left out" in handed["_text"], handed["_text"])
    await bad(connected, "prepare_project_download", {"project_dir": "app/src/main.py"}, "no folder")
    await bad(connected, "prepare_project_download", {"project_dir": "nowhere"}, "not found", "does not exist", "no such")
    await run(connected, "rm -rf app p locked.zip")


def zipped(*entries, patch=None) -> bytes:
    """A zip file of (name, content, mode or none) with names that no check has touched."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            entry.create_system = 3
            entry.external_attr = (mode or 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    raw = data.getvalue()
    return patch(raw) if patch else raw


def tarred(*entries, mode: str = "w") -> bytes:
    """A tar file of (name, kind, content or target)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, kind, what in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            entry.mode = 0o4755
            if kind == tarfile.REGTYPE:
                entry.size = len(what)
                archive.addfile(entry, io.BytesIO(what))
            else:
                entry.linkname = what
                archive.addfile(entry)
    return data.getvalue()


def overlapping() -> bytes:
    """Two names in the directory for the one content."""
    raw = zipped(("a", b"x" * 1000, None))
    at = raw.index(b"PK\1\2")
    end = raw.index(b"PK\5\6")
    record = bytearray(raw[at:end])
    second = bytes(record).replace(b"a", b"b", 1) if record[46:47] == b"a" else bytes(record)
    second = bytes(record[:46]) + b"b" + bytes(record[47:])
    directory = bytes(record) + second
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), at, 0)
    return raw[:at] + directory + tail


def encrypted(raw: bytes) -> bytes:
    changed = bytearray(raw)
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        changed[raw.index(magic) + flags] |= 1
    return bytes(changed)


def wrong_crc(raw: bytes) -> bytes:
    changed = bytearray(raw)
    for magic, crc in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        changed[raw.index(magic) + crc] ^= 0xFF
    return bytes(changed)


def lying_size(raw: bytes) -> bytes:
    """It says that less comes out than does."""
    changed = bytearray(raw)
    for magic, size in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = raw.index(magic) + size
        changed[at : at + 4] = struct.pack("<L", 10)
    return bytes(changed)


def from_elsewhere(raw: bytes) -> bytes:
    """As a program that is not of Unix says it is."""
    changed, at = bytearray(raw), -1
    while (at := raw.find(b"PK\1\2", at + 1)) >= 0:
        changed[at + 5] = 0
    return bytes(changed)


def sparse() -> bytes:
    """One block, and a hole of 4 EiB behind it."""
    head = bytearray(512)
    head[:6], head[100:108], head[124:136], head[136:148] = b"sparse", b"0000644\0", b"%011o\0" % 512, b"%011o\0" % 0
    head[156:157], head[257:265] = b"S", b"ustar  \0"
    head[108:124] = b"0000000\0" * 2
    large = b"\x80" + (1 << 62).to_bytes(11, "big")
    head[386:410], head[410:434], head[483:495] = b"%011o\0" % 0 + b"%011o\0" % 512, large + b"%011o\0" % 0, large
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"x" * 512 + bytes(1024)


def bomb() -> bytes:
    """2 GiB of nothing in some two MB."""
    import zlib

    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece, crc, packed = bytes(1 << 24), 0, []
    for _ in range(128):
        packed.append(deflate.compress(piece))
        crc = zlib.crc32(piece, crc)
    packed.append(deflate.flush())
    content, size = b"".join(packed), 1 << 31
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, crc, len(content), size, 1, 0) + b"a"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x314, 20, 0, 8, 0, 0x21, crc, len(content), size, 1, 0, 0, 0, 0, 0o100644 << 16, 0) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local) + len(content), 0)
    return local + content + entry + end


FILE, DIR, SYM, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
LINK = 0o120777
GOOD = ("good", b"good", None)
# Name, archive, what the refusal says.
HOSTILE = [
    ("up.zip", zipped(GOOD, ("../evil", b"x", None)), "out of the folder"),
    ("deep-up.zip", zipped(GOOD, ("a/b/../../../evil", b"x", None)), "out of the folder"),
    ("absolute.zip", zipped(GOOD, ("/tmp/evil", b"x", None)), "absolute|out of the folder"),
    ("backslash.zip", zipped(GOOD, ("..\\evil", b"x", None)), "out of the folder"),
    ("drive.zip", zipped(GOOD, ("C:\\evil", b"x", None), patch=from_elsewhere), "drive|out of the folder"),
    ("link-out.zip", zipped(GOOD, ("l", b"/tmp", LINK), ("l/evil", b"x", None)), "lies below"),
    ("link-through.zip", zipped(GOOD, ("l", b"d", LINK), ("l/evil", b"x", None)), "lies below"),
    ("link-before.zip", zipped(GOOD, ("l/evil", b"x", None), ("l", b"/tmp", LINK)), "lies below"),
    ("twice.zip", zipped(GOOD, ("a", b"1", None), ("a", b"2", None)), "stands twice"),
    ("device.zip", zipped(GOOD, ("null", b"", 0o020666)), "no file, folder or link"),
    ("encrypted.zip", zipped(("a", b"secret", None), patch=encrypted), "encrypted"),
    ("overlapping.zip", overlapping(), "overlap"),
    ("bomb.zip", None, "bomb|disk"),
    ("truncated.zip", zipped(GOOD, ("a", os.urandom(5000), None))[:-60], "no whole zip|damaged"),
    ("crc.zip", zipped(("a", b"x" * 1000, None), patch=wrong_crc), "damaged"),
    ("lying.zip", zipped(("a", b"x" * 100_000, None), patch=lying_size), "damaged"),
    ("up.tar", tarred(("good", FILE, b"x"), ("../evil", FILE, b"x")), "out of the folder"),
    ("absolute.tar", tarred(("/tmp/evil", FILE, b"x")), "absolute|out of the folder"),
    ("link-through.tar", tarred(("l", SYM, "/tmp"), ("l/evil", FILE, b"x")), "lies below"),
    ("link-inside-through.tar", tarred(("d", DIR, ""), ("l", SYM, "d"), ("l/evil", FILE, b"x")), "lies below"),
    ("link-replaced.tar", tarred(("l", SYM, "d"), ("l", DIR, ""), ("l/evil", FILE, b"x")), "stands twice"),
    ("hard-out.tar", tarred(("h", HARD, "/etc/passwd")), "absolute|out of the folder"),
    ("hard-up.tar", tarred(("h", HARD, "../canary")), "out of the folder"),
    ("hard-link.tar", tarred(("l", SYM, "/tmp"), ("h", HARD, "l"), ("h/evil", FILE, b"x")), "lies below"),
    ("sparse.tar", sparse(), "bomb|damaged|no whole"),
    ("device.tar", tarred(("d", tarfile.CHRTYPE, "")), "device or pipe"),
    ("fifo.tar", tarred(("f", tarfile.FIFOTYPE, "")), "device or pipe"),
    ("twice.tar", tarred(("a", FILE, b"1"), ("a", SYM, "good")), "stands twice"),
    ("up.tar.gz", tarred(("good", FILE, b"x"), ("../evil", FILE, b"x"), mode="w:gz"), "out of the folder"),
    ("truncated.tar.gz", tarred(("a", FILE, os.urandom(50_000)), mode="w:gz")[:20_000], "damaged|no whole|cut short"),
    ("truncated.tar", tarred(("a", FILE, os.urandom(50_000)))[:20_000], "damaged|no whole|cut short"),
    ("not-tar.gz", __import__("gzip").compress(b"hello" * 1000), "not of a tar|no whole"),
]


async def hostile(connected, host: Path) -> None:
    for name, data, words in HOSTILE:
        data = bomb() if data is None else data
        (host / name).write_bytes(data)
        await run(connected, "rm -rf h /tmp/evil /tmp/evil-abs; mkdir -p h; echo safe > h/canary; echo safe > canary")
        await good(connected, "upload_file", local_path=str(host / name), path=f"h/{name}")
        before = (await run(connected, "find h -printf '%p %y %s %T@\\n' | sort; sha256sum /etc/passwd canary; ls -A / /tmp ~ | grep -v manifest"))["stdout"]
        answer = await call(connected, "unzip_to", {"zip_path": f"h/{name}", "dest_dir": "h/dest"})
        text = answer["_text"]
        check(f"{name} is refused", answer["_error"], text)
        check(f"{name}: it says why", any(word in text for word in words.split("|")), text)
        after = (await run(connected, "rm -rf h/dest; find h -printf '%p %y %s %T@\\n' | sort; sha256sum /etc/passwd canary; ls -A / /tmp ~ | grep -v manifest"))["stdout"]
        lines = lambda said: [line for line in said.splitlines() if not line.startswith("h d ")]  # noqa: E731
        equal(f"{name}: nothing outside", lines(after), lines(before))
    # Controls: the same shapes without what is hostile, and an unpacker without the checks.
    fine = {
        "fine.zip": zipped(GOOD, ("a/b", b"x", 0o104755), ("a/l", b"../good", LINK), ("a\\b", b"y", None), ("d/", b"", 0o040750)),
        "fine.tar": tarred(("good", FILE, b"good"), ("a/b", FILE, b"x"), ("a/l", SYM, "../good"), ("h", HARD, "good"), ("d/", DIR, "")),
    }
    for name, data in fine.items():
        (host / name).write_bytes(data)
        await good(connected, "upload_file", local_path=str(host / name), path=f"h/{name}")
        await good(connected, "unzip_to", zip_path=f"h/{name}", dest_dir=f"h/{name}.d")
        said = (await run(connected, f"cd h/{name}.d; cat good a/l; stat -c %a a/b; readlink a/l"))["stdout"]
        equal(f"{name}: content, link and a mode without set-id bits", said, "goodgood755\n../good\n")
    # What is only odd is taken; a link that leads out is not made, and is told.
    links = (("l", SYM, "/tmp"), ("d/up", SYM, "../../x"), ("t/x", FILE, b"x"), ("a/b/s", SYM, "../../t"), ("a/b/l", SYM, "s/../../evil"))
    odd = {
        "links.tar": (tarred(*links), "find . -type l", "./a/b/s\n"),
        "links.zip": (zipped(*[(n, t if isinstance(t, bytes) else t.encode(), LINK if k == SYM else None) for n, k, t in links]), "find . -type l", "./a/b/s\n"),
        "again.tar": (tarred(("a", FILE, b"1"), ("a", FILE, b"2")), "cat a", "2"),
        "second.tar": (tarred(("l", SYM, "x"), ("h", HARD, "l")), "readlink h", "x\n"),
        "padded.tar.gz": (tarred(("a", FILE, b"1"), mode="w:gz") + bytes(5000), "cat a", "1"),
        "colon.zip": (zipped(("c:x", b"1", None)), "cat c:x", "1"),
    }
    for name, (data, look, wanted) in odd.items():
        (host / name).write_bytes(data)
        await good(connected, "upload_file", local_path=str(host / name), path=f"h/{name}")
        done = await good(connected, "unzip_to", zip_path=f"h/{name}", dest_dir=f"h/{name}.d")
        equal(f"{name}: it is unpacked", (await run(connected, f"cd h/{name}.d; {look}"))["stdout"], wanted)
        left_out = ["a/b/l", "d/up", "l"] if name.startswith("links") else []
        equal(f"{name}: links that are not made", sorted(done.get("missing", [])), left_out)
    # A file that is replaced stays when the new one is not whole.
    await good(connected, "upload_file", local_path=str(host / "crc.zip"), path="h/crc.zip")
    await run(connected, "rm -rf h/dest; mkdir -p h/dest; echo old > h/dest/a")
    said = await bad(connected, "unzip_to", {"zip_path": "h/crc.zip", "dest_dir": "h/dest"}, "damaged")
    check("the hint is of use", "Unpack it with a program" in said["_text"], said)
    equal("the old file stays", (await run(connected, "cd h/dest; ls -A; cat a"))["stdout"], "a\nold\n")
    await run(connected, "cd h && mkdir -p control/in && cd control/in && tar -xPf ../../up.tar 2>/dev/null || true", timeout_s=20)
    await good(connected, "upload_file", local_path=str(host / "up.tar"), path="h/up.tar")
    said = await run(connected, "mkdir -p h/control/in; cd h/control/in; tar -xPf ../../up.tar; ls ..")
    check("an unpacker without the checks gets out", "evil" in said["stdout"].split(), said)
    # What stands in the folder already: a link is no way out of it.
    await run(connected, "rm -rf h/dest /tmp/out; mkdir -p h/dest /tmp/out; ln -s /tmp/out h/dest/a; ln -s /tmp/out/file h/dest/good")
    await bad(connected, "unzip_to", {"zip_path": "h/fine.zip", "dest_dir": "h/dest"}, "no folder")
    equal("a link that stood there was not followed", (await run(connected, "ls -A /tmp/out"))["stdout"], "")
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for number in range(100_000):
            archive.writestr(f"{number % 100}/{number}", b"")
    (host / "many.zip").write_bytes(many.getvalue())
    await good(connected, "upload_file", local_path=str(host / "many.zip"), path="h/many.zip")
    out = await good(connected, "unzip_to", zip_path="h/many.zip", dest_dir="h/many")
    if out.get("job_id"):
        out = await finished(connected, out["job_id"])
    else:
        equal("an archive of 100,000 entries", out.get("entries"), 100_000)
    found = await run(connected, "find h/many -type f | wc -l", timeout_s=100)
    equal("all of them are there", found["stdout"].strip(), "100000")
    await run(connected, "rm -rf h canary", timeout_s=200)


async def finished(connected, job: str) -> dict:
    for _ in range(20):
        answer = await call(connected, "get_job_status", {"job_id": job, "wait_s": 40})
        if answer.get("status") != "running":
            break
    equal(f"job {job} is done", (answer.get("status"), answer.get("exit_code")), ("done", 0))
    return answer


async def host_files(connected, allowed: Path, outside: Path) -> None:
    (allowed / "sub").mkdir()
    big = os.urandom(1 << 20) * 20
    (allowed / "big.bin").write_bytes(big)
    sent = await good(connected, "upload_file", local_path=str(allowed / "big.bin"), path="up/big.bin")
    equal("its size and place", (sent.get("size"), sent.get("path")), (len(big), "/home/user/up/big.bin"))
    said = await run(connected, "sha256sum < up/big.bin")
    equal("its content", said["stdout"].split()[0], hashlib.sha256(big).hexdigest())
    await good(connected, "upload_file", local_path="big.bin", path="up/relative.bin")
    back = await good(connected, "download_file", path="up/big.bin", local_path=str(allowed / "new" / "folder" / "back.bin"))
    equal("it comes back", (back.get("size"), (allowed / "new/folder/back.bin").read_bytes() == big), (len(big), True))
    await run(connected, "echo two > up/two")
    await bad(connected, "download_file", {"path": "up/two", "local_path": str(allowed / "new/folder/back.bin")}, "exists")
    check("a file that stands is kept", (allowed / "new/folder/back.bin").read_bytes() == big)
    await good(connected, "download_file", path="up/two", local_path=str(allowed / "new/folder/back.bin"), overwrite=True)
    equal("or replaced when that is said", (allowed / "new/folder/back.bin").read_bytes(), b"two\n")
    (outside / "secret").write_text("secret")
    (allowed / "link").symlink_to(outside / "secret")
    (allowed / "way").symlink_to(outside)
    (allowed / "up").symlink_to("..")
    (allowed / "inner").symlink_to("big.bin")
    (allowed / "rel").symlink_to(os.path.relpath(outside / "secret", allowed))
    os.mkfifo(allowed / "pipe")
    escapes = ["link", "way/secret", "rel", "../outside/secret", "sub/../../outside/secret", str(outside / "secret"), "up/outside/secret",
               f"{allowed}/../outside/secret", "/etc/passwd", f"{allowed}x/secret"]  # fmt: skip
    for path in escapes:
        await bad(connected, "upload_file", {"local_path": path, "path": "up/stolen"}, "not inside", "does not exist")
    for path in ["way/new", "../outside/new", str(outside / "new"), "up/outside/new", f"{allowed}/../outside/new", "way/x/new"]:
        await bad(connected, "download_file", {"path": "up/two", "local_path": path, "overwrite": True}, "not inside")
    equal("nothing came in", (await run(connected, "ls up"))["stdout"].split(), ["big.bin", "relative.bin", "two"])
    equal("nothing went out", sorted(os.listdir(outside)), ["secret"])
    await good(connected, "upload_file", local_path="inner", path="up/inner")
    # A link is replaced, not written through.
    await good(connected, "download_file", path="up/two", local_path="link", overwrite=True)
    equal("a link is replaced", ((outside / "secret").read_text(), (allowed / "link").read_text(), (allowed / "link").is_symlink()),
          ("secret", "two\n", False))  # fmt: skip
    await bad(connected, "upload_file", {"local_path": "pipe", "path": "x"}, "regular file")
    await bad(connected, "upload_file", {"local_path": "sub", "path": "x"}, "regular file")
    await bad(connected, "upload_file", {"local_path": "nowhere", "path": "x"}, "does not exist")
    await bad(connected, "upload_file", {"local_path": "big.bin", "path": "up"}, "director", "folder")
    await bad(connected, "upload_file", {"local_path": "", "path": "x"}, "empty")
    await bad(connected, "download_file", {"path": "up", "local_path": "d"}, "folder")
    await bad(connected, "download_file", {"path": "nowhere", "local_path": "d"}, "not found", "not exist", "no such")
    await bad(connected, "download_file", {"path": "up/two", "local_path": "sub", "overwrite": True}, "folder")
    equal("no half file is left", [p.name for p in allowed.rglob("*.part")], [])
    await race(connected, allowed, outside)


async def race(connected, allowed: Path, outside: Path) -> None:
    """A folder that becomes a link and back while calls run."""
    for folder in (allowed / "flip", outside / "flipped"):
        folder.mkdir()
    (allowed / "flip" / "f").write_text("inside")
    (outside / "flipped" / "f").write_text("outside")
    (allowed / "flap").symlink_to(outside / "flipped")
    going = True
    libc = ctypes.CDLL(None, use_errno=True)
    here, there, exchange = str(allowed / "flip").encode(), str(allowed / "flap").encode(), 2

    def flip():
        while going:
            if libc.renameat2(-100, here, -100, there, exchange):
                raise OSError(ctypes.get_errno(), "renameat2")

    thread = threading.Thread(target=flip)
    thread.start()
    outcomes = {"ok": 0, "refused": 0}
    try:
        for number in range(150):
            up = await call(connected, "upload_file", {"local_path": "flip/f", "path": "raced"})
            down = await call(connected, "download_file", {"path": "up/two", "local_path": f"flip/new{number}", "overwrite": True})
            for answer in (up, down):
                outcomes["refused" if answer["_error"] else "ok"] += 1
            if not up["_error"]:
                said = await run(connected, "cat raced")
                if said["stdout"] != "inside":
                    check("a race leads nowhere", False, said)
                    break
    finally:
        going = False
        thread.join()
    check("the race was run: some calls worked", outcomes["ok"], outcomes)
    equal("a race writes nothing outside", sorted(os.listdir(outside / "flipped")), ["f"])
    check("and some met the link", outcomes["refused"], outcomes)


def fetch(url: str, **settings):
    """Status, headers and body of a plain request."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **settings), timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


async def urls(connected, host: Path) -> None:
    localhost_names()
    await run(connected, "mkdir -p u; head -c 1000000 /dev/urandom > u/a.bin; echo hi > 'u/ü b.txt'")
    wanted = (await run(connected, "sha256sum < u/a.bin"))["stdout"].split()[0]
    get = lambda url, **more: asyncio.to_thread(fetch, url, **more)  # noqa: E731
    signed = await good(connected, "presigned_download_url", path="u/a.bin")
    url = signed.get("url", "")
    if not url:
        return
    status, headers, body = await get(url)
    equal("it downloads", (status, hashlib.sha256(body).hexdigest()), (200, wanted))
    check("under its name", "a.bin" in headers.get("content-disposition", ""), headers.items())
    status, headers, part = await get(url, headers={"Range": "bytes=10-19"})
    equal("a part of it", (status, part), (206, body[10:20]))
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    until = int(query["signature_expiration"][0])
    check("it lives for ten minutes", 500 < until - time.time() < 700, query)
    for what, bent in [
        ("another path", url.replace("a.bin", "b.bin")),
        ("a later end", url.replace(str(until), str(until + 1000))),
        ("no signature", url.replace("signature=", "signatur=")),
        ("no end", url.replace("signature_expiration=", "signature_expirati=")),
        ("another signature", url.replace("signature=v1_", "signature=v1_A", 1)),
    ]:
        status, _, said = await get(bent)
        equal(f"tampered, {what}: refused", (bent != url, status), (True, 401))
        check(f"tampered, {what}: no content", body[:100] not in said)
    status, _, said = await get(url, data=b"x", method="POST", headers={"Content-Type": "application/octet-stream"})
    equal("a URL for reading does not write", status, 401)
    named = await good(connected, "presigned_download_url", path="~/u/ü b.txt", expires_in_s=60)
    status, headers, said = await get(named["url"])
    equal("a name with everything", (status, said), (200, b"hi\n"))
    check("its name is told", "%C3%BC%20b.txt" in headers.get("content-disposition", ""), headers.items())
    brief = await good(connected, "presigned_download_url", path="u/a.bin", expires_in_s=1)
    await asyncio.sleep(2.5)
    status, _, said = await get(brief["url"])
    equal("one that expired is refused", (status, b"expired" in said), (401, True))
    await bad(connected, "presigned_download_url", {"path": "u"}, "folder")
    await bad(connected, "presigned_download_url", {"path": "nowhere"}, "not found", "not exist", "no such")
    await run(connected, "ln -s nowhere u/dangling")
    await bad(connected, "presigned_download_url", {"path": "u/dangling"}, "not found", "not exist", "no such")
    await bad(connected, "presigned_download_url", {"path": "u/a.bin", "expires_in_s": 0}, "1 to")

    up = await good(connected, "presigned_upload_url", path="u/up.bin")
    status, _, said = await get(up["url"], data=body, method="POST", headers={"Content-Type": "application/octet-stream"})
    equal("it uploads", status, 200)
    equal("what was sent is there", (await run(connected, "sha256sum < u/up.bin"))["stdout"].split()[0], wanted)
    boundary = "b0undary"
    form = f"--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n".encode() + b"form" + f"\r\n--{boundary}--\r\n".encode()
    status, _, said = await get(up["url"], data=form, method="POST", headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    equal("as a form, too", (status, (await run(connected, "cat u/up.bin"))["stdout"]), (200, "form"))
    status, _, _ = await get(up["url"])
    equal("a URL for writing does not read", status, 401)
    status, _, _ = await get(up["url"].replace("up.bin", "other"), data=b"x", method="POST", headers={"Content-Type": "application/octet-stream"})
    equal("nor write another file", (status, (await run(connected, "ls u/other 2>&1; true"))["stdout"].startswith("u/other")), (401, False))
    await bad(connected, "presigned_upload_url", {"path": "u"}, "folder")
    await run(connected, "mkdir -p proj && echo 1 > proj/x")
    project = await good(connected, "prepare_project_download", project_dir="proj", out_path="u/proj.zip")
    status, _, data = await get(project.get("url", up["url"]))
    equal("a project downloads", (status, zipfile.ZipFile(io.BytesIO(data)).namelist() if status == 200 else data), (200, ["x"]))


async def not_allowed() -> None:
    async with client() as connected:
        answer = await bad(connected, "upload_file", {"local_path": "/etc/hostname", "path": "x"}, "no folder of this machine is allowed")
        check("it says how", "--allow-dir" in answer["_text"], answer["_text"])
        await bad(connected, "download_file", {"path": "/etc/hostname", "local_path": "/tmp/x"}, "no folder of this machine is allowed")
    async with client("http") as connected:
        await bad(connected, "upload_file", {"local_path": "/etc/hostname", "path": "x"}, "over HTTP")
        await bad(connected, "download_file", {"path": "/etc/hostname", "local_path": "/tmp/x"}, "over HTTP")
    from kit import BIN

    for arguments in (["--allow-dir", "/nowhere/at/all"], ["--http", "127.0.0.1:0", "--allow-dir", "/tmp"]):
        ended = subprocess.run([BIN, "mcp", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        check(f"{arguments} is refused at the start", ended.returncode != 0 and "allow-dir" in ended.stderr, ended)


async def cancelled(connected) -> None:
    """A call that is given up leaves no part of an archive."""
    await run(connected, "mkdir -p c && head -c 400000000 /dev/urandom > c/a && cp c/a c/b && cp c/a c/d", timeout_s=100)
    work = asyncio.create_task(call(connected, "zip_dir", {"src_dir": "c", "dest_zip": "cc/c.tar.gz"}))
    seen = ""
    for _ in range(100):
        await asyncio.sleep(0.1)
        seen = (await run(connected, "ls -A cc 2>/dev/null; true"))["stdout"]
        if seen or work.done():
            break
    check("it had begun", seen.startswith("."), seen)
    jobs = await call(connected, "list_jobs", {})
    running = [job for job in jobs.get("jobs", []) if job["cmd"].startswith("zip_dir c ") and job["status"] == "running"]
    check("it is a job meanwhile", len(running) == 1, jobs)
    if running:
        ended = await call(connected, "kill_job", {"job_id": running[0]["job_id"]})
        equal("it can be ended", (ended.get("cancelled"), ended.get("status")), (True, "cancelled"))
    answer = await work
    check("the call says so", answer["_error"] and "ended" in answer["_text"], answer["_text"])
    for _ in range(50):
        left = (await run(connected, "ls -A cc"))["stdout"]
        if not left:
            break
        await asyncio.sleep(0.1)
    equal("nothing is left of it", left, "")
    await run(connected, "rm -rf c cc", timeout_s=60)


async def goes_on(connected) -> None:
    """Work that takes longer than an answer may: two terabytes of nothing, in files of a size that everybody may have."""
    made = await run(connected, "mkdir -p slow && truncate -s 512M slow/0 && for n in $(seq 4096); do ln slow/0 slow/$n; done")
    equal("there are files to pack", made["exit_code"], 0)
    told: list[str] = []

    async def progress(_done, _total, message):
        told.append(message or "")

    answer = await call(connected, "zip_dir", {"src_dir": "slow", "dest_zip": "slow.zip"}, progress_callback=progress)
    job = answer.get("job_id")
    check("it goes on as a job", job and not answer["_error"] and "get_job_status" in answer["_text"], answer["_text"])
    check("with progress before that", any("bytes so far" in line for line in told), told[:5])
    status = await call(connected, "get_job_status", {"job_id": job or ""})
    equal("it still runs", status.get("status"), "running")
    check("and says how far it is", "bytes so far" in status.get("stdout", ""), status)
    ended = await call(connected, "kill_job", {"job_id": job or ""})
    equal("it can be ended", (ended.get("cancelled"), ended.get("status")), (True, "cancelled"))
    await asyncio.sleep(1)
    left = await run(connected, "ls -A | grep slow; rm -rf slow")
    equal("nothing is left of it", left["stdout"], "slow\n")


async def scenario() -> None:
    with tempfile.TemporaryDirectory() as folder:
        allowed, outside = Path(folder) / "allowed", Path(folder) / "outside"
        for one in (allowed, outside, Path(folder) / "allowedx"):
            one.mkdir()
        (Path(folder) / "allowedx" / "secret").write_text("secret")
        async with client("stdio", "modern", "--allow-dir", str(allowed)) as connected:
            listed = {tool.name for tool in (await connected.list_tools()).tools}
            check("the toolset is on by default", TRANSFER <= listed, TRANSFER - listed)
            await packing(connected)
            await host_files(connected, allowed, outside)
            await urls(connected, allowed)
            await hostile(connected, allowed)
            await cancelled(connected)
            if not REMOTE:
                await goes_on(connected)
            await round_trip(connected)
    await not_allowed()


if __name__ == "__main__":
    main(scenario)
