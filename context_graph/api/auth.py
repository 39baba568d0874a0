"""Who is asking: service keys to tenants.

The tenant comes from the key and from nowhere else. A verified key is remembered for one second, so that a busy client
costs one look-up a second and a revoked key is refused within it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from context_graph.api.problems import BAD_KEY, NO_KEY, NO_SCOPE, ProblemError
from context_graph.domain.event import TenantId
from context_graph.domain.partition import Tenant
from context_graph.settings import ApiSettings
from context_graph.store.access import OPERATOR, SCOPES, ApiKeys, Credential, Scope
from context_graph.store.tenants import Tenants

_REMEMBER_SECONDS = 1.0
_REMEMBER_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the key's tenant and what the key may do."""

    tenant: Tenant
    credential: Credential

    @property
    def is_operator(self) -> bool:
        """Whether the caller may act for every tenant."""
        return OPERATOR in self.credential.scopes


class Authenticator:
    """Checks keys against the store; with authentication off every request belongs to the settings' tenant."""

    def __init__(self, api_keys: ApiKeys, tenants: Tenants, settings: ApiSettings, open_tenant: TenantId) -> None:
        self._api_keys = api_keys
        self._tenants = tenants
        self._settings = settings
        self._open_tenant = open_tenant
        self._known: dict[str, tuple[float, Credential, Tenant]] = {}

    async def tenant(self, request: Request, scope: Scope) -> Tenant:
        """The tenant of the request's key. Raises ProblemError: no key, a wrong key, or one without the scope."""
        return (await self.caller(request, scope)).tenant

    async def caller(self, request: Request, *scopes: Scope) -> Caller:
        """Whose key the request has. Raises ProblemError: no key, a wrong key, or one with none of the scopes."""
        if self._settings.auth:
            credential, tenant = await self._verified(self._key_of(request))
        else:
            credential = Credential(self._open_tenant, "open", frozenset(SCOPES))
            tenant = await self._existing(credential)
        if credential.scopes.isdisjoint(scopes):
            held = ", ".join(sorted(credential.scopes)) or "none"
            needed = " or ".join(repr(scope) for scope in scopes)
            raise ProblemError(NO_SCOPE, f"this needs the scope {needed}; the key {credential.name!r} has: {held}")
        return Caller(tenant, credential)

    def _key_of(self, request: Request) -> str:
        key = request.headers.get(self._settings.key_header)
        if key:
            return key
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token
        detail = f"send the service key as `{self._settings.key_header}: <key>` or `Authorization: Bearer <key>`"
        raise ProblemError(NO_KEY, detail, {"WWW-Authenticate": 'Bearer realm="context-graph"'})

    async def _verified(self, key: str) -> tuple[Credential, Tenant]:
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1], known[2]
        credential = await self._api_keys.verify(key)
        if credential is None:
            self._known.pop(key, None)
            headers = {"WWW-Authenticate": 'Bearer realm="context-graph", error="invalid_token"'}
            raise ProblemError(BAD_KEY, "no such service key; it was mistyped, revoked, or made elsewhere", headers)
        tenant = await self._existing(credential)
        if len(self._known) >= _REMEMBER_AT_MOST:
            self._known.clear()
        remembered = _REMEMBER_SECONDS
        if credential.expires_at is not None:
            remembered = min(remembered, credential.expires_at / 1000 - time.time())
        self._known[key] = (now + remembered, credential, tenant)
        return credential, tenant

    async def _existing(self, credential: Credential) -> Tenant:
        tenant = await self._tenants.get(credential.tenant)
        if tenant is None:
            raise ProblemError(BAD_KEY, f"the key's tenant {credential.tenant!r} does not exist")
        return tenant


def requires(scope: Scope) -> Callable[[Request], Awaitable[Tenant]]:
    """A dependency: the tenant of a key that has this scope."""

    async def tenant_of(request: Request) -> Tenant:
        authenticator = request.app.state.services.authenticator
        assert isinstance(authenticator, Authenticator)
        return await authenticator.tenant(request, scope)

    return tenant_of


def calls_with(*scopes: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, whose key has one of these scopes."""

    async def caller_of(request: Request) -> Caller:
        authenticator = request.app.state.services.authenticator
        assert isinstance(authenticator, Authenticator)
        return await authenticator.caller(request, *scopes)

    return caller_of


IngestTenant = Annotated[Tenant, Depends(requires("ingest"))]
ReadTenant = Annotated[Tenant, Depends(requires("read"))]
AdminTenant = Annotated[Tenant, Depends(requires("admin"))]
Operator = Annotated[Caller, Depends(calls_with("operator"))]
AdminCaller = Annotated[Caller, Depends(calls_with("admin", "operator"))]
