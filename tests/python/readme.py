"""The README's entry for a client's configuration works as it stands, with `sandhold` on the PATH and nothing else set."""

import json
import os
import re
import tempfile
from pathlib import Path

from kit import BIN, call, check, equal, main


async def scenario() -> None:
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    tests = Path(os.environ["SANDHOLD_TEST_DIR"])
    readme = (tests.parent / "README.md").read_text()
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", readme, re.S)]
    entries = [(key, block[key]["sandhold"]) for block in blocks for key in ("mcpServers", "servers") if key in block]
    local = [(key, entry) for key, entry in entries if "command" in entry and not entry.get("env")]
    check("the README shows an entry", local, entries)
    check("the issue's entry stands there", ("mcpServers", {"command": "sandhold", "args": ["mcp"]}) in local, local)
    with tempfile.TemporaryDirectory() as home:
        for key, entry in local:
            # As a client starts it: a bare environment, a home folder without anything of ours.
            path = f"{Path(BIN).parent}:{os.environ['PATH']}"
            parameters = StdioServerParameters(command=entry["command"], args=entry["args"], env={"PATH": path, "HOME": home})
            with tempfile.TemporaryFile("w+") as errors:
                async with Client(stdio_client(parameters, errlog=errors), read_timeout_seconds=60) as connected:
                    equal(f"{key}: it is sandhold", connected.server_info.name, "sandhold")
                    answer = await call(connected, "run_command", {"cmd": "echo hello from the sandbox"})
                    equal(f"{key}: a command runs", answer.get("stdout"), "hello from the sandbox\n")
        left = sorted(str(path.relative_to(home)) for path in Path(home).rglob("*"))
        check("its state lies in the state folder", all(name.startswith(".local") for name in left), left)


if __name__ == "__main__":
    main(scenario)
