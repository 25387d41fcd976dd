"""Commands that behave badly: endless, deaf to SIGTERM, loud, daemons, pipes held open; jobs, progress, cancellation.

usage: commands.py stdio|http modern|legacy
"""

import asyncio
import sys
import time

from kit import HttpServer, alive_with, call, check, client, descendants, equal, main, mark, run, until

# The bound of every answer, with room for what a loaded machine adds.
ANSWER_BYTES = 128 * 1024
CALL_S = 45
SLACK_S = 8


def size(answer: dict) -> int:
    raw = answer.get("_raw")
    return len(raw.model_dump_json()) if raw else len(answer["_text"])


async def inside(connected, seconds: str) -> int:
    """How many processes of the sandbox are `sleep <mark>`, asked inside."""
    seen = await run(connected, f"for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null | grep -c '^[s]leep {seconds}'; true")
    return int(seen["stdout"].strip() or 0)


async def gone(connected, slept: str) -> bool:
    end = time.monotonic() + 5
    while await inside(connected, slept) or alive_with(f"sleep\0{slept}"):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.2)
    return True


async def loud(connected, server_pid: int | None) -> None:
    began = time.monotonic()
    answer = await call(connected, "run_command", {"cmd": "yes 'a line of a very loud program' | head -c 3000000000; echo last", "timeout_s": 30})
    took = time.monotonic() - began
    check("gigabytes: answered in time", took < CALL_S + SLACK_S, f"{took:.1f} s")
    check("gigabytes: the answer is bounded", 0 < size(answer) < ANSWER_BYTES, size(answer))
    check("gigabytes: the answer says that it is cut", any(word in answer["_text"].lower() for word in ("not shown", "cut", "truncated")), answer["_text"][-600:])
    if server_pid:
        sizes = [memory(pid) for pid in {server_pid} | descendants(server_pid)]
        check("gigabytes: no process on the host keeps them", max(sizes) < 300_000, f"{sizes} kB")
    if answer.get("job_id"):
        await call(connected, "kill_job", {"job_id": answer["job_id"]})
    equal("gigabytes: the sandbox still works", (await run(connected, "echo ok"))["stdout"], "ok\n")

    numbers = await run(connected, "seq 1 400000")
    check("cut output: bounded", size(numbers) < ANSWER_BYTES, size(numbers))
    check("cut output: its beginning and its end are there", numbers["stdout"].startswith("1\n2\n") and numbers["stdout"].rstrip().endswith("400000"), (numbers["stdout"][:80], numbers["stdout"][-80:]))
    where = [word.strip("`'\".,;:()[]") for word in numbers["_text"].split() if word.strip("`'\".,;:()[]").startswith("/")]
    check("cut output: the answer says where all of it is", where, numbers["_text"][:400])
    if where:
        kept = await run(connected, f"wc -l < {where[0]}; sed -n 200000p {where[0]}")
        equal("cut output: all of it is there", kept["stdout"].split(), ["400000", "200000"])
    endless = await run(connected, "head -c 5000000 /dev/zero | tr '\\0' x")
    check("one endless line: bounded", size(endless) < ANSWER_BYTES, size(endless))
    odd = await run(connected, r"printf 'a\xff\xfeb\n'; printf '\x1b[31mred\x1b[0m\n'")
    check("output that is not UTF-8 comes through, replaced", odd["stdout"].startswith("a") and "b\n" in odd["stdout"], odd["stdout"])


def memory(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0


async def deaf(connected) -> None:
    slept = mark(101)
    task = asyncio.create_task(call(connected, "run_command", {"cmd": f"trap '' TERM; sleep {slept}; sleep {slept}", "timeout_s": 3}))
    await asyncio.sleep(1.5)
    check("control: the deaf command is seen while it runs", await inside(connected, slept) and alive_with(f"sleep\0{slept}"))
    began = time.monotonic()
    answer = await task
    check("deaf to SIGTERM: answered soon after its timeout", time.monotonic() - began < 10, answer["_text"])
    check("a timeout is told", "timeout" in answer["_text"].lower() or "timed out" in answer["_text"].lower(), answer["_text"])
    check("deaf to SIGTERM: it is gone all the same", await gone(connected, slept))


async def daemons(connected) -> None:
    began = time.monotonic()
    daemon, holder = mark(202), mark(303)
    left = await run(connected, f"setsid sleep {daemon} >/dev/null 2>&1 </dev/null & echo started")
    equal("a daemon left behind: the command's own answer", (left["stdout"], left["exit_code"]), ("started\n", 0))
    check("a daemon left behind: answered at once", time.monotonic() - began < 5)
    equal("a daemon left behind lives on", await inside(connected, daemon), 1)
    began = time.monotonic()
    held = await run(connected, f"sleep {holder} & echo started")
    equal("the pipe held open: the command's own answer", (held["stdout"], held["exit_code"]), ("started\n", 0))
    check("the pipe held open: answered soon", time.monotonic() - began < 10, f"{time.monotonic() - began:.1f} s")
    await run(connected, f"for p in /proc/[0-9]*; do grep -qE '^sleep.({daemon}|{holder})' $p/cmdline 2>/dev/null && kill ${{p#/proc/}}; done; true")


async def endless(connected) -> None:
    slept = mark(404)
    began = time.monotonic()
    answer = await call(connected, "run_command", {"cmd": f"echo begun; sleep {slept}", "timeout_s": 600})
    took = time.monotonic() - began
    check("never ends: answered at 45 seconds", 20 < took < CALL_S + SLACK_S, f"{took:.1f} s")
    check("never ends: it goes on as a job", not answer["_error"] and answer.get("job_id"), answer["_text"])
    check("never ends: what it printed is there", "begun" in (answer.get("stdout") or ""), answer)
    check("never ends: the text names the job and what to call", answer.get("job_id", "?") in answer["_text"] and "get_job_status" in answer["_text"], answer["_text"])
    equal("never ends: it runs", await inside(connected, slept), 1)
    killed = await call(connected, "kill_job", {"job_id": answer.get("job_id", "?")})
    check("never ends: kill_job", not killed["_error"], killed["_text"])
    check("never ends: it is gone", await gone(connected, slept))


async def progress(connected) -> None:
    seen = []

    async def told(value, total, message):
        seen.append((value, message))

    await call(connected, "run_command", {"cmd": "for i in 1 2 3 4 5 6; do echo step $i; sleep 0.5; done"}, progress_callback=told)
    values = [value for value, _ in seen]
    check("progress is told while a command runs", seen, seen)
    check("progress grows", values == sorted(values) and len(set(values)) == len(values), values)
    flood = []

    async def flooded(value, total, message):
        flood.append(value)

    await call(connected, "run_command", {"cmd": "seq 1 200000"}, progress_callback=flooded)
    check("progress is told at a bounded rate", len(flood) < 50, len(flood))


async def cancelled(connected) -> None:
    slept = mark(505)
    task = asyncio.create_task(call(connected, "run_command", {"cmd": f"sleep {slept} & sleep {slept}; wait"}))
    started = 0
    for _ in range(50):
        started = await inside(connected, slept)
        if started == 2:
            break
        await asyncio.sleep(0.1)
    equal("control: both processes of the group run before the cancellation", started, 2)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    check("cancelling ends the whole process group", await gone(connected, slept))


async def jobs(connected) -> None:
    ids = [(await call(connected, "run_command_bg", {"cmd": f"for i in $(seq 1 5); do echo job {n} line $i; sleep 0.2; done; exit {n}"}))["job_id"] for n in range(4)]
    for number, job in enumerate(ids):
        text, cursor, answer = "", None, {}
        for _ in range(30):
            answer = await call(connected, "get_job_status", {"job_id": job, "wait_s": 2, "cursor": cursor})
            text += answer.get("stdout") or ""
            cursor = answer.get("cursor") or answer.get("next_cursor")
            if answer.get("status") != "running":
                break
        wanted = "".join(f"job {number} line {line}\n" for line in range(1, 6))
        equal(f"job {number}: each line once, its exit code", (text, answer.get("exit_code")), (wanted, number))
    loud = (await call(connected, "run_command_bg", {"cmd": "seq 1 300000"}))["job_id"]
    await asyncio.sleep(1)
    told = await call(connected, "get_job_status", {"job_id": loud, "wait_s": 20})
    check("a loud job: its status is bounded", size(told) < ANSWER_BYTES, size(told))
    asks = (await call(connected, "run_command_bg", {"cmd": "read -p 'name? ' name; echo hello $name"}))["job_id"]
    await asyncio.sleep(1.5)
    waiting = await call(connected, "get_job_status", {"job_id": asks})
    equal("a job that waits for input says so", waiting.get("awaiting_input"), True)
    await call(connected, "send_stdin", {"job_id": asks, "data": "Ada\n"})
    ended = await call(connected, "get_job_status", {"job_id": asks, "wait_s": 10, "cursor": waiting.get("cursor")})
    check("and goes on when it got it", "hello Ada" in (ended.get("stdout") or ""), ended["_text"])


async def many(connected) -> None:
    answers = await asyncio.gather(*(run(connected, f"sleep 0.{n % 5}; echo {n}") for n in range(40)))
    equal("forty calls at once: each its own answer", [answer["stdout"] for answer in answers], [f"{n}\n" for n in range(40)])


async def scenario(transport: str, era: str) -> None:
    server = HttpServer() if transport == "http" else None
    try:
        async with client(transport, era, http=server) as connected, client(transport, era, http=server) as second:
            await run(connected, "true")
            pid = server.process.pid if server else None
            # The slow one runs beside the others, in a sandbox of its own.
            slow = asyncio.create_task(endless(second if not server else connected))
            await deaf(connected)
            await daemons(connected)
            await progress(connected)
            await cancelled(connected)
            await jobs(connected)
            await many(connected)
            await slow
            await loud(connected, pid)
            check("the server wrote no panic", "panicked" not in connected.stderr(), connected.stderr())
        if server:
            async with client(transport, era, http=server) as first:
                job = (await call(first, "run_command_bg", {"cmd": "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done"}))["job_id"]
            async with client(transport, era, http=server) as later:
                answer = await call(later, "get_job_status", {"job_id": job, "wait_s": 20})
                for _ in range(10):
                    if answer.get("status") != "running":
                        break
                    answer = await call(later, "get_job_status", {"job_id": job, "wait_s": 5})
                equal("a job outlives the connection that began it", (answer.get("status"), answer.get("exit_code")), ("done", 0))
    finally:
        if server:
            equal("SIGTERM ends the server in order", server.close(), 0)
            check("and nothing of it is left", until(lambda: not [one for one in (101, 202, 303, 404, 505) if alive_with(f"sleep\0{mark(one)}")], 5))


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
