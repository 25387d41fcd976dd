"""The tools of the toolset shell: a terminal as a model uses it, with programs that need one. Screens are compared as they are drawn.

usage: terminal.py
"""

import asyncio
import time

from kit import call, check, client, equal, main, note, run

SECONDS = 20


class Terminal:
    """One shell, read until what is awaited is there."""

    def __init__(self, connected, shell: str):
        self.client = connected
        self.shell = shell
        self.printed = ""

    async def good(self, tool: str, **arguments) -> dict:
        answer = await call(self.client, tool, {"shell_id": self.shell, **arguments})
        if answer["_error"]:
            raise AssertionError(f"{tool} {arguments}: {answer['_text']}")
        return answer

    async def line(self, line: str) -> None:
        await self.good("write_line", line=line)

    async def keys(self, *keys: str) -> None:
        await self.good("send_keys", keys=list(keys))

    async def says(self, name: str, *words: str) -> str:
        """Reads on until all of `words` were printed, one after the other. Returns what was printed."""
        read = ""
        end = time.monotonic() + SECONDS
        while True:
            at = 0
            for word in words:
                found = (self.printed + read).find(word, at)
                at = found + len(word) if found >= 0 else -1
                if at < 0:
                    break
            if at >= 0 or time.monotonic() > end:
                break
            read += (await self.good("read_shell", timeout_ms=2000, screen=False))["output"]
        whole = self.printed + read
        self.printed = whole[at:] if at >= 0 else ""
        check(name, at >= 0, repr(whole[-1500:]))
        return whole

    async def shows(self, name: str, right, **wanted) -> dict:
        """Looks until `right` is true of the rows on the screen and the terminal has the fields `wanted`."""
        end = time.monotonic() + SECONDS
        while True:
            answer = await self.good("read_shell", screen=True, timeout_ms=500)
            rows = answer["screen"].split("\n")
            fits = right(rows) and all(answer["terminal"].get(key) == value for key, value in wanted.items())
            if fits or time.monotonic() > end:
                seen = {key: value for key, value in answer.items() if not key.startswith("_") and key != "output"}
                check(name, fits, f"wanted {wanted}; {seen}\n{answer['screen']}")
                return answer


async def opened(connected, **arguments) -> Terminal:
    answer = await call(connected, "open_shell", arguments)
    if not check(f"open_shell {arguments}", not answer["_error"], answer["_text"]):
        raise AssertionError("no shell")
    terminal = Terminal(connected, answer["shell_id"])
    await terminal.line("PS1='READY''> '; PROMPT_COMMAND=")
    await terminal.says("its own prompt", "READY> ")
    return terminal


async def has(connected, program: str) -> bool:
    found = (await run(connected, f"command -v {program}"))["exit_code"] == 0
    if not found:
        note(f"the terminal was not tried with {program}, which this machine does not have")
    return found


async def lines(connected, t: Terminal) -> None:
    await t.line("echo one $((1+1)); printf '\\033[1;31mred\\033[0m \\033]0;my title\\007text\\n'")
    whole = await t.says("a line: what it prints, as plain text", "one 2\n", "red text\n", "READY> ")
    check("a line: no escape sequence is left", "\x1b" not in whole, repr(whole))
    await t.line("printf '10%%\\r20%%\\r100%%\\n'")
    await t.says("a line that is printed over", "\n100%\nREADY> ")
    answer = await t.shows("the screen: rows, prompt and title", lambda rows: rows[-1] == "READY>", title="my title", cols=100, rows=30, full_screen=False)
    last = len(answer["screen"].split("\n"))
    equal("the screen: the cursor stands after the prompt", answer["terminal"].get("cursor"), [last, 8])
    check("the screen: a model reads it, too", "READY>" in answer["_text"] and f"row {last}, column 8" in answer["_text"], answer["_text"][:300])
    nothing = await t.good("read_shell", timeout_ms=0)
    equal("nothing new is nothing", (nothing["output"], "no new output" in nothing["_text"]), ("", True))
    await t.line("tty; stty size; echo $TERM")
    await t.says("it is a terminal", "/dev/pts/", "30 100\n", "xterm-256color\n", "READY> ")
    await t.line("printf 'größe 字 é\\n'; locale charmap 2>/dev/null")
    await t.says("UTF-8", "größe 字 é\n", "READY> ")
    await t.line("cat > two.txt\nfirst\nsecond")
    await t.keys("ctrl+d")
    await t.says("a line with line breaks is several", "READY> ")
    equal("several lines arrived", (await run(connected, "cat two.txt"))["stdout"], "first\nsecond\n")
    await t.line("echo " + "long " * 60)
    await t.says("a line that is longer than the terminal", ("long " * 59).strip() + " long\n", "READY> ")


async def waiting(connected, t: Terminal) -> None:
    began = time.monotonic()
    await t.line("sleep 2; echo slept")
    answer = await t.good("read_shell", timeout_ms=20_000)
    check("a silent command is waited for, not its echo", "slept\n" in answer["output"] or time.monotonic() - began > 0.3, answer["_text"])
    if "slept\n" not in answer["output"]:
        await t.says("a silent command", "slept\n")
    local = answer.get("awaiting_input") is not None
    await t.line("read -p 'Your name: ' name; echo hello $name")
    await t.says("a question", "Your name: ")
    answer = await t.good("read_shell", timeout_ms=300)
    if local:
        equal("a question: it waits for input", answer.get("awaiting_input"), True)
    await t.line("Ada")
    await t.says("an answer", "hello Ada\n", "READY> ")
    await t.line("sleep 1000")
    await t.good("read_shell", timeout_ms=1000)
    if local:
        answer = await t.good("read_shell", timeout_ms=0)
        equal("a command at work does not wait for input", answer.get("awaiting_input"), False)
    await t.keys("ctrl+c")
    await t.says("ctrl+c", "^C", "READY> ")
    await t.line("sleep 1001")
    await t.good("read_shell", timeout_ms=500)
    await t.keys("ctrl+z")
    await t.says("ctrl+z", "Stopped", "READY> ")
    await t.line("kill %1; wait; echo done")
    await t.says("job control", "done\n", "READY> ")


async def flood(connected, t: Terminal) -> None:
    await t.line("seq -f 'line number %.0f of very many' 1 100000; echo the end")
    await t.shows("a flood: the screen has its end", lambda rows: "the end" in rows[-2:] and rows[-1] == "READY>")
    first = await t.good("read_shell", timeout_ms=1000)
    dropped, size, last = first.get("dropped", 0), len(first["output"]), first
    while last["more"]:
        last = await t.good("read_shell", timeout_ms=0)
        size += len(last["output"])
    check("a flood: the end was read", last["output"].endswith("the end\nREADY> "), last["output"][-200:])
    check("a flood: what is gone is told", dropped > 1_000_000 and "are gone" in first["_text"], (dropped, first["_text"][:300]))
    check("a flood: what was kept was read in pieces", 1_000_000 <= size <= 1_400_000 and len(first["output"]) <= 30_000, (size, len(first["output"])))
    t.printed = ""
    await t.keys("enter")
    await t.says("a new prompt", "READY> ")
    await t.line("seq 1 2000; echo end''ed")
    whole = await t.says("two thousand lines", "ended\n", "READY> ")
    numbers = [word for word in whole.partition("\n")[2].split() if word.isdigit()]
    equal("two thousand lines: none is lost", numbers, [str(n) for n in range(1, 2001)])


async def editor(connected, t: Terminal, vi: str) -> None:
    """vim's own manual: i, Escape, :w, dd, u, /pattern, cursor keys."""
    await t.line(f"{vi} letter.txt")
    answer = await t.shows(f"{vi}: an empty file", lambda rows: rows[0] == "" and rows[1].startswith("~") and len(rows) >= 29, full_screen=True)
    equal(f"{vi}: the cursor stands in the corner", answer["terminal"].get("cursor"), [1, 1])
    without = await t.good("read_shell", timeout_ms=100)
    check(f"{vi}: the screen is shown without being asked for", without.get("screen", "").count("~") > 20 and "output" not in without, without)
    await t.keys("i", "text:Dear Sir,", "enter", "text:hello wörld", "enter", "text:third", "escape")
    await t.shows(f"{vi}: typed text, the cursor on the last letter", lambda rows: rows[:3] == ["Dear Sir,", "hello wörld", "third"], full_screen=True, cursor=[3, 5])
    await t.keys("up", "home")
    await t.shows(f"{vi}: arrows and home", lambda rows: True, cursor=[2, 1])
    await t.keys("d", "d")
    await t.shows(f"{vi}: a line less", lambda rows: rows[:3] == ["Dear Sir,", "third", "~"])
    await t.keys("u", "/third", "enter")
    await t.shows(f"{vi}: undone, and found", lambda rows: rows[:3] == ["Dear Sir,", "hello wörld", "third"], cursor=[3, 1])
    await t.good("resize_shell", cols=60, rows=12)
    await t.shows(f"{vi}: drawn anew for another size", lambda rows: rows[:4] == ["Dear Sir,", "hello wörld", "third", "~"] and len(rows) <= 12, cols=60, rows=12)
    await t.keys(":wq", "enter")
    await t.shows(f"{vi}: and back", lambda rows: rows[-1] == "READY>", full_screen=False)
    equal(f"{vi}: the file", (await run(connected, "cat letter.txt"))["stdout"], "Dear Sir,\nhello wörld\nthird\n")
    await t.good("resize_shell", cols=100, rows=30)
    t.printed = ""
    await t.line("stty size")
    await t.says("resize_shell: the program is told", "30 100\n", "READY> ")


async def pager(t: Terminal) -> None:
    await t.line("seq 1 200 | less")
    await t.shows("less: the first page", lambda rows: rows[:29] == [str(n) for n in range(1, 30)] and rows[29] == ":", full_screen=True)
    await t.keys("pagedown")
    await t.shows("less: page down", lambda rows: rows[:29] == [str(n) for n in range(30, 59)])
    await t.keys("down")
    await t.shows("less: a line down", lambda rows: rows[0] == "31")
    await t.keys("end")
    await t.shows("less: the end", lambda rows: rows[28] == "200" and rows[29] == "(END)")
    await t.keys("home")
    await t.shows("less: the beginning", lambda rows: rows[0] == "1")
    await t.keys("/", "text:123", "enter")
    await t.shows("less: a search", lambda rows: rows[0] == "123")
    await t.keys("q")
    await t.shows("less: and back", lambda rows: rows[-1] == "READY>", full_screen=False)


async def python(t: Terminal) -> None:
    t.printed = ""
    await t.line("python3 -q")
    await t.says("python: its prompt", ">>> ")
    await t.line("6 * 7")
    await t.says("python: an answer", "42", ">>> ")
    await t.line("def f(x):\n    return x + 1\n\n")
    await t.says("python: a definition over lines", ">>> ")
    await t.line("f(1) / 0")
    await t.says("python: an error", "ZeroDivisionError", ">>> ")
    await t.keys("up")
    await t.shows("python: the line before", lambda rows: rows[-1].endswith("f(1) / 0"))
    await t.keys("ctrl+c")
    await t.says("python: ctrl+c", "KeyboardInterrupt", ">>> ")
    await t.keys("ctrl+d")
    await t.says("python: ctrl+d", "READY> ")


async def busy(connected, t: Terminal) -> None:
    for program, head in (("top", "PID"), ("htop", "PID")):
        if not await has(connected, program):
            continue
        await t.line(program)
        answer = await t.shows(f"{program}: its table", lambda rows: any(head in row and "COMMAND" in row.upper() for row in rows) and any("bash" in row for row in rows))
        check(f"{program}: the rows are as wide as the terminal at most", all(len(row) <= 100 for row in answer["screen"].split("\n")), answer["screen"])
        await t.keys("q")
        await t.shows(f"{program}: and back", lambda rows: rows[-1] == "READY>", full_screen=False)
    t.printed = ""


# A program as full-screen ones are: it asks the terminal and goes on when it was answered.
ASKS = r"""
import os, select, sys, termios, tty
fd = sys.stdin.fileno()
before = termios.tcgetattr(fd)
tty.setraw(fd)
def ask(question, last):
    os.write(1, question)
    got = b""
    while not got.endswith(last):
        if not select.select([fd], [], [], 10)[0]:
            got += b"NOTHING"
            break
        got += os.read(fd, 1)
    return got
os.write(1, b"\x1b[2J\x1b[5;9H")
said = [ask(b"\x1b[6n", b"R"), ask(b"\x1b[c", b"c"), ask(b"\x1b[5n", b"n"), ask(b"\x1b[18t", b"t")]
os.write(1, b"\x1b[H")
termios.tcsetattr(fd, termios.TCSANOW, before)
print(said)
# What titles and settings a terminal could be made to type must not come back.
tty.setraw(fd)
os.write(1, b"\x1b]0;touch /tmp/evil\x07\x1b[21t\x1b[20t\x1bP$qm\x1b\\\x05")
print(select.select([fd], [], [], 0.5)[0], end="\r\n")
termios.tcsetattr(fd, termios.TCSANOW, before)
"""


async def questions(connected, t: Terminal) -> None:
    await call(connected, "write_file", {"path": "asks.py", "content": ASKS})
    await t.line("python3 asks.py")
    await t.says("questions of programs are answered", r"[b'\x1b[5;9R', b'\x1b[?6c', b'\x1b[0n', b'\x1b[8;30;100t']", "[]", "READY> ")


async def refusals(connected, t: Terminal) -> None:
    async def bad(tool: str, arguments: dict, code: str, *words: str) -> None:
        answer = await call(connected, tool, arguments)
        said = f"{tool} {str(arguments)[:80]}"
        check(f"{said} is refused", answer["_error"] and not answer.get("_protocol"), answer["_text"])
        equal(f"{said}: the code", (answer.get("error") or {}).get("code"), code)
        for word in words:
            check(f"{said}: it says {word!r}", word in answer["_text"], answer["_text"])

    await bad("send_keys", {"keys": ["pagdown"]}, "invalid_argument", "pagdown", "pageup, pagedown", "text:pagdown")
    await bad("send_keys", {"keys": []}, "invalid_argument", "enter")
    await bad("send_keys", {"keys": ["x"], "shell_id": "s0"}, "shell_not_found", "s0", t.shell, "open_shell")
    await bad("write_line", {"shell_id": t.shell}, "invalid_argument", "line")
    await bad("write_line", {"line": "x" * (1 << 20 | 1)}, "invalid_argument", "1048576")
    await bad("read_shell", {"timeout_ms": 99_999}, "invalid_argument", "40000")
    await bad("read_shell", {"shell_id": "s0"}, "shell_not_found", "open_shell")
    await bad("resize_shell", {"cols": 301}, "invalid_argument", "cols", "300")
    await bad("resize_shell", {"rows": 0}, "invalid_argument", "rows", "100")
    await bad("open_shell", {"rows": 101}, "invalid_argument", "rows")
    await bad("open_shell", {"cwd": "/nowhere"}, "invalid_argument", "/nowhere")
    await bad("open_shell", {"envs": [{"name": "1A", "value": ""}]}, "invalid_argument", "1A")
    await bad("close_shell", {"shell_id": "s0"}, "shell_not_found")


async def ends(connected, t: Terminal) -> None:
    second = await opened(connected, cols=40, rows=25, cwd="/tmp", envs=[{"name": "GREETING", "value": "hi"}])
    await second.line("echo $GREETING from $PWD; stty size")
    await second.says("open_shell: cwd, envs and size", "hi from /tmp\n", "25 40\n", "READY> ")
    implied = await call(connected, "write_line", {"line": "echo im''plied"})
    equal("the shell that was opened last is the default", implied.get("shell_id"), second.shell)
    await second.says("the default shell did it", "implied\n", "READY> ")

    # Side by side: nothing mixes, nothing hangs.
    both = [call(connected, "write_line", {"shell_id": s.shell, "line": f"echo side {n} by side"}) for n in range(5) for s in (t, second)]
    answers = await asyncio.gather(*both, *[call(connected, "read_shell", {"shell_id": s.shell, "timeout_ms": 300}) for s in (t, second) for _ in range(4)])
    check("calls side by side", not any(a["_error"] for a in answers), [a["_text"] for a in answers if a["_error"]])
    for shell in (t, second):
        screen = await shell.shows("calls side by side: each line is whole", lambda rows: rows[-1].startswith("READY>") and "side 4 by side" in rows)
        check("calls side by side: no line is torn", all(row in {f"side {n} by side" for n in range(5)} for row in screen["screen"].split("\n") if row.startswith("side")), screen["screen"])

    second.printed = ""
    await second.line("exit 7")
    await second.says("the end of a shell", "logout\n")
    gone = await second.good("read_shell")
    equal("the end: status and exit code", (gone.get("status"), gone.get("exit_code")), ("ended", 7))
    check("the end: in words", "exit code 7" in gone["_text"], gone["_text"])
    refused = await call(connected, "write_line", {"shell_id": second.shell, "line": "x"})
    equal("the end: typing is refused", (refused.get("error") or {}).get("code"), "shell_ended")
    closed = await call(connected, "close_shell", {"shell_id": second.shell})
    equal("close_shell: it had ended", closed.get("closed"), False)

    await t.line("trap '' HUP; sleep 86400.77 & disown")
    await t.good("read_shell")
    closed = await call(connected, "close_shell", {"shell_id": t.shell})
    equal("close_shell: a shell that ignores SIGHUP", closed.get("closed"), True)
    left = await run(connected, f"for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | grep -c '^/bin/bash -i -l'; pkill -f '86400[.]77'; true")
    equal("close_shell: no shell is left", left["stdout"].split()[0], "0")
    none = await call(connected, "read_shell", {})
    equal("no shell: what to do is said", ((none.get("error") or {}).get("code"), "open_shell" in none["_text"]), ("shell_not_found", True))


async def limits(connected) -> None:
    shells = [await call(connected, "open_shell", {}) for _ in range(16)]
    check("sixteen shells", not any(s["_error"] for s in shells), [s["_text"] for s in shells if s["_error"]])
    one_more = await call(connected, "open_shell", {})
    equal("one shell too many", (one_more.get("error") or {}).get("code"), "too_many_shells")
    ended = await asyncio.gather(*[call(connected, "close_shell", {"shell_id": s["shell_id"]}) for s in shells])
    check("all are closed side by side", all(e.get("closed") for e in ended), ended)
    again = await call(connected, "open_shell", {})
    check("then there is room again", not again["_error"], again["_text"])
    await call(connected, "shutdown_sandbox")
    end = time.monotonic() + SECONDS
    while True:
        lost = await call(connected, "read_shell", {"timeout_ms": 500})
        if lost.get("status") != "running" or time.monotonic() > end:
            break
    equal("a sandbox that ended: so has its shell", lost.get("status"), "lost")
    check("a sandbox that ended: that is said", "ended" in lost["_text"], lost["_text"])
    refused = await call(connected, "send_keys", {"keys": ["enter"]})
    equal("a sandbox that ended: typing is refused", (refused.get("error") or {}).get("code"), "shell_ended")


async def scenario() -> None:
    async with client("stdio", "modern", "--toolsets", "default,shell") as connected:
        none = await call(connected, "write_line", {"line": "x"})
        check("without a shell: what to do is said", none["_error"] and "open_shell" in none["_text"], none["_text"])
        t = await opened(connected)
        await lines(connected, t)
        await waiting(connected, t)
        await flood(connected, t)
        for vi in ("vim", "vi"):
            if await has(connected, vi):
                await editor(connected, t, vi)
                break
        if await has(connected, "less"):
            await pager(t)
        if await has(connected, "python3"):
            await python(t)
            await questions(connected, t)
        await busy(connected, t)
        await refusals(connected, t)
        await ends(connected, t)
        await limits(connected)
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())


if __name__ == "__main__":
    main(scenario)
