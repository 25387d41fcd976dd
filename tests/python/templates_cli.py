"""Templates by the program's own command and over MCP: from an image in files, a Dockerfile, an image of a registry on the
loopback; lists, damage that `verify` finds, and builds on a server elsewhere.

usage: templates_cli.py cli|mcp|remote
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from kit import BIN, HOME, call, check, client, equal, main, note, run, server_env, shown
from registry import Layer, Registry, digest, host_layer
from serve_kit import Serve

PATH = "PATH=/usr/local/bin:/usr/bin:/bin"
DOCKERFILE = """\
ARG BASE
FROM $BASE
ARG WHAT=nothing
ENV GREETING="hello $WHAT"
WORKDIR /srv/app
COPY --chmod=755 app/ .
COPY <<EOF note.txt
from here
EOF
RUN echo "$WHAT was built" > built && id -un > builder
EXPOSE 80
"""
NO_LAYERS = ("cannot be built here", "keeps no layers")


def sandhold(*arguments: str, seconds: float = 180, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BIN, *arguments], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, env={**os.environ, **server_env(**env)},
    )  # fmt: skip


def template(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    return sandhold("template", *arguments, **env)


def told(ended: subprocess.CompletedProcess) -> str:
    return f"exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"


def layers() -> list[bytes]:
    second = Layer().folder("opt").file("opt/added", b"second layer\n").file("opt/gone", b"x").done()
    return [host_layer(), second, Layer().file("opt/.wh.gone").done()]


def layout(folder: Path, image: list[bytes], **config) -> Path:
    """An image in the OCI's layout."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict:
        (blobs / digest(data).removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}

    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    diffs = {"type": "layers", "diff_ids": [digest(layer) for layer in image]}
    settings = json.dumps({"architecture": architecture, "os": "linux", "config": config, "rootfs": diffs}).encode()
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(settings, "config.v1+json"),
        "layers": [blob(gzip.compress(layer, 1, mtime=0), "layer.v1.tar+gzip") for layer in image],
    }).encode()  # fmt: skip
    index = {"schemaVersion": 2, "manifests": [blob(manifest, "manifest.v1+json")]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def archive(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for one in sorted(folder.rglob("*")):
            tar.add(one, str(one.relative_to(folder)), recursive=False)
    return path


def saved(path: Path, image: list[bytes], **config) -> Path:
    """What `docker save` writes."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    diffs = {"type": "layers", "diff_ids": [digest(layer) for layer in image]}
    settings = json.dumps({"architecture": architecture, "os": "linux", "config": config, "rootfs": diffs}).encode()
    name = digest(settings).removeprefix("sha256:") + ".json"
    names = [f"{number}/layer.tar" for number in range(len(image))]
    manifest = json.dumps([{"Config": name, "RepoTags": ["tools:latest"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as tar:
        for file, data in [(name, settings), *zip(names, image), ("manifest.json", manifest)]:
            info = tarfile.TarInfo(file)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def context(folder: Path) -> Path:
    (folder / "app" / "sub").mkdir(parents=True)
    (folder / "app" / "main").write_text("copied\n")
    (folder / "app" / "sub" / "secret").write_text("left out\n")
    (folder / ".dockerignore").write_text("**/secret\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def in_one(name: str, script: str) -> str:
    ended = sandhold("run", "--no-tty", "--template", name, "bash", "-c", script)
    return ended.stdout if ended.returncode == 0 else told(ended)


def none_here(built: subprocess.CompletedProcess) -> bool:
    """Whether this machine has no layers, which is said."""
    if not any(text in built.stderr for text in NO_LAYERS):
        return False
    note(f"templates: {built.stderr.strip()[-300:]}")
    check("a machine without layers says so", built.returncode != 0)
    return True


async def cli() -> None:
    here = Path.cwd()
    image = layout(here / "layout", layers(), Env=[PATH, "FROM_IMAGE=yes"])
    empty = template("list")
    check("no templates", empty.returncode == 0 and "no templates yet" in empty.stdout, told(empty))
    built = template("build", "files:v1", "--from-oci", str(image), "--tag", "newest")
    if none_here(built):
        return
    check("a layout is built", built.returncode == 0 and built.stdout.startswith("files:v1 is ready: template "), told(built))
    check("layers are told one by one", "layer 1 of 3" in built.stderr and "layer 3 of 3" in built.stderr, built.stderr)
    check("in plain lines where no terminal is", "\x1b" not in built.stderr and "\r" not in built.stderr, built.stderr)
    script = "cat /opt/added; [ -e /opt/gone ] || echo hidden; echo $FROM_IMAGE; id -un"
    equal("its sandboxes", in_one("files:v1", script), "second layer\nhidden\nyes\nuser\n")
    tar = archive(image, here / "layout.tar")
    again = template("build", "files:v2", "--from-oci", str(tar))
    check("an archive of it; its layers are known", again.returncode == 0 and "CACHED 3 of 3 layers" in again.stderr, told(again))
    docker = saved(here / "saved.tar", layers(), Env=[PATH, "FROM_IMAGE=docker"])
    third = template("build", "saved", "--from-oci", f"docker-archive:{docker}:tools:latest")
    check("what docker save writes", third.returncode == 0, told(third))
    equal("its sandboxes, too", in_one("saved", "echo $FROM_IMAGE; cat /opt/added"), "docker\nsecond layer\n")

    with Registry() as registry:
        folder = context(here / "context")
        base = registry.add("tools", layers(), Env=[PATH])
        arguments = ["-f", str(folder / "Dockerfile"), "--build-arg", f"BASE={base}", "--build-arg", "WHAT=this", "--memory-mb", "256"]
        web = template("build", "web", *arguments)
        check("a Dockerfile is built", web.returncode == 0, told(web))
        check("what is left out is told with its line", "line 11: EXPOSE was left out" in web.stderr, web.stderr)
        script = "pwd; cat main note.txt built builder; ls -A sub; stat -c %a main; echo $GREETING; id -un"
        wanted = "/srv/app\ncopied\nfrom here\nthis was built\n"
        got = in_one("web", "cd /srv/app; " + script)
        check("every instruction holds", got.startswith(wanted) and "secret" not in got and got.endswith("755\nhello this\nuser\n"), got)
        second = template("build", "web:again", *arguments, str(folder))
        check("the second time nothing is done", "CACHED" in second.stderr and "this was built" not in second.stderr, told(second))
        (folder / "app" / "main").write_text("other\n")
        third = template("build", "web:changed", *arguments)
        equal("a file that changed is copied", in_one("web:changed", "cat /srv/app/main"), "other\n")
        bad = folder / "Bad"
        bad.write_text(f"FROM {base}\nRUN echo before; echo why >&2; exit 7\n")
        failed = template("build", "bad", "-f", str(bad))
        last = failed.stderr.strip().splitlines()[-1]
        check("a step that fails", failed.returncode == 1 and "exit status 7" in last and "at step 3" in last, told(failed))
        check("with what it printed", "before" in failed.stderr and "why" in failed.stderr, failed.stderr)
        for text, why in (("FROM a\nCOPY none /\n", "none"), ("FROM /etc/shadow\n", "FROM names an image"), ("FROM a\nRUN --mount=x y\n", "--mount")):
            bad.write_text(text)
            refused = template("build", "bad", "-f", str(bad))
            check(f"refused before anything is done: {why}", refused.returncode == 1 and why in refused.stderr, told(refused))
    for wrong in (["build", "x"], ["build", "x", "--from-image", "a", "--from-template", "base"], ["build", "x", "--packages", "a"]):
        ended = template(*wrong)
        check(f"{wrong} is refused", ended.returncode == 2, told(ended))
    file = template("build", "x", "--from-image", str(image))
    check("a path is no image of a registry", file.returncode == 1 and "--from-oci" in file.stderr, told(file))
    absent = template("build", "x", "--from-oci", str(here / "none"))
    check("a path that is not there", absent.returncode == 1 and "cannot be read" in absent.stderr, told(absent))
    own = template("build", "over-base", "--from-template", "base", "--start-cmd", "sleep 86000", "--ready-cmd", "true")
    check("base with a start command", own.returncode == 0, told(own))
    looking()
    damage()


def looking() -> None:
    rows = {row["names"][0]: row for row in json.loads(template("list", "--json").stdout)}
    equal("list: names", sorted(rows), ["bad", "files", "over-base", "saved", "web"])
    equal("list: tags", sorted(tag["tag"] for tag in rows["files"]["tags"]), ["newest", "v1", "v2"])
    equal("list: states", (rows["web"]["state"], rows["bad"]["state"]), ("ready", "failed"))
    check("list: sizes", rows["saved"]["size_bytes"] > 100_000 and rows["bad"]["size_bytes"] is None, rows)
    table = template("list").stdout.splitlines()
    check("the table", table[0].split() == ["NAME", "TAGS", "SIZE", "AGE", "STATE"] and len(table) == 6, table)
    web = json.loads(template("inspect", "web", "--json").stdout)
    ready = [build for build in web["builds"] if build["status"] == "ready"]
    setup = ready[0]["setup"]
    equal("inspect: every layer has a size", len(setup["layerBytes"]), len(setup["layers"]))
    check("inspect: and they are there", all(isinstance(size, int) for size in setup["layerBytes"]), setup)
    equal("inspect: the settings", (setup["base"], setup["workdir"], setup["user"], setup["envs"]["GREETING"]),
          ("empty", "/srv/app", "user", "hello this"))  # fmt: skip
    equal("inspect: memory", ready[0]["memoryMB"], 256)
    text = template("inspect", "over-base")
    check("inspect: text", "starts: sleep 86000" in text.stdout and "ready when: true" in text.stdout, told(text))
    missing = template("inspect", "none")
    check("inspect: none", missing.returncode == 1 and "no template none" in missing.stderr, told(missing))
    unknown = sandhold("run", "--no-tty", "--template", "wep", "true")
    check("a name that is not known", unknown.returncode != 0 and '"web"' in unknown.stderr, told(unknown))


def overwrite(file: Path, text: str) -> bool:
    """Changes a file of a layer, which leaves its size and times as they were. It may be root's of a user's sandboxes."""
    script = "import os,sys; f,t=sys.argv[1:]; s=os.stat(f); os.chmod(f,0o644); open(f,'r+').write(t); os.utime(f,ns=(s.st_atime_ns,s.st_mtime_ns))"
    own = [] if file.stat().st_uid == os.getuid() else ["unshare", "--map-root-user", "--map-auto", "--"]
    try:
        return subprocess.run([*own, sys.executable, "-c", script, str(file), text]).returncode == 0
    except FileNotFoundError:
        return False


def damage() -> None:
    whole = template("verify")
    check("all layers are whole", whole.returncode == 0 and "layers are whole" in whole.stdout, told(whole))
    check("those of one template", template("verify", "saved").returncode == 0)
    check("of none", template("verify", "none").returncode == 1)
    found = json.loads(template("inspect", "saved", "--json").stdout)
    lowest = [build for build in found["builds"] if build["status"] == "ready"][0]["setup"]["layers"]
    for layer in lowest:
        file = HOME / "layers" / "store" / layer / "fs" / "opt" / "added"
        if file.exists():
            break
    if not overwrite(file, "Second layer\n"):
        note("verify: this machine has no unshare --map-auto, no file of a layer could be damaged")
        return
    bad = template("verify")
    line = [line for line in bad.stdout.splitlines() if line.startswith("damaged")]
    check("a byte that changed is found", bad.returncode == 1 and len(line) == 1 and layer[:12] in line[0], told(bad))
    check("with whom it concerns", line and all(f"template {name}" in line[0] for name in ("files", "saved", "web")), line)
    check("one template at a time, too", template("verify", "saved").returncode == 1)
    equal("another one has nothing of it", template("verify", "over-base").returncode, 0)
    overwrite(file, "second layer\n")
    equal("put right it is whole again", template("verify").returncode, 0)
    (HOME / "layers" / "store" / layer).rename(HOME / "layer-aside")
    gone = template("verify")
    check("one that is missing is found", gone.returncode == 1 and f"missing  {layer[:12]}" in gone.stdout, told(gone))
    (HOME / "layer-aside").rename(HOME / "layers" / "store" / layer)
    equal("and back", template("verify").returncode, 0)

    removed = template("rm", "files:v1", "saved", "none")
    check("rm goes on over what is not there", removed.returncode == 1 and "no template none" in removed.stderr, told(removed))
    names = [row["names"][0] for row in json.loads(template("list", "--json").stdout)]
    equal("rm", sorted(names), ["bad", "files", "over-base", "web"])
    equal("rm: the other tags stay", in_one("files:v2", "echo $FROM_IMAGE"), "yes\n")
    check("rm: the tag is gone", "has no tag" in in_one("files:v1", "true"))
    equal("rm: all", template("rm", *names).returncode, 0)
    equal("nothing is left", json.loads(template("list", "--json").stdout), [])
    equal("and nothing is wrong", template("verify").returncode, 0)


async def follow(connected, job: str) -> dict:
    """Reads a job to its end; its whole output in `all`."""
    whole, cursor = "", None
    while True:
        answer = await call(connected, "get_job_status", {"job_id": job, "wait_s": 30, "cursor": cursor})
        whole += answer.get("stdout", "") + answer.get("stderr", "")
        cursor = answer.get("cursor")
        if answer.get("status") != "running" and not answer.get("more"):
            return {**answer, "all": whole}


async def mcp() -> None:
    with Registry() as registry:
        base = registry.add("tools", layers(), Env=[PATH, "FROM_IMAGE=yes"])
        async with client("stdio", "modern", "--toolsets", "all", "--allow-private-network", "127.0.0.0/8") as connected:
            none = await call(connected, "list_templates")
            check("no templates", none.get("templates") == [] or any(text in none["_text"] for text in NO_LAYERS), shown(none))
            started = await call(connected, "build_template", {"name": "tools", "from_image": base})
            if any(text in started["_text"] for text in NO_LAYERS):
                note(f"templates: {started['_text'][:300]}")
                check("a machine without layers says so", started["_error"])
                return
            check("a build is a job", not started["_error"] and started.get("template_id"), shown(started))
            ended = await follow(connected, started["job_id"])
            check("its log is the job's output", "layer 3 of 3" in ended["all"] and "template tools is ready" in ended["all"], ended["all"])
            equal("how it ended", (ended["status"], ended.get("exit_code"), "sandbox_id" in ended), ("done", 0, False))
            jobs = await call(connected, "list_jobs")
            row = [job for job in jobs["jobs"] if job["job_id"] == started["job_id"]]
            check("it is among the jobs", len(row) == 1 and "sandbox_id" not in row[0], shown(jobs))
            made = await call(connected, "create_sandbox", {"template": "tools"})
            ran = await run(connected, "cat /opt/added; echo $FROM_IMAGE", sandbox_id=made["sandbox_id"])
            equal("create_sandbox takes it", ran["stdout"], "second layer\nyes\n")
            text = f"FROM {base}\nRUN echo made > /opt/made\nCMD sleep 86000\n"
            started = await call(connected, "build_template", {"name": "more", "dockerfile": text, "ready_cmd": "true"})
            ended = await follow(connected, started["job_id"])
            equal("a Dockerfile", (ended["status"], ended.get("exit_code")), ("done", 0))
            made = await call(connected, "create_sandbox", {"template": "more"})
            ran = await run(connected, "cat /opt/made", sandbox_id=made["sandbox_id"])
            equal("what it made is there", ran["stdout"], "made\n")
            listed = await call(connected, "list_templates")
            equal("list_templates", {row["names"][0]: row["state"] for row in listed["templates"]}, {"tools": "ready", "more": "ready"})

            failing = await call(connected, "build_template", {"name": "bad", "dockerfile": f"FROM {base}\nRUN echo why >&2; exit 3\n"})
            ended = await follow(connected, failing["job_id"])
            check("a step that fails", ended.get("exit_code") == 1 and "exit status 3" in ended["all"] and "at step 3" in ended["all"], ended["all"])
            endless = await call(connected, "build_template", {"name": "bad", "dockerfile": f"FROM {base}\nRUN echo begun; sleep 86000\n"})
            waited = await call(connected, "get_job_status", {"job_id": endless["job_id"]})
            while "begun" not in waited["stdout"]:
                waited = await call(connected, "get_job_status", {"job_id": endless["job_id"], "wait_s": 1})
            killed = await call(connected, "kill_job", {"job_id": endless["job_id"]})
            equal("kill_job ends a build", killed.get("status"), "cancelled")
            for _ in range(100):
                listed = await call(connected, "list_templates")
                states = {row["names"][0]: row["state"] for row in listed["templates"]}
                if states["bad"] != "building":
                    break
                await call(connected, "get_job_status", {"job_id": failing["job_id"], "wait_s": 1})
            equal("the server gave it up", states["bad"], "error")

            for arguments, code in (
                ({"from_image": "/etc/shadow"}, "invalid_argument"),
                ({"from_image": f"oci:{Path.cwd()}"}, "invalid_argument"),
                ({"from_image": "docker-archive:/x.tar"}, "invalid_argument"),
                ({"dockerfile": "FROM a\nCOPY x /\n"}, "invalid_argument"),
                ({"dockerfile": "FROM oci:/x\n"}, "invalid_argument"),
                ({}, "invalid_argument"),
                ({"from_image": "a", "from_template": "b"}, "invalid_argument"),
                ({"from_template": "none"}, "template_not_found"),
            ):
                refused = await call(connected, "build_template", {"name": "x", **arguments})
                equal(f"refused: {arguments}", (refused.get("error") or {}).get("code"), code)
            unknown = await call(connected, "create_sandbox", {"template": "tolls"})
            error = unknown.get("error") or {}
            equal("a template that is not there", error.get("code"), "template_not_found")
            check("the hint names near ones", "tools" in error.get("hint", "") and "list_templates" in error.get("hint", ""), error)
            for name, gone in (("tools", True), ("more", True), ("bad", True), ("tools", False)):
                deleted = await call(connected, "delete_template", {"template": name})
                equal(f"delete_template {name}", deleted.get("deleted"), gone)


async def remote() -> None:
    with Registry() as registry, Serve("--allow-private-network", "127.0.0.0/8") as server:
        base = registry.add("tools", layers(), Env=[PATH])
        there = {"SANDHOLD_URL": server.url, "SANDHOLD_API_KEY": server.key, "SANDHOLD_HOME": str(HOME) + "-client"}
        folder = context(Path.cwd() / "context")
        arguments = ["build", "web", "-f", str(folder / "Dockerfile"), "--build-arg", f"BASE={base}", "--build-arg", "WHAT=there"]
        built = template(*arguments, **there)
        if none_here(built):
            return
        check("a Dockerfile is built on a server elsewhere", built.returncode == 0, told(built))
        equal("it is there", [row["names"] for row in json.loads(template("list", "--json", **there).stdout)], [["web"]])
        ran = sandhold("run", "--no-tty", "--template", "web", "bash", "-c", "cat /srv/app/main /srv/app/built", **there)
        equal("its sandboxes", ran.stdout, "copied\nthere was built\n")
        image = layout(Path.cwd() / "layout", layers(), Env=[PATH])
        for source in (["--from-oci", str(image)], ["--debian"]):
            refused = template("build", "x", *source, **there)
            check(f"{source[0]} is for this machine", refused.returncode == 1 and "--provider local" in refused.stderr, told(refused))
        verify = template("verify", **there)
        check("verify, too", verify.returncode == 1 and "--provider local" in verify.stderr, told(verify))
        import httpx

        with httpx.Client(base_url=server.url, headers={"X-API-Key": server.key}) as http:
            asked = http.post("/v3/templates", json={"name": "path"}).json()
            place = f"/templates/{asked['templateID']}/builds/{asked['buildID']}"
            http.post(f"/v2{place}", json={"fromImage": str(image), "steps": []}).raise_for_status()
            status = {"status": "building"}
            while status["status"] in ("waiting", "building"):
                status = http.get(f"{place}/status").json()
            check("nobody names a path of the server", "in files of the machine" in status["reason"]["message"], status)
        equal("rm", template("rm", "web", **there).returncode, 0)


main({"cli": cli, "mcp": mcp, "remote": remote}[sys.argv[1]])
