"""The use case behind `DELETE /v1/users/{id}` and `DELETE /v1/sessions/{id}`: erase, and answer with a certificate.

Before the first answer the keys are destroyed, which makes it irrevocable, and what answers could quote is taken away
(`store/hiding.py`), so no read returns it any more. The rest (what else was derived, dead letters, the servers' files)
is finished by a worker; the caller waits for it as long as it likes and can ask again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ulid import ULID

from context_graph.domain.erasure import Erasure, Subject
from context_graph.domain.event import SERVICE_SESSION
from context_graph.domain.partition import Tenant
from context_graph.errors import ErasureUnavailable, UnknownThing
from context_graph.store.erasures import Erasures
from context_graph.store.hiding import Hiding
from context_graph.store.vault import Vault

_LOOK_AGAIN = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Erases people and sessions of any tenant. `now_ms` is the clock, in ms UTC."""

    erasures: Erasures
    vault: Vault
    hiding: Hiding
    now_ms: Callable[[], int]

    async def forget(self, tenant: Tenant, subject: Subject, wait_ms: int) -> Erasure:
        """Erase, and wait up to `wait_ms` for the certificate. Erasing again returns the first erasure.

        When it returns, whatever `wait_ms`, nothing answers with what was said.

        Raises ErasureUnavailable where nothing is sealed, StoreUnavailable.
        """
        self._check(subject)
        erasure = await self.erasures.of(tenant, subject)
        if erasure is None:
            erasure_id = f"erasure-{ULID().to_uuid7(compliant=True)}"
            asked = Erasure(erasure_id, subject.kind, "running", self.now_ms(), subject.id)
            erasure = await self.erasures.begin(tenant, asked)
        await self.hiding.hide(tenant, await self.erasures.strike(tenant, erasure))
        return await self._finished(tenant, await self.certificate(tenant, erasure.id), wait_ms)

    async def certificate(self, tenant: Tenant, erasure_id: str) -> Erasure:
        """The erasure of that id as it stands. Raises UnknownThing."""
        erasure = await self.erasures.get(tenant, erasure_id)
        if erasure is None:
            raise UnknownThing("erasure", erasure_id)
        return erasure

    def _check(self, subject: Subject) -> None:
        if not self.vault.enabled:
            raise ErasureUnavailable(
                "events are kept in the clear here, so they cannot be erased: set CG_VAULT__MASTER_KEY to 32 random "
                "bytes in base64 (`openssl rand -base64 32`) for the API and every worker; it seals events from then on"
            )
        if subject.kind == "session" and not self.vault.seals_sessions:
            raise ErasureUnavailable(
                "sessions have no keys here: set CG_VAULT__SESSIONS=true, for sessions from then on"
            )
        if subject == Subject("session", SERVICE_SESSION):
            raise ErasureUnavailable(f"{SERVICE_SESSION!r} is the service's own session; erase the people instead")

    async def _finished(self, tenant: Tenant, erasure: Erasure, wait_ms: int) -> Erasure:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_ms / 1000
        while not erasure.is_complete and loop.time() < deadline:
            await asyncio.sleep(_LOOK_AGAIN)
            erasure = await self.certificate(tenant, erasure.id)
        return erasure
