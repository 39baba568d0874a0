"""What RediSearch says of the indexes of partitions, asked of many of them in few round trips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from context_graph.domain.document import filter_tag
from context_graph.store.connection import RedisClient, slices, store_errors
from context_graph.store.documents import KIND, WAITING
from context_graph.store.keys import GraphKeys

_Command: TypeAlias = tuple[str | int, ...]
_WAITING = f"@{KIND}:{{{filter_tag(WAITING)}}}"


@dataclass(frozen=True, slots=True)
class IndexStatistics:
    """Documents and vectors in a partition's indexes; what RediSearch could not index is counted as failed."""

    documents: int
    vectors: int
    failed: int


async def read_statistics(redis: RedisClient, indexes: Sequence[GraphKeys]) -> list[IndexStatistics]:
    """How much is in the indexes of each; zeros where they are not there. Raises StoreUnavailable.

    A document whose vector is still to come is in the vector index without one, and is no vector.
    """
    asked: list[_Command] = []
    for keys in indexes:
        waiting = ("FT.SEARCH", keys.vector_index, _WAITING, "LIMIT", 0, 0, "DIALECT", 2)
        asked += [("FT.INFO", keys.text_index), ("FT.INFO", keys.vector_index), waiting]
    told = iter(await _answers(redis, asked))
    found: list[IndexStatistics] = []
    for text_info, vector_info, waiting_count in zip(told, told, told, strict=True):
        text, vector, waits = _pairs(text_info), _pairs(vector_info), waiting_count[0] if waiting_count else 0
        failed = int(text.get("hash_indexing_failures", 0)) + int(vector.get("hash_indexing_failures", 0))
        vectors = max(0, int(vector.get("num_docs", 0)) - int(waits))
        found.append(IndexStatistics(int(text.get("num_docs", 0)), vectors, failed))
    return found


async def read_dimensions(redis: RedisClient, indexes: Sequence[GraphKeys]) -> list[int | None]:
    """Dimensions of the vectors in the index of each, None where there is no index yet. Raises StoreUnavailable."""
    infos = await _answers(redis, [("FT.INFO", keys.vector_index) for keys in indexes])
    return [_dimensions(_pairs(info)) for info in infos]


def is_missing_index(error: ResponseError) -> bool:
    """Whether RediSearch says that the index does not exist (its wording differs between versions)."""
    text = str(error).lower()
    return "no such index" in text or "unknown index name" in text


async def _answers(redis: RedisClient, commands: Sequence[_Command]) -> list[Any]:
    """What each command is answered, an empty list where its index is not there."""
    found: list[Any] = []
    for some in slices(commands):
        pipe = redis.pipeline(transaction=False)
        for command in some:
            pipe.execute_command(*command)
        with store_errors("reading the state of indexes"):
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not _is_absence(answer):
                    raise answer
        found += [[] if isinstance(answer, Exception) else answer for answer in answers]
    return found


def _is_absence(error: Exception) -> bool:
    return isinstance(error, ResponseError) and is_missing_index(error)


def _dimensions(info: dict[str, Any]) -> int | None:
    for attribute in info.get("attributes", []):
        described = _pairs(attribute)
        if "dim" in described:
            return int(described["dim"])
    return None


def _pairs(answer: Any) -> dict[str, Any]:
    """RESP2's flat list of names and values as a dictionary. Flags without a value end the list and are left out."""
    decoded = [item.decode() if isinstance(item, bytes) else item for item in answer]
    return {str(name): value for name, value in zip(decoded[::2], decoded[1::2], strict=False)}
