"""E2B's SDK documentation, "Watch sandbox directory for changes": `files.watch_dir` of the synchronous SDKs, which polls."""

from kit import check, equal, until
from sdk_kit import World, raised


def checks(world: World) -> None:
    from e2b import FilesystemEventType as Type

    files, commands = world.sandbox.files, world.sandbox.commands
    files.make_dir("watched/sub")
    watcher = files.watch_dir("watched")
    seen: list = []

    def sees(kind, name: str) -> bool:
        def look():
            seen.extend(watcher.get_new_events())
            return any(event.type == kind and event.name == name for event in seen)

        return bool(until(look, 6, 0.05))

    equal("watch: nothing yet", watcher.get_new_events(), [])
    commands.run("echo 1 > watched/new.txt")
    check("watch: create", sees(Type.CREATE, "new.txt"), seen)
    commands.run("echo 2 >> watched/new.txt")
    check("watch: write", sees(Type.WRITE, "new.txt"), seen)
    commands.run("chmod 600 watched/new.txt")
    check("watch: chmod", sees(Type.CHMOD, "new.txt"), seen)
    files.rename("watched/new.txt", "watched/other.txt")
    check("watch: rename tells the old name", sees(Type.RENAME, "new.txt"), seen)
    check("watch: and the new one is created", sees(Type.CREATE, "other.txt"), seen)
    files.remove("watched/other.txt")
    check("watch: remove", sees(Type.REMOVE, "other.txt"), seen)
    files.write("watched/sub/deep.txt", "1")
    files.write("watched/last.txt", "1")
    check("watch: what files.write writes", sees(Type.CREATE, "last.txt") or sees(Type.RENAME, "last.txt"), seen)
    check("watch: not what is deeper", not any(event.name.startswith("sub/") for event in seen), seen)
    watcher.stop()
    error = raised(watcher.get_new_events)
    check("watch: a stopped one says so", error is not None and "stopped" in str(error), error)

    watcher = files.watch_dir("watched", recursive=True)
    seen = []
    commands.run("mkdir -p watched/a/b; echo 1 > watched/a/b/c.txt; echo 1 > watched/sub/e.txt")
    check("watch: recursive, in a folder that was there", sees(Type.CREATE, "sub/e.txt"), seen)
    check("watch: recursive, in one that was made", until(lambda: raised(lambda: commands.run("echo 1 >> watched/a/b/c.txt")) is None and sees(Type.WRITE, "a/b/c.txt"), 6), seen)
    watcher.stop()
    if world.since(2, 45):
        watcher = files.watch_dir("watched", include_entry=True)
        seen = []
        commands.run("echo 12345 > watched/entry.txt")
        check("watch: include_entry", sees(Type.WRITE, "entry.txt"), seen)
        entries = [event.entry for event in seen if event.name == "entry.txt" and event.entry is not None]
        equal("watch: the entry", {(entry.name, entry.path) for entry in entries}, {("entry.txt", "/home/user/watched/entry.txt")})
        watcher.stop()
