"""WNUT 2017 (tweets and posts with emerging names): bare spaCy beside the product's pipeline.

Labels of both sides are mapped to PERSON, ORG, LOC and OTHER; what maps to none (dates, ids, nationalities) does not
count. The text of a post is its tokens joined by blanks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from context_graph.models.recogniser import Span
from enrichment.entities import find_mentions
from tests.quality.entities.scores import Score, Spans, tally

_DATA = Path("entities/WNUT17")
FILES = {"dev": _DATA / "dev/emerging.dev.conll", "train": _DATA / "train/wnut17train.conll"}
_WNUT = {
    "person": "PERSON",
    "corporation": "ORG",
    "group": "ORG",
    "location": "LOC",
    "creative-work": "OTHER",
    "product": "OTHER",
}
_SPACY = {
    "PERSON": "PERSON",
    "ORG": "ORG",
    "GPE": "LOC",
    "LOC": "LOC",
    "FAC": "LOC",
    "PRODUCT": "OTHER",
    "EVENT": "OTHER",
    "WORK_OF_ART": "OTHER",
    "LAW": "OTHER",
}
_OURS = {
    "person": "PERSON",
    "org": "ORG",
    "place": "LOC",
    "product": "OTHER",
    "event": "OTHER",
    "work": "OTHER",
    "law": "OTHER",
}


def shared_data() -> Path:
    """Where the development data is."""
    return Path(os.environ.get("CG_SHARED_DATA", "../shared/data"))


@dataclass(frozen=True, slots=True)
class Post:
    """A text and its labelled spans, mapped."""

    text: str
    labelled: Spans


def read_posts(file: Path) -> list[Post]:
    """The posts of a CoNLL file of tokens and BIO tags."""
    lines = file.read_text(encoding="utf-8").splitlines()
    posts: list[Post] = []
    rows: list[tuple[str, str]] = []
    for line in [*lines, ""]:
        token, _, tag = line.partition("\t")
        if line.strip():
            rows.append((token, tag.strip()))
        elif rows:
            posts.append(_post(rows))
            rows = []
    return posts


def _post(rows: Sequence[tuple[str, str]]) -> Post:
    spans: list[tuple[int, int, str]] = []
    place = 0
    for token, tag in rows:
        if tag.startswith("B-"):
            spans.append((place, place + len(token), _WNUT[tag[2:]]))
        elif tag.startswith("I-") and spans:
            begin, _, label = spans.pop()
            spans.append((begin, place + len(token), label))
        place += len(token) + 1
    return Post(" ".join(token for token, _ in rows), frozenset(spans))


def measure(posts: Sequence[Post], named: Sequence[Sequence[Span]]) -> dict[str, Mapping[str, Score]]:
    """Scores of `bare` and `ours`; `named`: the recogniser's spans of each post."""
    return {
        "bare": tally((_bare(spans), post.labelled) for post, spans in zip(posts, named, strict=True)),
        "ours": tally((ours(post.text, spans), post.labelled) for post, spans in zip(posts, named, strict=True)),
    }


def _bare(spans: Sequence[Span]) -> Spans:
    return frozenset((span.start, span.end, _SPACY[span.label]) for span in spans if span.label in _SPACY)


def ours(text: str, spans: Sequence[Span]) -> Spans:
    """What the product finds, mapped."""
    return frozenset(_mapped(text, spans))


def _mapped(text: str, spans: Sequence[Span]) -> Iterator[tuple[int, int, str]]:
    for mention in find_mentions(text, spans):
        label = _OURS.get(mention.label)
        if label is not None:
            yield mention.start, mention.end, label
