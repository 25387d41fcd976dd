"""Runs another scenario, unchanged, with the sandboxes of a `sandhold serve` instead of the embedded engine's.

usage: remote.py SCRIPT ARGUMENTS…
"""

import os
import runpy
import sys
from pathlib import Path

from serve_kit import Serve

if __name__ == "__main__":
    with Serve() as serve:
        serve.use()
        os.environ["SANDHOLD_PROVIDER"] = "e2b"
        sys.argv = sys.argv[1:]
        runpy.run_path(str(Path(__file__).with_name(sys.argv[0])), run_name="__main__")
