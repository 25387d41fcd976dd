"""A real job from end to end: write a small project, run its tests, mend it with edit_file, run a two-minute command as
a job across several calls, read the result."""

import sys
import time

from kit import call, check, client, equal, main, run

FILES = [
    {"path": "wordcount/wordcount/__init__.py", "content": '"""Counts words."""\n\nfrom .count import count\n'},
    {
        "path": "wordcount/wordcount/count.py",
        "content": "from collections import Counter\n\n\ndef count(text: str) -> Counter:\n"
        '    """How often each word stands in the text, whatever its case."""\n    return Counter(text.split())\n',
    },
    {
        "path": "wordcount/wordcount/__main__.py",
        "content": "import sys\nimport time\n\nfrom . import count\n\n\ndef main() -> None:\n"
        "    total = count('')\n    for number, line in enumerate(sys.stdin, 1):\n        total += count(line)\n"
        "        print(f'{number} lines', flush=True)\n        time.sleep(float(sys.argv[1]))\n"
        "    word, times = total.most_common(1)[0]\n    with open('result.txt', 'w') as result:\n"
        "        result.write(f'{word} {times}\\n')\n\n\nmain()\n",
    },
    {
        "path": "wordcount/tests/test_count.py",
        "content": "import unittest\n\nfrom wordcount import count\n\n\nclass Count(unittest.TestCase):\n"
        "    def test_words(self):\n        self.assertEqual(count('a b a')['a'], 2)\n\n"
        "    def test_case(self):\n        self.assertEqual(count('The the THE')['the'], 3)\n\n\n"
        "if __name__ == '__main__':\n    unittest.main()\n",
    },
    {"path": "wordcount/tests/__init__.py", "content": ""},
    {"path": "wordcount/README.md", "content": "# wordcount\n\nCounts words.\n"},
]
TEST = "python3 -m unittest discover -t . -s tests"


async def scenario(seconds: str) -> None:
    long = float(seconds)
    async with client("stdio", "modern") as connected:
        wrote = await call(connected, "write_files", {"files": FILES})
        check("the project is written", not wrote["_error"], wrote["_text"])
        listed = await call(connected, "list_dir", {"path": "wordcount", "depth": 3})
        names = {entry["name"] for entry in listed.get("entries", [])}
        check("and listed", {"count.py", "test_count.py", "__main__.py"} <= names, names)
        failing = await run(connected, TEST, cwd="wordcount")
        check("its tests fail at first", failing["exit_code"] == 1 and "test_case" in failing["stderr"], failing)
        found = await call(connected, "search_files", {"pattern": r"text\.split", "path": "wordcount"})
        equal("the fault is found", [match["line"] for match in found.get("matches", [])], [6])
        fault = found["matches"][0]["path"]
        edited = await call(connected, "edit_file", {"path": fault, "old_text": "text.split()", "new_text": "text.lower().split()"})
        equal("and mended", edited.get("replacements"), 1)
        passing = await run(connected, TEST, cwd="wordcount")
        check("its tests pass now", passing["exit_code"] == 0 and "OK" in passing["stderr"], passing)

        lines = 60
        await call(connected, "write_file", {"path": "wordcount/input.txt", "content": "the quick fox and the dog\n" * lines})
        began = time.monotonic()
        job = await call(connected, "run_command", {"cmd": f"python3 -m wordcount {long / lines} < input.txt", "cwd": "wordcount", "timeout_s": int(long * 2 + 60)})
        first = time.monotonic() - began
        text = job.get("stdout") or ""
        calls = 0
        if long > 45:
            check("the long command goes on as a job", job.get("job_id") and first < 53, (first, job["_text"]))
        cursor = job.get("cursor") or job.get("next_cursor")
        status = job
        while job.get("job_id"):
            status = await call(connected, "get_job_status", {"job_id": job["job_id"], "wait_s": 30, "cursor": cursor})
            calls += 1
            cursor = status.get("cursor") or status.get("next_cursor")
            text += status.get("stdout") or ""
            if status.get("status") != "running" or calls > 40:
                break
        took = time.monotonic() - began
        equal("the long command ended well", (status.get("exit_code"), status.get("status", "done")), (0, "done"))
        check("it took its time", long * 0.95 < took < long + 45, f"{took:.1f} s")
        if long > 45:
            check("across several calls", calls >= 2, calls)
        equal("no line of its output was lost or told twice", text, "".join(f"{number} lines\n" for number in range(1, lines + 1)))
        result = await call(connected, "read_file", {"path": "wordcount/result.txt"})
        equal("its result is read", result.get("text"), f"the {2 * lines}\n")


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
