"""E2B's SDK documentation, "Sandbox": its life, timeouts, lists, pause and resume, metrics, errors of the control plane."""

import os
import threading
import time
from datetime import datetime, timedelta, timezone

from kit import check, equal, until
from sdk_kit import World, pages, plain_id, raised, raises


def checks(world: World) -> None:
    information(world)
    timeouts(world)
    connecting(world)
    lists(world)
    cut_streams(world)
    errors(world)
    if world.since(2):
        metrics(world)
        pausing(world)
    if world.since(2, 45):
        lifecycle(world)
        states(world)
    ending(world)


def information(world: World) -> None:
    sandbox = world.sandbox
    info = sandbox.get_info()
    equal("get_info: id, template, metadata", (plain_id(info.sandbox_id), info.template_id, info.metadata), (plain_id(sandbox.sandbox_id), "base", {"suite": "sdk", "odd key": "v&2=ü"}))
    equal("get_info: its length of life", round((info.end_at - info.started_at).total_seconds()), 600)
    check("get_info: started_at", abs((datetime.now(timezone.utc) - info.started_at).total_seconds()) < 300, info.started_at)
    if world.since(2):
        equal("get_info: state", info.state.value, "running")
        check("get_info: cpu_count and memory_mb", info.cpu_count >= 1 and info.memory_mb >= 64, info)
        check("get_info: envd_version unlocks what the SDK has", tuple(map(int, info.envd_version.split("."))) >= (0, 6, 4), info.envd_version)
    equal("is_running", sandbox.is_running(), True)
    check("a secured sandbox has a token", sandbox._envd_access_token)
    named = world.make(template="base", timeout=30)
    equal("template: by name", named.get_info().template_id, "base")
    equal("two sandboxes are two", (named.files.exists("/home/user/f"), world.kill(named)), (False, True))


def timeouts(world: World) -> None:
    from e2b import Sandbox

    short = world.make(timeout=2)
    begun = time.monotonic()
    check("timeout: the sandbox ends", until(lambda: not short.is_running(), 8, 0.1))
    check("timeout: not before", time.monotonic() - begun > 1, time.monotonic() - begun)
    equal("timeout: nothing left to kill", world.kill(short), False)
    sandbox = world.make(timeout=100)
    before = sandbox.get_info().end_at
    sandbox.set_timeout(400)
    longer = sandbox.get_info().end_at
    check("set_timeout: extends", 290 < (longer - before).total_seconds() < 320, (before, longer))
    sandbox.set_timeout(50)
    check("set_timeout: reduces", (sandbox.get_info().end_at - datetime.now(timezone.utc)).total_seconds() < 55)
    Sandbox.set_timeout(sandbox.sandbox_id, 200)
    check("set_timeout: by id", (sandbox.get_info().end_at - datetime.now(timezone.utc)).total_seconds() > 150)
    sandbox.set_timeout(1)
    check("set_timeout: to one second ends it", until(lambda: not sandbox.is_running(), 6, 0.1))


def connecting(world: World) -> None:
    import e2b
    from e2b import Sandbox

    sandbox = world.sandbox
    sandbox.files.write("for-another", "client")
    again = Sandbox.connect(sandbox.sandbox_id)
    equal("connect: the same files", again.files.read("for-another"), "client")
    equal("connect: runs commands", again.commands.run("echo $GREETING").stdout, "hello\n")
    missing = e2b.SandboxNotFoundException if world.since(2, 45) else e2b.NotFoundException
    raises("connect: nothing there", missing if world.since(2) else e2b.SandboxException, lambda: Sandbox.connect("i" + "0" * 20))
    if not world.since(2, 45):
        return
    before = sandbox.get_info().end_at
    Sandbox.connect(sandbox.sandbox_id, timeout=5)
    equal("connect: never shortens its life", sandbox.get_info().end_at, before)
    Sandbox.connect(sandbox.sandbox_id, timeout=3000)
    check("connect: may extend it", sandbox.get_info().end_at > before)
    equal("connect: on the instance", sandbox.connect(timeout=5).sandbox_id, sandbox.sandbox_id)


def lists(world: World) -> None:
    if world.since(2):
        from e2b import SandboxQuery, SandboxState
    else:
        from e2b.sandbox.sandbox_api import SandboxQuery
    batch = f"batch-{os.getpid()}-{world.version}"
    begun = datetime.now(timezone.utc)
    made = [world.make(timeout=60, metadata={"batch": batch, "number": str(number), "odd key": "a&b=c d"}) for number in range(3)]
    ids = [plain_id(sandbox.sandbox_id) for sandbox in made]

    def found(limit=None, **query) -> list[list[str]]:
        more = {"order": query.pop("order")} if "order" in query else {}
        return [[plain_id(one.sandbox_id) for one in page] for page in pages(world, SandboxQuery(**query), limit, **more)]

    def flat(rows):
        return [one for page in rows for one in page]

    equal("list: by metadata", sorted(flat(found(metadata={"batch": batch}))), sorted(ids))
    equal("list: by two pairs", flat(found(metadata={"batch": batch, "number": "1"})), [ids[1]])
    equal("list: by odd letters", sorted(flat(found(metadata={"batch": batch, "odd key": "a&b=c d"}))), sorted(ids))
    equal("list: by what nobody has", flat(found(metadata={"batch": "none"})), [])
    row = next(one for page in pages(world, SandboxQuery(metadata={"number": "2", "batch": batch})) for one in page)
    equal("list: what a row says", (row.metadata["number"], row.template_id, row.state if isinstance(row.state, str) else row.state.value), ("2", "base", "running"))
    if world.since(2):
        by_pages = found(limit=2, metadata={"batch": batch})
        equal("list: pages", ([len(page) for page in by_pages if page], sorted(flat(by_pages))), ([2, 1], sorted(ids)))
        equal("list: by state", flat(found(state=[SandboxState.PAUSED], metadata={"batch": batch})), [])
        both = found(state=[SandboxState.RUNNING, SandboxState.PAUSED], metadata={"batch": batch})
        equal("list: by two states", sorted(flat(both)), sorted(ids))
    if world.since(2, 45):
        equal("list: oldest first", flat(found(metadata={"batch": batch}, order="asc")), ids)
        equal("list: newest first", flat(found(metadata={"batch": batch}, order="desc")), ids[::-1])
    if world.since(2, 60):
        equal("list: started_after", sorted(flat(found(metadata={"batch": batch}, started_after=begun - timedelta(seconds=1)))), sorted(ids))
        equal("list: started_after, later", flat(found(metadata={"batch": batch}, started_after=begun + timedelta(hours=1))), [])
        equal("list: by template", flat(found(metadata={"batch": batch}, template="another")), [])
    equal("kill: each", [world.kill(sandbox) for sandbox in made], [True] * 3)
    equal("list: killed ones are gone", flat(found(metadata={"batch": batch})), [])


def cut_streams(world: World) -> None:
    from e2b import TimeoutException

    killed = world.make(timeout=60)
    handle = killed.commands.run("echo begun; sleep 100", background=True)
    seen: list[str] = []
    caught: list = []
    thread = threading.Thread(target=lambda: caught.append(raised(lambda: handle.wait(on_stdout=seen.append))))
    thread.start()
    until(lambda: seen, 5)
    world.kill(killed)
    thread.join(10)
    check("killed while streaming: the type of its error", caught and isinstance(caught[0], TimeoutException), caught)
    equal("killed while streaming: what came before came", seen, ["begun\n"])
    if world.since(2, 63):
        from e2b import SandboxNotRunningException

        check("killed while streaming: it is known to be gone", isinstance(caught[0], SandboxNotRunningException), caught)
    short = world.make(timeout=2)
    raises("a timeout while streaming", TimeoutException, lambda: short.commands.run("sleep 100", timeout=20))
    raises("after its end: files", TimeoutException, lambda: killed.files.read("x"))
    if world.since(2):
        # 1.5.0 breaks off with an error of its own at every answer of the proxy to a call.
        raises("after its end: commands", TimeoutException, lambda: killed.commands.run("true"))
        raises("after its end: list", TimeoutException, lambda: killed.files.list("."))
    equal("after its end: is_running", killed.is_running(), False)


def errors(world: World) -> None:
    import e2b

    # Up to 2.0 every refusal of the control plane is a SandboxException with its status.
    missing = e2b.SandboxNotFoundException if world.since(2, 45) else e2b.SandboxException
    nobody = "i" + "1" * 20
    from e2b import Sandbox

    if world.since(2):
        raises("get_info: nothing there", missing, lambda: Sandbox.get_info(nobody))
    raises("set_timeout: nothing there", missing, lambda: Sandbox.set_timeout(nobody, 10))
    equal("kill: nothing there", Sandbox.kill(nobody), False)
    raises("set_timeout: 0 is refused", e2b.SandboxException, lambda: world.sandbox.set_timeout(0), "400")
    raises("create: an unknown template", e2b.SandboxException, lambda: world.make(template="no-such-template"), "404")
    raises("create: a wrong key", e2b.AuthenticationException if world.since(2, 45) else e2b.SandboxException, lambda: world.make(api_key="e2b_" + "0" * 40), *([] if world.since(2, 45) else ["401"]))
    raises("create: a time that is too long", e2b.SandboxException, lambda: world.make(timeout=10**9), "400")


def metrics(world: World) -> None:
    from e2b import Sandbox

    found = until(lambda: world.sandbox.get_metrics(), 12, 0.5)
    check("get_metrics: there are some", found)
    last = found[-1]
    check("get_metrics: cpu", last.cpu_count >= 1 and last.cpu_used_pct >= 0, last)
    check("get_metrics: memory", 0 < last.mem_used <= last.mem_total, last)
    check("get_metrics: time", abs((datetime.now(timezone.utc) - last.timestamp.astimezone(timezone.utc)).total_seconds()) < 60, last)
    check("get_metrics: disk", 0 <= last.disk_used <= last.disk_total and last.disk_total > 0, last)
    hour = timedelta(hours=1)
    equal("get_metrics: of an hour ago", Sandbox.get_metrics(world.sandbox.sandbox_id, start=last.timestamp - 2 * hour, end=last.timestamp - hour), [])


def pausing(world: World) -> None:
    from e2b import Sandbox, SandboxQuery, SandboxState

    sandbox = world.make(timeout=60, metadata={"paused": "yes"}, envs={"KEPT": "env"})
    sandbox.files.write("kept", "through a pause")
    counter = sandbox.commands.run("for i in $(seq 1000); do echo $i > /tmp/count; sleep 0.1; done", background=True)
    until(lambda: sandbox.files.exists("/tmp/count"), 5)
    pause = sandbox.pause if world.since(2, 45) else sandbox.beta_pause
    answer = pause()
    if world.since(2, 45):
        equal("pause: says so", answer, True)
        equal("pause: again", pause(), False)
    equal("pause: state", sandbox.get_info().state.value, "paused")
    equal("pause: is_running", sandbox.is_running(), False)
    listed = pages(world, SandboxQuery(state=[SandboxState.PAUSED], metadata={"paused": "yes"}))
    equal("pause: list", [one.sandbox_id for page in listed for one in page], [sandbox.sandbox_id])
    back = Sandbox.connect(sandbox.sandbox_id, timeout=60)
    equal("resume: the files", back.files.read("kept"), "through a pause")
    equal("resume: the envs", back.commands.run("echo $KEPT").stdout, "env\n")
    equal("resume: state", back.get_info().state.value, "running")
    alive = counter.pid in [process.pid for process in back.commands.list()]
    if alive:
        before = int(back.files.read("/tmp/count").strip() or 0)
        check("resume: its processes go on", until(lambda: int(back.files.read("/tmp/count").strip() or 0) > before, 5))
    else:
        check("resume: from its files alone", back.files.exists("/tmp/count"))
    equal("resume: the first client's instance works again", sandbox.commands.run("cat kept").stdout, "through a pause")
    equal("resume: kill", world.kill(back), True)
    gone = world.make(timeout=60)
    (gone.pause if world.since(2, 45) else gone.beta_pause)()
    equal("pause: a paused one can be killed", (world.kill(gone), world.kill(gone)), (True, False))


def lifecycle(world: World) -> None:
    from e2b import Sandbox

    sandbox = world.make(timeout=2, lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.files.write("kept", "by its lifecycle")
    equal("lifecycle: get_info tells", dict(sandbox.get_info().lifecycle), {"on_timeout": "pause", "auto_resume": True})
    paused = until(lambda: sandbox.get_info().state.value == "paused", 8, 0.1)
    check("lifecycle: paused by its timeout", paused, sandbox.get_info())
    equal("lifecycle: resumed by traffic", sandbox.files.read("kept"), "by its lifecycle")
    equal("lifecycle: runs again", sandbox.get_info().state.value, "running")
    world.kill(sandbox)
    plain = world.make(timeout=60, lifecycle={"on_timeout": "kill"})
    equal("lifecycle: kill", plain.get_info().lifecycle["on_timeout"], "kill")
    if world.since(2, 63):
        plain.pause(mode="filesystem")
        equal("pause: as files", plain.get_info().state.value, "paused")
        equal("pause: as files, back", Sandbox.connect(plain.sandbox_id).commands.run("echo up").stdout, "up\n")
        first = Sandbox.create(timeout=60, idempotency_key="suite-one")
        equal("idempotency_key", Sandbox.create(timeout=60, idempotency_key="suite-one").sandbox_id, first.sandbox_id)
        world.kill(first)
        closed = Sandbox.create(timeout=60, allow_internet_access=False)
        equal("allow_internet_access", closed.get_info().allow_internet_access, False)
        world.kill(closed)
    world.kill(plain)


def states(world: World) -> None:
    """Snapshots and forks, by every version of the SDK; `snapshots.py` looks closer."""
    from e2b import Sandbox

    source = world.make(timeout=60)
    source.files.write("state", "one")
    snapshot = source.create_snapshot()
    source.files.write("state", "two")
    copy = Sandbox.create(snapshot.snapshot_id, timeout=60)
    equal("create_snapshot: a sandbox of it", copy.files.read("state"), "one")
    forks = source.fork()
    equal("fork", [fork.files.read("state") for fork in forks], ["two"])
    for sandbox in (source, copy, *forks):
        world.kill(sandbox)
    equal("delete_snapshot", Sandbox.delete_snapshot(snapshot.snapshot_id), True)


def ending(world: World) -> None:
    from e2b import Sandbox

    sandbox = world.make(timeout=60)
    equal("kill: by id", Sandbox.kill(sandbox.sandbox_id), True)
    equal("kill: twice", (world.kill(sandbox), Sandbox.kill(sandbox.sandbox_id)), (False, False))
    with world.make(timeout=60) as inside:
        equal("with: it runs", inside.is_running(), True)
    equal("with: it ends with the block", inside.is_running(), False)
