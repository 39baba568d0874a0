"""Sealed envelopes as bytes. Pure: keys and nonces are given.

A stored body is an envelope's canonical JSON or, when it is sealed, one of two forms. The newest, in bytes:

    1, number of subjects (2), per subject its tag (12), length of what is sealed (4; both little endian),
    sealed: nonce (12), ciphertext, tag of the cipher (16); then the clear fields as JSON without their opening brace

and the first, which is read for ever but not written any more (it took a third more memory):

    {"subjects":"<tag> <tag>","sealed":"<base64 of nonce, ciphertext, tag>","agent_id":…, … the rest in the clear}

`payload`, `payload_ref` and `user_id` are inside: their JSON, or a zstd frame of it where that is shorter (it begins
with zstd's magic number, JSON never does). The dictionary of these frames belongs to the form: another one is another
form. The key is made of the data keys of all subjects together, so that destroying any of them destroys it.
AES-256-GCM; the associated data are the tenant, the subjects and every clear field, event id included, so that no part
of an entry can be changed or moved to another. Nonces are random, 96 bits: one key seals far fewer than the 2**32
events up to which that is safe (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

import threading
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any

import orjson
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_BYTES = 32
TAG_BYTES = 12
SECRET_FIELDS = ("payload", "payload_ref", "user_id")
_FORM = b"\x01"
_COUNT, _LENGTH = Struct("<H"), Struct("<I")
_FIRST_TAG = 1 + _COUNT.size
_HEAD = b'{"subjects":"'  # of the first form
_SEALED = b'","sealed":"'
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_COMPRESS_FROM = 64  # bytes: shorter ones do not become shorter
_LONGEST_SECRET = 1 << 28  # bytes that a frame may unfold to
_LEVEL = 1  # 3.5 µs for 190 bytes; level 3 makes them no shorter
_DICTIONARY = (
    b'","error":{"message":"","code":"","type":"","status":"failed","stack":"}],"content":[{"type":"text","text":"'
    b'","role":"assistant","role":"user","name":"","id":"","url":"https://www.","path":"/","query":"","items":[{"'
    b'"total":0,"created_at":"2026-01-01T00:00:00Z","email":"@gmail.com","address":{"city":"","price":"quantity":'
    b'","reason":"null,true,false," that the is you for and have with your this not are was can will please from '
    b"order would like I am sorry, but it has been sent to the customer and there is no other way to do that. "
    b'{"payload":{"message":"{"payload":{"content":"{"payload":{"error":"{"payload":{"result":{"'
    b'{"payload":{"arguments":{"{"payload":{"text":"."},"user_id":"'
)
"""What payloads of agents have in common, the likeliest last."""


class _Packing(threading.local):
    """zstd with the dictionary, one for each thread: its objects must not be shared."""

    def __init__(self) -> None:
        words = zstandard.ZstdCompressionDict(_DICTIONARY, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        words.precompute_compress(level=_LEVEL)
        self.compress = zstandard.ZstdCompressor(dict_data=words, write_checksum=False).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=words).decompress


_packing = _Packing()


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
    """Whether a stored body is sealed. Canonical JSON of an envelope begins with `{"agent_id"`, never like these."""
    return body[:1] == _FORM or body.startswith(_HEAD)


def tags_of(body: bytes) -> tuple[str, ...]:
    """The tags of the subjects of a sealed body, in order."""
    if body[:1] == _FORM:
        return _tags_in(_named(body))
    return tuple(body[len(_HEAD) : body.index(b'"', len(_HEAD))].decode().split(" "))


def seal(fields: Mapping[str, Any], tags: tuple[str, ...], key: EventKey, tenant: str, nonce: bytes) -> bytes:
    """The sealed body of an envelope's fields, as `orjson.loads` reads its canonical JSON."""
    open_fields = dict(fields)
    secret = orjson.dumps(
        {name: open_fields.pop(name) for name in SECRET_FIELDS if name in open_fields}, option=orjson.OPT_SORT_KEYS
    )
    clear = orjson.dumps(open_fields, option=orjson.OPT_SORT_KEYS)[1:]
    named = _head(tags)
    sealed = nonce + key.cipher.encrypt(nonce, _packed(secret), _associated(tenant, named, clear))
    return b"".join((named, _LENGTH.pack(len(sealed)), sealed, clear))


def unseal(body: bytes, key: EventKey, tenant: str) -> bytes:
    """The envelope's JSON. Raises ValueError when key, tenant or bytes are not those it was sealed with."""
    named, sealed, clear = _parts(body)
    try:
        packed = key.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated(tenant, named, clear))
    except InvalidTag as error:
        raise ValueError("a sealed entry was changed, or its key is not the one it was sealed with") from error
    secret = _unpacked(packed)
    return b"{" + clear if secret == b"{}" else secret[:-1] + b"," + clear


def clear_part(body: bytes) -> bytes:
    """What of a sealed body anyone may read, as an envelope's JSON: all but payload, reference and person.

    Raises ValueError on bytes that are cut off.
    """
    return b"{" + _parts(body)[2]


def _parts(body: bytes) -> tuple[bytes, bytes, bytes]:
    """What names the subjects, what is sealed, and the clear fields without their opening brace. Raises ValueError."""
    if body[:1] != _FORM:
        middle = body.index(_SEALED, len(_HEAD))
        start = middle + len(_SEALED)
        end = body.index(b'",', start)
        return body[len(_HEAD) : middle], b64decode(body[start:end]), body[end + 2 :]
    named = _named(body)
    start = len(named) + _LENGTH.size
    if len(body) < start:
        raise ValueError("a sealed entry is cut off")
    (length,) = _LENGTH.unpack_from(body, len(named))
    if len(body) <= start + length or length < NONCE_BYTES:
        raise ValueError("a sealed entry is cut off")
    return named, body[start : start + length], body[start + length :]


def _named(body: bytes) -> bytes:
    """The head of the newest form, up to its last subject's tag."""
    if len(body) < _FIRST_TAG:
        raise ValueError("a sealed entry is cut off")
    return body[: _FIRST_TAG + TAG_BYTES * _COUNT.unpack_from(body, 1)[0]]


@lru_cache(4096)
def _head(tags: tuple[str, ...]) -> bytes:
    return b"".join((_FORM, _COUNT.pack(len(tags)), *(urlsafe_b64decode(tag) for tag in tags)))


@lru_cache(4096)
def _tags_in(named: bytes) -> tuple[str, ...]:
    return tuple(
        urlsafe_b64encode(named[at : at + TAG_BYTES]).decode() for at in range(_FIRST_TAG, len(named), TAG_BYTES)
    )


def _packed(secret: bytes) -> bytes:
    if len(secret) < _COMPRESS_FROM:
        return secret
    frame = _packing.compress(secret)
    return frame if len(frame) < len(secret) else secret


def _unpacked(packed: bytes) -> bytes:
    if not packed.startswith(_ZSTD_MAGIC):
        return packed
    try:
        return _packing.decompress(packed, max_output_size=_LONGEST_SECRET)
    except zstandard.ZstdError as error:
        raise ValueError(f"what a sealed entry holds does not unfold: {error}") from error


def _associated(tenant: str, named: bytes, clear: bytes) -> bytes:
    return b"\0".join((tenant.encode(), named, clear))
