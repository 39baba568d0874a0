"""The load client as a process: `python -m tests.benchmarks.load PORT PATH CONNECTIONS FILE`, the key in CG_KEY.

FILE holds a request body a line. Prints one JSON object: seconds, latencies, answers by status, how busy it was.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import uvloop

from tests.benchmarks.http_client import request_bytes, run_load


def main() -> None:
    """Read everything, then run the load, then report."""
    port, path, connections, file = sys.argv[1:]
    key = os.environ.get("CG_KEY", "")
    requests = [request_bytes(path, body, key) for body in Path(file).read_bytes().splitlines()]
    outcome = uvloop.run(run_load(int(port), requests, int(connections)))
    report = {
        "seconds": outcome.seconds,
        "client_busy": outcome.client_busy,
        "latencies_ms": outcome.latencies_ms,
        "statuses": outcome.statuses,
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
