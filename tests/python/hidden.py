"""Secrets that the sandbox never sees, in the small internet of `world.py`, whose sites have certificates that this host
trusts: the operator's with `--secrets`, and those of E2B's `network.rules` with its own SDK."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import BIN, HOME, call, check, client, equal, note, server_env
from network import NEW_KEY, World, in_a_world, openssl
from serve_kit import Serve

BUNDLES = [
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt", "/var/lib/ca-certificates/ca-bundle.pem", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
]  # fmt: skip

# Looks for a text that it is given backwards in all memory and all files that it can read, and in every environment.
SEARCH = r"""
import os, re, sys
wanted = sys.argv[1][::-1].encode()
found, processes, files = [], 0, 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    try:
        if wanted in open(f"/proc/{pid}/environ", "rb").read():
            found.append(f"environment of {pid}")
        memory = open(f"/proc/{pid}/mem", "rb", 0)
        for line in open(f"/proc/{pid}/maps"):
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1][0] != "r" or end - begin > 1 << 28:
                continue
            try:
                memory.seek(begin)
                if wanted in memory.read(end - begin):
                    found.append(f"memory of {pid}")
            except (OSError, ValueError, OverflowError):
                pass
        processes += 1
    except OSError:
        pass
for top in ["/etc", "/home", "/root", "/run", "/tmp", "/var", "/opt", "/dev/shm"]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if not os.path.isfile(path):
                    continue
                files += 1
                if wanted in open(path, "rb").read():
                    found.append(path)
            except OSError:
                pass
print(processes, files, found)
"""

REQUEST = r"""
import json, sys, urllib.request
headers = json.loads(sys.argv[2]) if sys.argv[2:] else {}
with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), timeout=10) as answer:
    print(answer.status, answer.read().decode())
"""

ISSUER = r"""
import socket, ssl, sys
with socket.create_connection((sys.argv[1], 443), 10) as plain:
    with ssl.create_default_context().wrap_socket(plain, server_hostname=sys.argv[1]) as tls:
        print(dict(part[0] for part in tls.getpeercert()["issuer"])["commonName"])
"""


def certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate for the sites, signed by an authority that this host, as this scenario sees it, trusts."""
    authority, authority_key, leaf, key = (folder / name for name in ("ca.pem", "ca.key", "sites.pem", "sites.key"))
    openssl(*NEW_KEY, "-x509", "-days", "2", "-subj", "/CN=The World", "-keyout", authority_key, "-out", authority)
    names = folder / "names"
    names.write_text(
        "subjectAltName=DNS:a.test,DNS:one.w.test,DNS:b.test\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    openssl(*NEW_KEY, "-subj", "/CN=sites", "-keyout", key, "-out", folder / "sites.csr")
    openssl("x509", "-req", "-in", folder / "sites.csr", "-CA", authority, "-CAkey", authority_key, "-days", "2",
            "-extfile", names, "-out", leaf)  # fmt: skip
    place = next(path for path in BUNDLES if os.path.exists(path))
    bundle = folder / "bundle.pem"
    bundle.write_text(Path(place).read_text() + "\n" + authority.read_text())
    subprocess.run(["mount", "--bind", bundle, os.path.realpath(place)], check=True)
    os.environ["SSL_CERT_FILE"] = str(bundle)
    return leaf, key


def kept() -> bytes:
    """Everything below the home of the server."""
    files = [path for path in HOME.rglob("*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


def refused_files(folder: Path, value: str) -> None:
    """A file of secrets that is of no use is refused at the start, in words."""
    file = folder / "bad.json"
    entry = {"host": "a.test", "header": "X-Key", "value": value}
    for entries, mode, word in [
        ([entry], 0o644, "chmod 600"),
        ([{**entry, "header": "Host"}], 0o600, "entry 1"),
        ([{**entry, "value": value + "\n"}], 0o600, "line break"),
        ([{**entry, "more": 1}], 0o600, "bad.json"),
    ]:
        file.write_text(json.dumps(entries))
        file.chmod(mode)
        ended = subprocess.run([BIN, "doctor", "--secrets", file], capture_output=True, text=True, env={**os.environ, **server_env()})
        check(f"--secrets refuses: {word}", ended.returncode != 0 and word in ended.stderr, ended.stderr)
        check(f"without its value: {word}", value not in ended.stdout + ended.stderr, ended.stderr)


async def operator(world: World, folder: Path) -> None:
    value, second = f"Bearer {secrets.token_hex(20)}", secrets.token_hex(20)
    refused_files(folder, second)
    (folder / "key").write_text(second + "\n")
    (folder / "key").chmod(0o600)
    file = folder / "secrets.json"
    file.write_text(json.dumps([
        {"host": "a.test", "header": "Authorization", "value_env": "KEY_OF_A", "env": "A_API_KEY"},
        {"host": "*.w.test", "header": "X-Api-Key", "value_file": "key"},
    ]))  # fmt: skip
    file.chmod(0o600)
    env = {"KEY_OF_A": value, "SANDHOLD_LOG": "trace", "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"], "SANDHOLD_SECRETS": str(file)}
    told = []
    async with client("stdio", "modern", env=env) as connected:

        async def ask(tool: str, **arguments) -> dict:
            answer = await call(connected, tool, arguments)
            told.append(repr(answer))
            return answer

        async def run(cmd: str, **more) -> str:
            answer = await ask("run_command", cmd=cmd, **more)
            return answer.get("stdout", "") + answer.get("stderr", "") + ("" if "stdout" in answer else answer["_text"])

        for name, text in [("search", SEARCH), ("request", REQUEST), ("issuer", ISSUER)]:
            await ask("write_file", path=f"/tmp/{name}.py", content=text)

        def last(host: str, sni: str | None) -> dict:
            events = world.events(kind="http", host=host, sni=sni)
            return events[-1]["headers"] if events else {}

        equal("a placeholder stands where the program looks", (await run("echo $A_API_KEY")).strip(), "sandhold-secret-A_API_KEY")
        answer = await run('curl -sS https://a.test/quiet -H "Authorization: Bearer $A_API_KEY"')
        check("curl verifies the certificate without an option", '"at"' in answer, answer)
        equal("the request arrives with the secret", last("a.test", "a.test").get("authorization"), value)
        answer = await run("""python3 /tmp/request.py https://a.test/quiet '{"Authorization": "mine", "X-Round": "2"}'""")
        check("Python does, too", answer.startswith("200"), answer)
        got = last("a.test", "a.test")
        equal("and its own header is replaced", (got.get("authorization"), got.get("x-round")), (value, "2"))
        answer = await run("curl -sS https://one.w.test/quiet")
        equal("a rule for all names below one", last("one.w.test", "one.w.test").get("x-api-key"), second)
        equal("that host gets no other secret", last("one.w.test", "one.w.test").get("authorization"), None)

        await run("curl -sS https://b.test/quiet -H 'Authorization: mine'")
        equal("another host gets what the program sends", last("b.test", "b.test").get("authorization"), "mine")
        equal("and is seen end-to-end", (await run("python3 /tmp/issuer.py b.test")).strip(), "The World")
        issuer = (await run("python3 /tmp/issuer.py a.test")).strip()
        check("control: a host with a secret is not", issuer.startswith("Sandhold"), issuer)
        await run("curl -sS http://a.test/quiet -H 'X-Round: plain'")
        got = last("a.test", None)
        equal("plain HTTP gets nothing", (got.get("x-round"), got.get("authorization")), ("plain", None))
        before = len(world.events(kind="http"))
        answer = await run("curl -sS -i https://a.test/quiet -H 'Host: b.test'")
        check("another host within is refused", " 421 " in answer and len(world.events(kind="http")) == before, answer)
        answer = await run("curl -sS -i -X TRACE https://a.test/")
        check("TRACE is refused", " 405 " in answer and len(world.events(kind="http")) == before, answer)

        # A process that still holds its connection to the host is there while memory is searched.
        held = await ask(
            "run_command_bg",
            cmd="DECOY=the-decoy python3 -c 'import time, urllib.request as r; print(r.urlopen(\"https://a.test/quiet\").status, flush=True); time.sleep(99)'",
        )
        started = await ask("get_job_status", job_id=held["job_id"], wait_s=3)
        check("control: the process that is searched got an answer", "200" in started.get("stdout", ""), started)
        await run("echo the-decoy > /tmp/decoy")
        for user in ["user", "root"]:
            decoy = await run(f"python3 /tmp/search.py {'the-decoy'[::-1]}", user=user)
            if "[" not in decoy and user == "root":
                note("sandboxes have no root here: secrets were searched for as user alone")
                continue
            # Its root may read no other process's memory.
            places = ["environment of", "memory of", "/tmp/decoy"] if user == "user" else ["/tmp/decoy"]
            check(f"control: {user} finds what is there", all(place in decoy for place in places), decoy)
            for one in [value.removeprefix("Bearer "), second]:
                search = await run(f"python3 /tmp/search.py {one[::-1]}", user=user)
                check(f"{user} finds no secret in memory, files and environments", search.strip().endswith(" []"), search)
        for tool in ["sandbox_info", "list_sandboxes"]:
            await ask(tool)
        log = connected.stderr()
        check("control: the server wrote its log", "TRACE" in log and len(log) > 1000, len(log))
        for one in [value.removeprefix("Bearer "), second]:
            check("no secret in any answer", not any(one in answer for answer in told))
            check("no secret in the log", one not in log)
            check("no secret in the server's files", one.encode() not in kept())


def e2b(world: World) -> None:
    """E2B's own SDK."""
    from e2b import Sandbox

    value, other = f"Bearer {secrets.token_hex(20)}", secrets.token_hex(20)
    os.environ["SANDHOLD_LOG"] = "trace"
    with Serve() as server:
        server.use()

        def rules(host: str, **headers) -> dict:
            return {host: [{"transform": {"headers": headers}}]}

        sandbox = Sandbox.create(
            timeout=300,
            network={"allow_out": ["a.test", "one.w.test"], "deny_out": ["0.0.0.0/0"],
                     "rules": {**rules("a.test", Authorization=value), **rules("*.w.test", **{"X-Key": other}),
                               **rules("b.test", Authorization=value)}},
        )  # fmt: skip

        def ask(url: str, *more: str) -> str:
            command = f"curl -sS -m 20 {' '.join(more)} {url} 2>&1 || true"
            return sandbox.commands.run(command).stdout

        def last(host: str) -> dict:
            events = world.events(kind="http", host=host, sni=host)
            return events[-1]["headers"] if events else {}

        check("e2b: the request is answered", '"at"' in ask("https://a.test/quiet", "-H 'Authorization: mine'"))
        equal("e2b: it arrives with the header", last("a.test").get("authorization"), value)
        ask("https://one.w.test/quiet")
        equal("e2b: a rule for all names below one", last("one.w.test").get("x-key"), other)
        before = len(world.events(sni="b.test"))
        said = ask("https://b.test/quiet")
        check("e2b: a rule opens no host", '"at"' not in said and len(world.events(sni="b.test")) == before, said)
        shown = repr(sandbox.get_info())
        check("e2b: the values are not shown", value not in shown and other not in shown, shown)

        refused = None
        try:
            Sandbox.create(timeout=60, network={"rules": rules("a.test", **{"Content-Length": "1"})})
        except Exception as error:  # noqa: BLE001 it is looked at
            refused = error
        check("e2b: a header of HTTP's own is refused", "content-length" in str(refused).lower(), refused)

        if hasattr(sandbox, "update_network"):
            sandbox.update_network({"rules": rules("b.test", **{"X-Key": other})})
            ask("https://b.test/quiet"), ask("https://a.test/quiet", "-H 'Authorization: mine'")
            equal("e2b: new rules hold at once", last("b.test").get("x-key"), other)
            equal("e2b: and the old ones are gone", last("a.test").get("authorization"), "mine")
        else:
            note("this version of e2b cannot update the network of a sandbox")
        sandbox.pause() if hasattr(sandbox, "pause") else sandbox.beta_pause()
        file = kept()
        for one in [value.removeprefix("Bearer "), other]:
            check("e2b: no secret in the server's files", one.encode() not in file)
            said = os.pread(server.stderr.fileno(), os.fstat(server.stderr.fileno()).st_size, 0)
            check("e2b: no secret in its log", one.encode() not in said and b"TRACE" in said)
    # Its files outlive the server, its secrets do not, and that is told.
    with Serve(key=server.key) as server:
        server.use()
        sandbox = Sandbox.connect(sandbox.sandbox_id)
        said = sandbox.commands.run("curl -sS -m 20 https://b.test/quiet -H 'X-Key: own'").stdout
        check("e2b: after a restart it is reached end-to-end", '"at"' in said, said)
        equal("e2b: and without the secret", last("b.test").get("x-key"), "own")
        logs = subprocess.run(
            ["curl", "-sS", "-H", f"X-API-Key: {server.key}", f"{server.url}/v2/sandboxes/{sandbox.sandbox_id}/logs"],
            capture_output=True, text=True,
        ).stdout  # fmt: skip
        check("e2b: which an event tells", "network.rules are gone" in logs and "b.test" in logs, logs)
        with contextlib.suppress(Exception):
            sandbox.kill()


async def scenario() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = World(folder, certificates(folder))
        try:
            await operator(world, folder)
            e2b(world)
        finally:
            world.close()


if __name__ == "__main__":
    in_a_world(scenario, __file__)
