"""E2B's SDK documentation, "Internet access" and "Upload and download data": `get_host` with real servers, traffic
tokens, and signed URLs with clients that know nothing of E2B."""

import time

import httpx

from kit import check, equal, until
from sdk_kit import HTTP_SERVER, WEBSOCKET_SERVER, WebSocket, World, plain_id, serving


def client(world: World) -> httpx.Client:
    return httpx.Client(timeout=10, trust_env=False, verify=str(world.server.authority) if world.server.authority else True)


def checks(world: World) -> None:
    with client(world) as web:
        serving(world, world.sandbox, "http", HTTP_SERVER, 8000)
        serving(world, world.sandbox, "websocket", WEBSOCKET_SERVER, 8001)
        hosts(world, web)
        sockets(world)
        refusals(world, web)
        signed(world, web)
        if world.since(2, 45):
            tokens(world, web)


def hosts(world: World, web: httpx.Client) -> None:
    host = world.sandbox.get_host(8000)
    check("get_host: <port>-<id>.<domain>", host.startswith(f"8000-{plain_id(world.sandbox.sandbox_id)}") and host.endswith(world.server.domain), host)
    base = f"{world.scheme}://{host}"
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        body = b"" if method in ("GET", "OPTIONS") else b"sent"
        answer = web.request(method, f"{base}/path?q=1%202", content=body, headers={"X-Asked": "this"})
        equal(f"get_host: {method}", (answer.status_code, answer.content), (200, f"{method} /path?q=1%202 {host} this ".encode() + body))
    equal("get_host: its status", web.get(f"{base}/teapot").status_code, 418)
    equal("get_host: its headers", web.get(f"{base}/").headers.get("X-Told"), "yes")
    equal("get_host: chunks", web.get(f"{base}/stream").content, b"onetwo")
    large = bytes(range(256)) * 8192
    equal("get_host: 2 MiB up and down", web.post(f"{base}/large", content=large).content[-len(large) :], large)
    if world.since(2, 25) and world.scheme == "http":
        route = {"E2b-Sandbox-Id": world.sandbox.sandbox_id, "E2b-Sandbox-Port": "8000"}
        equal("headers name the sandbox too", web.get(f"{world.server.url}/by-headers", headers=route).content.split()[1], b"/by-headers")


def sockets(world: World) -> None:
    socket = WebSocket(world, world.sandbox.get_host(8001))
    equal("websocket: switches", socket.status, 101)
    equal("websocket: echoes", [socket.echo(data) for data in (b"one", b"two")], [b"echo one", b"echo two"])
    equal("websocket: a long message", socket.echo(b"x" * 40_000), b"echo " + b"x" * 40_000)
    time.sleep(0.3)
    equal("websocket: after a rest", socket.echo(b"three"), b"echo three")
    equal("websocket: closes", socket.close(), b"\x88\x00")


def refusals(world: World, web: httpx.Client) -> None:
    base = f"{world.scheme}://{world.sandbox.get_host(8009)}"
    answer = web.get(f"{base}/")
    told = answer.json() if answer.headers["content-type"].startswith("application/json") else {}
    equal("a closed port: 502 in E2B's shape", (answer.status_code, told.get("code"), told.get("port"), told.get("sandboxId")), (502, 502, 8009, plain_id(world.sandbox.sandbox_id)))
    check("a closed port: the words the SDKs look for", "port is not open" in told.get("message", ""), told)
    page = web.get(f"{base}/", headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130 Safari/537.36", "Accept": "text/html"})
    check("a closed port: a page for browsers", page.status_code == 502 and "<html" in page.text.lower(), page.text)
    nobody = world.sandbox.get_host(8000).replace(plain_id(world.sandbox.sandbox_id), "i" + "2" * 20)
    answer = web.get(f"{world.scheme}://{nobody}/")
    check("no such sandbox: 502 and why", answer.status_code == 502 and "was not found" in answer.text, answer.text)


def signed(world: World, web: httpx.Client) -> None:
    sandbox = world.sandbox
    use = {} if world.since(2) else {"use_signature": True}
    sandbox.files.write("signed/a file.txt", "signed content")
    url = sandbox.download_url("signed/a file.txt", **use)
    equal("download_url", web.get(url).text, "signed content")
    equal("download_url: a part", web.get(url, headers={"Range": "bytes=7-", "Accept-Encoding": "identity"}).text, "content")
    answer = web.get(url, headers={"Accept-Encoding": "gzip"})
    equal("download_url: packed", (answer.headers.get("content-encoding"), answer.text), ("gzip", "signed content"))
    check("download_url: a file's name", "a file.txt" in answer.headers.get("content-disposition", "").replace("%20", " "), answer.headers)
    longer = sandbox.download_url("signed/a file.txt", use_signature_expiration=60, **use)
    equal("download_url: with its expiry", web.get(longer).text, "signed content")
    short = sandbox.download_url("signed/a file.txt", use_signature_expiration=1, **use)
    expired = until(lambda: (answer := web.get(short)).status_code != 200 and answer, 6, 0.2)
    equal("download_url: expired", expired and expired.json(), {"code": 401, "message": "signature is already expired"})
    upload = sandbox.upload_url("signed/up.txt", use_signature_expiration=60, **use)
    answer = web.post(upload, files={"file": ("ignored.txt", b"uploaded")})
    equal("upload_url", (answer.status_code, answer.json()[0]["path"], sandbox.files.read("signed/up.txt")), (200, "/home/user/signed/up.txt", "uploaded"))
    for name, answer in (
        ("no signature", web.get(url.split("&signature")[0])),
        ("a wrong signature", web.get(url.replace("signature=v1_", "signature=v1_x"))),
        ("another file", web.get(url.replace("a%20file.txt", "up.txt"))),
        ("a signature to read does not write", web.post(url, files={"file": ("a", b"overwritten")})),
        ("a signature to write does not read", web.get(upload)),
        ("an expiry that was changed", web.get(longer.rsplit("=", 1)[0] + "=99999999999")),
    ):
        equal(f"signed URLs: {name}", (answer.status_code, answer.json().get("code")), (401, 401))
    equal("signed URLs: what was refused changed nothing", sandbox.files.read("signed/a file.txt"), "signed content")
    equal("signed URLs: nothing there", web.get(sandbox.download_url("signed/no", **use)).status_code, 404)
    if not world.one_id():
        sandbox.commands.run("echo -n \"root's\" > /root/of-root.txt", user="root")
        equal("signed URLs: as another user", web.get(sandbox.download_url("of-root.txt", user="root", **use)).text, "root's")


def tokens(world: World, web: httpx.Client) -> None:
    closed = world.make(timeout=60, network={"allow_public_traffic": False})
    check("allow_public_traffic=False: there is a token", closed.traffic_access_token)
    serving(world, closed, "http", HTTP_SERVER, 8000)
    serving(world, closed, "websocket", WEBSOCKET_SERVER, 8001)
    url = f"{world.scheme}://{closed.get_host(8000)}/"
    answer = web.get(url)
    equal("traffic: no token", (answer.status_code, answer.json().get("code")), (403, 403))
    check("traffic: what is missing", "'e2b-traffic-access-token' is missing" in answer.text, answer.text)
    answer = web.get(url, headers={"e2b-traffic-access-token": "wrong"})
    check("traffic: a wrong token", answer.status_code == 403 and "is invalid" in answer.text, answer.text)
    given = {"e2b-traffic-access-token": closed.traffic_access_token}
    equal("traffic: the token", web.get(url, headers=given).status_code, 200)
    equal("traffic: a WebSocket without", WebSocket(world, closed.get_host(8001)).status, 403)
    socket = WebSocket(world, closed.get_host(8001), given)
    equal("traffic: a WebSocket with", (socket.status, socket.echo(b"in")), (101, b"echo in"))
    socket.close()
    equal("traffic: the SDK itself needs none", closed.commands.run("echo still").stdout, "still\n")
    equal("traffic: signed URLs need none", web.get(closed.download_url("/tmp/http_server.py")).status_code, 200)
    if world.since(2, 60):
        equal("traffic: get_info tells", closed.get_info().network.get("allow_public_traffic"), False)
    closed.kill()
    masked = world.make(timeout=60, network={"mask_request_host": "inside.example:${PORT}"})
    serving(world, masked, "http", HTTP_SERVER, 8000)
    equal("mask_request_host", web.get(f"{world.scheme}://{masked.get_host(8000)}/x").content.split()[2], b"inside.example:8000")
    masked.kill()
    answer = web.get(f"{world.scheme}://{masked.get_host(8000)}/")
    check("traffic: after its end", answer.status_code == 502 and "was not found" in answer.json()["message"], answer.text)
