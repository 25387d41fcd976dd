"""E2B's older Python SDKs, unmodified. 1.5.0 and 2.0.0 know a server by its domain alone, over TLS; 2.45.1 by URL.

Run by the Python of a virtual environment that holds the version given as the argument."""

import os
import sys
from importlib.metadata import version

from kit import check, equal, main, until
from serve_kit import Serve, localhost_names


def trust(authority) -> None:
    """Makes the server's authority trusted as SSL_CERT_FILE does, also where a library reads certifi's list alone."""
    import certifi

    os.environ["SSL_CERT_FILE"] = str(authority)
    certifi.where = lambda: str(authority)
    for module in ("certifi.core",):
        sys.modules[module].where = certifi.where


def commands(sandbox) -> None:
    done = sandbox.commands.run("echo out; echo err >&2; echo $A", envs={"A": "b"}, cwd="/tmp")
    equal("commands.run", (done.stdout, done.stderr, done.exit_code), ("out\nb\n", "err\n", 0))
    seen: list[str] = []
    handle = sandbox.commands.run("for i in 1 2 3; do echo $i; sleep 0.1; done", background=True)
    handle.wait(on_stdout=seen.append)
    equal("a background command", "".join(seen), "1\n2\n3\n")
    try:
        sandbox.commands.run("exit 3")
        check("a failing command raises", False)
    except Exception as failed:  # noqa: BLE001 its name differs between versions
        equal("a failing command raises", failed.exit_code, 3)
    # 2.0.0 has no argument for it: a pipe is always there.
    cat = sandbox.commands.run("read line; echo got $line", background=True, **({"stdin": True} if version("e2b") == "2.45.1" else {}))
    sandbox.commands.send_stdin(cat.pid, "typed\n")
    equal("stdin", cat.wait().stdout, "got typed\n")
    sleeper = sandbox.commands.run("sleep 600", background=True)
    check("commands.list", sleeper.pid in [process.pid for process in sandbox.commands.list()])
    equal("kill", sandbox.commands.kill(sleeper.pid), True)


def files(sandbox) -> None:
    info = sandbox.files.write("a/b.txt", "text\n")
    equal("files.write", info.path, "/home/user/a/b.txt")
    equal("files.read", sandbox.files.read("a/b.txt"), "text\n")
    raw = bytes(range(256)) * 4000
    sandbox.files.write("raw.bin", raw)
    equal("bytes survive", bytes(sandbox.files.read("raw.bin", format="bytes")), raw)
    equal("files.list", [entry.name for entry in sandbox.files.list("a")], ["b.txt"])
    equal("files.exists", (sandbox.files.exists("a/b.txt"), sandbox.files.exists("a/c.txt")), (True, False))
    equal("files.make_dir", (sandbox.files.make_dir("d"), sandbox.files.make_dir("d")), (True, False))
    equal("files.rename", sandbox.files.rename("a/b.txt", "d/c.txt").path, "/home/user/d/c.txt")
    watcher = sandbox.files.watch_dir("d")
    sandbox.files.write("d/new.txt", "1")
    names: list[str] = []
    until(lambda: names.extend(event.name for event in watcher.get_new_events()) or "new.txt" in names, 5)
    check("files.watch_dir", "new.txt" in names, names)
    watcher.stop()
    sandbox.files.remove("d/c.txt")
    equal("files.remove", sandbox.files.exists("d/c.txt"), False)
    seen: list[bytes] = []
    terminal = sandbox.pty.create(size=pty_size())
    sandbox.pty.send_stdin(terminal.pid, b"echo $((40 + 2)) > made; exit\n")
    terminal.wait(on_pty=seen.append)
    check("a terminal shows what is typed", b"exit" in b"".join(seen), seen)
    equal("a terminal runs it", sandbox.files.read("made"), "42\n")


def pty_size():
    from e2b import PtySize

    return PtySize(rows=24, cols=80)


async def scenario(wanted: str) -> None:
    equal("the SDK's version", version("e2b"), wanted)
    by_domain = wanted != "2.45.1"
    with Serve(*(["--tls", "self-signed"] if by_domain else [])) as server:
        if by_domain:
            localhost_names()
            trust(server.authority)
            os.environ.update(E2B_DOMAIN=server.domain, E2B_API_KEY=server.key)
        else:
            server.use()
        import httpx
        from e2b import Sandbox

        old = wanted.startswith("1.")
        make = Sandbox if old else Sandbox.create
        sandbox = make(timeout=120, metadata={"suite": "old"}, envs={"GREETING": "hello"})
        equal("envs of the sandbox", sandbox.commands.run("echo $GREETING").stdout, "hello\n")
        commands(sandbox)
        files(sandbox)
        equal("is_running", sandbox.is_running(), True)
        info = sandbox.get_info()
        equal("get_info", info.metadata, {"suite": "old"})
        before = info.end_at
        sandbox.set_timeout(300)
        check("set_timeout", sandbox.get_info().end_at > before)
        again = Sandbox.connect(sandbox.sandbox_id)
        equal("connect", again.commands.run("cat /home/user/made").stdout, "42\n")
        listed = Sandbox.list()
        listed = listed if old else listed.next_items()
        equal("list", [one.sandbox_id.split("-")[0] for one in listed], [sandbox.sandbox_id.split("-")[0]])
        if by_domain:
            host = sandbox.get_host(8000)
            sandbox.commands.run("mkdir web; cd web; echo page > index.html; exec python3 -m http.server 8000", background=True)

            def page():
                try:
                    answer = httpx.get(f"https://{host}/index.html")
                    return answer.status_code == 200 and answer.text
                except httpx.HTTPError:
                    return None

            equal("get_host", until(page, 15, 0.2), "page\n")
        url = sandbox.download_url("made")
        if url.count("signature"):
            equal("a signed URL downloads", httpx.get(url).text, "42\n")
            equal("a URL without its signature does not", httpx.get(url.split("signature")[0]).status_code, 401)
        else:
            signed = sandbox.download_url("made", use_signature=True) if old else sandbox.download_url("made", use_signature_expiration=60)
            equal("a signed URL downloads", httpx.get(signed).text, "42\n")
        if not old:
            paused = getattr(sandbox, "pause", None) or sandbox.beta_pause
            paused()
            equal("pause", sandbox.get_info().state.value, "paused")
            back = Sandbox.connect(sandbox.sandbox_id, timeout=60)
            equal("resume", back.commands.run("cat /home/user/made").stdout, "42\n")
        short = make(timeout=2)
        gone = until(lambda: not short.is_running(), 10, 0.2)
        check("a timeout ends the sandbox", gone)
        # In 1.5.0 the method of an instance says nothing.
        equal("kill", (sandbox.kill(), sandbox.kill()), (None, None) if old else (True, False))
        # Not by a command: 1.5.0 can read no refusal of the proxy, it breaks off with an error of its own.
        equal("a dead sandbox does not run", sandbox.is_running(), False)


if __name__ == "__main__":
    main(scenario, sys.argv[1])
