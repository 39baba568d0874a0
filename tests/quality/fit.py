"""`python -m tests.quality.fit`: fits the ranking's weights on recorded pools and says how well they hold elsewhere.

Each question is one softmax over its pool: the weights maximise the chance that a turn picked by score is evidence,
with a ridge on standardised features. Every figure is of conversations the weights were not fitted on: five folds over
the conversations of all sets together, and one set to the other. The last table is fitted on everything: it is what
`retrieval/ranking.py` holds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from context_graph.retrieval.ranking import FEATURES, chances_of, features_of
from tests.quality.metrics import interval, ndcg, recall, within_budget
from tests.quality.recorded import Question, load

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = dict[str, list[tuple[str, str, list[float]]]]
"""By set: the category, the conversation and the columns of each question."""

_FOLDS = 5
_RIDGE = 3.0  # on standardised features; 1 and 10 give the same figures within 0.003
_STEPS = 40
_BUDGETS = (500, 1000, 2000, 4000)
_COLUMNS = ("R@5", "R@10", "R@20", "nDCG@10", "tok500", "tok1k", "tok2k", "tok4k")


@dataclass(frozen=True, slots=True)
class Sample:
    """A question as the fit sees it."""

    set_name: str
    fold: int
    question: Question
    features: Floats
    target: Floats


def samples_of(name: str) -> list[Sample]:
    """The questions of a set with evidence in the pool or not; unanswerable ones are left out."""
    questions = [q for q in load(name) if q.category != "unanswerable"]
    conversations = sorted({q.conversation for q in questions})
    found = []
    for q in questions:
        target = np.array(q.relevant, dtype=np.float64)
        fold = conversations.index(q.conversation) % _FOLDS
        found.append(Sample(name, fold, q, features_of(q.placed, q.understanding), target))
    return found


def fit(samples: Sequence[Sample], columns: Sequence[int]) -> Floats:
    """Weights by Newton's method; those of features not in `columns` are 0."""
    usable = [s for s in samples if s.target.any()]
    chosen = [s.features[:, columns] for s in usable]
    centre = np.mean([x.mean(axis=0) for x in chosen], axis=0)
    spread = np.sqrt(np.mean([((x - centre) ** 2).mean(axis=0) for x in chosen], axis=0)) + 1e-9
    rows = [((x - centre) / spread, s.target / s.target.sum()) for x, s in zip(chosen, usable, strict=True)]
    weights: Floats = np.zeros(len(columns))
    loss, gradient, curvature = _loss(rows, weights)
    for _ in range(_STEPS):
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-3 and _loss(rows, weights - size * step)[0] > loss:
            size /= 2
        weights = weights - size * step
        before = loss
        loss, gradient, curvature = _loss(rows, weights)
        if abs(before - loss) < 1e-6 * abs(before):
            break
    full = np.zeros(len(FEATURES))
    full[list(columns)] = weights / spread
    return full


def _loss(rows: Sequence[tuple[Floats, Floats]], weights: Floats) -> tuple[float, Floats, Floats]:
    """Negative log likelihood with its first and second derivative."""
    size = len(weights)
    loss = 0.5 * _RIDGE * float(weights @ weights)
    gradient, curvature = _RIDGE * weights, _RIDGE * np.eye(size)
    for x, target in rows:
        scores = x @ weights
        top = scores.max()
        chances = np.exp(scores - top)
        total = chances.sum()
        chances /= total
        mean = x.T @ chances
        loss += math.log(total) + float(top - target @ scores)
        gradient = gradient + mean - x.T @ target
        curvature = curvature + (x * chances[:, None]).T @ x - np.outer(mean, mean)
    return loss, gradient, curvature


Readings: TypeAlias = tuple[Floats, Floats]
"""Weights of both readings (retrieval/ranking.py)."""


def fit_both(samples: Sequence[Sample], left_out: str = "") -> Readings:
    """Both readings, without the features of a channel."""
    kept = [i for i, f in enumerate(FEATURES) if f.source == "fitted" and f.channel != left_out]
    first = [i for i in kept if FEATURES[i].weight]
    second = [i for i in kept if FEATURES[i].broad]
    return fit(samples, first), fit(samples, second)


def measured(sample: Sample, weights: Readings) -> list[float]:
    """The columns for one question. Evidence that is not in the pool counts as missed."""
    q = sample.question
    scores = np.log(chances_of(sample.features, *weights))
    ranking = [int(i) for i in np.argsort(-scores, kind="stable")]
    inside = {i for i, relevant in enumerate(q.relevant) if relevant}
    share = len(inside) / q.evidence
    if not inside:
        return [0.0] * len(_COLUMNS)
    packed = [int(i) for i in np.argsort(-(scores - np.log(q.tokens)), kind="stable")]
    evidence = inside | {-1 - n for n in range(q.evidence - len(inside))}
    row = [recall(ranking, evidence, k) for k in (5, 10, 20)] + [ndcg(ranking, evidence)]
    return [*row, *(within_budget(packed, q.tokens, inside, budget) * share for budget in _BUDGETS)]


def cross_validated(samples: Sequence[Sample], left_out: str = "") -> Rows:
    """Rows by set, each question measured by weights fitted without its fold."""
    found: Rows = {}
    for fold in range(_FOLDS):
        weights = fit_both([s for s in samples if s.fold != fold], left_out)
        for s in samples:
            if s.fold == fold:
                found.setdefault(s.set_name, []).append(
                    (s.question.category, s.question.conversation, measured(s, weights))
                )
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.fit", description=__doc__)
    parser.add_argument("--ablate", action="store_true", help="leave out each channel in turn")
    parser.add_argument("sets", nargs="*", default=["locomo", "qmsum"])
    asked = parser.parse_args()
    samples = [s for name in asked.sets for s in samples_of(name)]
    print("columns:", *_COLUMNS)
    _show("cross-validated", cross_validated(samples), by_category=True)
    now = (np.array([f.weight for f in FEATURES]), np.array([f.broad for f in FEATURES]))
    _show("weights as they are", _with(samples, now), by_category=True)
    for name in asked.sets if len(asked.sets) > 1 else ():
        weights = fit_both([s for s in samples if s.set_name == name])
        _show(f"fitted on {name}", _with([s for s in samples if s.set_name != name], weights))
    if asked.ablate:
        print(ablation(asked.sets))
    for feature, weight, broad in zip(FEATURES, *fit_both(samples), strict=True):
        print(f"  {feature.name:16} now {feature.weight:6.2f} {feature.broad:6.2f}  fitted {weight:6.2f} {broad:6.2f}")


def _with(test: Sequence[Sample], weights: Readings) -> Rows:
    found: Rows = {}
    for s in test:
        found.setdefault(s.set_name, []).append((s.question.category, s.question.conversation, measured(s, weights)))
    return found


def _spread(rows: Sequence[tuple[str, str, list[float]]]) -> list[tuple[float, float]]:
    """Mean and half of the 95 % interval (bootstrap over conversations) of each column."""
    found = []
    for column in range(len(_COLUMNS)):
        groups: dict[str, list[float]] = {}
        for _, conversation, row in rows:
            groups.setdefault(conversation, []).append(row[column])
        mean, low, high = interval(groups)
        found.append((mean, (high - low) / 2))
    return found


def differences(whole: Rows, without: Rows) -> dict[str, list[tuple[float, float, float]]]:
    """By set and column what leaving out costs, with its 95 % interval: question by question, by conversation."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for name, rows in whole.items():
        pairs = list(zip(rows, without[name], strict=True))
        for column in range(len(_COLUMNS)):
            groups: dict[str, list[float]] = {}
            for (_, conversation, one), (_, _, other) in pairs:
                groups.setdefault(conversation, []).append(other[column] - one[column])
            found.setdefault(name, []).append(interval(groups))
    return found


def ablation(sets: Sequence[str]) -> str:
    """Each channel left out in turn and the rest fitted anew, by recorded pools: a table of what that changes."""
    samples = [s for name in sets for s in samples_of(name)]
    whole = cross_validated(samples)
    lines = [f"{'left out':12} {'set':7} " + " ".join(f"{column:>22}" for column in _COLUMNS)]
    for channel in dict.fromkeys(f.channel for f in FEATURES if f.source == "fitted"):
        for name, row in differences(whole, cross_validated(samples, channel)).items():
            cells = " ".join(f"{mean:+.3f} ({low:+.3f} {high:+.3f})".rjust(22) for mean, low, high in row)
            lines.append(f"{channel:12} {name:7} {cells}")
    return "\n".join(lines) + "\n"


def _show(title: str, rows: Rows, *, by_category: bool = False) -> None:
    for name, measured_rows in rows.items():
        print(f"{title:22} {name:7}", " ".join(f"{value:.3f} ±{half:.3f}" for value, half in _spread(measured_rows)))
        categories = sorted({category for category, _, _ in measured_rows})
        if by_category and len(categories) > 1:
            for category in categories:
                own = np.mean([row for kind, _, row in measured_rows if kind == category], axis=0)
                print(f"{'':22} {category:12}", " ".join(f"{value:.3f}" for value in own))


if __name__ == "__main__":
    main()
