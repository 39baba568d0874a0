"""`python -m tests.quality [SET …]`: the development sets through the real HTTP API, beside the baselines.

Every turn is posted, waited for by `min_position`, then every question is asked of `/v1/search` and of `/v1/context`
with four budgets. `--ablate` says instead what each channel adds, cross-validated over the conversations of pools that
`python -m tests.quality.pools` has recorded, with 95 % intervals over conversations. `--consolidated` says what each
part of the consolidation adds (`consolidated.py`). JSON goes to
`.quality/latest.json` and stdout, a table to stderr. Without the data it says so and ends well.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.quality import baselines
from tests.quality.asking import BUDGETS, DEPTHS, Values, ask_all, of_ranking
from tests.quality.consolidated import compare
from tests.quality.fit import ablation
from tests.quality.metrics import interval, within_budget
from tests.quality.recorded import pool_file
from tests.quality.sets import SETS, Conversation
from tests.quality.stand import RUNS, open_stand

_CHARACTERS = 4
_PRODUCT = "Context Graph"
# What decides between baselines, and what is to be reached: issue and README of the data.
_DECIDES = {"locomo": 10, "qmsum": 20}


@dataclass(slots=True)
class Results:
    """Measures by method, question by question: (conversation, category, values)."""

    rows: dict[str, list[tuple[str, str, Values]]] = field(default_factory=dict)

    def add(self, method: str, conversation: str, category: str, values: Values) -> None:
        self.rows.setdefault(method, []).append((conversation, category, values))

    def summary(self, method: str, category: str | None = None) -> dict[str, tuple[float, float, float]]:
        """Mean and interval of each measure."""
        rows = [row for row in self.rows[method] if category in (None, row[1])]
        found: dict[str, dict[str, list[float]]] = {}
        for conversation, _, values in rows:
            for name, value in values.items():
                found.setdefault(name, {}).setdefault(conversation, []).append(value)
        return {name: interval(groups) for name, groups in found.items()}

    @property
    def categories(self) -> list[str]:
        return sorted({category for rows in self.rows.values() for _, category, _ in rows})


async def measure(name: str, conversations: tuple[Conversation, ...]) -> Results:
    """The product and every baseline on one set."""
    results = Results()
    async with open_stand(name, conversations) as stand:
        for asked in stand.conversations:
            for question, values in await ask_all(asked):
                results.add(_PRODUCT, asked.conversation.name, question.category, values)
            sys.stderr.write(f"  {asked.conversation.name}: asked\n")
    asked_of = await baselines.parts_of(conversations)
    for method, ranked in baselines.rankings(asked_of, _DECIDES[name]).items():
        for one, ranking in zip(asked_of, ranked, strict=True):
            prices = [(len(turn.text) + len(turn.caption or "")) / _CHARACTERS for turn in one.conversation.turns]
            values = of_ranking(ranking, one.question.evidence)
            for budget in BUDGETS:
                values[f"tok{budget}"] = within_budget(ranking, prices, one.question.evidence, budget)
            results.add(method, one.conversation.name, one.question.category, values)
    return results


def report(results: Results) -> dict[str, Any]:
    """Everything as JSON: by method, overall and by category."""
    answerable = Results({m: [row for row in rows if row[1] != "unanswerable"] for m, rows in results.rows.items()})
    return {
        method: {
            "questions": len(rows),
            "overall": answerable.summary(method),
            "by_category": {c: results.summary(method, c) for c in sorted({row[1] for row in results.rows[method]})},
        }
        for method, rows in answerable.rows.items()
    }


def _table(name: str, found: Mapping[str, Any]) -> str:
    columns = ("R@5", "R@10", "R@20", "nDCG@10", *(f"tok{budget}" for budget in BUDGETS))
    lines = [f"\n{name:22}" + "".join(f"{column:>9}" for column in columns)]
    for method, held in found.items():
        lines.append(f"{method:22}" + "".join(f"{held['overall'][c][0]:9.3f}" for c in columns))
        if method == _PRODUCT:
            bounds = [f"{held['overall'][c][1]:.2f}-{held['overall'][c][2]:.2f}" for c in columns]
            spread = "".join(f"{bound:>9}" for bound in bounds)
            lines.append(f"{'  95 % interval':22}{spread}")
            context = " ".join(f"R@{k} {held['overall'][f'context R@{k}'][0]:.3f}" for k in DEPTHS)
            lines.append(f"{'  of /v1/context':22} {context}")
    for category, mine in found[_PRODUCT]["by_category"].items():
        others = [
            (held["by_category"][category]["R@10"][0], method)
            for method, held in found.items()
            if method not in (_PRODUCT, baselines.MIX) and category in held["by_category"]
        ]
        beside = "best single baseline {:.3f}, {}".format(*max(others)) if others else "reported apart"
        lines.append(f"  {category:20} R@10 {mine['R@10'][0]:.3f} ({beside})  tok1000 {mine['tok1000'][0]:.3f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the sets named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=[], help="default: all")
    parser.add_argument("--ablate", action="store_true", help="what each channel adds, by the recorded pools alone")
    parser.add_argument("--consolidated", action="store_true", help="what summaries, of what, add at equal budget")
    parser.add_argument("--every", type=int, default=1, help="with --consolidated: each so-manieth question alone")
    asked = parser.parse_args()
    if asked.ablate:
        sys.stdout.write(ablation([name for name in asked.sets or list(SETS) if pool_file(name).is_file()]))
        return
    whole: dict[str, Any] = {}
    for name in asked.sets or list(SETS):
        path, read = SETS[name]
        if not path.exists():
            sys.stderr.write(f"{name}: skipped, there is no data at {path} (CG_SHARED_DATA names its folder)\n")
            continue
        if asked.consolidated:
            sys.stdout.write(asyncio.run(compare(name, read(), asked.every)))
            continue
        whole[name] = report(asyncio.run(measure(name, read())))
        sys.stderr.write(_table(name, whole[name]))
    if asked.consolidated:
        return
    text = orjson.dumps(whole, option=orjson.OPT_INDENT_2)
    RUNS.mkdir(exist_ok=True)
    (RUNS / "latest.json").write_bytes(text + b"\n")
    sys.stdout.write(text.decode() + "\n")


if __name__ == "__main__":
    main()
