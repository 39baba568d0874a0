"""How texts are put together for one call of a model: by length, because a batch costs as much as its longest text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# onnxruntime keeps the memory of its largest batch: 32 full texts of 256 tokens took the process over 2 GB, and smaller
# batches of long texts are no slower. A text beyond some 1,200 characters is cut by the tokenizer anyway.
_BATCH_CHARACTERS = 10_000
_LONGEST_CHARACTERS = 1_200


def by_length(texts: Sequence[str]) -> list[int]:
    """Rows, the shortest text first."""
    return sorted(range(len(texts)), key=lambda index: len(texts[index]))


def batches(order: Sequence[int], texts: Sequence[str], most: int) -> Iterator[list[int]]:
    """Rows of one call each: at most `most`, and no more than `_BATCH_CHARACTERS` when padded to the longest.

    `order` has the shortest first, so the last row of a batch is its longest.
    """
    batch: list[int] = []
    for row in order:
        longest = min(len(texts[row]), _LONGEST_CHARACTERS)
        if batch and (len(batch) >= most or (len(batch) + 1) * longest > _BATCH_CHARACTERS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
