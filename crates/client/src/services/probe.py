import base64, http.client, json, signal, socket, ssl, sys, time, urllib.parse

asked = json.loads(sys.stdin.buffer.read(int(sys.argv[1])))
start = time.perf_counter()


def passed():
    return round((time.perf_counter() - start) * 1000, 2)


def failed(kind, message):
    print(json.dumps({"failure": {"kind": kind, "message": str(message)[:500]}}))
    sys.exit(0)


def late(*_):
    raise TimeoutError


signal.signal(signal.SIGALRM, late)
signal.setitimer(signal.ITIMER_REAL, max(asked["timeout_ms"], 1) / 1000)
try:
    url = urllib.parse.urlsplit(asked["url"])
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc:
        failed("invalid", "the URL must be http://host:port/path or https://host:port/path, without a user")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port)
    path = (url.path or "/") + ("?" + url.query if url.query else "")
    given = {name.lower() for name, _ in asked["headers"]}
    body = base64.b64decode(asked["body"])
    connection.connect()
    connected = passed()
    connection.putrequest(asked["method"], path, skip_host="host" in given, skip_accept_encoding=True)
    for name, value in asked["headers"]:
        connection.putheader(name, value)
    for name, value in (("User-Agent", "sandhold"), ("Accept", "*/*"), ("Connection", "close")):
        if name.lower() not in given:
            connection.putheader(name, value)
    if body and "content-length" not in given:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    answer = connection.getresponse()
    first = passed()
    data = answer.read(asked["max_body"] + 1)
    print(json.dumps({"answer": {
        "status": answer.status,
        "headers": [[name.lower(), value] for name, value in answer.getheaders()],
        "body": base64.b64encode(data[: asked["max_body"]]).decode(),
        "truncated": len(data) > asked["max_body"],
        "connect_ms": connected, "first_byte_ms": first, "total_ms": passed(),
    }}))
except ConnectionRefusedError:
    failed("refused", f"nothing listens on {url.netloc}")
except socket.gaierror as error:
    failed("name", f"the name {url.hostname} was not found: {error.strerror}")
except TimeoutError:
    failed("timeout", f"no complete answer within {asked['timeout_ms']} ms")
except ssl.SSLError as error:
    failed("connection", f"TLS failed: {error}")
except (ValueError, http.client.InvalidURL) as error:
    failed("invalid", error)
except (OSError, http.client.HTTPException) as error:
    failed("connection", f"no HTTP answer: {error!r}")
