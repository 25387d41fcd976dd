"""E2B's JavaScript SDK 2.51.0 against `sandhold serve`: runs tests/node/sdk_matrix.mjs, whose every check counts here."""

from kit import main, node
from serve_kit import Serve


async def scenario() -> None:
    with Serve() as server:
        server.use()
        node("sdk_matrix.mjs")


if __name__ == "__main__":
    main(scenario)
