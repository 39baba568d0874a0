"""Request bodies: JSON whatever the content type says, validated into a model, every fault named with its field.

FastAPI's own body parameters would refuse JSON that curl sends with its default content type, and word their errors in
another way than the ingest does.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from context_graph.api.problems import ENCODING, MALFORMED, TOO_LARGE, ProblemError
from context_graph.api.services import services_of
from context_graph.errors import FieldProblem, InvalidInput
from context_graph.ingest.exact_json import parse_exactly
from context_graph.ingest.unpacking import BodyTooLarge, BrokenBody, Encoding, unpacker
from context_graph.ingest.validation import problems_of

# A body that is too large is read on and thrown away up to so many limits: a client that still sends would otherwise
# see a broken connection instead of the answer.
_DRAINED = 8
_ENCODINGS: dict[str, Encoding] = {
    "": "identity", "identity": "identity", "gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd",
}  # fmt: skip
Model = TypeVar("Model", bound=BaseModel)


async def read_json(request: Request) -> object:
    """The request's body as JSON. Raises ProblemError: `too-large`, or `malformed-json` saying where it breaks."""
    return parse_json(await read_body(request))


async def read_body(request: Request) -> bytes:
    """The request's body. Raises ProblemError `too-large`."""
    return await _read(request, services_of(request).resources.settings.api.max_body_bytes)


def parse_json(body: bytes) -> object:
    """A body as JSON. Raises ProblemError `malformed-json` saying where it breaks."""
    try:
        value: object = parse_exactly(body)
    except orjson.JSONDecodeError as error:
        raise ProblemError(MALFORMED, f"the body is not JSON, or no JSON that is read here: {error}") from error
    return value


def encoding_of(request: Request) -> Encoding:
    """How the body is compressed, by Content-Encoding. Raises ProblemError for what is not known."""
    named = request.headers.get("content-encoding", "").strip().lower()
    if named not in _ENCODINGS:
        detail = f"Content-Encoding {named!r}: this takes gzip, zstd, or none"
        raise ProblemError(ENCODING, detail, {"Accept-Encoding": "gzip, zstd, identity"})
    return _ENCODINGS[named]


async def _read(request: Request, limit: int) -> bytes:
    """The body, decompressed, given up as soon as it is longer than `limit` bytes on the wire or behind it."""
    encoding = encoding_of(request)
    declared = request.headers.get("content-length", "")
    too_large = declared.isdecimal() and int(declared) > limit
    body = bytearray()
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        too_large = too_large or read > limit
        if not too_large:
            body += chunk
        elif read > limit * _DRAINED:
            break
    if too_large:
        raise ProblemError(TOO_LARGE, f"the body is over {limit:,} bytes: send less, or raise CG_API__MAX_BODY_BYTES")
    return bytes(body) if encoding == "identity" else _unpacked(body, encoding, limit)


def _unpacked(body: bytearray, encoding: Encoding, limit: int) -> bytes:
    plain = bytearray()
    unpacking = unpacker(encoding, most=limit, ratio=limit)
    try:
        for piece in unpacking.feed(bytes(body)):
            plain += piece
        unpacking.finish()
    except BodyTooLarge as error:
        detail = f"the body is over {limit:,} bytes decompressed: send less, or raise CG_API__MAX_BODY_BYTES"
        raise ProblemError(TOO_LARGE, detail) from error
    except BrokenBody as error:
        raise ProblemError(MALFORMED, str(error)) from error
    return bytes(plain)


async def read_model(request: Request, model: type[Model], *, required: bool = True) -> Model:
    """The request's body as a `model`; unless `required`, no body at all is one without members.

    Raises ProblemError when it is not JSON, InvalidInput naming wrong fields.
    """
    body = await read_body(request)
    raw = parse_json(body) if body or required else {}
    if not isinstance(raw, dict):
        raise InvalidInput([FieldProblem("", "the body is not a JSON object", "send an object", "object")])
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InvalidInput(problems_of(error, known=model.model_fields)) from error


def described(
    schema: dict[str, Any], example: dict[str, Any] | None = None, *, required: bool = True
) -> dict[str, Any]:
    """OpenAPI's `requestBody` for a JSON schema, to be given as `openapi_extra`."""
    definitions = schema.get("$defs", {})
    body = {name: _written_out(value, definitions) for name, value in schema.items() if name != "$defs"}
    content: dict[str, Any] = {"schema": body}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def _written_out(value: Any, definitions: dict[str, Any]) -> Any:
    """The value with each `#/$defs/…` in its place: inside an OpenAPI document such a reference leads nowhere."""
    if isinstance(value, list):
        return [_written_out(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    name = str(value.get("$ref", "")).removeprefix("#/$defs/")
    if name in definitions:
        value = definitions[name] | {word: inner for word, inner in value.items() if word != "$ref"}
    return {word: _written_out(inner, definitions) for word, inner in value.items()}
