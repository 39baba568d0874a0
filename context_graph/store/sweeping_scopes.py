"""The sweep of summaries of agents, people and topics: they quote several sessions, sealed with all of these keys.

Of a scope's summaries exactly those go that were made from the subject's; their nodes say so. Where the newest goes,
the newest that can still be read is what a rebuild would show, so its event is given to the stages once more.
"""

from __future__ import annotations

from typing import Any

import orjson
from redis.exceptions import ResponseError

from context_graph.domain.document import filter_tag
from context_graph.domain.erasure import Subject
from context_graph.domain.event import SERVICE_SESSION
from context_graph.domain.stages import stages_of
from context_graph.domain.text import SUMMARY_ID_PREFIX
from context_graph.store import documents as fields
from context_graph.store.connection import RedisClient
from context_graph.store.graph import EVENT_PEOPLE, EVENT_SESSIONS
from context_graph.store.index_state import is_missing_index
from context_graph.store.keys import GraphKeys, PartitionKeys

_SCAN = 2000
_PAGE = 500
_SCOPES = ("user/", "agent/", "topic/")
_AT = 17  # characters of a member that say where


class ScopeSweep:
    """Sweeps the scopes of any partition."""

    def __init__(self, ledger: RedisClient, derived: RedisClient) -> None:
        self._ledger = ledger
        self._derived = derived

    async def sweep(self, keys: GraphKeys, subject: Subject, *, fed: bool) -> int:
        """How many summaries went. `fed`: whether stages write this generation. Scans; safe to repeat."""
        swept = 0
        for scope in await self._named(keys):
            swept += await self._leave(keys, scope, subject)
            if fed:
                await self._show_newest(keys, scope)
        return swept

    async def hide(self, keys: GraphKeys, subject: Subject) -> int:
        """The same of those scopes that are found without a scan: by the text index, the person's and the agents'.

        What is shown of a topic that was not indexed yet is left to `sweep`.
        """
        known = set(await self._indexed(keys)) | ({f"user/{subject.id}"} if subject.kind == "user" else set())
        agents: Any = await self._derived.zrange(keys.registry("agent"), 0, -1)
        known |= {f"agent/{agent.decode()}" for agent in agents}
        return sum([await self._leave(keys, scope, subject) for scope in sorted(known)])

    async def _indexed(self, keys: GraphKeys) -> list[str]:
        """The scopes whose newest summary is in the text index: they are told in the service's own session."""
        query = f"@{fields.KIND}:{{{filter_tag('summary')}}} @{fields.SESSION}:{{{filter_tag(SERVICE_SESSION)}}}"
        search: Any = self._derived.execute_command
        found: list[str] = []
        while True:
            page = ("LIMIT", len(found), _PAGE, "DIALECT", 2)
            try:
                _, *names = await search("FT.SEARCH", keys.text_index, query, "NOCONTENT", *page)
            except ResponseError as error:
                if is_missing_index(error):
                    return found
                raise
            found += [name.decode().removeprefix(keys.document_prefix + SUMMARY_ID_PREFIX) for name in names]
            if len(names) < _PAGE:
                return found

    async def _named(self, keys: GraphKeys) -> list[str]:
        """Every scope that has summaries."""
        found = set[str]()
        for kind in _SCOPES:
            name: Any
            async for name in self._derived.scan_iter(match=keys.versions(kind) + "*", count=_SCAN):
                found.add(name.decode().removeprefix(keys.versions("")))
        return sorted(found)

    async def _leave(self, keys: GraphKeys, scope: str, subject: Subject) -> int:
        members: Any = await self._derived.zrange(keys.versions(scope), 0, -1)
        names = [member.decode() for member in members]
        pipe = self._derived.pipeline(transaction=False)
        about = EVENT_PEOPLE if subject.kind == "user" else EVENT_SESSIONS
        for name in names:
            pipe.hget(keys.event(name[_AT:]), about)
        pipe.hget(keys.summary(scope), "order")
        *told, newest = await pipe.execute()
        gone = [name for name, ids in zip(names, told, strict=True) if ids and subject.id in orjson.loads(ids)]
        if not gone:
            return 0
        drop = self._derived.pipeline(transaction=True)
        if newest is not None and newest.decode() in {name[:_AT] for name in gone}:
            document = SUMMARY_ID_PREFIX + scope
            drop.delete(keys.summary(scope), keys.document(document), *keys.vectors(document), keys.consolidated(scope))
        drop.zrem(keys.versions(scope), *gone)
        for name in gone:
            drop.hdel(keys.event(name[_AT:]), EVENT_PEOPLE, EVENT_SESSIONS)
        answers = await drop.execute()
        return int(answers[-1 - len(gone)])  # another sweep may have been faster

    async def _show_newest(self, keys: GraphKeys, scope: str) -> None:
        pipe = self._derived.pipeline(transaction=False)
        pipe.exists(keys.summary(scope))
        pipe.zrange(keys.versions(scope), -1, -1)
        shown, newest = await pipe.execute()
        if shown or not newest:
            return
        again = self._ledger.pipeline(transaction=True)
        for stage in stages_of(keys.generation):
            again.zadd(PartitionKeys(keys.partition).again(stage.group), {newest[0][:_AT].decode(): 0}, nx=True)
        await again.execute()
