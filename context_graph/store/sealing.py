"""Sealed envelopes as bytes. Pure: keys and nonces are given.

A stored body is either an envelope's canonical JSON or, when it is sealed, this JSON:

    {"subjects":"<tag> <tag>","sealed":"<base64 of nonce, ciphertext, tag>","agent_id":…, … the rest in the clear}

`payload`, `payload_ref` and `user_id` are inside. The key is made of the data keys of all subjects together, so that
destroying any of them destroys it. AES-256-GCM; the associated data are the tenant, the subjects and every clear field,
event id included, so that no part of an entry can be changed or moved to another. Nonces are random, 96 bits: one key
seals far fewer than the 2**32 events up to which that is safe (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_BYTES = 32
SECRET_FIELDS = ("payload", "payload_ref", "user_id")
_HEAD = b'{"subjects":"'
_SEALED = b'","sealed":"'


@dataclass(frozen=True, slots=True)
class EventKey:
    """What an event is sealed and recognised with."""

    cipher: AESGCM
    hash_key: bytes

    def content_hash(self, body: bytes) -> bytes:
        """16 bytes, equal exactly when the canonical JSON is, and worth nothing without the key (keyed BLAKE2b)."""
        return blake2b(body, digest_size=16, key=self.hash_key).digest()


def event_key(data_keys: Sequence[bytes]) -> EventKey:
    """The key of events about all of these subjects, in the order of their tags."""
    derived = blake2b(b"".join(data_keys), digest_size=64, person=b"cg-event").digest()
    return EventKey(AESGCM(derived[:KEY_BYTES]), derived[KEY_BYTES:])


def is_sealed(body: bytes) -> bool:
    """Whether a stored body is sealed. Canonical JSON of an envelope begins with `agent_id`, never like this."""
    return body.startswith(_HEAD)


def tags_of(body: bytes) -> tuple[str, ...]:
    """The tags of the subjects of a sealed body, in order."""
    return tuple(body[len(_HEAD) : body.index(b'"', len(_HEAD))].decode().split(" "))


def seal(fields: dict[str, Any], tags: Sequence[str], key: EventKey, tenant: str, nonce: bytes) -> bytes:
    """The sealed body of an envelope's fields (as `orjson.loads` reads its canonical JSON); `fields` is used up."""
    secret = orjson.dumps({name: fields.pop(name) for name in SECRET_FIELDS if name in fields})
    clear = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)[1:]
    named = " ".join(tags).encode()
    sealed = b64encode(nonce + key.cipher.encrypt(nonce, secret, _associated(tenant, named, clear)))
    return b"".join((_HEAD, named, _SEALED, sealed, b'",', clear))


def unseal(body: bytes, key: EventKey, tenant: str) -> bytes:
    """The envelope's JSON. Raises ValueError when key, tenant or bytes are not those it was sealed with."""
    named, sealed, clear = _parts(body)
    raw = b64decode(sealed)
    try:
        secret = key.cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _associated(tenant, named, clear))
    except InvalidTag as error:
        raise ValueError("a sealed entry was changed, or its key is not the one it was sealed with") from error
    return b"{" + clear if secret == b"{}" else secret[:-1] + b"," + clear


def clear_part(body: bytes) -> bytes:
    """What of a sealed body anyone may read, as an envelope's JSON: all but payload, reference and person."""
    return b"{" + _parts(body)[2]


def _parts(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Tags, base64, and the clear fields without their opening brace. Raises ValueError on other bytes."""
    middle = body.index(_SEALED, len(_HEAD))
    start = middle + len(_SEALED)
    end = body.index(b'",', start)
    return body[len(_HEAD) : middle], body[start:end], body[end + 2 :]


def _associated(tenant: str, named: bytes, clear: bytes) -> bytes:
    return b"\0".join((tenant.encode(), named, clear))
