"""Erasure: whose words are made unreadable for good, and the certificate that says what was done.

The subject is a person (what was said about them, in every session) or a session (all that was said in it). Its name is
kept only while the erasure runs; what stays for ever is a pseudonym that cannot be turned back (`store/vault.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

SubjectKind = Literal["user", "session"]
ErasureState = Literal["running", "done"]
STATES: tuple[ErasureState, ...] = get_args(ErasureState)


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """A person or a session of a tenant."""

    kind: SubjectKind
    id: str


@dataclass(frozen=True, slots=True)
class Strike:
    """What happened in a partition: where the tombstone stands, and the fingerprint of the key that was destroyed.

    No fingerprint: there was no key, so nothing had been sealed for the subject here.
    """

    partition: str
    position: str | None = None
    key_fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """What a sweep found and removed, by kind; positions are the first and the last event that was touched."""

    scanned: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    left_in_clear: int = 0
    """Events of the subject that were stored before sealing was on: hidden on every read, still in the stream."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as it stands. Times in ms UTC. `subject` is None once it is done."""

    id: str
    kind: SubjectKind
    state: ErasureState
    requested_at: int
    subject: str | None = None
    finished_at: int | None = None
    strikes: tuple[Strike, ...] = ()
    removals: tuple[Removal, ...] = ()
    hidden: Mapping[str, int] = field(default_factory=dict)
    """What was removed by kind ahead of the sweeps, so that no answer quotes it; counted beside the record."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What became of the files of each Redis: `ledger` and, when it is another server, `derived`."""
    waits_for: str | None = None
    """Why it is not done yet: stages that are behind, or the archive, whose copy of the key is still there."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will be added: it is done, and the servers' files are accounted for."""
        return self.state == "done" and bool(self.files)
