"""The table of `catalogue.py`: for every tool a good call, a wrong argument, a missing object, and a limit.

In arguments and expectations a text that is `$name` stands for what an earlier call left under that name. What a good
answer must have is said by an example: a type for any value of it, a pattern for a text, a function for what it must say
yes to, a list for what some entry must be like; of an object only the fields that are named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# None of these is there.
NO_SANDBOX = "i00000000000000000000"
NO_PATH = "no-such-file.txt"
NO_JOB = "no-such-job"
LONG_ID = "i" * 65
LONG_PATH = "p" * 4097
# Of something that was made by the server: it is looked up and found nowhere, and the refusal does not repeat it all.
ENDLESS_ID = "x" * 100_000
FAR = 10**9


@dataclass
class Good:
    """A call that has to work. `keep` maps names for later calls to fields of the answer."""

    arguments: dict
    answer: dict
    keep: dict[str, str] = field(default_factory=dict)
    # Codes of errors that are an answer, too: what a provider or a machine cannot do has to be said so.
    unless: tuple[str, ...] = ()
    # Another tool than the row's, to make ready what the row needs.
    tool: str | None = None
    # Called again until the answer is as wanted: what is looked for comes by itself.
    again: bool = False


@dataclass
class Bad:
    """A call that has to be refused by a tool error; `word` is in its message."""

    arguments: dict
    word: str


@dataclass
class Row:
    tool: str
    good: list[Good]
    wrong: Bad
    # A text says why there is no such thing.
    missing: Bad | str
    limit: Bad | str


def text(pattern: str):
    return re.compile(pattern, re.DOTALL)


def more_than(least):
    return lambda value: isinstance(value, (int, float)) and value > least


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OF_SUITE = [{"name": "suite", "value": "catalogue"}]
ENDLESS = "trap 'exit 0' TERM; while :; do sleep 0.2; done"

SANDBOX = [
    Row(
        "create_sandbox",
        [
            Good(
                {"template": "base", "timeout_s": 900, "metadata": OF_SUITE, "set_as_default": True},
                {"sandbox_id": text("^i"), "state": "running", "template": "base", "end_at": text("T.*Z$")},
                {"sandbox": "sandbox_id"},
            ),
            Good({"timeout_s": 900, "set_as_default": False}, {"sandbox_id": text("^i")}, {"spare": "sandbox_id"}),
        ],
        wrong=Bad({"template": 5}, "template"),
        missing=Bad({"template": "no-such-template"}, "no-such-template"),
        limit=Bad({"metadata": [{"name": f"k{at}", "value": "v"} for at in range(65)]}, "metadata"),
    ),
    Row(
        "connect_sandbox",
        [Good({"sandbox_id": "$spare"}, {"sandbox_id": "$spare", "state": "running", "end_at": str})],
        wrong=Bad({"sandbox_id": ["x"]}, "sandbox_id"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"sandbox_id": "$spare", "timeout_s": FAR}, "timeout_s"),
    ),
    Row(
        "list_sandboxes",
        [Good({"metadata": OF_SUITE, "state": "running"}, {"sandboxes": [{"sandbox_id": "$sandbox", "state": "running"}]})],
        wrong=Bad({"state": "asleep"}, "state"),
        missing="it lists what is there",
        limit=Bad({"limit": FAR}, "limit"),
    ),
    Row(
        "sandbox_info",
        [Good({}, {"sandbox_id": "$sandbox", "state": "running", "provider": "$provider", "resources": dict, "isolation": dict})],
        wrong=Bad({"sandbox": "x"}, "sandbox"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"sandbox_id": LONG_ID}, "sandbox_id"),
    ),
    Row(
        "set_sandbox_timeout",
        [Good({"timeout_s": 1200}, {"sandbox_id": "$sandbox", "end_at": str})],
        wrong=Bad({"timeout_s": "soon"}, "timeout_s"),
        missing=Bad({"sandbox_id": NO_SANDBOX, "timeout_s": 60}, NO_SANDBOX),
        limit=Bad({"timeout_s": FAR}, "timeout_s"),
    ),
    Row(
        "run_in_all_sandboxes",
        [Good({"code": "echo in $((6 * 7))", "language": "bash"}, {"results": [{"sandbox_id": "$spare", "stdout": "in 42\n"}]})],
        wrong=Bad({"code": "true", "language": "klingon"}, "language"),
        missing="it means the sandboxes that are there",
        limit=Bad({"code": "#" * ((1 << 20) + 1)}, "code"),
    ),
    Row(
        "pause_sandbox",
        # Only where the engine has a freezer.
        [Good({"sandbox_id": "$spare"}, {"state": "paused"}, unless=("unsupported",))],
        wrong=Bad({"sandbox_id": 5}, "sandbox_id"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"sandbox_id": LONG_ID}, "sandbox_id"),
    ),
]

FILES = [
    Row(
        "write_file",
        [Good({"path": "c/one.txt", "content": "one\ntwo\nthree\n"}, {"path": "/home/user/c/one.txt", "size": 14})],
        wrong=Bad({"path": "c/one.txt", "content": "x", "encoding": "latin1"}, "encoding"),
        missing=Bad({"path": "c/one.txt/below", "content": "x"}, "one.txt"),
        limit=Bad({"path": "c/large", "content": "x" * ((4 << 20) + 1)}, "content"),
    ),
    Row(
        "write_files",
        [
            Good(
                {"files": [{"path": "c/two.txt", "content": "2"}, {"path": "c/p.png", "content": PNG, "encoding": "base64"}]},
                {"results": [{"path": text("two.txt$")}, {"path": text("p.png$")}]},
            )
        ],
        wrong=Bad({"files": "c/two.txt"}, "files"),
        missing=Bad({"files": [{"path": "c/two.txt/below", "content": "x"}]}, "1 of 1"),
        limit=Bad({"files": [{"path": f"c/{at}", "content": ""} for at in range(101)]}, "files"),
    ),
    Row(
        "read_file",
        [
            Good({"path": "c/one.txt"}, {"text": "one\ntwo\nthree\n", "total_lines": 3}),
            Good({"path": "c/one.txt", "offset_line": -1}, {"text": "three\n"}),
            Good({"path": "c/p.png"}, {"mime_type": "image/png"}),
        ],
        wrong=Bad({"path": "c/one.txt", "limit_lines": "all"}, "limit_lines"),
        missing=Bad({"path": NO_PATH}, NO_PATH),
        limit=Bad({"path": LONG_PATH}, "path"),
    ),
    Row(
        "edit_file",
        [Good({"path": "c/one.txt", "old_text": "two", "new_text": "2"}, {"replacements": 1, "diff": text(r"\+2")})],
        wrong=Bad({"path": "c/one.txt", "old_text": "", "new_text": "x"}, "old_text"),
        missing=Bad({"path": NO_PATH, "old_text": "a", "new_text": "b"}, NO_PATH),
        limit=Bad({"path": "c/one.txt", "old_text": "2", "new_text": "x" * ((4 << 20) + 1)}, "4194304"),
    ),
    Row(
        "list_dir",
        [Good({"path": "c"}, {"entries": [{"name": "one.txt", "type": "file", "size": 12}, {"name": "two.txt"}]})],
        wrong=Bad({"path": "c", "depth": "deep"}, "depth"),
        missing=Bad({"path": "no-such-folder"}, "no-such-folder"),
        limit=Bad({"path": "c", "depth": 17}, "depth"),
    ),
    Row(
        "search_files",
        [
            Good({"pattern": "^thr", "path": "c"}, {"matches": [{"path": text("one.txt$"), "line": 3, "text": "three"}]}),
            Good({"pattern": "two", "path": "c", "mode": "name"}, {"matches": [{"path": text("two.txt$")}]}),
        ],
        wrong=Bad({"pattern": "(", "path": "c"}, "pattern"),
        missing=Bad({"pattern": "x", "path": "no-such-folder"}, "no-such-folder"),
        limit=Bad({"pattern": "x" * 1025}, "pattern"),
    ),
    Row(
        "make_dir",
        [Good({"path": "c/deep/er"}, {"created": True}), Good({"path": "c/deep/er"}, {"created": False})],
        wrong=Bad({"path": True}, "path"),
        missing=Bad({"path": "c/one.txt/below"}, "one.txt"),
        limit=Bad({"path": LONG_PATH}, "path"),
    ),
    Row(
        "path_info",
        [
            Good({"path": "c/one.txt"}, {"exists": True, "entry": {"name": "one.txt", "size": 12}}),
            # What is not there is an answer of this tool.
            Good({"path": NO_PATH}, {"exists": False}),
        ],
        wrong=Bad({"file": "c/one.txt"}, "file"),
        missing=Bad({"path": "c", "sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"path": LONG_PATH}, "path"),
    ),
    Row(
        "move_path",
        [Good({"from": "c/two.txt", "to": "c/deep/2.txt"}, {"entry": {"name": "2.txt"}})],
        wrong=Bad({"from": "c/one.txt"}, "to"),
        missing=Bad({"from": NO_PATH, "to": "c/x"}, NO_PATH),
        limit=Bad({"from": "c/one.txt", "to": LONG_PATH}, "to"),
    ),
    Row(
        "remove_path",
        [Good({"path": "c/deep", "recursive": True}, {"removed": True}), Good({"path": NO_PATH}, {"removed": False})],
        wrong=Bad({"path": "c", "recursive": "yes"}, "recursive"),
        missing=Bad({"path": "c", "sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"path": LONG_PATH}, "path"),
    ),
]

COMMANDS = [
    Row(
        "run_command",
        [Good({"cmd": "cat; echo err >&2; exit 3", "stdin": "out"}, {"stdout": "out", "stderr": "err\n", "exit_code": 3, "duration_ms": int})],
        wrong=Bad({"cmd": "true", "timeout_s": "long"}, "timeout_s"),
        missing=Bad({"cmd": "true", "cwd": "/no-such-folder"}, "/no-such-folder"),
        limit=Bad({"cmd": "x" * ((64 << 10) + 1)}, "cmd"),
    ),
    Row(
        "run_command_bg",
        [Good({"cmd": "while read line; do echo got $line; done", "job_id": "echoes"}, {"job_id": "echoes", "pid": more_than(1)})],
        wrong=Bad({"cmd": "true", "job_id": "a/b"}, "job_id"),
        missing=Bad({"cmd": "true", "cwd": "/no-such-folder"}, "/no-such-folder"),
        limit=Bad({"cmd": "true", "job_id": "j" * 65}, "job_id"),
    ),
    Row(
        "send_stdin",
        [Good({"job_id": "echoes", "data": "line\n"}, {"sent": 5})],
        wrong=Bad({"job_id": "echoes", "data": 5}, "data"),
        missing=Bad({"job_id": NO_JOB, "data": "x"}, NO_JOB),
        limit=Bad({"job_id": "echoes", "data": "x" * ((1 << 20) + 1)}, "data"),
    ),
    Row(
        "get_job_status",
        [
            Good({"job_id": "echoes", "wait_s": 10}, {"status": "running", "stdout": "got line\n", "cursor": str}, {"cursor": "cursor"}),
            Good({"job_id": "echoes", "cursor": "$cursor"}, {"status": "running", "stdout": lambda out: not out}),
        ],
        wrong=Bad({"job_id": "echoes", "cursor": "yesterday"}, "cursor"),
        missing=Bad({"job_id": NO_JOB}, NO_JOB),
        limit=Bad({"job_id": "echoes", "wait_s": 41}, "wait_s"),
    ),
    Row(
        "list_jobs",
        [Good({}, {"jobs": [{"job_id": "echoes", "status": "running"}]})],
        wrong=Bad({"all": True}, "all"),
        missing="it lists what is there",
        limit="it takes no argument",
    ),
    Row(
        "kill_job",
        [Good({"job_id": "echoes"}, {"cancelled": True})],
        wrong=Bad({"job_id": "echoes", "signal": "SIGWHAT"}, "signal"),
        missing=Bad({"job_id": NO_JOB}, NO_JOB),
        limit=Bad({"job_id": ENDLESS_ID}, "no job"),
    ),
]

SERVER = "cd /tmp && exec python3 -u -m http.server 8321 --bind 127.0.0.1"
SERVICES = [
    Row(
        "start_service",
        [
            Good(
                {"cmd": SERVER, "port": 8321},
                {"job_id": str, "pid": more_than(1), "url": text("^https?://8321-"), "http_status": 200},
                {"service": "job_id", "url": "url"},
            )
        ],
        wrong=Bad({"cmd": SERVER, "port": "http"}, "port"),
        missing=Bad({"cmd": "true", "port": 8322, "cwd": "/no-such-folder"}, "/no-such-folder"),
        limit=Bad({"cmd": SERVER, "port": 65536}, "port"),
    ),
    Row(
        "wait_for_service_ready",
        [Good({"port": 8321}, {"ready": True, "http_status": 200, "waited_ms": int})],
        wrong=Bad({"port": -1}, "port"),
        missing=Bad({"port": 8329, "timeout_s": 1}, "8329"),
        limit=Bad({"port": 8321, "timeout_s": FAR}, "timeout_s"),
    ),
    Row(
        "get_public_url",
        [
            Good({"port": 8321}, {"url": text("^https?://8321-"), "listening": True}),
            Good({"port": 8329}, {"url": text("^https?://8329-"), "listening": False}),
        ],
        wrong=Bad({"port": "8321"}, "port"),
        missing=Bad({"port": 8321, "sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"port": 0}, "port"),
    ),
    Row(
        "http_probe",
        [Good({"port": 8321, "path": "/"}, {"status": 200, "body": text("Directory listing"), "headers": list})],
        wrong=Bad({"port": 8321, "method": "FETCH IT"}, "method"),
        missing=Bad({"port": 8329}, "8329"),
        limit=Bad({"port": 8321, "timeout_s": FAR}, "timeout_s"),
    ),
    Row(
        "service_diagnostics",
        [Good({"port": 8321}, {"listening": [{"port": 8321}]})],
        wrong=Bad({"port": "all"}, "port"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"port": 70000}, "port"),
    ),
]

TRANSFER = [
    Row(
        "upload_file",
        [Good({"local_path": "$local/up.txt", "path": "t/up.txt"}, {"size": 8})],
        wrong=Bad({"local_path": 5, "path": "t/h"}, "local_path"),
        missing=Bad({"local_path": "$local/absent.txt", "path": "t/a"}, "absent.txt"),
        limit=Bad({"local_path": "/etc/hostname", "path": "t/h"}, "/etc/hostname"),
    ),
    Row(
        "download_file",
        [Good({"path": "t/up.txt", "local_path": "$local/down.txt"}, {"size": 8})],
        wrong=Bad({"path": "t/up.txt"}, "local_path"),
        missing=Bad({"path": NO_PATH, "local_path": "$local/never.txt"}, NO_PATH),
        limit=Bad({"path": "t/up.txt", "local_path": "/tmp/never.txt"}, "/tmp/never.txt"),
    ),
    Row(
        "zip_dir",
        [
            Good({"path": "t/src/a.txt", "content": "a\n"}, {}, tool="write_file"),
            Good({"src_dir": "t/src", "dest_zip": "t/src.zip"}, {"size": more_than(20), "entries": more_than(0)}),
        ],
        wrong=Bad({"src_dir": "t/src", "dest_zip": "t/src.rar"}, "src.rar"),
        missing=Bad({"src_dir": "t/absent", "dest_zip": "t/x.zip"}, "absent"),
        limit=Bad({"src_dir": LONG_PATH, "dest_zip": "t/x.zip"}, "src_dir"),
    ),
    Row(
        "unzip_to",
        [Good({"zip_path": "t/src.zip", "dest_dir": "t/out"}, {"entries": more_than(0)})],
        wrong=Bad({"zip_path": "t/src.zip"}, "dest_dir"),
        missing=Bad({"zip_path": "t/absent.zip", "dest_dir": "t/out"}, "absent.zip"),
        limit=Bad({"zip_path": LONG_PATH, "dest_dir": "t/out"}, "zip_path"),
    ),
    Row(
        "prepare_project_download",
        [Good({"project_dir": "t/src"}, {"zip_path": str, "size": more_than(20), "url": text("^https?://"), "expires_at": str})],
        wrong=Bad({"project_dir": 5}, "project_dir"),
        missing=Bad({"project_dir": "t/absent"}, "absent"),
        limit=Bad({"project_dir": LONG_PATH}, "project_dir"),
    ),
    Row(
        "presigned_download_url",
        [Good({"path": "t/up.txt"}, {"url": text("^https?://.*signature="), "expires_at": str})],
        wrong=Bad({"path": "t/up.txt", "expires_in_s": "soon"}, "expires_in_s"),
        missing=Bad({"path": NO_PATH}, NO_PATH),
        limit=Bad({"path": "t/up.txt", "expires_in_s": FAR}, "expires_in_s"),
    ),
    Row(
        "presigned_upload_url",
        [Good({"path": "t/new.txt"}, {"url": text("^https?://.*signature="), "expires_at": str})],
        wrong=Bad({}, "path"),
        missing=Bad({"path": "t/new.txt", "sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"path": "t/new.txt", "expires_in_s": FAR}, "expires_in_s"),
    ),
]

WATCH = [
    Row(
        "watch_dir",
        [
            Good({"path": "seen"}, {}, tool="make_dir"),
            Good({"path": "seen"}, {"watch_id": str}, {"watch": "watch_id"}),
        ],
        wrong=Bad({"path": "seen", "recursive": "deep"}, "recursive"),
        missing=Bad({"path": "no-such-folder"}, "no-such-folder"),
        limit=Bad({"path": LONG_PATH}, "path"),
    ),
    Row(
        "get_watch_events",
        [
            Good({"path": "seen/new.txt", "content": "x"}, {}, tool="write_file"),
            Good({"watch_id": "$watch", "wait_ms": 5000}, {"events": [{"path": text("new.txt$")}]}),
        ],
        wrong=Bad({"watch_id": "$watch", "wait_ms": "long"}, "wait_ms"),
        missing=Bad({"watch_id": "no-such-watch"}, "no-such-watch"),
        limit=Bad({"watch_id": "$watch", "wait_ms": FAR}, "wait_ms"),
    ),
    Row(
        "unwatch_dir",
        [Good({"watch_id": "$watch"}, {})],
        wrong=Bad({}, "watch_id"),
        missing=Bad({"watch_id": "no-such-watch"}, "no-such-watch"),
        limit=Bad({"watch_id": ENDLESS_ID}, "no watch"),
    ),
]

PROCESSES = [
    Row(
        "list_processes",
        [
            Good({"cmd": ENDLESS, "job_id": "endless"}, {}, {"pid": "pid"}, tool="run_command_bg"),
            Good({}, {"processes": [{"pid": "$pid", "ppid": int, "user": "user", "command": text("sleep")}]}),
        ],
        wrong=Bad({"pid": 1}, "pid"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"sandbox_id": LONG_ID}, "sandbox_id"),
    ),
    Row(
        "kill",
        [
            Good({"pid": "$pid"}, {}),
            Good({"job_id": "endless", "wait_s": 10}, {"status": lambda status: status != "running"}, tool="get_job_status", again=True),
        ],
        wrong=Bad({"pid": "init"}, "pid"),
        missing=Bad({"pid": 4_000_000}, "4000000"),
        limit=Bad({"pid": 1 << 40}, "pid"),
    ),
    Row(
        "sandbox_metrics",
        [Good({}, {"samples": [{"at": str, "memory": more_than(0)}], "memory_limit": more_than(0), "cpus": more_than(0)})],
        wrong=Bad({"since_s": "yesterday"}, "since_s"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"since_s": FAR}, "since_s"),
    ),
]

SHELL = [
    Row(
        "open_shell",
        [Good({"cols": 100, "rows": 30}, {"shell_id": str}, {"shell": "shell_id"})],
        wrong=Bad({"cols": "wide"}, "cols"),
        missing=Bad({"cwd": "/no-such-folder"}, "/no-such-folder"),
        limit=Bad({"cols": 100_000}, "cols"),
    ),
    Row(
        "write_line",
        [Good({"shell_id": "$shell", "line": "echo at $((6 * 7)); cat"}, {})],
        wrong=Bad({"shell_id": "$shell", "line": 5}, "line"),
        missing=Bad({"shell_id": "no-such-shell", "line": "x"}, "no-such-shell"),
        limit=Bad({"shell_id": "$shell", "line": "x" * ((1 << 20) + 1)}, "line"),
    ),
    Row(
        "read_shell",
        [
            Good({"shell_id": "$shell", "timeout_ms": 2000, "screen": True}, {"screen": text("at 42")}, again=True),
        ],
        wrong=Bad({"shell_id": "$shell", "screen": "yes"}, "screen"),
        missing=Bad({"shell_id": "no-such-shell"}, "no-such-shell"),
        limit=Bad({"shell_id": "$shell", "timeout_ms": FAR}, "timeout_ms"),
    ),
    Row(
        "send_keys",
        [Good({"shell_id": "$shell", "keys": ["ctrl+c"]}, {})],
        wrong=Bad({"shell_id": "$shell", "keys": ["hyper+q"]}, "hyper+q"),
        missing=Bad({"shell_id": "no-such-shell", "keys": ["enter"]}, "no-such-shell"),
        limit=Bad({"shell_id": "$shell", "keys": ["x"] * 10_000}, "keys"),
    ),
    Row(
        "resize_shell",
        [Good({"shell_id": "$shell", "cols": 120, "rows": 40}, {})],
        wrong=Bad({"shell_id": "$shell", "cols": "wide", "rows": 40}, "cols"),
        missing=Bad({"shell_id": "no-such-shell", "cols": 120, "rows": 40}, "no-such-shell"),
        limit=Bad({"shell_id": "$shell", "cols": 120, "rows": 100_000}, "rows"),
    ),
    Row(
        "close_shell",
        [Good({"shell_id": "$shell"}, {})],
        wrong=Bad({"shell": "$shell"}, "shell"),
        missing=Bad({"shell_id": "no-such-shell"}, "no-such-shell"),
        limit=Bad({"shell_id": ENDLESS_ID}, "no shell"),
    ),
]

NETWORK = [
    Row(
        "update_network",
        [
            Good({"allow_out": ["example.com"], "deny_out": ["0.0.0.0/0"]}, {"mode": "allowlist"}),
            Good({"allow_internet_access": False}, {"mode": "none"}),
            Good({}, {"mode": "public"}),
        ],
        wrong=Bad({"allow_out": ["http://example.com/"]}, "allow_out"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"deny_out": ["example.com"] * 257}, "deny_out"),
    ),
]

# What a machine without overlays says.
NO_LAYERS = ("unsupported",)

SNAPSHOTS = [
    Row(
        "create_snapshot",
        [Good({"name": "catalogue"}, {"snapshot_id": "catalogue:default", "names": list}, unless=NO_LAYERS)],
        wrong=Bad({"name": 5}, "name"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"name": "n" * 261}, "name"),
    ),
    Row(
        "list_snapshots",
        [Good({"limit": 5}, {"snapshots": list, "truncated": False})],
        wrong=Bad({"limit": "many"}, "limit"),
        missing="a sandbox that is not there has none",
        limit=Bad({"limit": 101}, "limit"),
    ),
    Row(
        "diff_sandbox",
        [
            Good({"limit": 5}, {"changes": [{"path": text("^/"), "change": text("added|changed|removed")}]}, unless=NO_LAYERS),
            # Programs run in it, so the snapshot may be a copy, which is no state that it stands on.
            Good({"since": "catalogue"}, {"changes": list}, unless=(*NO_LAYERS, "conflict")),
        ],
        wrong=Bad({"since": "no name"}, "since"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"limit": 1001}, "limit"),
    ),
    Row(
        "fork_sandbox",
        [Good({"count": 2, "timeout_s": 60}, {"forks": [{"sandbox_id": text("^i")}]}, unless=NO_LAYERS)],
        wrong=Bad({"count": "many"}, "count"),
        missing=Bad({"sandbox_id": NO_SANDBOX}, NO_SANDBOX),
        limit=Bad({"count": 21}, "count"),
    ),
    Row(
        "rollback_sandbox",
        [Good({"snapshot": "catalogue"}, {"rolled_back_to": "catalogue"}, unless=NO_LAYERS)],
        wrong=Bad({"snapshot": "a", "checkpoint": "b"}, "exactly one"),
        missing=Bad({"sandbox_id": NO_SANDBOX, "snapshot": "catalogue"}, NO_SANDBOX),
        limit=Bad({"snapshot": "s" * 261}, "snapshot"),
    ),
    Row(
        "delete_snapshot",
        [Good({"snapshot": "catalogue"}, {"deleted": bool}), Good({"snapshot": "catalogue"}, {"deleted": False})],
        wrong=Bad({"snapshot": "no name"}, "snapshot"),
        missing="one that is not there is gone",
        limit=Bad({"snapshot": "s" * 261}, "snapshot"),
    ),
]

TEMPLATES = [
    Row(
        "build_template",
        [
            Good(
                {"name": "catalogue", "from_template": "base"},
                {"job_id": text("^j"), "template_id": str, "build_id": str},
                unless=NO_LAYERS,
            ),
        ],
        wrong=Bad({"name": "x", "from_image": "/etc/passwd"}, "from_image"),
        missing=Bad({"name": "x", "from_template": "no-such-template"}, ""),
        limit=Bad({"name": "n" * 261, "from_template": "base"}, "name"),
    ),
    Row(
        "list_templates",
        [Good({}, {"templates": list, "truncated": False})],
        wrong=Bad({"limit": 5}, "limit"),
        missing="it lists what is there",
        limit="it takes nothing",
    ),
    Row(
        "delete_template",
        [Good({"template": "catalogue"}, {"deleted": bool}), Good({"template": "catalogue"}, {"deleted": False})],
        wrong=Bad({"template": "no name"}, "template"),
        missing="one that is not there is gone",
        limit=Bad({"template": "t" * 261}, "template"),
    ),
]

ENDS = [
    Row(
        "shutdown_sandbox",
        [
            Good({"sandbox_id": "$spare"}, {"sandbox_id": "$spare", "status": "ended"}),
            Good({"sandbox_id": "$spare"}, {"sandbox_id": "$spare", "status": "had_ended"}),
        ],
        wrong=Bad({"sandbox": "$spare"}, "sandbox"),
        missing="one that is not there has ended",
        limit=Bad({"sandbox_id": LONG_ID}, "sandbox_id"),
    ),
    Row(
        "shutdown_all_sandboxes",
        [Good({}, {"results": [{"sandbox_id": "$sandbox"}]})],
        wrong=Bad({"force": True}, "force"),
        missing="it means the sandboxes that are there",
        limit="it takes no argument",
    ),
]

ROWS = [*SANDBOX, *FILES, *COMMANDS, *SERVICES, *TRANSFER, *WATCH, *PROCESSES, *SHELL, *NETWORK, *SNAPSHOTS, *TEMPLATES, *ENDS]
