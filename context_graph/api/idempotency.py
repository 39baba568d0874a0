"""`Idempotency-Key`: the same request sent again gets the answer of the first, for a day.

By draft-ietf-httpapi-idempotency-key-header: the key is a structured string ("…"), taken without quotes too, and counts
within its tenant and route. The body's bytes are the request's fingerprint. Only answers that say what became of the
events are kept: a request that was refused as a whole, or that the store took only in part, may be sent again under its
key, changed or not.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Header, Request, Response

from context_graph.api.problems import KEY_REUSED, KEY_RUNNING, ProblemError
from context_graph.api.services import services_of
from context_graph.domain.partition import Tenant
from context_graph.errors import FieldProblem, InvalidInput, StoreUnavailable
from context_graph.store.idempotency import IdempotencyKeys, KeptAnswer, Running, Taken

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

_MOST = 255  # characters of a key
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')  # RFC 8941, 3.3.3
_PRINTABLE = re.compile(r"[\x20-\x7e]+")

log = structlog.get_logger(__name__)

IdempotencyKey = Annotated[
    str | None,
    Header(description="a key of your making; the same request again within a day gets the first one's answer"),
]


async def answer_once(
    request: Request,
    tenant: Tenant,
    sent: str | None,
    body: bytes,
    answer: Callable[[], Awaitable[tuple[Response, bool]]],
) -> Response:
    """The answer, made now or kept from the first time. `sent`: the header; `answer` also says if it may be kept.

    Raises ProblemError: the key is in use (409) or was used for another body (422).
    """
    if sent is None:
        response, _ = await answer()
        return response
    keys = services_of(request).idempotency
    begun = await keys.begin(tenant.name, f"{request.method} {request.url.path}", _key(sent), body)
    if isinstance(begun, Taken):
        return _replay(begun)
    try:
        response, keep = await answer()
    except BaseException:
        await _finish(keys, begun, None)
        raise
    kept = KeptAnswer(response.status_code, response.media_type or "", bytes(response.body)) if keep else None
    await _finish(keys, begun, kept)
    return response


async def _finish(keys: IdempotencyKeys, running: Running, answer: KeptAnswer | None) -> None:
    """Keeping the answer is a service to the next try: this one's answer stands without it."""
    try:
        await keys.finish(running, answer)
    except StoreUnavailable as error:
        log.warning("idempotent_answer_not_kept", reason=str(error))


def _replay(taken: Taken) -> Response:
    if not taken.same_body:
        raise ProblemError(KEY_REUSED, f"this {HEADER} was sent with another body before")
    if taken.answer is None:
        raise ProblemError(KEY_RUNNING, f"the first request with this {HEADER} is not finished", {"Retry-After": "1"})
    kept = taken.answer
    return Response(kept.body, status_code=kept.status, media_type=kept.media_type, headers={REPLAYED: "true"})


def _key(text: str) -> str:
    """The key without its quotes. Raises InvalidInput when it is none."""
    quoted = _QUOTED.fullmatch(text.strip())
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text.strip()
    broken_quotes = quoted is None and key.startswith('"')
    if broken_quotes or len(key) > _MOST or _PRINTABLE.fullmatch(key) is None:
        detail = f"it is no key: 1 to {_MOST} printable ASCII characters, in quotes or bare"
        remedy = f'send something like {HEADER}: "8e03978e-40d5-43dd-bc93-6894a57f9324"'
        raise InvalidInput([FieldProblem(f"/{HEADER}", detail, remedy, "idempotency-key")])
    return key
