"""The first lines of the command: Ctrl-C while the rest is still being imported ends quietly too.

Importing takes the better part of a second; an interrupt in it would print a traceback of whatever was being loaded.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from context_graph.cli.main import main as run  # noqa: PLC0415 - inside, so that an interrupt meets the `except`

        run()
    except KeyboardInterrupt:
        # `up` that has started nothing yet has stopped everything; anything else says what a shell says: 128 + SIGINT.
        sys.exit(0 if sys.argv[1:2] == ["up"] else 130)


if __name__ == "__main__":
    main()
