"""Asking the user before something is destroyed: the PyPI packages mcp 2 (both eras) and mcp 1, against the real server.

usage: consent.py modern|legacy|old
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from kit import BIN, call, check, client, equal, main, run, server_env


class Person:
    """Answers every question with `action` and, where it accepts, with the box ticked or not."""

    def __init__(self, action: str, ticks: bool = True):
        self.action, self.ticks = action, ticks
        self.asked: list[str] = []

    async def __call__(self, _context, parameters):
        try:
            from mcp.types import ElicitResult
        except ImportError:
            from mcp_types import ElicitResult
        self.asked.append(parameters.message)
        schema = getattr(parameters, "requested_schema", None) or parameters.requestedSchema
        fields = {name: field["type"] for name, field in schema["properties"].items()}
        check("the form has one box", fields == {"confirm": "boolean"} and schema["required"] == ["confirm"], schema)
        return ElicitResult(action=self.action, content={"confirm": self.ticks} if self.action == "accept" else None)


class Old:
    """A session of mcp 1 that answers as `kit.call` expects it."""

    def __init__(self, session):
        self.session = session

    async def call_tool(self, tool: str, arguments: dict):
        result = await self.session.call_tool(tool, arguments)
        result.structured_content, result.is_error = result.structuredContent, result.isError
        return result


@contextlib.asynccontextmanager
async def connected(era: str, *arguments: str, person: Person | None = None):
    if era != "old":
        settings = {"elicitation_callback": person} if person else {}
        async with client("stdio", era, *arguments, **settings) as opened:
            yield opened
        return
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    parameters = StdioServerParameters(command=BIN, args=["mcp", *arguments], env=server_env())
    with tempfile.TemporaryFile("w+") as errors:
        async with stdio_client(parameters, errlog=errors) as streams:
            async with ClientSession(*streams, elicitation_callback=person) as session:
                await session.initialize()
                yield Old(session)


async def answer(to, tool: str, arguments: dict) -> dict:
    if not isinstance(to, Old):
        return await call(to, tool, arguments)
    result = await to.call_tool(tool, arguments)
    return {**result.structured_content, "_error": result.is_error, "_text": "\n".join(part.text for part in result.content)}


def code(told: dict) -> str | None:
    return told.get("error", {}).get("code")


async def exists(to, path: str) -> bool:
    return (await answer(to, "path_info", {"path": path}))["exists"]


async def folder(to) -> None:
    await answer(to, "write_file", {"path": "tree/leaf.txt", "content": "x"})


async def says(era: str) -> None:
    """What the user may say."""
    for person, removed in ((Person("accept"), True), (Person("accept", False), False), (Person("decline"), False), (Person("cancel"), False)):
        name = f"{person.action}{'' if person.ticks else ' without the box ticked'}"
        async with connected(era, person=person) as to:
            await folder(to)
            equal(f"{name}: nothing was asked before", person.asked, [])
            told = await answer(to, "remove_path", {"path": "tree", "recursive": True})
            equal(f"{name}: the tool", code(told), None if removed else "declined")
            equal(f"{name}: the tree", await exists(to, "tree"), not removed)
            check(f"{name}: one question, which names the folder", len(person.asked) == 1 and "/home/user/tree" in person.asked[0], person.asked)
            if not removed:
                check(f"{name}: the model is told not to go on", "without asking the user" in told["_text"], told["_text"])
                continue
            await answer(to, "write_file", {"path": "file.txt", "content": "x"})
            await answer(to, "remove_path", {"path": "file.txt"})
            await answer(to, "make_dir", {"path": "empty"})
            await answer(to, "remove_path", {"path": "empty", "recursive": True})
            equal("a file and an empty folder are removed without a question", len(person.asked), 1)
            told = await answer(to, "shutdown_all_sandboxes", {})
            check("ending all sandboxes asks", len(person.asked) == 2 and told["results"][0]["sandbox_id"] in person.asked[1], person.asked)


async def downloads(era: str) -> None:
    """A file of the user's own machine that would be replaced."""
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder, "mine.txt")
        for person, wanted in ((Person("decline"), "mine"), (Person("accept"), "theirs")):
            mine.write_text("mine")
            async with connected(era, "--allow-dir", folder, person=person) as to:
                await answer(to, "write_file", {"path": "theirs.txt", "content": "theirs"})
                new = {"path": "theirs.txt", "local_path": str(Path(folder, f"new-{person.action}.txt"))}
                told = await answer(to, "download_file", new)
                equal(f"{person.action}: a new file is no question", (code(told), person.asked), (None, []))
                told = await answer(to, "download_file", {"path": "theirs.txt", "local_path": str(mine)})
                equal(f"{person.action}: without overwrite it is refused at once", (code(told), person.asked), ("already_exists", []))
                told = await answer(to, "download_file", {"path": "theirs.txt", "local_path": str(mine), "overwrite": True})
                equal(f"{person.action}: with it the user is asked", (code(told), len(person.asked)), (None if wanted == "theirs" else "declined", 1))
                check(f"{person.action}: by the name of the file", str(mine) in person.asked[0], person.asked)
                equal(f"{person.action}: the file", mine.read_text(), wanted)
                left = {path.name for path in Path(folder).iterdir()} - {"mine.txt", "new-decline.txt", "new-accept.txt"}
                equal(f"{person.action}: nothing else is left there", left, set())


async def policies(era: str) -> None:
    """The three policies, with a client that can ask and with one that cannot."""
    for policy, can_ask, wanted, asked in (
        ("never", True, None, 0), ("never", False, None, 0), ("destructive", False, None, 0),
        ("always", True, None, 1), ("always", False, "consent_needed", 0),
    ):  # fmt: skip
        name = f"--confirm {policy}, a client that can{'' if can_ask else 'not'} ask"
        person = Person("accept") if can_ask else None
        async with connected(era, "--confirm", policy, person=person) as to:
            told = await answer(to, "run_command", {"cmd": "echo hello"})
            equal(f"{name}: a command", code(told), wanted)
            equal(f"{name}: questions", len(person.asked) if person else 0, asked)
            if wanted:
                check(f"{name}: how to change it", "--confirm destructive" in told["_text"], told["_text"])
                listed = await answer(to, "list_sandboxes", {})
                equal(f"{name}: nothing was begun", listed["sandboxes"], [])
                continue
            await folder(to)
            told = await answer(to, "remove_path", {"path": "tree", "recursive": True})
            equal(f"{name}: a tree", (code(told), await exists(to, "tree")), (None, False))


async def scenario(era: str) -> None:
    await says(era)
    await downloads(era)
    await policies(era)


if __name__ == "__main__":
    main(scenario, *sys.argv[1:])
