# Packs and unpacks where the sandbox's daemon cannot: `zip SRC DEST LEAVE_OUT`, `unzip ARCHIVE DEST`. Prints lines of JSON.
import gzip, io, json, os, signal, stat, struct, sys, tarfile, time, zipfile

MADE_AGAIN = {"node_modules", "__pycache__", ".venv"}
MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")
KERNEL = {"/proc", "/sys", "/dev"}
LISTED, ENTRIES, PATH, DEPTH = 20, 500_000, 4096, 400
RATIO, RATIO_FROM = 250, 1 << 30
PIECE = 1 << 18
DIR, FILE, LINK, HARD = "dir", "file", "link", "hard"


class Failed(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def refused(why):
    return Failed(400, "the archive is refused and nothing was written: " + why)


def put(**line):
    print(json.dumps(line), flush=True)


class Told:
    """Counts, and tells now and then."""

    def __init__(self):
        self.entries = self.bytes = 0
        self.at = time.monotonic()

    def add(self, entries=0, size=0):
        self.entries += entries
        self.bytes += size
        if time.monotonic() - self.at > 0.5:
            self.at = time.monotonic()
            put(progress={"entries": self.entries, "bytes": self.bytes})


class Listed:
    def __init__(self):
        self.count, self.paths = 0, []

    def add(self, path):
        self.count += 1
        if len(self.paths) < LISTED:
            self.paths.append(path.encode("utf-8", "replace").decode())

    def out(self):
        return {"count": self.count, "paths": self.paths}


def found(src, leave_out, skip, lists):
    """Relative path, absolute path and stat of everything below `src`; nothing is followed."""
    unreadable, left_out, special = lists
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            names = sorted(os.listdir(os.path.join(src, below)))
        except PermissionError:
            unreadable.add(below)
            continue
        deeper = []
        for name in names:
            path = os.path.join(below, name)
            whole = os.path.join(src, path)
            try:
                info = os.lstat(whole)
            except FileNotFoundError:
                continue
            if (info.st_dev, info.st_ino) in skip:
                continue
            if stat.S_ISDIR(info.st_mode):
                marked = leave_out and (name in MADE_AGAIN or any(os.path.lexists(os.path.join(whole, m)) for m in MARKS))
                if marked or whole in KERNEL:
                    left_out.add(path)
                    continue
                deeper.append(path)
            elif not stat.S_ISREG(info.st_mode) and not stat.S_ISLNK(info.st_mode):
                special.add(path)
                continue
            yield path, whole, info
        waiting.extend(reversed(deeper))


def open_file(path):
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    return os.fdopen(fd, "rb")


def copy(source, sink, told):
    while piece := source.read(PIECE):
        sink.write(piece)
        told.add(size=len(piece))


def pack_zip(out, entries, told, unreadable):
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path, whole, info in entries:
            clock = max(time.gmtime(max(int(info.st_mtime), 0))[:6], (1980, 1, 1, 0, 0, 0))
            entry = zipfile.ZipInfo(path + "/" if stat.S_ISDIR(info.st_mode) else path, clock)
            entry.create_system = 3
            entry.external_attr = (info.st_mode & 0o170777) << 16
            entry.extra = struct.pack("<HHBI", 0x5455, 5, 1, min(max(int(info.st_mtime), 0), 0xFFFFFFFF))
            if stat.S_ISDIR(info.st_mode):
                entry.external_attr |= 0x10
                archive.writestr(entry, b"")
            elif stat.S_ISLNK(info.st_mode):
                archive.writestr(entry, os.fsencode(os.readlink(whole)))
            else:
                entry.compress_type = zipfile.ZIP_DEFLATED
                try:
                    source = open_file(whole)
                except OSError:
                    unreadable.add(path)
                    continue
                with source, archive.open(entry, "w", force_zip64=info.st_size >= 1 << 31) as sink:
                    copy(source, sink, told)
            told.add(1)


class Exactly(io.RawIOBase):
    """A file's content, as long as was said before."""

    def __init__(self, source, size, told):
        self.source, self.left, self.told = source, size, told

    def read(self, size=-1):
        want = self.left if size < 0 else min(size, self.left)
        data = self.source.read(want)
        data += bytes(want - len(data))
        self.left -= want
        self.told.add(size=want)
        return data


def pack_tar(out, entries, told, unreadable):
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path, whole, info in entries:
            entry = archive.gettarinfo(whole, path)
            entry.mode = info.st_mode & 0o777
            if entry.isreg():
                try:
                    source = open_file(whole)
                except OSError:
                    unreadable.add(path)
                    continue
                with source:
                    archive.addfile(entry, Exactly(source, entry.size, told))
            else:
                archive.addfile(entry)
            told.add(1)


def pack(src, dest, leave_out):
    name = os.path.basename(dest).lower()
    how = pack_zip if name.endswith(".zip") else pack_tar if name.endswith((".tar.gz", ".tgz")) else None
    if not how:
        raise Failed(400, f"'{dest}' is to be made, but only .zip, .tar.gz and .tgz are known")
    if not os.path.exists(src):
        raise Failed(404, f"path '{src}' does not exist")
    if not os.path.isdir(src):
        raise Failed(400, f"path '{src}' is not a directory")
    if os.path.isdir(dest):
        raise Failed(400, f"path is a directory: {dest}")
    src, dest = os.path.realpath(src), os.path.abspath(dest)
    os.makedirs(os.path.dirname(dest), exist_ok=True)
    beside = os.path.join(os.path.dirname(dest), f".{os.path.basename(dest)[:40]}.{os.getpid()}.tmp")
    told, lists = Told(), (Listed(), Listed(), Listed())
    try:
        with open(beside, "xb") as out:
            own = os.fstat(out.fileno())
            skip = {(own.st_dev, own.st_ino)}
            if os.path.lexists(dest):
                old = os.lstat(dest)
                skip.add((old.st_dev, old.st_ino))
            how(out, found(src, leave_out, skip, lists), told, lists[0])
        size = os.path.getsize(beside)
        os.rename(beside, dest)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    unreadable, left_out, special = (one.out() for one in lists)
    done = {"path": dest, "size": size, "entries": told.entries, "bytes": told.bytes}
    put(done={**done, "unreadable": unreadable, "left_out": left_out, "special": special})


def clean(raw, is_zip, drives=False):
    shown = json.dumps(raw[:200])
    as_elsewhere = raw.replace("\\", "/") if is_zip else raw
    parts = [part for part in as_elsewhere.split("/") if part not in ("", ".")]
    drive = drives and raw[1:2] == ":" and raw[:1].isalpha()
    if as_elsewhere.startswith("/") or ".." in parts or drive or "\0" in raw:
        raise refused(f"entry {shown} leads out of the folder")
    if len(raw.encode("utf-8", "surrogateescape")) > PATH or len(parts) > DEPTH:
        raise refused(f"entry {shown} has a path that is too long")
    return "/".join(part for part in raw.split("/") if part not in ("", "."))


def stays(path, target):
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return not (target.startswith("/") or ".." in parts[up:] or up > path.count("/"))


class Plan:
    """The same rules as the daemon's: see its `plan.rs`."""

    def __init__(self, packed, dest, last_wins):
        self.kinds, self.total, self.count = {}, 0, 0
        self.packed, self.last_wins = packed, last_wins
        while not os.path.isdir(dest):
            dest = os.path.dirname(dest)
        disk = os.statvfs(dest)
        self.free, self.files = disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else ENTRIES

    def add(self, path, kind, target, size):
        self.count += 1
        if self.count > ENTRIES:
            raise refused(f"it has more than {ENTRIES} entries")
        if self.count > self.files:
            raise Failed(507, f"nothing was written: the archive holds more than the {self.files} files the disk has room for")
        self.total += size
        if self.total > RATIO_FROM and self.total // RATIO > self.packed:
            raise refused(f"its {self.packed} bytes would become {self.total} or more: it looks like a bomb")
        if self.total > self.free:
            raise Failed(507, f"nothing was written: the archive holds {self.total} bytes, more than the disk has left")
        if kind == LINK and (not target or "\0" in target or len(target) > PATH):
            raise refused(f"link {json.dumps(path)} has no valid target")
        if kind == HARD:
            if self.kinds.get(target) != FILE:
                raise refused(f"entry {json.dumps(path)} is another name of what is no file before it")
            kind = FILE
        if not path:
            if kind != DIR:
                raise refused("an entry that is no folder takes the place of the folder itself")
            return
        if self.kinds.get(path, kind) != kind or (path in self.kinds and kind != DIR and not self.last_wins):
            raise refused(f"entry {json.dumps(path)} stands twice in it")
        self.kinds[path] = kind

    def check(self):
        for path in self.kinds:
            at = path.find("/")
            while at >= 0:
                if self.kinds.get(path[:at], DIR) != DIR:
                    raise refused(f"entry {json.dumps(path)} lies below {json.dumps(path[:at])}, which is no folder in it")
                at = path.find("/", at + 1)


class Place:
    """Makes files below one folder by descriptors; links are never followed."""

    FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

    def __init__(self, dest):
        os.makedirs(dest, exist_ok=True)
        self.root, self.made = os.open(dest, os.O_RDONLY | os.O_DIRECTORY), {}
        self.at, self.fd, self.tries = "", os.dup(self.root), 0

    def enter(self, path):
        if path == self.at:
            return self.fd
        fd, here = os.dup(self.root), ""
        for part in path.split("/") if path else []:
            here = f"{here}/{part}" if here else part
            try:
                try:
                    below = os.open(part, self.FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=fd)
                    self.made[here] = (None, None)
                    below = os.open(part, self.FOLDER, dir_fd=fd)
            except NotADirectoryError as error:
                raise Failed(400, f"{json.dumps(here)} stands already and is no folder") from error
            finally:
                os.close(fd)
            fd = below
        os.close(self.fd)
        self.at, self.fd = path, fd
        return fd

    def new(self, path, make, fill=lambda made: None):
        """What stands there is replaced by what is whole, and by nothing else."""
        folder, _, name = path.rpartition("/")
        fd, called = self.enter(folder), name
        try:
            made = make(name, fd)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                raise Failed(400, f"{json.dumps(path)} stands already and is a folder") from None
            while True:
                self.tries += 1
                called = f".unpacked.{os.getpid()}.{self.tries}.tmp"
                try:
                    made = make(called, fd)
                    break
                except FileExistsError:
                    continue
        try:
            fill(made)
            if called != name:
                os.rename(called, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            os.unlink(called, dir_fd=fd)
            raise
        if called != name:
            try:
                # Two names of one file both stay after a rename.
                os.unlink(called, dir_fd=fd)
            except FileNotFoundError:
                pass

    def file(self, path, mode, mtime, source, told):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

        def fill(made):
            with os.fdopen(made, "wb") as out:
                copy(source, out, told)
                out.flush()
                os.fchmod(out.fileno(), (0o644 if mode is None else mode) & 0o777)
                os.utime(out.fileno(), (mtime, mtime))

        self.new(path, lambda name, fd: os.open(name, flags, 0o600, dir_fd=fd), fill)

    def finish(self):
        for path in sorted(self.made, reverse=True):
            mode, mtime = self.made[path]
            fd = self.enter(path)
            if mtime is not None:
                os.utime(fd, (mtime, mtime))
            if mode is not None:
                os.fchmod(fd, mode & 0o777)


def zip_entries(archive, size):
    ranges = []
    for entry in archive.infolist():
        unix = entry.create_system in (3, 19)
        raw = entry.orig_filename
        if entry.flag_bits & 0x2041:
            raise refused(f"entry {json.dumps(raw[:200])} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(f"entry {json.dumps(raw[:200])} is compressed by method {entry.compress_type}")
        ranges.append((entry.header_offset, entry.header_offset + 30 + len(entry.filename) + entry.compress_size))
        bits = entry.external_attr >> 16 if unix else 0
        path = clean(raw if unix else raw.replace("\\", "/"), True, not unix)
        kind, target = (DIR if raw.endswith("/") else FILE), None
        if stat.S_IFMT(bits) == stat.S_IFLNK:
            if entry.file_size > PATH:
                raise refused(f"link {json.dumps(path)} has no valid target")
            kind, target = LINK, os.fsdecode(archive.read(entry))
        elif stat.S_IFMT(bits) == stat.S_IFDIR:
            kind = DIR
        elif stat.S_IFMT(bits) not in (0, stat.S_IFREG):
            raise refused(f"entry {json.dumps(path)} is no file, folder or link")
        stamp = entry.extra[:9]
        if len(stamp) == 9 and stamp[:4] == b"UT\x05\x00" and stamp[4] & 1:
            mtime = struct.unpack("<i", stamp[5:])[0]
        else:
            mtime = time.mktime((*entry.date_time, 0, 0, -1)) if entry.date_time[1] else 0
        yield path, kind, target, entry.file_size, bits & 0o777 or None, mtime, entry
    ranges.sort()
    if any(one[1] > two[0] for one, two in zip(ranges, ranges[1:])) or (ranges and ranges[-1][1] > size):
        raise refused("its entries overlap, which only a bomb's do")


def tar_entries(archive):
    links = {}
    for entry in archive:
        path, target, size = clean(entry.name, False), None, 0
        if entry.isdir():
            kind = DIR
        elif entry.issym():
            kind, target = LINK, entry.linkname
        elif entry.islnk():
            kind, target = HARD, clean(entry.linkname, False)
            # GNU tar writes a second name of a symbolic link so: here it is a second link.
            if target in links:
                kind, target = LINK, links[target]
        elif entry.isreg():
            kind, size = FILE, entry.size
        else:
            raise refused(f"entry {json.dumps(path)} is a device or pipe")
        if kind == LINK:
            links[path] = target
        yield path, kind, target, size, entry.mode, entry.mtime, entry


def unpack(source, dest):
    if not os.path.exists(source):
        raise Failed(404, f"path '{source}' does not exist")
    if not os.path.isfile(source):
        raise Failed(400, f"path '{source}' is not a regular file")
    dest, size, told = os.path.abspath(dest), os.path.getsize(source), Told()
    with open_file(os.path.realpath(source)) as file:
        start = file.read(4)
        file.seek(0)
        try:
            if start[:2] == b"PK":
                archive = zipfile.ZipFile(file)
                listed, content = (lambda: zip_entries(archive, size)), archive.open
            else:
                archive = tarfile.open(fileobj=file, mode="r:*")
                listed, content = (lambda: tar_entries(archive)), archive.extractfile
            plan, links, left_out = Plan(size, dest, start[:2] != b"PK"), {}, Listed()
            for path, kind, target, length, *_ in listed():
                plan.add(path, kind, target, length)
            plan.check()
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError) as error:
            raise refused(f"it is no whole zip, tar or tar.gz file: {error}") from error
        place = Place(dest)
        for path, kind, target, length, mode, mtime, entry in listed():
            try:
                if kind == DIR:
                    place.enter(path)
                    if path in place.made:
                        place.made[path] = (mode, mtime)
                elif kind == LINK:
                    links[path] = target, mtime
                    continue
                elif kind == HARD:
                    folder, _, name = target.rpartition("/")
                    old = os.dup(place.enter(folder))
                    place.new(path, lambda new, fd: os.link(name, new, src_dir_fd=old, dst_dir_fd=fd, follow_symlinks=False))
                    os.close(old)
                else:
                    with content(entry) as data:
                        place.file(path, mode, mtime, data, told)
            except (zipfile.BadZipFile, tarfile.TarError, EOFError, gzip.BadGzipFile, zipfile.zlib.error) as error:
                raise Failed(400, f"entry {json.dumps(path)} is damaged: {error}; {told.entries} entries had been written before") from error
            told.add(1)
        for path, (target, mtime) in links.items():
            if not stays(path, target):
                left_out.add(path)
                continue
            place.new(path, lambda name, fd: os.symlink(target, name, dir_fd=fd))
            os.utime(path.rpartition("/")[2], (mtime, mtime), dir_fd=place.fd, follow_symlinks=False)
            told.add(1)
        place.finish()
    put(done={"path": dest, "size": size, "entries": told.entries, "bytes": told.bytes, "left_out": left_out.out()})


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if sys.argv[1] == "zip":
            pack(sys.argv[2], sys.argv[3], sys.argv[4] == "1")
        else:
            unpack(sys.argv[2], sys.argv[3])
    except Failed as error:
        put(error={"code": error.code, "message": str(error)})
    except (FileExistsError, NotADirectoryError) as error:
        put(error={"code": 400, "message": f"path '{error.filename}' is not a directory"})
    except OSError as error:
        full = error.errno in (28, 122)
        denied = isinstance(error, PermissionError)
        put(error={"code": 507 if full else 400 if denied else 500, "message": f"{error.filename or 'the archive'}: {error.strerror or error}"})


main()
