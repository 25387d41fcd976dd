"""The backbone on another isolation level: files, commands, jobs, processes and what the level lacks.

usage: levels.py landlock|gvisor

Where this machine cannot give the level, `sandhold doctor` has to say why, every tool has to say so, too, and no sandbox
of another level may come in its place.
"""

import json
import os
import shutil
import subprocess
import sys

from kit import BIN, ROOT, alive_with, call, check, client, equal, main, mark, note, run, server_env, shown, until

LEVEL = sys.argv[1]


def doctor() -> dict:
    ended = subprocess.run(
        [BIN, "doctor", "--json", "--isolation", LEVEL], capture_output=True, text=True, env={**os.environ, **server_env()}
    )
    report = json.loads(ended.stdout)
    rows = {row["name"]: row for row in report["checks"]}
    check("doctor lists every level", {f"isolation level {name}" for name in ("namespaces", "landlock", "gvisor")} <= set(rows), rows)
    return rows[f"isolation level {LEVEL}"]


async def cannot(row: dict) -> None:
    """The level cannot be had: that is an error with its remedy, never a sandbox of another level."""
    note(f"the level {LEVEL} cannot be had here: {row['detail']}")
    check("doctor names a remedy", row.get("remedy"), row)
    async with client("stdio", "modern", "--isolation", LEVEL) as server:
        answer = await call(server, "run_command", {"cmd": "echo in"})
        check("no sandbox of another level", answer["_error"] and answer.get("stdout") is None, shown(answer))
        check("the error says why and what to do", row["detail"][:40] in answer["_text"], answer["_text"])
    ended = subprocess.run([BIN, "run", "--isolation", LEVEL, "--", "echo", "in"], capture_output=True, text=True, env={**os.environ, **server_env()})
    check("nor from the command line", ended.returncode != 0 and "in" not in ended.stdout.split(), ended.stdout + ended.stderr)


async def backbone() -> None:
    pid_mark = mark(77)
    async with client("stdio", "modern", "--isolation", LEVEL, "--toolsets", "all") as server:

        async def good(tool: str, **arguments) -> dict:
            answer = await call(server, tool, arguments)
            check(f"{tool} {json.dumps(arguments)[:60]}", not answer["_error"], answer["_text"])
            return answer

        info = await good("sandbox_info")
        equal("the level is told", info["isolation"]["level"], LEVEL)
        home = (await run(server, "echo $HOME"))["stdout"].strip()
        equal("a command starts at home", (await run(server, "pwd"))["stdout"].strip(), home)
        failed = await call(server, "run_command", {"cmd": "echo out; echo err >&2; exit 3"})
        equal("output and exit code", (failed.get("stdout"), failed.get("stderr"), failed.get("exit_code")), ("out\n", "err\n", 3))
        await good("write_file", path="d/a.txt", content="one\ntwo\n")
        equal("the file is there for commands", (await run(server, "cat d/a.txt"))["stdout"], "one\ntwo\n")
        read = await good("read_file", path="d/a.txt")
        check("the file is read", "two" in shown(read), shown(read))
        await good("edit_file", path="d/a.txt", old_text="two", new_text="three")
        found = await good("search_files", pattern="three", path="d")
        check("the file is found", "a.txt" in shown(found), shown(found))
        listed = await good("list_dir", path="d")
        check("the folder lists it", "a.txt" in shown(listed), shown(listed))
        await good("move_path", **{"from": f"{home}/d/a.txt"}, to=f"{home}/d/b.txt")
        await good("remove_path", path="d/b.txt")
        gone = await call(server, "read_file", {"path": "d/b.txt"})
        check("what was removed is gone", gone["_error"], gone["_text"])
        equal("temporary files", (await run(server, "f=$(mktemp) && echo x > $f && cat $f"))["stdout"], "x\n")
        equal("Python", (await run(server, "python3 -c 'print(6*7)'"))["stdout"], "42\n")

        job = (await good("run_command_bg", cmd=f"sleep {pid_mark} & echo begun; wait"))["job_id"]
        said = await good("get_job_status", job_id=job, wait_s=2)
        check("a job's output", "begun" in shown(said), shown(said))
        processes = await good("list_processes")
        check("its process is listed", pid_mark in shown(processes), shown(processes)[:500])
        check("the host's are not", "sandhold mcp" not in shown(processes) and len(processes["processes"]) < 40, shown(processes)[:800])
        await good("kill_job", job_id=job)
        after = await good("list_processes")
        check("it is ended with all it started", pid_mark not in shown(after), shown(after)[:500])

        root = await call(server, "run_command", {"cmd": "id -u", "user": "root"})
        if LEVEL == "landlock":
            check("there is no root", root["_error"], shown(root))
            for tool, arguments in [
                ("start_service", {"cmd": "python3 -m http.server 8000", "port": 8000}),
                ("http_probe", {"url": "http://127.0.0.1:8000/"}),
                ("get_public_url", {"port": 8000}),
            ]:
                answer = await call(server, tool, arguments)
                check(f"{tool} says why it cannot", answer["_error"] and "landlock" in answer["_text"], answer["_text"])
            check("what is lacking is told", any("loopback" in text for text in info["isolation"]["warnings"]), info)
            outside = await call(server, "read_file", {"path": "/etc/shadow"})
            check("the host's secrets are closed", outside["_error"], shown(outside))
        else:
            equal("root of the sandbox", root.get("stdout"), "0\n")
            service = await good("start_service", cmd="python3 -m http.server 8000 --bind 127.0.0.1", port=8000)
            check("a service gets ready", service.get("ready"), shown(service))
        if LEVEL != "landlock" or ROOT:
            shell = await call(server, "open_shell", {})
            check("a terminal opens", not shell["_error"], shell["_text"])
        await good("run_command_bg", cmd=f"setsid sleep {pid_mark}")
        if LEVEL == "landlock":
            check("the control: it can be seen from outside", until(lambda: alive_with(pid_mark), 5), "")
        await good("shutdown_sandbox")
        check("nothing is left of it", until(lambda: not alive_with(pid_mark), 10), alive_with(pid_mark))


async def scenario() -> None:
    row = doctor()
    if LEVEL == "gvisor":
        equal("gvisor is there where runsc is", row["status"] == "ok", bool(shutil.which("runsc")))
    if row["status"] == "ok":
        await backbone()
    else:
        await cannot(row)


if __name__ == "__main__":
    main(scenario)
