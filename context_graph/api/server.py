"""The HTTP server: uvicorn, told to end open streams when it stops.

uvicorn waits for open requests before it ends the application's lifespan, so a stream that follows the ledger would
hold it up until its deadline. Streams are told first.
"""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from context_graph.api.services import Services


class ApiServer(uvicorn.Server):
    """Serves the application; on a stop, streams end after the message in hand, then everything else as usual."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no new connections, open streams ended, open requests answered, resources closed."""
        services = getattr(self._app.state, "services", None)
        if isinstance(services, Services):
            services.notices.close()
        await super().shutdown(sockets)
