"""Calls of `catalogue.py` with more to tell than an answer holds, and what makes them ready."""

from catalogue_rows import Good, text


def ready(cmd: str) -> Good:
    return Good({"cmd": cmd}, {"exit_code": 0}, tool="run_command")


LARGE = [
    Good({"cmd": "seq 1 300000; seq 1 300000 >&2"}, {"truncated": True}, tool="run_command"),
    ready("seq -f %0200g 5000 > wide.txt; tr '\\n' ' ' < wide.txt > line.txt; head -c 250000 /dev/urandom > raw"),
    Good({"path": "wide.txt"}, {"truncated": True}, tool="read_file"),
    Good({"path": "line.txt"}, {"truncated": True}, tool="read_file"),
    Good({"path": "raw", "encoding": "base64"}, {"base64": str, "size": 250_000}, tool="read_file"),
    ready("mkdir many; cd many; seq -f 'file-with-a-rather-long-name-%06g.txt' 4000 | xargs touch"),
    Good({"path": "many"}, {"truncated": True}, tool="list_dir"),
    Good({"pattern": "0", "path": "wide.txt", "limit": 1000, "context_lines": 20}, {"truncated": True}, tool="search_files"),
    Good({"pattern": "file", "path": "many", "mode": "name", "limit": 1000}, {"truncated": True}, tool="search_files"),
    Good({"path": "wide.txt", "old_text": "0", "new_text": "1", "replace_all": True}, {"diff": str}, tool="edit_file"),
    Good({"cmd": "seq 1 300000; seq 1 300000 >&2", "job_id": "talks"}, {}, tool="run_command_bg"),
    Good({"job_id": "talks", "wait_s": 20}, {"more": True}, tool="get_job_status", again=True),
    Good({"code": "seq 1 300000", "language": "bash"}, {"results": [{"sandbox_id": "$sandbox"}]}, tool="run_in_all_sandboxes"),
    ready("for at in $(seq 200); do (exec -a $(head -c 2000 /dev/zero | tr '\\0' a) sleep 60) & done >/dev/null 2>&1"),
    Good({}, {"processes": list}, tool="list_processes"),
    ready("mkdir web; tr '\\0' x < /dev/zero | head -c 3000000 > web/large.txt"),
    Good({"cmd": "cd web && exec python3 -m http.server 8324 --bind 127.0.0.1", "port": 8324}, {"http_status": 200}, tool="start_service"),
    Good({"port": 8324, "path": "/large.txt"}, {"status": 200, "truncated": True}, tool="http_probe"),
    ready("for at in $(seq 12); do seq -f %0300g 500 > /tmp/wordy-$at.log; done"),
    Good({}, {"logs": list}, tool="service_diagnostics"),
    Good({"path": "many"}, {}, {"busy": "watch_id"}, tool="watch_dir"),
    ready("cd many; seq -f 'another-file-with-a-long-name-%06g.txt' 4000 | xargs touch"),
    Good({"watch_id": "$busy", "wait_ms": 5000}, {"events": [{"path": text("another-file")}]}, tool="get_watch_events"),
    Good({"cols": 200, "rows": 60}, {}, {"loud": "shell_id"}, tool="open_shell"),
    Good({"shell_id": "$loud", "line": "seq -f %0150g 20000"}, {}, tool="write_line"),
    Good({"shell_id": "$loud", "timeout_ms": 3000, "screen": True}, {"screen": str}, tool="read_shell"),
    Good({"shell_id": "$loud", "timeout_ms": 3000}, {"output": str}, tool="read_shell"),
]
