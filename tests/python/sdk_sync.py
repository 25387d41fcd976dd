"""E2B's Python SDK, unmodified, against `sandhold serve`: the synchronous client of one version, given as the argument.

usage: sdk_sync.py VERSION. 1.5.0 and 2.0.0 know a server by its domain alone, over TLS; later ones by URL."""

import gc
import os
import sys
import time

import sdk_commands
import sdk_files
import sdk_life
import sdk_traffic
import sdk_watch
from kit import equal, main
from sdk_kit import World, installed
from serve_kit import Serve, localhost_names


async def scenario(wanted: str) -> None:
    world_version = installed()
    equal("the SDK's version", ".".join(map(str, world_version)), wanted)
    by_domain = world_version < (2, 25)
    with Serve(*(["--tls", "self-signed"] if by_domain else [])) as server:
        localhost_names()
        if by_domain:
            # The collector may close a stream that was left open while the pool of these versions' HTTP library holds its
            # lock, which the closing waits for.
            gc.disable()
            os.environ.update(E2B_DOMAIN=server.domain, E2B_API_KEY=server.key, SSL_CERT_FILE=str(server.authority))
        else:
            server.use()
        world = World(server, world_version)
        world.sandbox = world.make(timeout=600, metadata={"suite": "sdk", "odd key": "v&2=ü"}, envs={"GREETING": "hello"})
        subjects = [sdk_files, sdk_commands, sdk_watch, sdk_traffic, sdk_life]
        if world.since(2, 45):
            import sdk_git

            subjects.append(sdk_git)
        only = sys.argv[2:]
        for subject in subjects:
            if only and subject.__name__ not in only:
                continue
            begun = time.monotonic()
            subject.checks(world)
            print(f"      {subject.__name__}: {time.monotonic() - begun:.1f} s")
        equal("kill, twice", (world.kill(world.sandbox), world.kill(world.sandbox)), (True, False))


if __name__ == "__main__":
    main(scenario, sys.argv[1])
