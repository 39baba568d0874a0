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
from fastapi.exceptions import RequestValidationError
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
    dimensions: int | None = None


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

    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)

    @app.post("/v1/embeddings")
    async def embeddings(
        request: Request, body: EmbeddingsIn, authorization: Annotated[str, Header()] = ""
    ) -> Response:
        if key is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "send CG_EMBEDDING__API_KEY as `Authorization: Bearer …`")
        embedder: Embedder = request.app.state.embedder
        if body.dimensions not in (None, embedder.dimensions):
            raise HTTPException(400, f"dimensions: {embedder.model_id} makes {embedder.dimensions}, no other number")
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


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return _error(422, f"{where}: {first['msg']}")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), dict(error.headers or {}))


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error in the OpenAI form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


_NO_USAGE = {"prompt_tokens": 0, "total_tokens": 0}


def _encoded(vector: Any, form: str) -> str | list[float]:
    return b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()


def _json(body: dict[str, Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
