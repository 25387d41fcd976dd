"""Templates built by E2B's own SDKs against `sandhold serve`: from an image of a registry that the scenario starts,
every step, the cache, tags, and what becomes of builds whose server is killed."""

from __future__ import annotations

import os
from pathlib import Path

from kit import HOME, check, equal, main, node, note, until
from registry import Layer, Registry, host_layer
from serve_kit import Serve, new_key


# The registry of the scenario is on this machine.
OPEN = ("--allow-private-network", "127.0.0.0/8")


def built(template, name: str, **options) -> list:
    """Builds, and returns the log."""
    from e2b import Template

    log = []
    Template.build(template, name, on_build_logs=log.append, **options)
    return log


def failure(template, name: str) -> str:
    from e2b import Template
    from e2b.exceptions import BuildException

    try:
        Template.build(template, name)
    except BuildException as error:
        return str(error)
    return ""


def cached(log: list) -> int:
    return sum(1 for line in log if line.message.startswith("CACHED ["))


def one_id(sandbox) -> bool:
    return sandbox.commands.run("while read -r _ _ n; do s=$((s+n)); done < /proc/self/uid_map; echo $s").stdout.strip() == "1"


async def scenario() -> None:
    with Registry() as registry, Registry(login=("me", "secret")) as private:
        second = Layer().folder("opt").file("opt/added", b"second layer\n").file("opt/gone", b"x").done()
        third = Layer().file("opt/.wh.gone").file("etc/owned", b"by seven\n", uid=7).done()
        layers = [host_layer(), second, third]
        image = registry.add("tools", layers, Env=["PATH=/opt/bin:/usr/bin:/bin", "FROM_IMAGE=yes"], WorkingDir="/opt", User="daemon")
        hidden = private.add("tools", layers, Env=["PATH=/usr/bin:/bin"])
        plain = registry.add("plain", [host_layer(bash=False)], Env=["PATH=/usr/bin:/bin"])
        empty = registry.add("empty", [Layer().file("etc/nothing").done()])
        with Serve() as strict:
            strict.use()
            from e2b import Template

            for name in (image, image.replace("127.0.0.1", "localhost")):
                error = failure(Template().from_image(name), "out-of-reach")
                check(f"holders of a key do not reach registries of this machine: {name}",
                      "not of the internet" in error or "cannot be built here" in error, error)
        with Serve(*OPEN) as server:
            server.use()
            try:
                steps(registry, image)
            except Exception as error:  # noqa: BLE001 told as what it is
                if "cannot be built here" in str(error):
                    note(f"templates: {error}")
                    check("a server without layers says so", True)
                    return
                raise
            others(private, hidden, plain, empty, image)
            names(image)
            deleted(server)
            node("templates.mjs", image)
        killed(image)


def steps(registry: Registry, image: str) -> None:
    from e2b import Sandbox, Template, wait_for_file

    context = Path(os.environ["TMPDIR"]) / "context"
    (context / "app" / "deep").mkdir(parents=True)
    (context / "app" / "main.txt").write_text("main\n")
    (context / "app" / "deep" / "low.txt").write_text("low\n")
    (context / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (context / "link").symlink_to("run.sh")

    def template(last: str = "echo last > /tmp/last"):
        return (
            Template(file_context_path=str(context))
            .from_image(image)
            .run_cmd("echo one > /home/user/one && id -un && cat /opt/added")
            .set_envs({"A": "1", "B": "$A-$FROM_IMAGE"})
            .copy("app", "/srv/app")
            .copy("run.sh", "/srv/bin/", mode=0o755)
            .copy("link", "/srv/bin/renamed")
            .set_workdir("/home/user/work")
            .copy("app/*.txt", "here/")
            .run_cmd(["pwd > where", 'echo "$B" > value'])
            .run_cmd(last)
            .set_start_cmd("echo started >> /home/user/log; touch /tmp/ready; exec sleep 1000", wait_for_file("/tmp/ready"))
        )  # fmt: skip

    log = built(template(), "steps")
    text = "\n".join(line.message for line in log)
    check("the log shows what a step prints", "user" in text.split() and "second layer" in text, text)
    check("levels are those of E2B", {line.level for line in log} <= {"debug", "info", "warn", "error"})
    equal("nothing was there", cached(log), 0)
    equal("it exists by its name", (Template.exists("steps"), Template.exists("nothing")), (True, False))

    sandbox = Sandbox.create("steps", timeout=120)
    read = lambda path: sandbox.files.read(path)  # noqa: E731
    equal("RUN", read("/home/user/one"), "one\n")
    equal("ENV", read("/home/user/work/value"), "1-yes\n")
    equal("WORKDIR", read("/home/user/work/where"), "/home/user/work\n")
    equal("COPY of a folder", (read("/srv/app/main.txt"), read("/srv/app/deep/low.txt")), ("main\n", "low\n"))
    equal("COPY into a folder", sandbox.commands.run("/srv/bin/run.sh").stdout, "ran\n")
    equal("COPY of a link", sandbox.commands.run("readlink /srv/bin/renamed").stdout, "run.sh\n")
    equal("COPY to a relative path", read("here/main.txt"), "main\n")
    owner = sandbox.commands.run("stat -c %U /srv/app/deep/low.txt /home/user/work /home/user").stdout.split()
    equal("what is copied and made is the user's", owner, ["user"] * 3)
    equal("a later layer removes", sandbox.files.exists("/opt/gone"), False)
    ran = sandbox.commands.run('echo "$A $B $FROM_IMAGE"; pwd; id -un; case "$PATH" in /opt/bin:*) echo path;; esac')
    equal("sandboxes begin as the steps left it", ran.stdout, "1 1-yes yes\n/home/user/work\nuser\npath\n")
    equal("the start command runs, once", read("/home/user/log"), "started\n")
    sleeping = [process for process in sandbox.commands.list() if process.tag == "sandhold-start"]
    equal("it is a process of the sandbox", len(sleeping), 1)
    info = sandbox.get_info()
    equal("the sandbox says what it is of", (info.name, len(info.template_id)), ("steps", 20))
    if not one_id(sandbox):
        root = sandbox.commands.run("id -u; stat -c %u /etc/owned", user="root")
        equal("root is there, and owners are the image's", root.stdout.split(), ["0", "7"])
    sandbox.kill()

    fetched = len(registry.asked)
    again = built(template(), "steps")
    equal("all is found again", cached(again), 9)
    check("and no layer is fetched", not any("/blobs/" in path and path not in registry.asked[:fetched] for path in registry.asked[fetched:]))
    equal("a step that differs is done", cached(built(template("echo other > /tmp/last"), "steps")), 8)
    (context / "app" / "main.txt").write_text("changed\n")
    equal("files that differ are copied", cached(built(template(), "steps")), 2)
    equal("nothing is taken from the cache", cached(built(template(), "steps", skip_cache=True)), 0)

    on_top = Template().from_template("steps").run_cmd("cat /home/user/one > two")
    built(on_top, "on-top")
    with Sandbox.create("on-top") as upper:
        equal("a template stands on another", upper.files.read("/home/user/work/two"), "one\n")
        equal("and starts what it starts", upper.files.read("/home/user/log"), "started\n")


def others(private: Registry, hidden: str, plain: str, empty: str, image: str) -> None:
    from e2b import Sandbox, Template

    built(Template().from_image(hidden, username="me", password="secret").run_cmd("true"), "private")
    check("a registry may want a password", Template.exists("private"))
    check("a wrong one is told", "wrong" in failure(Template().from_image(hidden, username="me", password="no"), "wrong"))
    aws = failure(Template().from_aws_registry(hidden, "id", "key", "region"), "aws")
    check("logins of clouds are refused with what to do", "docker login" in aws, aws)
    said = failure(Template().from_image(empty), "empty")
    check("an image without a shell is told", "shell" in said, said)
    said = failure(Template().from_image(image).run_cmd("echo why >&2; exit 3"), "fails")
    check("a step that fails says how", "exit status 3" in said and "why" in said, said)
    said = failure(Template().from_image(image).set_start_cmd("exit 4", "false"), "fails")
    check("a start command that fails says how", "exit status 4" in said, said)
    check("an image that is not there is told", "no image" in failure(Template().from_image(f"{private.host}/nothing", username="me", password="secret"), "absent"))
    try:
        Sandbox.create("fails")
        check("what failed is no template", False)
    except Exception as error:  # noqa: BLE001 it is looked at
        check("what failed is no template", "fails" in str(error) and "failed" in str(error), error)

    built(Template().from_image(plain).run_cmd("echo $0 > shell"), "plain")
    with Sandbox.create("plain") as sandbox:
        equal("an image without bash has commands run by its shell", sandbox.commands.run("echo ok").stdout, "ok\n")
    built(Template().from_template("base").run_cmd("echo base > kept"), "on-base")
    with Sandbox.create("on-base") as sandbox:
        equal("a template stands on the sandbox without one", sandbox.files.read("kept"), "base\n")


def names(image: str) -> None:
    from e2b import Sandbox, Template

    simple = lambda word: Template().from_image(image).run_cmd(f"echo {word} > word")  # noqa: E731
    first = Template.build(simple("first"), "tagged:v1")
    second = Template.build(simple("second"), "tagged", tags=["v2", "default"])
    equal("builds of a name are of one template", first.template_id, second.template_id)
    for name, word in (("tagged:v1", "first"), ("tagged", "second"), (second.template_id, "second")):
        with Sandbox.create(name) as sandbox:
            equal(f"{name} leads to its build", sandbox.files.read("word"), f"{word}\n")
    Template.assign_tags("tagged:v1", ["stable", "old"])
    tags = {tag.tag: tag.build_id for tag in Template.get_tags("tagged")}
    equal("tags", tags, {"v1": first.build_id, "stable": first.build_id, "old": first.build_id, "v2": second.build_id, "default": second.build_id})
    Template.remove_tags("tagged", ["old", "v1"])
    equal("fewer tags", {tag.tag for tag in Template.get_tags("tagged")}, {"stable", "v2", "default"})
    try:
        Sandbox.create("taged")
        check("a name that is not there is refused", False)
    except Exception as error:  # noqa: BLE001 it is looked at
        check("with the one that is meant", '"tagged"' in str(error), error)


def deleted(server: Serve) -> None:
    """What the SDK has no method for, as E2B's CLI asks it."""
    import httpx
    from e2b import Sandbox, Template

    api = httpx.Client(base_url=server.url, headers={"X-API-Key": server.key})
    listed = api.get("/v2/templates", params={"limit": 3})
    equal("a page of the list", len(listed.json()), 3)
    names = [template["names"] for template in api.get("/templates").json()]
    check("the list has all", ["tagged"] in names and ["steps"] in names, names)
    whole = api.get("/templates/tagged").json()
    equal("builds of one", [build["status"] for build in whole["builds"]], ["ready", "ready"])
    with Sandbox.create("tagged") as sandbox:
        equal("deleted", api.delete(f"/templates/{whole['templateID']}").status_code, 204)
        equal("what was made of it lives on", sandbox.files.read("word"), "second\n")
    equal("it is gone", (Template.exists("tagged"), api.get("/templates/tagged").status_code), (False, 404))
    other = httpx.get(f"{server.url}/templates/steps", headers={"X-API-Key": new_key("other")})
    equal("another key sees none of it", other.status_code, 404)


def killed(image: str) -> None:
    """A server that is killed in every stage of a build leaves nothing that is half made."""
    from e2b import Sandbox, Template

    marks = ("FROM ", "layer ", "[1/3]", "[2/3]", "[3/3]", "Finalizing", "Running start command")
    key = None
    for number, mark in enumerate(marks):
        server = Serve(*OPEN, key=key)
        key = server.key
        server.use()
        slow = Template().from_image(image)
        for step in ("a", "b", "c"):
            slow = slow.run_cmd(f"echo {number} {step} >> trace; sleep 0.2")
        slow = slow.set_start_cmd("sleep 100", "sleep 0.5")
        started = Template.build_in_background(slow, "killed", skip_cache=mark == "layer ")
        seen, offset = False, 0

        def arrived() -> bool:
            nonlocal seen, offset
            status = Template.get_build_status(started, logs_offset=offset)
            offset += len(status.log_entries)
            seen = seen or any(line.message.startswith(mark) for line in status.log_entries)
            return seen or status.status.value in ("ready", "error")

        until(arrived, 60, 0.02)
        server.kill()
        with Serve(*OPEN, key=key) as after:
            after.use()
            status = Template.get_build_status(started)
            check(f"after {mark!r} the build is no longer under way", status.status.value in ("error", "ready"), status.status)
            if status.status.value == "error":
                check(f"after {mark!r} it says why", "ended before" in status.reason.message, status.reason)
                check(f"after {mark!r} the stage was seen", seen)
            whole = Template.build(slow, "killed")
            with Sandbox.create("killed") as sandbox:
                wanted = f"{number} a\n{number} b\n{number} c\n"
                equal(f"after {mark!r} the next build is whole", sandbox.files.read("trace"), wanted)
            check(f"after {mark!r} it is another build", whole.build_id != started.build_id)
    equal("no file of an upload is left", [file.name for file in (HOME / "uploads").glob("*.part")], [])


if __name__ == "__main__":
    main(scenario)
