"""The table of stages: every consumer group that follows the ledger.

A group's name is stored in Redis and shown in metrics, readiness and dead letters, so it is fixed here, where both the
workers that run a stage and the API that reports on it can read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A consumer group, the worker that runs it, and what an event has once the stage has passed it."""

    group: str
    worker: str
    gives: str


PROJECTION = Stage("projection", "projection", "nodes, timelines and causes")
INDEXING = Stage("indexing", "enrichment", "the searchable text with its filters")
ENRICHMENT = Stage("enrichment", "enrichment", "the vector, entities and keywords")

STAGES: tuple[Stage, ...] = (PROJECTION, INDEXING, ENRICHMENT)
