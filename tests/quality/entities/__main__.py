"""`python -m tests.quality.entities [--missed] [--set dev|train]`: tables to stdout."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence

from context_graph.models.recogniser import open_recogniser
from context_graph.settings import EntitySettings
from tests.quality.entities import labelled, pairs, wnut
from tests.quality.entities.scores import Score, Spans


async def _run(*, missed: bool, posts_of: str) -> None:
    async with open_recogniser(EntitySettings()) as recogniser:
        for title, source in (("labelled events", labelled.FILE), ("held-out events", labelled.UNSEEN)):
            events = labelled.read_labelled(source)
            named = await recogniser.recognise([event.text for event in events])
            _table(f"{title} ({len(events)})", labelled.measure(events, named))
            for event, spans in zip(events, named, strict=True) if missed else ():
                _differences(event.text, labelled.found_in(event, spans), event.labels)
        _resolution(missed=missed)
        file = wnut.shared_data() / wnut.FILES[posts_of]
        if not file.is_file():
            sys.stdout.write(f"WNUT17: skipped, {file} is not there\n")
            return
        posts = wnut.read_posts(file)
        found = await recogniser.recognise([post.text for post in posts])
        for name, scores in wnut.measure(posts, found).items():
            _table(f"WNUT17 {posts_of}, {name} ({len(posts)} posts)", scores)
        if missed:
            for post, spans in zip(posts, found, strict=True):
                _differences(post.text, wnut.ours(post.text, spans), post.labelled)


def _resolution(*, missed: bool) -> None:
    labelled_pairs = pairs.read_pairs()
    score, wrong = pairs.measure(labelled_pairs)
    _table(f"resolution, {len(labelled_pairs)} labelled pairs", {"same": score})
    for pair in wrong if missed else ():
        sys.stdout.write(f"  {'-' if pair.same else '+'}{pair.left!r} {pair.right!r}\n")


def _table(title: str, scores: Mapping[str, Score]) -> None:
    sys.stdout.write(f"\n{title}\n{'':10} {'precision':>9} {'recall':>9} {'F1':>9} {'labelled':>9}\n")
    for name, score in scores.items():
        line = f"{name:10} {score.precision:9.3f} {score.recall:9.3f} {score.f1:9.3f} {score.labelled:9}\n"
        sys.stdout.write(line)


def _differences(text: str, found: Spans, expected: Spans) -> None:
    wrong = [f"+{label}:{text[a:b]!r}" for a, b, label in sorted(found - expected)]
    lost = [f"-{label}:{text[a:b]!r}" for a, b, label in sorted(expected - found)]
    if wrong or lost:
        sys.stdout.write(f"  {' '.join(wrong + lost)}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables. The exit code tells whether it ran, not what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.entities", description=__doc__)
    parser.add_argument("--missed", action="store_true", help="also what was found wrongly (+) and missed (-)")
    parser.add_argument("--set", choices=tuple(wnut.FILES), default="dev", help="WNUT17's part [dev]")
    asked = parser.parse_args(arguments)
    asyncio.run(_run(missed=asked.missed, posts_of=asked.set))


if __name__ == "__main__":
    main()
