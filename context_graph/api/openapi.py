"""The OpenAPI document: what FastAPI writes, completed with what holds for every route.

Components of the answers, the two ways to send a key, the request id in every answer and Retry-After where waiting
helps. Whether the document is true is what `tests/integration/test_openapi.py` asks.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from context_graph.api.answer_shapes import COMPONENTS
from context_graph.api.problems import INVALID, METHOD, PROBLEM_SCHEMA, documented
from context_graph.api.request_ids import HEADER

_REQUEST_ID = {"description": "the request's name: yours if sane, else made here", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "seconds to wait", "schema": {"type": "integer"}}
_REQUEST_ID_SENT = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "a name for this request in answer and log: up to 128 of A-Z a-z 0-9 . _ : / + = @ -",
    "schema": {"type": "string", "maxLength": 128},
}
_RETRYABLE = ("429", "503", "504")
_METHODS = ("get", "post", "put", "patch", "delete")


def complete(app: FastAPI, key_header: str) -> None:
    """Have `app.openapi()` return the whole document; it is built once."""
    build = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = build()
            _components(document, key_header)
            for path in document["paths"].values():
                for method in _METHODS:
                    if method in path:
                        _operation(path[method])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _components(document: dict[str, Any], key_header: str) -> None:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "serviceKey": {"type": "apiKey", "in": "header", "name": key_header},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    components["headers"] = {"RequestId": _REQUEST_ID, "RetryAfter": _RETRY_AFTER}
    components["responses"] = {"MethodNotAllowed": documented(METHOD)[METHOD.status]}
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # the framework's own error body, which nothing answers
        schemas.pop(name, None)
    schemas.update({"Problem": PROBLEM_SCHEMA, **COMPONENTS})
    document["security"] = [{"serviceKey": []}, {"bearer": []}]


def _operation(operation: dict[str, Any]) -> None:
    operation.setdefault("parameters", []).append(_REQUEST_ID_SENT)
    if "HTTPValidationError" in str(operation["responses"].get("422")):
        operation["responses"]["422"] = documented(INVALID)[INVALID.status]
    operation["responses"].setdefault("422", documented(INVALID)[INVALID.status])  # of parameters that are not there
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers[HEADER] = {"$ref": "#/components/headers/RequestId"}
        if status in _RETRYABLE and "application/problem+json" in response.get("content", {}):
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
