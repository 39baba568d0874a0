"""The floor of single ingest: `python -m tests.benchmarks.floor_app PORT`, an empty FastAPI route doing one XADD.

Served as the API is: one uvicorn process, no access log. The address of Redis is in CG_REDIS_URL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request, Response

from context_graph.store.connection import open_redis

STREAM = "floor"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_redis(os.environ["CG_REDIS_URL"]) as client:
        app.state.redis = client
        yield


async def _append(request: Request) -> Response:
    position = await request.app.state.redis.xadd(STREAM, {"e": await request.body()})
    return Response(b'{"position":"' + position + b'"}', status_code=201, media_type="application/json")


def main() -> None:
    """Serve until stopped."""
    app = FastAPI(lifespan=_lifespan)
    app.add_api_route("/floor", _append, methods=["POST"])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False)


if __name__ == "__main__":
    main()
