"""`sudo` as people and E2B's SDKs use it, through the tools: as an ordinary program, in pipes, in a terminal, in the
background; and what it does not open."""

import os

from kit import call, check, client, equal, main, note, run

# Drives an interactive shell in a terminal of its own, inside the sandbox.
TERMINAL = r'''
import os, pty, re, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ["PS1"] = "READY> "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
said = b""
def until(pattern, seconds=10):
    global said
    end = time.monotonic() + seconds
    while not (found := re.search(pattern, said)):
        if time.monotonic() > end:
            print("MISSING", pattern, said)
            sys.exit(1)
        if select.select([fd], [], [], 0.1)[0]:
            said += os.read(fd, 65536)
    said = said[found.end():]
    return found
def type(text):
    os.write(fd, text.encode())
until(rb"READY> ")
type("stty rows 33 cols 99; sudo stty size; sudo tty; tty\n")
until(rb"33 99\r\n"); one = until(rb"(/dev/pts/\d+)\r\n")[1]; two = until(rb"(/dev/pts/\d+)\r\n")[1]
assert one != two, (one, two)
until(rb"READY> "); print("a terminal of its own")
type("sudo sh -c 'echo begun; exec sleep 1000'\n"); until(rb"\nbegun\r\n"); time.sleep(0.3); type("\x03"); until(rb"READY> ")
type("echo code $?\n"); until(rb"code 130"); print("ctrl-c")
type("sudo sh -c 'echo begun; exec sleep 1001'\n"); until(rb"\nbegun\r\n"); time.sleep(0.3); type("\x1a"); until(rb"Stopped"); until(rb"READY> ")
type("stty -a | grep -o ' icanon'; fg\n"); until(rb" icanon\r\n"); until(rb"sudo sh"); time.sleep(0.3); type("\x03"); until(rb"READY> "); print("ctrl-z and fg")
type("sudo bash --norc --noprofile -i\n"); until(rb"# "); type("sleep 1002 &\njobs\n"); until(rb"Running +sleep 1002"); type("kill %1; exit 3\n"); until(rb"READY> ")
type("echo code $?\n"); until(rb"code 3"); print("job control in a shell of root's")
type("sudo cat\n"); time.sleep(0.3); type("typed\n"); until(rb"typed\r\ntyped\r\n"); type("\x04"); until(rb"READY> "); print("keys and end of file")
type("sudo sh -c 'read x </dev/tty; echo got $x'\n"); time.sleep(0.3); type("word\n"); until(rb"got word"); until(rb"READY> "); print("/dev/tty")
type("sudo sleep 0.2 & wait; echo waited\n"); until(rb"waited\r\n"); until(rb"READY> "); print("in the background")
type("sudo seq 100000 | tail -n 1; sudo seq 20000; echo all\n"); until(rb"100000\r\n"); until(rb"\n19999\r\n20000\r\nall\r\n"); print("nothing is lost")
'''


async def without_root(connected) -> None:
    note("sudo was tried where there is no root: this user has one id to give")
    answer = await run(connected, "sudo id")
    equal("without root: the exit code", answer["exit_code"], 1)
    check("without root: said plainly", "there is no root here" in answer["stderr"], answer["stderr"])


async def scenario() -> None:
    async with client() as connected:
        async def text(cmd: str, **more) -> str:
            answer = await run(connected, cmd, **more)
            return answer["stdout"].strip() + answer["stderr"].strip()

        equal("sudo is ours, first in PATH", await text("command -v sudo; bash -lc 'command -v sudo'"), "/opt/sandhold/bin/sudo\n/opt/sandhold/bin/sudo")
        if "no root here" in await text("sudo -n true"):
            await without_root(connected)
            return
        equal("control: without sudo nothing of root's is written", await text("mkdir /data 2>/dev/null || echo refused"), "refused")
        equal("sudo id", await text("sudo id -u"), "0")
        equal("-u root", await text("sudo -u root id -un"), "root")
        equal("-u user", await text("sudo -u user id -un"), "user")
        equal("mkdir and chown", await text("sudo mkdir /data && sudo chown user /data && touch /data/x && stat -c %U /data/x"), "user")
        equal("tee", await text("echo line | sudo tee /etc/made >/dev/null; cat /etc/made; stat -c %U /etc/made"), "line\nroot")
        equal("sh -c", await text("sudo sh -c 'echo one >/root/f; cat /root/f'"), "one")
        equal("a script with a pipeline", await text("printf 'b\\na\\n' | sudo sort | sudo head -n 1"), "a")
        equal("the exit code", await text("sudo sh -c 'exit 42'; echo $?"), "42")
        equal("the signal", (await run(connected, "sudo sh -c 'kill -9 $$'; echo $?"))["stdout"], "137\n")
        equal("nested", await text("sudo sudo sudo id -u"), "0")
        equal("a login shell", await text("sudo -i sh -c 'pwd; echo $HOME $USER'"), "/root\n/root root")
        equal("a shell", await text("echo 'id -u' | sudo -s"), "0")
        equal("variables", await text("A=1 B=2 sudo -E C=3 sh -c 'echo $A $B $C'; A=1 sudo sh -c 'echo [$A]'"), "1 2 3\n[]")
        equal("who asked", await text("sudo sh -c 'echo $SUDO_USER $SUDO_UID'"), "user 1000")
        equal("in the background", await text("sudo sleep 0.1 & wait $!; echo $?"), "0")
        equal("-v, -k, -l", await text("sudo -v && sudo -k && sudo -l >/dev/null && echo fine"), "fine")
        answer = await run(connected, "sudo -Z id")
        check("an unknown option", answer["exit_code"] == 1 and "unknown option -Z" in answer["stderr"], answer["stderr"])
        # apt comes with the host's /usr, which is read-only: it is apt that says so.
        if await text("command -v apt-get"):
            said = await text("sudo apt-get install -y no-such-package-xyz")
            check("apt-get is reached, and speaks for itself", said and "sudo:" not in said, said)

        status = await text("sudo grep -E '^(NoNewPrivs|Seccomp|CapEff)' /proc/self/status")
        check("no_new_privs and the filter hold for it", "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status)
        as_root = await text("grep CapEff /proc/self/status", user="root")
        check("no more rights than root of the sandbox has", as_root.split()[-1] in status, (as_root, status))
        equal("it opens no way to the first process", await text("sudo cat /proc/1/environ >/dev/null 2>&1 || echo closed"), "closed")
        equal("its own file cannot be changed", await text("sudo sh -c 'echo x >> /opt/sandhold/bin/sudo' 2>/dev/null || echo closed"), "closed")
        equal("it goes on after nonsense on its socket", await text(
            "python3 -c \"import socket\nfor i in range(200):\n s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect('\\0sandhold-sudo'); s.send(b'zzz')\"; sudo id -u"), "0")

        marked = f"4{os.getpid()}.25"
        await text(f"sudo sleep {marked} & sleep 0.3; kill -9 $!; sleep 0.2")
        equal("who kills sudo ends the command", await text(f"for i in $(seq 60); do pgrep -f '[s]leep {marked}' >/dev/null || {{ echo gone; break; }}; sleep 0.1; done"), "gone")

        await call(connected, "write_file", {"path": "/tmp/terminal.py", "content": TERMINAL})
        answer = await run(connected, "python3 /tmp/terminal.py", timeout_s=40)
        seen = answer["stdout"].splitlines()
        for what in ("a terminal of its own", "ctrl-c", "ctrl-z and fg", "job control in a shell of root's", "keys and end of file", "/dev/tty", "in the background", "nothing is lost"):
            check(f"terminal: {what}", what in seen, answer["stdout"][-1500:] + answer["stderr"][-1500:])


main(scenario)
