"""What a sandbox reaches, in a small internet of its own (`world.py`): every mode and rule, by IPv4 and IPv6, and that what
is blocked is told. Every denial has its control: this process, on the host's side, reaches the same target."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import netprobe_host as host
from kit import BIN, ROOT, call, check, client, equal, main, note, run
from serve_kit import Serve

PROBE = Path(__file__).with_name("netprobe.py").read_text()
OWN, GATEWAY, OWN_V6, GATEWAY_V6 = "198.51.100.1", "198.51.100.2", "2001:db8:51::1", "2001:db8:51::2"
# What compression makes no smaller.
LARGE = os.urandom(4 << 20)
PRIVATE = ["169.254.169.254", "10.9.9.9", "192.168.7.7", "fd00:ec2::254"]


NEW_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*words) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


class World:
    """The other namespace, and what arrived there."""

    def __init__(self, folder: Path, files: tuple[Path, Path] | None = None):
        """`files` are the certificate and the key of its sites; without them they have one that nobody trusts."""
        self.log = folder / "world.log"
        self.log.touch()
        certificate, key = files or (folder / "world.pem", folder / "world.key")
        if not files:
            openssl(*NEW_KEY, "-x509", "-days", "2", "-subj", "/CN=world", "-keyout", key, "-out", certificate)
        (folder / "served").mkdir()
        if shutil.which("git"):
            repository(folder)
        script = Path(__file__).with_name("world.py")
        self.process = subprocess.Popen(
            ["unshare", "-n", sys.executable, script, self.log, certificate, key, folder / "served"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        pid = str(self.process.pid)

        def ip(*words: str, inside: bool = False):
            subprocess.run([*(["nsenter", "-t", pid, "-n"] if inside else []), "ip", *words], check=True)

        ip("link", "set", "lo", "up")
        ip("link", "add", "w0", "type", "veth", "peer", "name", "w1", "netns", pid)
        for inside, name, v4, v6 in [(False, "w0", OWN, OWN_V6), (True, "w1", GATEWAY, GATEWAY_V6)]:
            ip("address", "add", f"{v4}/24", "dev", name, inside=inside)
            ip("address", "add", f"{v6}/64", "dev", name, "nodad", inside=inside)
            ip("link", "set", name, "up", inside=inside)
        ip("route", "add", "default", "via", GATEWAY)
        ip("-6", "route", "add", "default", "via", GATEWAY_V6)
        resolv = folder / "resolv.conf"
        resolv.write_text("nameserver 203.0.113.53\noptions timeout:1 attempts:2\n")
        subprocess.run(["mount", "--bind", resolv, "/etc/resolv.conf"], check=True)

    def events(self, **like) -> list[dict]:
        events = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [one for one in events if all(one.get(key) == value for key, value in like.items())]

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


async def tries(connected, *asked, sandbox: str, user: str = "user") -> list[dict]:
    words = json.dumps([list(one) for one in asked]).replace("'", "'\\''")
    answer = await run(connected, f"python3 /tmp/netprobe.py '{words}'", sandbox_id=sandbox, user=user)
    try:
        results = json.loads(answer["stdout"])
    except ValueError:
        raise AssertionError(f"the probe said {answer['stdout'][-500:]} {answer['stderr'][-1500:]}") from None
    for one, result in zip(asked, results, strict=True):
        result["asked"] = " ".join(map(str, one))
    return results


async def sandbox_with(connected, **arguments) -> str:
    made = await call(connected, "create_sandbox", arguments)
    assert not made["_error"], made["_text"]
    await call(connected, "write_file", {"path": "/tmp/netprobe.py", "content": PROBE, "sandbox_id": made["sandbox_id"]})
    return made["sandbox_id"]


def at(result: dict) -> str | None:
    """Where an HTTP request arrived."""
    answer = result.get("ok") or {}
    return answer["body"].get("at") if isinstance(answer.get("body"), dict) else None


def refused(name: str, result: dict) -> None:
    good = "error" in result or (isinstance(result["ok"], dict) and result["ok"].get("status") == "403")
    check(name, good, result)


async def public(connected, world: World) -> None:
    listening = [socket.create_server((OWN, 0)), socket.create_server(("127.0.0.1", 0))]
    ports = [one.getsockname()[1] for one in listening]
    sandbox = await sandbox_with(connected)
    good = await tries(
        connected,
        ["http", "a.test", "a.test"], ["http", "203.0.113.20", "whatever"], ["http", "2001:db8:1::10", "a.test"],
        ["https", "b.test", "b.test"], ["tcp", "a.test"], ["udp", "203.0.113.10"], ["udp", "2001:db8:1::20"],
        ["resolve", "a.test"], ["query", "a.test", 1, "8.8.8.8"], ["query", "a.test", 16, "203.0.113.53"], ["interfaces"],
        ["query", "a.test", 1, "2001:db8:9::53"],
        sandbox=sandbox,
    )  # fmt: skip
    equal("public: http by name", at(good[0]) in ("203.0.113.10", "2001:db8:1::10"), True)
    equal("public: http by address", at(good[1]), "203.0.113.20")
    equal("public: http by IPv6", at(good[2]), "2001:db8:1::10")
    check("public: https", at(good[3]) in ("203.0.113.20", "2001:db8:1::20"), good[3])
    check("public: a server that speaks first", (good[4].get("ok") or {}).get("echo") == "ping", good[4])
    equal("public: datagrams", good[5].get("ok"), "203.0.113.10 ping")
    equal("public: datagrams by IPv6", good[6].get("ok"), "2001:db8:1::20 ping")
    equal("public: names", good[7].get("ok"), ["2001:db8:1::10", "203.0.113.10"])
    equal("public: any name server is this host's", good[8].get("ok"), {"code": 0, "answers": 1})
    equal("public: text records", good[9].get("ok"), {"code": 0, "answers": 1})
    equal("public: the loopback is the only interface", good[10].get("ok"), ["lo"])
    equal("public: name servers by IPv6", good[11].get("ok"), {"code": 0, "answers": 1})

    targets = [*PRIVATE, "::ffff:10.9.9.9", "private.test", "metadata.test", "mapped.test"]
    for target in PRIVATE:
        equal(f"control: {target} answers this host", host.http(target), target)
    for one, port in zip(listening, ports, strict=True):
        with contextlib.closing(socket.create_connection(one.getsockname(), 2)):
            check(f"control: {one.getsockname()[0]}:{port} answers this host", True)
    bad = await tries(connected, *[["http", target, target] for target in targets], sandbox=sandbox)
    for target, result in zip(targets, bad, strict=True):
        refused(f"public: not {target}", result)
    own = [[OWN, ports[0]], ["127.0.0.1", ports[1]], [OWN_V6, ports[0]], ["0.0.0.0", ports[1]], ["local.test", ports[1]]]
    bad = await tries(connected, *[["tcp", *one] for one in own], sandbox=sandbox)
    for target, result in zip(own, bad, strict=True):
        refused(f"public: not this host at {target[0]}", result)
    bad = await tries(connected, *[["udp", target] for target in PRIVATE], sandbox=sandbox)
    for target, result in zip(PRIVATE, bad, strict=True):
        check(f"public: no datagrams to {target}", "error" in result and not world.events(kind="udp", at=target), result)
    mixed = await tries(connected, ["resolve", "mixed.test"], ["http", "mixed.test", "mixed.test"], sandbox=sandbox)
    equal("public: private addresses are taken out of answers", mixed[0].get("ok"), ["203.0.113.10"])
    equal("public: and the rest is reached", at(mixed[1]), "203.0.113.10")
    await tries(connected, *[["http", "rebind.test", "rebind.test"]] * 4, sandbox=sandbox)
    check("public: a name that turns private is not followed", not world.events(kind="http", at="10.9.9.9", host="rebind.test"))

    raw = [["open_socket", 17, 3, 768], ["open_socket", 40, 1, 0], ["open_socket", 16, 3, 12], ["open_socket", 2, 3, 1]]
    bad = await tries(connected, *raw, sandbox=sandbox)
    for what, result in zip(["packet", "vsock", "netfilter", "raw"], bad, strict=True):
        check(f"no {what} socket for user", "error" in result, result)

    other = await sandbox_with(connected)
    port = 8123
    await call(connected, "run_command_bg", {"cmd": f"python3 -m http.server {port}", "sandbox_id": other})
    inside = await call(connected, "wait_for_service_ready", {"port": port, "sandbox_id": other})
    check("control: the other sandbox's server answers inside", inside.get("ready"), inside.get("_text"))
    # Both have the same address, each its own.
    bad = await tries(connected, ["http", "100.64.0.2", "x", port], ["http", "127.0.0.1", "x", port], sandbox=sandbox)
    for result in bad:
        refused(f"public: not another sandbox: {result['asked']}", result)

    told = await call(connected, "run_command", {"cmd": "curl -sS -m 5 http://10.9.9.9/", "sandbox_id": sandbox})
    blocked = told.get("blocked") or []
    check("a command is told what was blocked", any(one["host"] == "10.9.9.9" and one["port"] == 80 for one in blocked), told)
    check("with the rule and what allows it", blocked and blocked[0]["rule"] and blocked[0]["remedy"], blocked)
    check("in its text, too", "10.9.9.9" in told["_text"].split("stdout:")[0].split("stderr:")[0], told["_text"])
    quiet = await call(connected, "run_command", {"cmd": "echo no >&2", "sandbox_id": sandbox})
    equal("another command is not", quiet.get("blocked"), None)
    info = await call(connected, "sandbox_info", {"sandbox_id": sandbox})
    equal("sandbox_info shows the mode", info["network"].get("mode"), "public")
    check("and what was blocked", "10.9.9.9" in json.dumps(info["network"].get("blocked")), info["network"])
    for one in listening:
        one.close()


async def allowlist(connected, world: World) -> None:
    only = {"allow_out": ["a.test", "*.w.test", "203.0.113.53/32"], "deny_out": ["0.0.0.0/0"]}
    sandbox = await sandbox_with(connected, network=only)
    good = await tries(
        connected,
        ["http", "a.test", "a.test"], ["https", "a.test", "a.test"], ["tcp", "a.test"], ["http", "one.w.test", "one.w.test"],
        ["http", "203.0.113.53", "x"], ["https", "203.0.113.20", "a.test"],
        sandbox=sandbox,
    )  # fmt: skip
    a = ("203.0.113.10", "2001:db8:1::10")
    check("allowlist: http", at(good[0]) in a, good[0])
    check("allowlist: https", at(good[1]) in a, good[1])
    check("allowlist: a server that speaks first", (good[2].get("ok") or {}).get("echo") == "ping", good[2])
    check("allowlist: a wildcard", at(good[3]) == "203.0.113.10", good[3])
    check("allowlist: an address", at(good[4]) == "203.0.113.53", good[4])
    check("allowlist: the name decides, not the address", at(good[5]) in (*a, None), good[5])
    for name in ["b.test", "w.test"]:
        check(f"control: {name} answers this host", host.http(name))
    before = len(world.events())
    denied = [
        ["http", "b.test", "b.test"], ["http", "203.0.113.20", "b.test"], ["http", "2001:db8:1::20", "b.test"],
        ["http", "w.test", "w.test"], ["https", "203.0.113.10", "b.test"], ["https", "203.0.113.10", ""],
        ["http", "203.0.113.10", "b.test"], ["http_twice", "a.test", "a.test", "b.test"], ["tcp", "203.0.113.20"],
        ["http", "a.test@b.test", "x"], ["resolve", "b.test"], ["resolve", "a.test.b.test"],
    ]  # fmt: skip
    bad = await tries(connected, *denied, sandbox=sandbox)
    for one, result in zip(denied, bad, strict=True):
        if one[0] == "http_twice":
            twice = result.get("ok") or {}
            check("allowlist: not a second name on one connection", at(result) is None or twice["body"].get("host") != "b.test", result)
        else:
            refused(f"allowlist: not {' '.join(map(str, one))}", result)
    data = secrets.token_hex(12)
    tunnel = await tries(
        connected,
        ["resolve", f"{data}.tunnel.test"], ["query", f"{data}.tunnel.test", 16, "203.0.113.53"],
        ["query", f"{data}.tunnel.test", 1, "8.8.8.8"], ["query", f"{data}.a.test", 1, "8.8.8.8"],
        ["query", "a.test", 16, "8.8.8.8"], ["udp", "203.0.113.20"],
        sandbox=sandbox,
    )  # fmt: skip
    asked = [one for one in world.events(kind="dns") if data in one["name"]]
    check("allowlist: nothing leaves in names", not asked, asked)
    check("allowlist: no text records", not (tunnel[4].get("ok") or {}).get("answers"), tunnel[4])
    check("allowlist: no datagrams", "error" in tunnel[5] and not world.events(kind="udp", at="203.0.113.20")[2:], tunnel[5])
    arrived = [one for one in world.events()[before:] if one.get("host") == "b.test" or one.get("sni") == "b.test"]
    check("allowlist: nothing of it arrived", not arrived, arrived)

    proxied = await tries(
        connected,
        ["connect_by_proxy", "a.test:22"], ["connect_by_proxy", "a.test:443", "a.test"], ["get_by_proxy", "http://a.test/"],
        ["socks", "a.test", 22],
        sandbox=sandbox,
    )  # fmt: skip
    check("proxy: CONNECT", "SSH" in (proxied[0].get("ok") or {}).get("said", ""), proxied[0])
    check("proxy: TLS in CONNECT", at(proxied[1]) in a, proxied[1])
    equal("proxy: a plain request", (proxied[2].get("ok") or {}).get("status"), "200")
    check("proxy: SOCKS5", "SSH" in (proxied[3].get("ok") or {}).get("said", ""), proxied[3])
    denied = [
        ["connect_by_proxy", "b.test:22"], ["connect_by_proxy", "203.0.113.20:22"], ["connect_by_proxy", "10.9.9.9:80"],
        ["connect_by_proxy", "169.254.169.254:80"], ["connect_by_proxy", "[::ffff:169.254.169.254]:80"],
        ["connect_by_proxy", "2852039166:80"], ["connect_by_proxy", "0xa9.254.169.254:80"], ["connect_by_proxy", "127.1:80"],
        ["connect_by_proxy", "a.test@b.test:22"], ["connect_by_proxy", "a.test:443", "b.test"],
        ["get_by_proxy", "http://b.test/"], ["get_by_proxy", "http://a.test@b.test/"], ["socks", "b.test", 22],
        ["socks", "10.9.9.9", 22],
    ]  # fmt: skip
    bad = await tries(connected, *denied, sandbox=sandbox)
    for one, result in zip(denied, bad, strict=True):
        answer = result.get("ok") or {}
        through = answer.get("status") == "200" or answer.get("reply") == 0 or at(result)
        check(f"proxy: not {' '.join(map(str, one))}", "error" in result or not through, result)


async def nothing(connected, world: World) -> None:
    sandbox = await sandbox_with(connected, allow_internet_access=False)
    info = await call(connected, "sandbox_info", {"sandbox_id": sandbox})
    equal("none: shown", (info["network"].get("mode"), info["network"]["allow_internet_access"]), ("none", False))
    data = secrets.token_hex(12)
    denied = [
        ["http", "a.test", "a.test"], ["http", "203.0.113.10", "a.test"], ["udp", "203.0.113.10"], ["resolve", f"{data}.tunnel.test"],
        ["connect_by_proxy", "203.0.113.10:22"], ["socks", "203.0.113.10", 22],
    ]  # fmt: skip
    bad = await tries(connected, *denied, sandbox=sandbox)
    for one, result in zip(denied, bad, strict=True):
        answer = result.get("ok") if isinstance(result.get("ok"), dict) else {}
        check(f"none: not {' '.join(one[:2])}", "error" in result or answer.get("status") == "403" or answer.get("reply"), result)
    check("none: no name left", not [one for one in world.events(kind="dns") if data in one["name"]])

    # While it runs.
    changed = await call(connected, "update_network", {"sandbox_id": sandbox, "allow_out": ["a.test"], "deny_out": ["0.0.0.0/0"]})
    equal("update_network: says the mode", changed.get("mode"), "allowlist")
    good = await tries(connected, ["http", "a.test", "a.test"], ["http", "b.test", "b.test"], sandbox=sandbox)
    check("update_network: opens", at(good[0]), good[0])
    refused("update_network: no more than was said", good[1])
    job = await call(
        connected,
        "run_command_bg",
        {"sandbox_id": sandbox, "cmd": "python3 -c 'import socket; s = socket.create_connection((\"a.test\", 22)); print(s.recv(99), flush=True); print(repr(s.recv(99)))'"},
    )
    started = await call(connected, "get_job_status", {"job_id": job["job_id"], "wait_s": 3})
    check("update_network: a connection is open", "SSH" in started["stdout"] and started["status"] == "running", started)
    await call(connected, "update_network", {"sandbox_id": sandbox, "allow_internet_access": False})
    ended = await call(connected, "get_job_status", {"job_id": job["job_id"], "wait_s": 10})
    check("update_network: and ends when it is forbidden", ended["status"] != "running", ended)

    for rules, word in [
        ({"allow_out": ["10.0.0.0/8"]}, "--allow-private-network"),
        ({"allow_out": ["http://a.test/"]}, "allow_out"),
        ({"deny_out": ["300.1.1.1"]}, "deny_out"),
    ]:
        bad = await call(connected, "update_network", {"sandbox_id": sandbox, **rules})
        check(f"update_network refuses {rules}", bad["_error"] and word in bad["_text"], bad["_text"])
        bad = await call(connected, "create_sandbox", {"network": rules})
        check(f"create_sandbox refuses {rules}", bad["_error"] and word in bad["_text"], bad["_text"])


async def operator(world: World) -> None:
    """What the operator allows is the most that a client can ask for."""
    async with client("stdio", "modern", "--network", "allowlist", "--allow-out", "a.test", "--allow-out", "10.9.9.9",
                      "--allow-private-network", "10.9.9.0/24") as connected:  # fmt: skip
        plain = await sandbox_with(connected)
        tried = await tries(
            connected, ["http", "a.test", "a.test"], ["http", "b.test", "b.test"], ["http", "10.9.9.9", "x"], sandbox=plain
        )
        check("operator: allowed", at(tried[0]), tried[0])
        refused("operator: not allowed", tried[1])
        equal("operator: a private address that is opened", at(tried[2]), "10.9.9.9")
        wide = await sandbox_with(connected, network={"allow_out": ["0.0.0.0/0"]})
        tried = await tries(connected, ["http", "a.test", "a.test"], ["http", "b.test", "b.test"], sandbox=wide)
        check("operator: a sandbox gets what is allowed", at(tried[0]), tried[0])
        refused("operator: and no more, whatever it asks for", tried[1])
    async with client("stdio", "modern", "--network", "none") as connected:
        sandbox = await sandbox_with(connected)
        tried = await tries(connected, ["http", "203.0.113.10", "a.test"], sandbox=sandbox)
        refused("operator: none", tried[0])


def e2b() -> None:
    """E2B's own SDK: the fields of a sandbox's network, and what they do."""
    from e2b import ALL_TRAFFIC, Sandbox

    def reaches(sandbox: Sandbox, host: str) -> bool:
        return sandbox.commands.run(f"curl -sS -m 10 http://{host}/ 2>/dev/null || true").stdout.startswith("{")

    with Serve() as server:
        server.use()
        sandbox = Sandbox.create(timeout=120)
        check("e2b: the internet, as it comes", reaches(sandbox, "a.test") and reaches(sandbox, "b.test"))
        check("e2b: but nothing private", not reaches(sandbox, "10.9.9.9") and not reaches(sandbox, "169.254.169.254"))
        sandbox.update_network({"allow_out": ["a.test"], "deny_out": [ALL_TRAFFIC]})
        equal("e2b: update_network", [reaches(sandbox, host) for host in ("a.test", "b.test")], [True, False])
        sandbox.update_network({})
        check("e2b: what is left out is cleared", reaches(sandbox, "b.test"))
        sandbox.kill()
        sandbox = Sandbox.create(timeout=120, network={"deny_out": ["203.0.113.20", "2001:db8:1::20"]})
        equal("e2b: deny_out at create", [reaches(sandbox, host) for host in ("a.test", "b.test")], [True, False])
        sandbox.kill()
        sandbox = Sandbox.create(timeout=120, network={"allow_out": ["*.w.test"], "deny_out": [ALL_TRAFFIC]})
        equal("e2b: allow_out at create", [reaches(sandbox, host) for host in ("one.w.test", "a.test")], [True, False])
        sandbox.kill()
        sandbox = Sandbox.create(timeout=120, allow_internet_access=False)
        equal("e2b: no internet access", [reaches(sandbox, host) for host in ("a.test", "203.0.113.20")], [False, False])
        sandbox.kill()


async def git(connected, world: World) -> None:
    """A real program over a whole transfer: git clones a repository of the world's."""
    if not shutil.which("git"):
        return note("git clone: no git")
    sandbox = await sandbox_with(connected)
    cloned = await call(
        connected,
        "run_command",
        {"cmd": "git clone -q http://a.test:8080/repo.git && cat repo/large | wc -c && git -C repo log --format=%s", "sandbox_id": sandbox},
    )
    equal("git clone", (cloned.get("exit_code"), cloned.get("stdout")), (0, f"{len(LARGE)}\nthe first\n"))
    denied = await call(connected, "run_command", {"cmd": "git clone -q http://10.9.9.9:8080/repo.git again", "sandbox_id": sandbox})
    check("not from a private address", denied.get("exit_code") == 128 and denied.get("blocked"), denied)


def repository(folder: Path) -> None:
    """A bare repository that any web server can serve."""
    work, bare = folder / "work", folder / "served" / "repo.git"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(folder)}

    def run_git(*words, at: Path):
        who = ["-c", "user.name=world", "-c", "user.email=world@a.test"]
        subprocess.run(["git", *who, *words], cwd=at, check=True, capture_output=True, env=environment)

    work.mkdir()
    run_git("init", "-q", at=work)
    (work / "large").write_bytes(LARGE)
    run_git("add", "large", at=work)
    run_git("commit", "-q", "-m", "the first", at=work)
    run_git("clone", "-q", "--bare", str(work), str(bare), at=folder)
    run_git("update-server-info", at=bare)


async def scenario() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            equal("control: the world answers", host.http("203.0.113.10"), "203.0.113.10")
            async with client("stdio", "modern", "--toolsets", "default,network") as connected:
                first = await call(connected, "run_command", {"cmd": "cat /etc/resolv.conf; ip address 2>/dev/null"})
                check("a sandbox starts here", not first["_error"], first["_text"])
                await public(connected, world)
                await allowlist(connected, world)
                await nothing(connected, world)
                await git(connected, world)
            await operator(world)
            await asyncio.to_thread(e2b)
        finally:
            world.close()


def in_a_world(scenario, script: str) -> None:
    """Runs a scenario in namespaces of its own, where a world can be made."""
    if "--inside" in sys.argv:
        main(scenario)
    else:
        more = []
        if not ROOT:
            # An ordinary user becomes root of a namespace to make the world, and has no ids there but one. Sandhold is
            # started as an ordinary user again.
            more = ["--user", "--map-root-user"]
            ids = f"--map-user={os.getuid()} --map-group={os.getgid()}"
            plain = Path(tempfile.mkdtemp()) / "sandhold"
            plain.write_text(f'#!/bin/sh\nexec unshare --user {ids} {BIN} "$@"\n')
            plain.chmod(0o755)
            os.environ["SANDHOLD_BIN"] = str(plain)
        os.execvp("unshare", ["unshare", *more, "--net", "--mount", sys.executable, script, "--inside"])


if __name__ == "__main__":
    in_a_world(scenario, __file__)
