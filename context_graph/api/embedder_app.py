"""The embedder as a server in the OpenAI form: one host, perhaps with a GPU, embeds for many workers.

`context-graph worker embedder` serves it. It needs no Redis and knows no tenant: texts in, vectors out, nothing kept.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from context_graph.errors import ConfigurationError, ModelUnavailable
from context_graph.models.embedder import Embedder
from context_graph.models.opening import open_embedder
from context_graph.settings import Settings

MOST_TEXTS = 2048
_Text = Annotated[str, Field(max_length=100_000)]


class EmbeddingsIn(BaseModel):
    """A request in the OpenAI form; `model` is what the caller calls it and decides nothing."""

    model_config = ConfigDict(extra="ignore")

    input: _Text | Annotated[list[_Text], Field(min_length=1, max_length=MOST_TEXTS)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"


def create_embedder_app(settings: Settings) -> FastAPI:
    """The application; the model is loaded when it starts. With CG_EMBEDDING__API_KEY it asks for that key."""
    embedding = settings.embedding.model_copy(update={"provider": "fastembed"})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_embedder(embedding, settings.data_dir / "models") as embedder:
            await embedder.embed(["warm up"])
            app.state.embedder = embedder
            yield

    app = FastAPI(title="Context Graph embedder", lifespan=lifespan, openapi_url=None)
    key = settings.embedding.api_key.get_secret_value() if settings.embedding.api_key else None

    @app.post("/v1/embeddings")
    async def embeddings(
        request: Request, body: EmbeddingsIn, authorization: Annotated[str, Header()] = ""
    ) -> Response:
        if key is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "send CG_EMBEDDING__API_KEY as `Authorization: Bearer …`")
        embedder: Embedder = request.app.state.embedder
        texts = [body.input] if isinstance(body.input, str) else body.input
        try:
            vectors = await embedder.embed(texts)
        except (ModelUnavailable, ConfigurationError) as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
        data = [
            {"object": "embedding", "index": row, "embedding": _encoded(vector, body.encoding_format)}
            for row, vector in enumerate(vectors)
        ]
        return _json({"object": "list", "model": embedder.model_id, "data": data, "usage": _NO_USAGE})

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": [{"id": request.app.state.embedder.model_id, "object": "model"}]})

    @app.get("/health/live")
    async def live() -> Response:
        return _json({"status": "ok"})

    return app


_NO_USAGE = {"prompt_tokens": 0, "total_tokens": 0}


def _encoded(vector: Any, form: str) -> str | list[float]:
    return b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
