"""E2B's SDK documentation, "Filesystem": every method of `sandbox.files`, its options and its errors."""

import gzip
import hashlib
import io

from kit import check, equal
from sdk_kit import World, raises


def checks(world: World) -> None:
    reading_and_writing(world)
    batches(world)
    listing(world)
    moving(world)
    errors(world)
    if world.since(2):
        entries(world)
    if world.since(2, 45):
        streams(world)
        metadata(world)
    owners(world)


def reading_and_writing(world: World) -> None:
    files = world.sandbox.files
    info = files.write("f/a.txt", "text ü\n")
    equal("write: creates folders, says path and name", (info.path, info.name), ("/home/user/f/a.txt", "a.txt"))
    equal("write: says the type", getattr(info.type, "value", info.type), "file")
    equal("read: text", files.read("f/a.txt"), "text ü\n")
    equal("read: by its whole path", files.read("/home/user/f/a.txt"), "text ü\n")
    equal("read: from the home", files.read("~/f/a.txt"), "text ü\n")
    raw = bytes(range(256)) * 8192
    files.write("f/raw.bin", raw)
    equal("read: bytes", hashlib.sha256(files.read("f/raw.bin", format="bytes")).hexdigest(), hashlib.sha256(raw).hexdigest())
    equal("read: bytes come as a bytearray", type(files.read("f/raw.bin", format="bytes")), bytearray)
    pieces = list(files.read("f/raw.bin", format="stream"))
    check("read: a stream", b"".join(pieces) == raw, len(pieces))
    files.write("f/a.txt", "shorter")
    equal("write: overwrites", files.read("f/a.txt"), "shorter")
    files.write("f/empty", "")
    equal("write: nothing", files.read("f/empty"), "")
    files.write("f/io", io.BytesIO(b"from a file object"))
    equal("write: a file object", files.read("f/io"), "from a file object")
    files.write("f/odd name & ü%20+?#.txt", "odd")
    equal("write: odd names", files.read("f/odd name & ü%20+?#.txt"), "odd")
    done = world.sandbox.commands.run("cat 'f/odd name & ü%20+?#.txt'; stat -c ' %U %G %a' f/a.txt")
    equal("write: commands see it, its owner and mode", done.stdout, "odd user user 644\n")


def batches(world: World) -> None:
    files = world.sandbox.files
    entries = [{"path": f"batch/{n}.txt", "data": f"number {n}"} for n in range(5)] + [{"path": "/tmp/batch.bin", "data": b"\0\1\2"}]
    written = files.write_files(entries) if world.since(2) else files.write(entries)
    equal("write_files: one row a file, in order", [info.path for info in written], [f"/home/user/batch/{n}.txt" for n in range(5)] + ["/tmp/batch.bin"])
    equal("write_files: what was written", [files.read(f"batch/{n}.txt") for n in range(5)], [f"number {n}" for n in range(5)])
    equal("write_files: bytes", bytes(files.read("/tmp/batch.bin", format="bytes")), b"\0\1\2")
    equal("write_files: nothing", files.write_files([]) if world.since(2) else files.write([]), [])


def listing(world: World) -> None:
    from e2b import FileType

    files = world.sandbox.files
    files.write("tree/one/two/deep.txt", "1")
    files.write("tree/top.txt", "1")
    found = {entry.name: entry.type for entry in files.list("tree")}
    equal("list: one level", found, {"one": FileType.DIR, "top.txt": FileType.FILE})
    equal("list: paths", sorted(entry.path for entry in files.list("tree")), ["/home/user/tree/one", "/home/user/tree/top.txt"])
    deep = sorted(entry.path.removeprefix("/home/user/tree/") for entry in files.list("tree", depth=3))
    equal("list: three levels", deep, ["one", "one/two", "one/two/deep.txt", "top.txt"])
    raises("list: depth 0 is refused", Exception, lambda: files.list("tree", depth=0), "depth")
    equal("make_dir: with parents", files.make_dir("tree/new/newer"), True)
    equal("make_dir: it stood already", files.make_dir("tree/new/newer"), False)
    equal("list: an empty folder", files.list("tree/new/newer"), [])


def moving(world: World) -> None:
    files = world.sandbox.files
    files.write("move/a.txt", "moved")
    info = files.rename("move/a.txt", "move/b.txt")
    equal("rename: says the new path", (info.path, info.name), ("/home/user/move/b.txt", "b.txt"))
    equal("rename: old and new", (files.exists("move/a.txt"), files.read("move/b.txt")), (False, "moved"))
    files.rename("move", "moved")
    equal("rename: a folder", files.read("moved/b.txt"), "moved")
    equal("exists: a file, a folder, nothing", (files.exists("moved/b.txt"), files.exists("moved"), files.exists("no")), (True, True, False))
    files.remove("moved/b.txt")
    equal("remove: a file", files.exists("moved/b.txt"), False)
    files.write("moved/full/x", "1")
    files.remove("moved")
    equal("remove: a folder with what is in it", files.exists("moved"), False)


def errors(world: World) -> None:
    import e2b

    files = world.sandbox.files
    missing = e2b.FileNotFoundException if world.since(2, 45) else e2b.NotFoundException
    raises("read: nothing there", missing, lambda: files.read("no/such"), "does not exist")
    raises("read: a folder", e2b.InvalidArgumentException, lambda: files.read("f"), "is a directory")
    raises("list: nothing there", missing, lambda: files.list("no/such"))
    raises("list: a file", e2b.InvalidArgumentException, lambda: files.list("f/a.txt"))
    raises("rename: nothing there", missing, lambda: files.rename("no/such", "x"))
    raises("make_dir: a file stands there", e2b.InvalidArgumentException, lambda: files.make_dir("f/a.txt"))
    raises("write: onto a folder", e2b.InvalidArgumentException, lambda: files.write("f", "x"))
    raises("watch_dir: nothing there", missing, lambda: files.watch_dir("no/such"))
    raises("watch_dir: a file", e2b.InvalidArgumentException, lambda: files.watch_dir("f/a.txt"))
    raises("read: an unknown user", e2b.AuthenticationException, lambda: files.read("f/a.txt", user="nobody-here"))
    raises("list: an unknown user", e2b.AuthenticationException, lambda: files.list("f", user="nobody-here"))
    world.sandbox.commands.run("fallocate -l 250M /dev/shm/fill")
    raises("write: a full disk", e2b.NotEnoughSpaceException, lambda: files.write("/dev/shm/more", b"x" * (12 << 20)))
    files.remove("/dev/shm/fill")
    files.remove("/dev/shm/more")
    equal("remove: nothing there is no error", files.remove("/dev/shm/more"), None)


def entries(world: World) -> None:
    from datetime import datetime, timezone

    from e2b import FileType

    files = world.sandbox.files
    files.write("info/a.txt", "12345")
    world.sandbox.commands.run("cd info; chmod 640 a.txt; touch -d '2020-01-02T03:04:05Z' a.txt; ln -s a.txt link; ln -s /etc out")
    info = files.get_info("info/a.txt")
    equal("get_info: a file", (info.name, info.type, info.path, info.size), ("a.txt", FileType.FILE, "/home/user/info/a.txt", 5))
    equal("get_info: mode and permissions", (oct(info.mode & 0o777), info.permissions), ("0o640", "-rw-r-----"))
    equal("get_info: owner and group", (info.owner, info.group), ("user", "user"))
    equal("get_info: modified_time", info.modified_time.replace(tzinfo=timezone.utc), datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    equal("get_info: no link, no target", info.symlink_target, None)
    folder = files.get_info("info")
    equal("get_info: a folder", (folder.type, folder.permissions[0]), (FileType.DIR, "d"))
    link = files.get_info("info/link")
    equal("get_info: a link's target", link.symlink_target, "/home/user/info/a.txt")
    listed = {entry.name: entry for entry in files.list("info")}
    equal("list: a link to a folder", listed["out"].symlink_target, "/etc")
    equal("list: the same facts as get_info", (listed["a.txt"].size, listed["a.txt"].permissions), (5, "-rw-r-----"))


def streams(world: World) -> None:
    from e2b import InvalidArgumentException

    files = world.sandbox.files
    files.write("s/gzip.txt", "packed " * 1000, gzip=True)
    equal("write: gzip", files.read("s/gzip.txt"), "packed " * 1000)
    equal("write: gzip is not what is stored", world.sandbox.commands.run("head -c 7 s/gzip.txt").stdout, "packed ")
    equal("read: gzip", files.read("s/gzip.txt", gzip=True), "packed " * 1000)
    packed = gzip.compress(b"stays as it is")
    files.write("s/own.gz", packed)
    equal("write: what is packed itself stays so", bytes(files.read("s/own.gz", format="bytes")), packed)
    files.write("s/octet.txt", "octets", use_octet_stream=True)
    equal("write: octet-stream", files.read("s/octet.txt"), "octets")
    written = files.write_files([{"path": "s/m1", "data": b"1"}, {"path": "s/m2", "data": "2"}], use_octet_stream=True)
    equal("write_files: octet-stream", [info.path for info in written], ["/home/user/s/m1", "/home/user/s/m2"])
    raw = hashlib.sha512(b"seed").digest() * 65536
    files.write("s/large", io.BytesIO(raw))
    with files.read("s/large", format="stream") as stream:
        sums = hashlib.sha256()
        for piece in stream:
            sums.update(piece)
    equal("write and read: 4 MiB as streams", sums.hexdigest(), hashlib.sha256(raw).hexdigest())
    with files.read("s/large", format="stream") as stream:
        next(stream)
    equal("read: a stream that is given up disturbs nothing", files.read("s/m1"), "1")
    if world.since(2, 60):
        files.write("s/pieces", (part for part in (b"one ", b"two ", b"three")))
        equal("write: an iterable", files.read("s/pieces"), "one two three")
    raises("write: gzip without octet-stream is refused", InvalidArgumentException, lambda: files.write("s/x", "x", gzip=True, use_octet_stream=False)) if world.since(2, 60) else None


def metadata(world: World) -> None:
    from e2b import InvalidArgumentException

    files = world.sandbox.files
    written = files.write("meta/a.txt", "x", metadata={"Origin": "suite", "kind": "text plain"})
    equal("metadata: what write says", written.metadata, {"origin": "suite", "kind": "text plain"})
    equal("metadata: get_info", files.get_info("meta/a.txt").metadata, {"origin": "suite", "kind": "text plain"})
    equal("metadata: list", files.list("meta")[0].metadata, {"origin": "suite", "kind": "text plain"})
    equal("metadata: rename keeps it", files.rename("meta/a.txt", "meta/b.txt").metadata, {"origin": "suite", "kind": "text plain"})
    files.write("meta/b.txt", "y")
    equal("metadata: a write without clears it", files.get_info("meta/b.txt").metadata, None)
    both = files.write_files([{"path": "meta/c", "data": "1"}, {"path": "meta/d", "data": "2"}], metadata={"batch": "yes"})
    equal("metadata: every file of a batch", [info.metadata for info in both], [{"batch": "yes"}] * 2)
    raises("metadata: a bad key is refused", InvalidArgumentException, lambda: files.write("meta/e", "x", metadata={"bad key": "v"}))
    raises("metadata: too much is refused", InvalidArgumentException, lambda: files.write("meta/e", "x", metadata={"k": "v" * 5000}))


def owners(world: World) -> None:
    if world.one_id():
        return
    files = world.sandbox.files
    by_root = {"user": "root"} if world.since(2) else {"user_or_request_timeout": "root"}
    files.write("/root/secret", "root's", **by_root)
    equal("user: root's file", files.read("/root/secret", user="root"), "root's")
    equal("user: root's home", files.write("of-root", "x", **by_root).path, "/root/of-root")
    equal("user: list as root", sorted(entry.name for entry in files.list("/root", user="root") if not entry.name.startswith(".")), ["of-root", "secret"])
    equal("user: the owner", world.sandbox.commands.run("stat -c %U /root/secret", user="root").stdout, "root\n")
