"""Every request sees one generation of what is derived, also when another one becomes the live one meanwhile."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from context_graph.store.generations import steady


class SteadyReads:
    """ASGI middleware around everything that reads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request inside a steady read."""
        with steady():
            await self._app(scope, receive, send)
