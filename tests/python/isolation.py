"""What the inside of a sandbox can reach, through the tools. Every denial has its control: the same attempt on the host,
or inside where it must work, succeeds."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from pathlib import Path

from kit import ROOT, call, check, client, descendants, equal, main, note, run

PROBE = Path(__file__).with_name("probe.py").read_text()
SECRET = "sandhold-secret-" + secrets.token_hex(8)
# Docker's default set without the dangerous: what package managers need inside the sandbox's own user namespace.
ROOT_MAY = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
# What may stand in the root folder.
FOLDERS = {
    "bin", "boot", "code", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt", "proc",
    "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var",
}  # fmt: skip
REFUSALS = {"EPERM", "ENOSYS", "EACCES", "ENOENT", "EAFNOSUPPORT", "EROFS", "ENOTDIR", "ENODATA"}


def listen(family: int, address) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    one.bind(address)
    one.listen(16)

    def accept():
        while True:
            try:
                one.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    return one


def own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
            return one.getsockname()[0]
        except OSError:
            return None


async def probe(connected, asked: dict, user: str, sandbox: str | None = None) -> dict:
    more = {"sandbox_id": sandbox} if sandbox else {}
    await call(connected, "write_file", {"path": "/tmp/probe.py", "content": PROBE, **more})
    answer = await run(connected, f"python3 /tmp/probe.py '{json.dumps(asked)}'", user=user, **more)
    try:
        return json.loads(answer["stdout"])
    except ValueError:
        raise AssertionError(f"the probe as {user} said {answer['stdout'][-500:]} {answer['stderr'][-1500:]}") from None


def denied(who: str, inside: dict, host: dict, name: str, refusals=REFUSALS) -> bool:
    """One denial. Where the host refuses this user too there is no control, and nothing is counted."""
    if host[name] in refusals:
        return False
    check(f"{who}: {name}", inside[name] in refusals, f"inside {inside[name]}, on the host {host[name]}")
    return True


async def one_sandbox(connected, user: str, asked: dict, host: dict) -> None:
    found = await probe(connected, asked, user)
    who = f"as {user}"
    counted = 0
    names = [name for name in host if name.split()[0] in ("call", "unshare", "read", "write", "socket", "tcp", "unix", "mknod")]
    for name in names:
        if name in ("socket AF_INET", "socket AF_UNIX", "write home"):
            equal(f"control, {who}: {name}", found[name], "done")
        elif name.startswith("tcp") or name.startswith("unix"):
            counted += denied(who, found, host, name, REFUSALS | {"ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT", "TimeoutError"})
        else:
            counted += denied(who, found, host, name)
    check(f"{who}: enough denials had their control", counted >= (25 if ROOT else 8), counted)
    for name in ("environ", "mem", "maps", "root/etc", "fd"):
        equal(f"control, {who}: its own {name}", found[f"own {name}"], "done")
        check(f"{who}: /proc/1/{name} is closed", found[f"init {name}"] in ("EACCES", "EPERM"), found[f"init {name}"])
    status = found["status"]
    equal(f"{who}: no_new_privs", status["NoNewPrivs"], "1")
    equal(f"{who}: seccomp filters", status["Seccomp"], "2")
    capabilities = {kind: bits(status[kind]) for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")}
    if user == "root":
        check("as root: only the bounded capabilities", all(held <= ROOT_MAY for held in capabilities.values()), capabilities)
    else:
        check("as user: no capability", not any(capabilities[kind] for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")), capabilities)
        check("as user: none can be gained", capabilities["CapBnd"] <= ROOT_MAY, capabilities)
    check(f"{who}: nothing but the standard streams is inherited", set(found["descriptors"]) <= {0, 1, 2}, found["descriptors"])
    check(f"{who}: only its own processes", 1 <= found["processes"] < 6 < host["processes"], (found["processes"], host["processes"]))
    equal(f"{who}: loopback is the only interface", found["interfaces"], ["lo"])
    check(f"{who}: the root folder is a sandbox's own", set(found["root"]) <= FOLDERS, set(found["root"]) - FOLDERS)
    check(f"{who}: the host's users are not there", SECRET_USERS.isdisjoint(found["users"]), found["users"])
    check(f"{who}: the host's environment stays outside", SECRET not in json.dumps(found["environment"]), "")
    check(f"{who}: a host name of its own", found["hostname"] != host["hostname"], found["hostname"])
    loose = [mount for mount in found["mounts"] if "nosuid" not in mount[2].split(",")]
    check(f"{who}: every mount is nosuid", not loose, loose)
    # What is masked in /proc is covered by /dev/null.
    loose = [mount for mount in found["mounts"] if "nodev" not in mount[2].split(",") and not mount[0].startswith(("/dev", "/proc/"))]
    check(f"{who}: no device works outside of /dev", not loose, loose)
    usr = [mount for mount in found["mounts"] if mount[0] == "/usr"]
    check(f"{who}: /usr is read-only", usr and all("ro" in mount[2].split(",") for mount in usr), usr)


SECRET_USERS = {"sandhold-test", "sandhold-nosub", "messagebus", "postgres"}


def bits(text: str) -> set[int]:
    number = int(text, 16)
    return {bit for bit in range(64) if number >> bit & 1}


async def neighbours(connected, strongest: str) -> None:
    one = (await call(connected, "create_sandbox", {}))["sandbox_id"]
    two = (await call(connected, "create_sandbox", {}))["sandbox_id"]
    await call(connected, "write_file", {"path": "/tmp/of-one.txt", "content": "mine", "sandbox_id": one})
    serve = (
        "import socket,time\na=socket.create_server(('127.0.0.1',4711))\nb=socket.socket(socket.AF_UNIX)\nb.bind('\\0of-one')\nb.listen()\n"
        "c=socket.socket(socket.AF_UNIX)\nc.bind('/tmp/of-one.sock')\nc.listen()\ntime.sleep(600)\n"
    )
    await call(connected, "write_file", {"path": "/tmp/serve.py", "content": serve, "sandbox_id": one})
    await call(connected, "run_command_bg", {"cmd": "exec python3 /tmp/serve.py", "sandbox_id": one})
    await run(connected, "for i in $(seq 50); do [ -S /tmp/of-one.sock ] && break; sleep 0.1; done", sandbox_id=one)
    asked = {"tcp": [["127.0.0.1", 4711]], "unix": ["of-one", "/tmp/of-one.sock"], "files": ["/tmp/of-one.txt"]}
    there = await probe(connected, asked, "user", one)
    other = await probe(connected, asked, "user", two)
    for name in ("tcp 127.0.0.1:4711", "unix of-one", "unix /tmp/of-one.sock", "read /tmp/of-one.txt"):
        equal(f"control: {name} in its own sandbox", there[name], "done")
        check(f"{name} from the neighbour", other[name] in ("ECONNREFUSED", "ENOENT"), other[name])
    look = "grep -l serve.py /proc/[0-9]*/cmdline 2>/dev/null | wc -l"
    equal("control: the process is seen at home", int((await run(connected, look, sandbox_id=one))["stdout"]) >= 1, True)
    theirs = await run(connected, look.replace("serve", "[s]erve"), sandbox_id=two)
    equal("no process of the neighbour is seen", theirs["stdout"].strip(), "0")
    await run(connected, "kill -9 1; kill -9 -1; true", sandbox_id=two, user=strongest)
    equal("a sandbox cannot end its own pid 1", (await run(connected, "echo on", sandbox_id=two))["stdout"], "on\n")
    equal("nor its neighbour", (await run(connected, "echo on", sandbox_id=one))["stdout"], "on\n")


async def scenario() -> None:
    os.environ["SECRET_OF_THE_HOST"] = SECRET
    secret = Path(os.environ["TMPDIR"]) / SECRET
    secret.write_text("nobody inside may read this")
    secret.chmod(0o644)
    home = Path.home() / ".sandhold-probe"
    home.write_text("nor this")
    tcp = listen(socket.AF_INET, ("0.0.0.0", 0))
    port = tcp.getsockname()[1]
    unix = listen(socket.AF_UNIX, f"\0{SECRET}")
    path = str(Path(os.environ["TMPDIR"]) / "s")
    by_path = listen(socket.AF_UNIX, path)
    address = own_address()
    asked = {
        "files": [str(secret), str(home), "/etc/machine-id", "/var/log/dpkg.log", "/etc/debian_version", "/proc/1/cgroup"][:5],
        "tcp": [["127.0.0.1", port]] + ([[address, port]] if address else []),
        "unix": [SECRET, path],
    }
    try:
        host = json.loads(subprocess.run([sys.executable, "-c", PROBE, json.dumps(asked)], capture_output=True, text=True, check=True).stdout)
        async with client("stdio", "modern") as connected:
            for tree in [descendants(os.getpid())]:
                holders = [pid for pid in tree if readable(pid)]
                check("control: the server's own environment was set by this test", holders, tree)
            info = await call(connected, "sandbox_info")
            print("isolation:", json.dumps(info.get("isolation")))
            for text in (info.get("isolation") or {}).get("warnings", []):
                note(f"this machine's isolation lacks: {text}")
            await one_sandbox(connected, "user", asked, host)
            as_root = await call(connected, "run_command", {"cmd": "true", "user": "root"})
            if as_root["_error"]:
                note("one id only: commands run as one user, root inside is not there to test")
                check("one id only: the answer says so", not ROOT and "one user id" in as_root["_text"], as_root["_text"])
                check("one id only: and speaks of no API key", "API key" not in as_root["_text"], as_root["_text"])
            else:
                await one_sandbox(connected, "root", asked, host)
            await neighbours(connected, "user" if as_root["_error"] else "root")
    finally:
        home.unlink(missing_ok=True)
        for one in (tcp, unix, by_path):
            one.close()


def readable(pid: int) -> bool:
    try:
        return b"SANDHOLD_HOME" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    main(scenario)
