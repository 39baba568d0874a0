"""The master key: wraps data keys before they reach Redis, so that what Redis holds opens nothing by itself.

A wrapped key is `fingerprint of the master key (4 bytes) + nonce (12) + AES-256-GCM of the 32 bytes (48)`; its place
(partition and tag) is associated data, so it works nowhere else. The fingerprint says which master key it needs; with
previous keys configured, keys wrapped by these stay readable until they are wrapped anew.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from context_graph.errors import ConfigurationError, VaultLocked
from context_graph.settings import VaultSettings
from context_graph.store.sealing import KEY_BYTES, NONCE_BYTES

_FINGERPRINT_BYTES = 4


class MasterKeys:
    """The master key in force and those before it. `random` gives that many random bytes."""

    def __init__(self, current: bytes, previous: tuple[bytes, ...], random: Callable[[int], bytes]) -> None:
        self._random = random
        self._fingerprint = _fingerprint(current)
        self._ciphers = {_fingerprint(key): AESGCM(key) for key in (*previous, current)}

    @property
    def has_previous(self) -> bool:
        """Whether there are others than the one in force."""
        return len(self._ciphers) > 1

    @classmethod
    def of(cls, settings: VaultSettings, random: Callable[[int], bytes]) -> MasterKeys | None:
        """The keys that the settings name; None without one. Raises ConfigurationError on anything but 32 bytes."""
        if settings.master_key is None or not settings.master_key.get_secret_value():
            return None
        earlier = settings.previous_keys.get_secret_value() if settings.previous_keys is not None else ""
        previous = tuple(_parsed("PREVIOUS_KEYS", text) for text in earlier.split(",") if text.strip())
        return cls(_parsed("MASTER_KEY", settings.master_key.get_secret_value()), previous, random)

    def wrap(self, key: bytes, place: str) -> bytes:
        """`key` for storage at `place`."""
        nonce = self._random(NONCE_BYTES)
        return self._fingerprint + nonce + self._ciphers[self._fingerprint].encrypt(nonce, key, place.encode())

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """The inverse. Raises VaultLocked when none of the keys opens it."""
        cipher = self._ciphers.get(wrapped[:_FINGERPRINT_BYTES])
        if cipher is None:
            raise VaultLocked(
                f"a data key of {place.partition('/')[0]} was wrapped by another master key: set CG_VAULT__MASTER_KEY "
                "to that one, or name it in CG_VAULT__PREVIOUS_KEYS"
            )
        nonce, sealed = wrapped[_FINGERPRINT_BYTES:][:NONCE_BYTES], wrapped[_FINGERPRINT_BYTES + NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, place.encode())
        except InvalidTag as error:
            raise VaultLocked(f"a data key of {place.partition('/')[0]} was changed or moved in Redis") from error

    def is_current(self, wrapped: bytes) -> bool:
        """Whether the master key in force wrapped it."""
        return wrapped.startswith(self._fingerprint)


def _parsed(name: str, text: str) -> bytes:
    try:
        key = b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise ConfigurationError(f"CG_VAULT__{name} is not base64: {error}") from error
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"CG_VAULT__{name} has {len(key)} bytes, not {KEY_BYTES}: `openssl rand -base64 32`")
    return key


def _fingerprint(key: bytes) -> bytes:
    return blake2b(key, digest_size=_FINGERPRINT_BYTES, person=b"cg-master").digest()
