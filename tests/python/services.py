"""The tools for servers, with servers of many kinds, and their URLs in a real browser.

usage: services.py stdio|http modern|legacy

Runs with local sandboxes, whose URLs the loopback listener of `sandhold mcp` serves, and below `remote.py` with those of
`sandhold serve`.
"""

import asyncio
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import check, client, equal, main, note, run, until
from serve_kit import read_answer
from tools import Tools

HERE = Path(__file__).parent
SERVICES = {"start_service", "wait_for_service_ready", "get_public_url", "http_probe", "service_diagnostics"}
LOCAL = os.environ.get("SANDHOLD_PROVIDER") != "e2b"
PLAIN = bool(os.environ.get("SANDHOLD_TEST_PLAIN"))

SILENT = "import socket,sys,time\ns=socket.create_server(('127.0.0.1',{port}))\nheld=[]\nwhile True: held.append(s.accept())"
GREETS = "import socket\ns=socket.create_server(('127.0.0.1',{port}))\nwhile True:\n c,_=s.accept(); c.sendall(b'220 hello\\r\\n'); c.close()"
SLOW = (
    "import http.server,time\nclass H(http.server.BaseHTTPRequestHandler):\n def do_GET(self):\n  time.sleep(2.5); "
    "self.send_response(204); self.end_headers()\nhttp.server.ThreadingHTTPServer(('127.0.0.1',{port}),H).serve_forever()"
)
NODE = "require('http').createServer((q,r)=>r.end('node saw '+q.url)).listen({port},'127.0.0.1')"


def python(program: str, port: int) -> str:
    return f"python3 -c \"{program.format(port=port)}\""


def fetch(url: str, method: str = "GET", headers: dict[str, str] | None = None, host: str | None = None, body: bytes = b""):
    """One request to the listener that a URL names: status, headers, body. `host` in place of the URL's."""
    _, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    port = int(authority.rpartition(":")[2])
    lines = [f"{method} {slash}{path} HTTP/1.1" if slash else f"{method} / HTTP/1.1", f"Host: {host or authority}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        return read_answer(connection)


async def started(tools: Tools, port: int, cmd: str, what: str, **more) -> dict:
    """A service that must become ready, with a URL that answers from outside."""
    answer = await tools.good("start_service", cmd=cmd, port=port, **more)
    equal(f"{what}: ready", answer.get("ready"), True)
    check(f"{what}: a job and its pid", answer.get("job_id") and answer.get("pid", 0) > 0, answer)
    check(f"{what}: a URL of its port", re.match(rf"http://{port}-{answer['sandbox_id']}\.sandhold\.localhost:\d+$", answer.get("url", "")), answer)
    check(f"{what}: the text holds the URL and how long it lives", answer["url"] in answer["_text"] and "until the sandbox" in answer["_text"], answer["_text"])
    return answer


async def stop(tools: Tools, service: dict, port: int, what: str) -> None:
    await tools.good("kill_job", job_id=service["job_id"])
    gone = await tools.bad("wait_for_service_ready", {"port": port, "timeout_s": 0}, "nothing listens")
    equal(f"{what}: after kill_job nothing listens", gone.get("ready"), False)


async def a_web_server(tools: Tools) -> None:
    """One server with everything that can be asked of it."""
    service = await started(tools, 8101, "echo serving; exec python3 -m http.server 8101 --bind 127.0.0.1", "python", cwd="/tmp")
    equal("python: the status of its first answer", service.get("http_status"), 200)
    status, _, body = fetch(service["url"] + "/")
    check("python: its page is there for the host", status == 200 and b"Directory listing" in body, (status, body[:200]))
    jobs = await tools.good("list_jobs")
    check("it is a job", any(job["job_id"] == service["job_id"] for job in jobs["jobs"]), jobs)
    printed = await tools.good("get_job_status", job_id=service["job_id"])
    check("get_job_status reads what it prints", "serving" in printed["stdout"] and printed["status"] == "running", printed)

    taken = await tools.bad("start_service", {"cmd": "python3 -m http.server 8101", "port": 8101}, "8101 is taken")
    check("the one who holds a port is named", str(service["pid"]) in taken["_text"] or "http.server" in taken["_text"], taken["_text"])
    check("with its job and how to end it", f"kill_job {service['job_id']}" in taken["_text"], taken["_text"])
    equal("by a code", taken["error"]["code"], "port_in_use")
    jobs = await tools.good("list_jobs")
    equal("nothing was started for it", len([job for job in jobs["jobs"] if "8101" in job["cmd"]]), 1)

    seen = await tools.good("wait_for_service_ready", port=8101)
    equal("it is ready at once, with its status", (seen["ready"], seen["http_status"]), (True, 200))
    seen = await tools.good("wait_for_service_ready", port=8101, path="/missing")
    equal("any status is an answer", seen["http_status"], 404)
    url = await tools.good("get_public_url", port=8101)
    equal("get_public_url gives the same", (url["url"], url["listening"]), (service["url"], True))
    none = await tools.good("get_public_url", port=8102)
    equal("and says where nothing listens", none["listening"], False)
    status, headers, _ = fetch(none["url"] + "/", headers={"Accept": "text/html"})
    check("whose page says so", status == 502 and "text/html" in headers.get("content-type", ""), (status, headers))

    seen = await tools.good("service_diagnostics")
    row = next((row for row in seen["listening"] if row["port"] == 8101), {})
    equal("diagnostics: where it listens", row.get("addresses"), ["127.0.0.1"])
    check("diagnostics: who", "http.server" in row.get("command", "") and row.get("pid"), row)
    equal("diagnostics: which job", row.get("job_id"), service["job_id"])
    check("diagnostics: processes", any(busy["pid"] == row["pid"] or busy["command"] for busy in seen["busiest"]), seen["busiest"])
    check("diagnostics: what the job printed", any(service["job_id"] in log["name"] and "serving" in log["tail"] for log in seen["logs"]), seen["logs"])
    await run(tools.client, "for i in $(seq 1 1000); do echo line $i of a server; done > /tmp/server.log; echo hidden > /tmp/server.txt")
    seen = await tools.good("service_diagnostics", port=8102)
    equal("diagnostics of one port", seen["listening"], [])
    tail = next((log["tail"] for log in seen["logs"] if log["name"] == "/tmp/server.log"), "")
    check("diagnostics: the end of a log in /tmp", tail.endswith("line 1000 of a server\n") and "line 1 of" not in tail and tail.startswith("line "), tail)
    equal("and of no other file", [log["name"] for log in seen["logs"] if log["name"].startswith("/")], ["/tmp/server.log"])
    await stop(tools, service, 8101, "python")


async def probes(tools: Tools) -> dict:
    page = (HERE / "served" / "page.py").read_text()
    await tools.good("write_file", path="page.py", content=page)
    service = await started(tools, 8110, "exec python3 page.py 8110", "page")
    seen = await tools.good("http_probe", port=8110, path="/head", headers=[{"name": "X-Mine", "value": "yes"}])
    check("http_probe: headers arrive", "x-mine: yes" in seen["body"].lower() and "localhost:8110" in seen["body"], seen["body"])
    check("http_probe: status, headers, times", seen["status"] == 200 and any(h["name"].lower() == "content-type" for h in seen["headers"]) and seen["timings"]["total_ms"] > 0, seen)
    seen = await tools.good("http_probe", url=service["url"] + "/head")
    check("http_probe: the sandbox's own URL is reached from inside", seen["status"] == 200, seen)
    seen = await tools.good("http_probe", port=8110, path="/x", method="POST", body="äöü")
    equal("http_probe: a body is sent", seen["body"], "POST 6 bytes")
    seen = await tools.good("http_probe", url="http://127.0.0.1:8110/away")
    equal("http_probe: a redirect is told, not followed", (seen["status"], [h["value"] for h in seen["headers"] if h["name"].lower() == "location"]), (302, ["/elsewhere"]))
    seen = await tools.good("http_probe", port=8110, path="/binary")
    equal("http_probe: bytes", (base64.b64decode(seen["body"]), seen["encoding"]), (bytes(range(256)), "base64"))
    seen = await tools.good("http_probe", port=8110, path="/long")
    check("http_probe: a long body is cut, and it says so", seen["truncated"] and 1000 < len(seen["body"]) <= 30_000, (len(seen["body"]), seen["truncated"]))
    seen = await tools.good("http_probe", port=8110, path="/", method="head")
    equal("http_probe: HEAD", (seen["status"], seen["body"]), (200, ""))
    refused = await tools.bad("http_probe", {"port": 8111}, "nothing listens")
    equal("http_probe: nobody there", refused["error"]["code"], "connection_refused")
    await tools.bad("http_probe", {}, "neither url nor port")
    await tools.bad("http_probe", {"url": "gopher://x/"}, "http://")
    await tools.bad("http_probe", {"port": 8110, "headers": [{"name": "A B", "value": "x"}]}, "no name of a header")
    await tools.bad("http_probe", {"port": 70000}, "1 to 65535")
    tls = await tools.bad("http_probe", {"url": "https://127.0.0.1:8110/"}, "TLS", "SSL", "neither python3 nor curl")
    equal("http_probe: TLS by a program of the sandbox", tls["error"]["code"], "connection_failed")
    name = await tools.bad("http_probe", {"url": "http://nothing.invalid/"}, "nothing.invalid")
    check("http_probe: a name that is not there", name["error"]["code"] in ("name_not_found", "connection_failed"), name["_text"])
    return service


async def other_addresses(tools: Tools) -> None:
    for port, bind in ((8120, "0.0.0.0"), (8121, "::1"), (8122, "::")):
        service = await started(tools, port, f"exec python3 -m http.server {port} --bind {bind}", f"on {bind}")
        equal(f"on {bind}: it answers", service.get("http_status"), 200)
        status, _, body = fetch(service["url"] + "/")
        check(f"on {bind}: it is reached from outside", status == 200 and b"Directory listing" in body, (status, body[:200]))
        seen = await tools.good("http_probe", port=port)
        equal(f"on {bind}: and from inside", seen["status"], 200)
        diagnosed = await tools.good("service_diagnostics", port=port)
        check(f"on {bind}: diagnostics say where", bind in diagnosed["listening"][0]["addresses"], diagnosed["listening"])
        await stop(tools, service, port, f"on {bind}")


async def other_languages(tools: Tools) -> None:
    if (await run(tools.client, "command -v node || true"))["stdout"]:
        service = await started(tools, 8130, f"exec node -e \"{NODE.format(port=8130)}\"", "node")
        equal("node: its page", fetch(service["url"] + "/a?b")[2], b"node saw /a?b")
        await stop(tools, service, 8130, "node")
    else:
        note("the sandboxes have no node, so no server in Node was started")
    program = Path(os.environ["SANDHOLD_TEST_SERVER"]).read_bytes()
    step = 3 << 20
    for at in range(0, len(program), step):
        piece = base64.b64encode(program[at : at + step]).decode()
        await tools.good("write_file", path="server", content=piece, encoding="base64", append=at > 0)
    await run(tools.client, "chmod +x server")
    service = await started(tools, 8131, "exec ./server 127.0.0.1:8131", "rust")
    equal("rust: its page", fetch(service["url"] + "/a?b")[2], b"rust saw GET /a?b HTTP/1.1\n")
    await stop(tools, service, 8131, "rust")


async def not_http(tools: Tools) -> None:
    service = await started(tools, 8140, python(GREETS, 8140), "greets")
    equal("a server of something else is ready, without a status", service.get("http_status"), None)
    await stop(tools, service, 8140, "greets")
    service = await started(tools, 8141, python(SILENT, 8141), "silent")
    equal("a silent one too", service.get("http_status"), None)
    seen = await tools.bad("wait_for_service_ready", {"port": 8141, "path": "/", "timeout_s": 2}, "accepts connections, but did not answer")
    equal("unless an answer was asked for", seen.get("ready"), False)
    await stop(tools, service, 8141, "silent")
    service = await started(tools, 8142, python(SLOW, 8142), "slow", ready_path="/")
    equal("one that is slow to answer is waited for", service.get("http_status"), 204)
    await stop(tools, service, 8142, "slow")


async def failures(tools: Tools) -> None:
    crash = await tools.bad("start_service", {"cmd": "echo setting up; echo boom: no config >&2; exit 3", "port": 8150}, "ended before")
    equal("a crash: its exit code and what it printed", (crash.get("exit_code"), crash.get("stdout"), crash.get("stderr")), (3, "setting up\n", "boom: no config\n"))
    check("a crash: a model reads it", "boom: no config" in crash["_text"] and "exit code 3" in crash["_text"], crash["_text"])
    missing = await tools.bad("start_service", {"cmd": "no-such-server --port 8151", "port": 8151}, "ended before")
    equal("a program that is not there", missing.get("exit_code"), 127)
    other = await tools.bad("start_service", {"cmd": "exec python3 -m http.server 8153 --bind 127.0.0.1", "port": 8152, "ready_timeout_s": 1}, "does not listen on port 8152")
    check("one on another port: which", "8153" in other["error"]["hint"], other["_text"])
    await tools.good("kill_job", job_id=other["job_id"])
    never = await tools.bad("start_service", {"cmd": "echo thinking; sleep 1000", "port": 8154, "ready_timeout_s": 1}, "does not listen on port 8154")
    check("one that never listens: its job goes on and is named", f"kill_job {never['job_id']}" in never["_text"] and "thinking" in never["stdout"], never["_text"])
    equal("it runs", (await tools.good("get_job_status", job_id=never["job_id"]))["status"], "running")
    await tools.good("kill_job", job_id=never["job_id"])
    ended = await tools.bad("start_service", {"cmd": "echo all done", "port": 8155}, "ended before")
    check("one that ends well has not served: it must stay in the foreground", "foreground" in ended["_text"], ended["_text"])
    left = await started(tools, 8156, "nohup python3 -m http.server 8156 --bind 127.0.0.1 >/dev/null 2>&1 & sleep 0.3", "left behind")
    equal("one that was left behind by its command is ready", left.get("http_status"), 200)
    for port, more, word in (
        (0, {}, "port is 0"), (8157, {"ready_path": "x"}, "begin with /"), (8157, {"ready_timeout_s": 0}, "ready_timeout_s is 0"),
    ):  # fmt: skip
        await tools.bad("start_service", {"cmd": "true", "port": port, **more}, word)
    await tools.bad("start_service", {"cmd": " ", "port": 8157}, "cmd is empty")
    await tools.bad("get_public_url", {"port": 65536}, "1 to 65535")
    await tools.bad("service_diagnostics", {"port": 65536}, "1 to 65535")
    await tools.bad("wait_for_service_ready", {"port": 8157, "timeout_s": 41}, "timeout_s is 41")


async def no_public_traffic(tools: Tools) -> None:
    closed = await tools.good("create_sandbox", network={"allow_public_traffic": False})
    told = await tools.good("get_public_url", port=8170, sandbox_id=closed["sandbox_id"])
    check("a sandbox without public traffic: the URL comes with that", "No browser can open it" in told["_text"], told["_text"])
    equal("and is refused", fetch(told["url"] + "/")[0], 403)
    await tools.good("shutdown_sandbox", sandbox_id=closed["sandbox_id"])


async def patience(tools: Tools) -> None:
    """A server that needs longer than an answer may take goes on as a job."""
    late = await tools.good("start_service", cmd="sleep 50; exec python3 -m http.server 8160 --bind 127.0.0.1", port=8160, ready_timeout_s=120)
    equal("not ready yet", late.get("ready"), False)
    check("what to do next is said", "wait_for_service_ready" in late["_text"] and late["job_id"] in late["_text"], late["_text"])
    seen = await tools.good("wait_for_service_ready", port=8160, timeout_s=40)
    equal("and it is ready in the end", seen.get("http_status"), 200)


async def doomed_later(tools: Tools) -> None:
    """One that ends while it is waited for, after it was not ready in time."""
    late = await tools.bad("start_service", {"cmd": "sleep 4; echo no such database >&2; exit 7", "port": 8161, "ready_timeout_s": 1}, "does not listen")
    ended = await tools.bad("wait_for_service_ready", {"port": 8161, "timeout_s": 40}, "ended before anything answered")
    check("its end is told with what it printed", late["job_id"] in ended["_text"] and "no such database" in ended["_text"] and "exit code 7" in ended["_text"], ended["_text"])


def page(url: str, screenshot: Path) -> str:
    """The page as Chromium has it in the end: its elements as text."""
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as home:
        common = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={home}/profile",
                  "--no-first-run", "--disable-background-networking", "--disable-component-update"]  # fmt: skip
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        shown = subprocess.run([*common, "--dump-dom", url], capture_output=True, timeout=120, env=environment, check=False)
        subprocess.run([*common, "--window-size=900,600", f"--screenshot={screenshot}", url], capture_output=True, timeout=120, env=environment, check=False)
    return shown.stdout.decode(errors="replace")


async def in_a_browser(service: dict) -> None:
    if not shutil.which("chromium"):
        note("Chromium is not installed, so no service was shown in a browser")
        return
    picture = Path(os.environ.get("SANDHOLD_TEST_PICTURES", tempfile.gettempdir())) / "services.png"
    shown = await asyncio.to_thread(page, service["url"] + "/", picture)
    check("Chromium shows the page", "<h1>From the sandbox</h1>" in shown, shown[-500:])
    check("a WebSocket speaks both ways", "socket: echo of hello from the browser" in shown, shown[-500:])
    check("a request with a body arrives", "put: PUT 2000 bytes" in shown, shown[-500:])
    check("the screenshot is a picture of some size", picture.is_file() and picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 5000, picture)
    missing = await asyncio.to_thread(page, service["url"].replace("8110-", "8119-") + "/", picture.with_name("closed.png"))
    check("a port that is closed has a page that says so", "Nothing listens on port 8119" in missing, missing[-500:])


async def only_what_it_is_for(tools: Tools, service: dict) -> None:
    """The loopback listener serves ports of sandboxes by host name, and nothing else. Each refusal beside what is served."""
    url, sandbox = service["url"], service["sandbox_id"]
    authority = url.partition("://")[2]
    domain = authority.partition(".")[2]

    def served(what: str) -> None:
        equal(f"{what}: control", fetch(url + "/")[0], 200)

    served("before")
    by_header = {"E2b-Sandbox-Id": sandbox, "E2b-Sandbox-Port": "8110"}
    for what, host, headers in (
        ("an address", f"127.0.0.1:{domain.rpartition(':')[2]}", {}), ("localhost", "localhost", {}), ("another name", "example.com", {}),
        ("the domain itself", domain, {}), ("a header that names the sandbox", "localhost", by_header), ("no sandbox in the name", f"8110.{domain}", {}),
        ("another domain", f"8110-{sandbox}.example.com", {}),
    ):  # fmt: skip
        for path in ("/", "/sandboxes", "/v2/sandboxes", "/health", "/metrics", "/files?path=x&signature=v1_x"):
            status, _, body = fetch(url + path, host=host, headers=headers)
            check(f"{what}: {path} is not there", status == 404 and b"only the ports of sandboxes" in body, (status, body[:200]))
        status, _, body = fetch(url + "/v2/sandboxes", "POST", host=host, headers={**headers, "Content-Type": "application/json"}, body=b"{}")
        equal(f"{what}: no sandbox can be made", status, 404)
    served("after the API")
    status, headers, body = fetch(url + "/", host="example.com", headers={"Accept": "text/html"})
    check("a browser gets a page", status == 404 and b"<html" in body and "text/html" in headers["content-type"], (status, body[:200]))

    envd = "http://" + authority.replace("8110-", "49983-")
    for method, path in (
        ("GET", "/envs"), ("GET", "/metrics"), ("GET", "/health"), ("GET", "/sandhold/ports"), ("POST", "/process.Process/List"), ("POST", "/process.Process/Start"),
        ("POST", "/filesystem.Filesystem/ListDir"), ("POST", "/files/compose"), ("PUT", "/files?path=x"), ("OPTIONS", "/files?path=x"), ("GET", "//files?path=x"),
    ):  # fmt: skip
        body = b"{}" if method == "POST" else b""
        status, _, said = fetch(envd + path, method, headers={"Content-Type": "application/json", "X-Access-Token": "x"}, body=body)
        check(f"the daemon: {method} {path} is not there", status == 404 and b"only signed URLs" in said, (status, said[:200]))
    for path in ("/files?path=/etc/passwd", "/files?path=/etc/passwd&signature=v1_AAAA", "/files?path=/etc/passwd&signature=", "/files"):
        for method in ("GET", "POST"):
            status, _, said = fetch(envd + path, method, headers={"X-Access-Token": "x"})
            check(f"the daemon: {method} {path} is refused", status == 401 and b"root:" not in said, (status, said[:200]))
    status, _, said = fetch(envd, "CONNECT", headers={"X-Access-Token": "x"}, host=envd.partition("://")[2])
    check("the daemon: no tunnel", status == 404, (status, said[:200]))
    await tools.good("write_file", path="signed.txt", content="for the browser")
    signed = (await tools.good("presigned_download_url", path="signed.txt"))["url"]
    check("a signed URL is one of the listener", signed.startswith(envd + "/files?"), signed)
    status, _, said = fetch(signed)
    equal("it opens the file: control", (status, said), (200, b"for the browser"))
    for what, other in (("another file", signed.replace("signed.txt", "page.py")), ("another sandbox's name", signed.replace(f"49983-{sandbox}", "49983-i" + "0" * 19))):
        status, _, said = fetch(other)
        check(f"it does not open {what}", status in (401, 502) and b"import" not in said, (status, said[:200]))
    equal("nor is it for writing", fetch(signed, "POST", body=b"x")[0], 401)
    equal("nor for another address of the listener", fetch(signed, host="localhost")[0], 404)
    served("after the daemon")

    for other in ("i" + "0" * 19, sandbox[:-1] + ("0" if sandbox[-1] != "0" else "1")):
        status, headers, body = fetch(url + "/", host=authority.replace(sandbox, other), headers={"Accept": "text/html"})
        check("a sandbox that is not there has a page that says so", status == 502 and b"Sandbox not found" in body, (status, body[:200]))
        status, _, body = fetch(url + "/files?path=x", host=authority.replace(sandbox, other).replace("8110-", "49983-"))
        check("nor has it a daemon", status == 502 and b"not found" in body, (status, body[:200]))
    status, _, body = fetch(url + "/", host=authority.replace("8110-", "99999-"))
    check("a port that cannot be", status == 400 and b"1 and 65535" in body, (status, body[:200]))
    served("in the end")


async def scenario(transport: str, era: str) -> None:
    async with client(transport, era, "--toolsets", "services,files,commands,sandbox,transfer") as connected:
        tools = Tools(connected, (await connected.list_tools()).tools)
        equal("the toolset is there", SERVICES - set(tools.listed), set())
        waiting = [asyncio.create_task(doomed_later(tools))]
        # It takes a minute: once with the daemon's own endpoints, once without.
        if PLAIN or (LOCAL and transport == "stdio"):
            waiting.append(asyncio.create_task(patience(tools)))
        await a_web_server(tools)
        service = await probes(tools)
        await in_a_browser(service)
        if LOCAL:
            await only_what_it_is_for(tools, service)
        await other_addresses(tools)
        await other_languages(tools)
        await not_http(tools)
        await failures(tools)
        await no_public_traffic(tools)
        await asyncio.gather(*waiting)
        equal("every tool was called with success", SERVICES - tools.good_calls, set())
        equal("every tool was called with bad arguments", SERVICES - tools.bad_calls, set())
        url = service["url"]
        await tools.good("shutdown_sandbox", sandbox_id=service["sandbox_id"])
        equal("with the sandbox its URL ends", fetch(url + "/")[0], 502)
        check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())
    if LOCAL:

        def closed() -> bool:
            try:
                fetch(url + "/")
            except OSError:
                return True
            return False

        check("with the server its listener ends", until(closed, 10))


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
