"""E2B's SDK documentation, "Commands" and "Interactive terminal": `sandbox.commands` and `sandbox.pty`."""

import threading
import time

from kit import alive_with, check, equal, mark, until
from sdk_kit import World, raised, raises


def checks(world: World) -> None:
    foreground(world)
    background(world)
    standard_input(world)
    limits_of_time(world)
    terminal(world)


def foreground(world: World) -> None:
    import e2b
    from e2b import CommandExitException

    commands = world.sandbox.commands
    done = commands.run("echo out; echo err >&2")
    equal("run: stdout, stderr, exit_code, error", (done.stdout, done.stderr, done.exit_code, done.error or None), ("out\n", "err\n", 0, None))
    failed = raised(lambda: commands.run("echo so far; echo why >&2; exit 7"))
    check("run: another exit code raises", isinstance(failed, CommandExitException), failed)
    equal("run: what it says then", (failed.stdout, failed.stderr, failed.exit_code), ("so far\n", "why\n", 7))
    equal("run: a program that is not there", raised(lambda: commands.run("no-such-program")).exit_code, 127)
    killed = raised(lambda: commands.run("kill -KILL $$"))
    check("run: a signal ends it", isinstance(killed, CommandExitException) and killed.exit_code != 0, killed)
    where = commands.run("pwd; echo $A $B; id -un", cwd="/tmp", envs={"A": "1", "B": "two words"})
    equal("run: cwd and envs", where.stdout, "/tmp\n1 two words\nuser\n")
    equal("run: cwd below the home", (world.sandbox.files.make_dir("below"), commands.run("pwd", cwd="below").stdout)[1], "/home/user/below\n")
    equal("run: the home, a login shell", commands.run("pwd; shopt -q login_shell && echo login; echo $HOME $USER").stdout, "/home/user\nlogin\n/home/user user\n")
    equal("run: the sandbox's envs", commands.run("echo $GREETING").stdout, "hello\n")
    equal("run: its own envs win", commands.run("echo $GREETING", envs={"GREETING": "other"}).stdout, "other\n")
    equal("run: the sandbox knows itself", commands.run("echo $E2B_SANDBOX $E2B_SANDBOX_ID").stdout.split()[1], world.sandbox.sandbox_id.split("-")[0])
    raises("run: a cwd that is not there", e2b.InvalidArgumentException, lambda: commands.run("true", cwd="/no/such"), "does not exist")
    raises("run: an unknown user", e2b.AuthenticationException, lambda: commands.run("true", user="nobody-here"))
    seen: list[tuple[str, str]] = []
    result = commands.run(
        "for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.05; done",
        on_stdout=lambda text: seen.append(("out", text)),
        on_stderr=lambda text: seen.append(("err", text)),
    )
    for kind, wanted in (("out", "1\n2\n3\n"), ("err", "e1\ne2\ne3\n")):
        equal(f"run: on_std{kind}", "".join(text for of, text in seen if of == kind), wanted)
    check("run: callbacks come while it runs", len(seen) >= 4 and result.stdout == "1\n2\n3\n", seen)
    large = commands.run("head -c 5000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero | tr '\\0' y >&2")
    equal("run: large output", (len(large.stdout), len(large.stderr), set(large.stdout), set(large.stderr)), (5_000_000, 1_000_000, {"x"}, {"y"}))
    equal("run: many short lines", commands.run("seq 1 20000").stdout, "".join(f"{n}\n" for n in range(1, 20001)))
    if world.since(2, 45):
        equal("run: letters that are split between two pieces", commands.run("printf '\\xc3'; sleep 0.1; printf '\\xbc\\n'").stdout, "ü\n")
    equal("run: quotes and lines", commands.run("echo 'a \"b\" $c'\necho d").stdout, 'a "b" $c\nd\n')
    if not world.one_id():
        equal("run: as root", commands.run("id -un; pwd; echo $HOME", user="root").stdout, "root\n/root\n/root\n")
    if world.since(2, 60):
        kept = commands.run("echo unkept", retain_output=False, on_stdout=seen.append)
        equal("run: output that is not retained", (kept.stdout, seen[-1]), (None, "unkept\n"))


def background(world: World) -> None:
    commands = world.sandbox.commands
    begun = time.monotonic()
    handle = commands.run("sleep 1; echo late", background=True)
    check("background: does not wait", time.monotonic() - begun < 0.9 and handle.pid > 0)
    equal("background: wait", handle.wait().stdout, "late\n")
    name = mark(301)
    sleeper = commands.run(f"exec sleep {name}", background=True, envs={"ONE": "1"}, cwd="/tmp")
    listed = [process for process in commands.list() if process.pid == sleeper.pid]
    equal("list: cmd, args, cwd, envs", [(p.cmd, p.args, p.cwd, p.envs.get("ONE")) for p in listed], [("/bin/bash", ["-l", "-c", f"exec sleep {name}"], "/tmp", "1")])
    equal("kill: by handle", sleeper.kill(), True)
    ended = raised(sleeper.wait)
    check("kill: the handle tells", getattr(ended, "exit_code", 0) != 0, ended)
    equal("kill: it is gone", commands.kill(sleeper.pid), False)
    check("list: no more", sleeper.pid not in [p.pid for p in commands.list()])
    ticking = commands.run("for i in $(seq 100); do echo $i; sleep 0.1; done; exit 4", background=True)
    again = commands.connect(ticking.pid)
    equal("connect: the same process", again.pid, ticking.pid)
    first = next(iter(again))
    check("connect: output goes on", first[0] and first[0].strip().isdigit(), first)
    again.disconnect()
    check("disconnect: leaves it running", ticking.pid in [p.pid for p in commands.list()])
    equal("kill: by pid", commands.kill(ticking.pid), True)
    equal("kill: by pid, its first handle tells", getattr(raised(ticking.wait), "exit_code", 0) != 0, True)
    check("connect: nothing there", raised(lambda: commands.connect(999_999)) is not None)
    import e2b

    raises("connect: its error", e2b.NotFoundException, lambda: commands.connect(999_999), "999999")
    equal("kill: nothing there", commands.kill(999_999), False)
    outputs: list[tuple] = []
    for output in commands.run("echo a; echo b >&2", background=True):
        outputs.append(output)
    equal("a handle can be iterated", sorted(str(part) for row in outputs for part in row if part is not None), ["a\n", "b\n"])


def standard_input(world: World) -> None:
    import e2b

    commands = world.sandbox.commands
    asked = {"stdin": True} if world.since(2, 45) else {}
    reader = commands.run("read a; read b; echo $b $a", background=True, **asked)
    commands.send_stdin(reader.pid, "one\n")
    commands.send_stdin(reader.pid, "zwei ü\n")
    equal("send_stdin", reader.wait().stdout, "zwei ü one\n")
    raises("send_stdin: nothing there", e2b.NotFoundException, lambda: commands.send_stdin(999_999, "x"))
    if not world.since(2, 45):
        return
    cat = commands.run("cat; echo done", background=True, stdin=True)
    cat.send_stdin("all ")
    cat.send_stdin("of it ")
    cat.close_stdin()
    equal("close_stdin", cat.wait().stdout, "all of it done\n")
    equal("without stdin there is none", commands.run("cat; echo end").stdout, "end\n")
    closed = commands.run("sleep 5", background=True)
    raises("send_stdin: without stdin", e2b.SandboxException, lambda: commands.send_stdin(closed.pid, "x"))
    closed.kill()
    if world.since(2, 60):
        sums = commands.run("sha256sum | cut -c1-12", background=True, stdin=True)
        commands.stream_input(sums.pid, (b"x" * 65536 for _ in range(32)))
        commands.close_stdin(sums.pid)
        import hashlib

        equal("stream_input: 2 MiB", sums.wait().stdout.strip(), hashlib.sha256(b"x" * (65536 * 32)).hexdigest()[:12])
        raises("stream_input: nothing there", e2b.NotFoundException, lambda: commands.stream_input(999_999, ["x"]))


def limits_of_time(world: World) -> None:
    from e2b import TimeoutException

    commands = world.sandbox.commands
    name = mark(302)
    begun = time.monotonic()
    raises("timeout: raises", TimeoutException, lambda: commands.run(f"exec sleep {name}", timeout=1))
    check("timeout: in time", 0.9 < time.monotonic() - begun < 4, time.monotonic() - begun)
    check("timeout: ends the process too", until(lambda: not alive_with(name), 5), alive_with(name))
    slow = commands.run("sleep 30", background=True, timeout=1)
    raises("timeout: of a background command", TimeoutException, slow.wait)
    equal("timeout: 0 is none", commands.run("sleep 0.3; echo ran", timeout=0).stdout, "ran\n")


def size(rows: int, cols: int):
    from e2b import PtySize

    return PtySize(rows=rows, cols=cols)


def terminal(world: World) -> None:
    pty = world.sandbox.pty
    shell = pty.create(size(24, 80), cwd="/tmp", envs={"MARK": "given"})
    shown = bytearray()
    thread = threading.Thread(target=lambda: raised(lambda: shell.wait(on_pty=shown.extend)))
    thread.start()

    def sees(text: bytes) -> bool:
        return bool(until(lambda: text in shown, 8))

    pty.send_stdin(shell.pid, b"stty size; echo $MARK-$TERM; pwd; [ -t 0 ] && echo a-$((1 + 1))-terminal\n")
    check("pty: it is a terminal", sees(b"a-2-terminal"), bytes(shown))
    check("pty: size, envs, TERM, cwd", all(text in shown for text in (b"24 80", b"given-xterm-256color", b"/tmp")), bytes(shown))
    pty.resize(shell.pid, size(40, 120))
    pty.send_stdin(shell.pid, b"stty size\n")
    check("pty: resize", sees(b"40 120"), bytes(shown))
    # What is typed while the shell hands the terminal over may get lost, as in every terminal.
    pty.send_stdin(shell.pid, b"echo rea''dy; cat\n")
    sees(b"ready\r\n")
    pty.send_stdin(shell.pid, b"typed\n")
    check("pty: a program reads from it", sees(b"typed\r\ntyped\r\n"), bytes(shown))
    pty.send_stdin(shell.pid, b"\x03")
    # The terminal forgets what is typed before the program has ended.
    check("pty: Ctrl+C ends it", until(lambda: b"$ " in shown.partition(b"^C")[2], 8), bytes(shown))
    pty.send_stdin(shell.pid, b"echo after-$((40 + 2))\n")
    check("pty: the shell goes on", sees(b"after-42"), bytes(shown))
    check("pty: commands.list has it", shell.pid in [p.pid for p in world.sandbox.commands.list()])
    if world.since(2, 45):
        again = pty.connect(shell.pid)
        pty.send_stdin(shell.pid, b"echo both-$((2 + 3))\n")
        other = bytearray()
        for _, _, data in again:
            other.extend(data or b"")
            if b"both-5" in other:
                break
        check("pty: connect", b"both-5" in other and sees(b"both-5"), bytes(other))
        again.disconnect()
    if world.since(2, 60):
        pty.stream_input(shell.pid, [b"echo stre", "amed-$((3 * 3))\n"])
        check("pty: stream_input", sees(b"streamed-9"), bytes(shown))
    equal("pty: kill", pty.kill(shell.pid), True)
    thread.join(8)
    check("pty: the stream ends with it", not thread.is_alive())
    equal("pty: kill of nothing", pty.kill(shell.pid), False)
    brief = pty.create(size(10, 40))
    pty.send_stdin(brief.pid, b"exit 5\n")
    equal("pty: its exit code", getattr(raised(brief.wait), "exit_code", None), 5)
    if not world.one_id():
        root = pty.create(size(10, 40), user="root")
        pty.send_stdin(root.pid, b"id -un > /tmp/who; exit\n")
        raised(root.wait)
        equal("pty: as root", world.sandbox.files.read("/tmp/who"), "root\n")
