"""E2B's JavaScript SDK 2.51.0 against `sandhold serve`: runs tests/node/sdk_matrix.mjs, whose every check counts here."""

import os
import subprocess
from pathlib import Path

from kit import check, main
from serve_kit import Serve


async def scenario() -> None:
    script = Path(os.environ["SANDHOLD_TEST_DIR"]) / "node/sdk_matrix.mjs"
    # Packages are looked for beside the script.
    folder = Path(os.environ["TMPDIR"])
    (folder / "node_modules").symlink_to(os.environ["NODE_MODULES"])
    copy = folder / script.name
    copy.write_text(script.read_text())
    with Serve() as server:
        server.use()
        ended = subprocess.run([os.environ["NODE"], copy], capture_output=True, text=True, timeout=150)
    lines = ended.stdout.splitlines()
    for line in lines:
        if line.startswith(("ok    ", "FAIL  ")):
            name, _, detail = line[6:].partition(": ") if line.startswith("FAIL") else (line[6:], "", "")
            check(name, line.startswith("ok"), detail)
    check("the program ended in order", ended.returncode == 0 and lines[-1:] == ["end"], ended.stdout[-500:] + ended.stderr)


if __name__ == "__main__":
    main(scenario)
