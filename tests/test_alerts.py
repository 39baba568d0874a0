"""The alert rules against the closed catalogue of metrics: a rule on a metric that nobody exports never fires."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from context_graph.domain.generations import RebuildState
from context_graph.observability.metrics import CATALOGUE

ROOT = Path(__file__).parent.parent
RULES: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/observability/alerts.yaml").read_text())["groups"][0][
    "rules"
]
LABELS = {row.name + ("_total" if row.kind == "counter" else ""): set(row.labels) for row in CATALOGUE}
_NAMES = re.compile(r"\bcg_\w+")
_MATCHED = re.compile(r"(cg_\w+)\{(\w+)")
_GROUPED = re.compile(r"by \(([^)]*)\) \((?:\w+\()?(cg_\w+)")
_SHOWN = re.compile(r"\$labels\.(\w+)")


def test_every_metric_of_a_rule_is_exported_with_the_labels_that_it_goes_by() -> None:
    used = set()
    for rule in RULES:
        names = _NAMES.findall(rule["expr"])
        used |= set(names)
        assert names or rule["alert"] == "ContextGraphDown", rule["alert"]
        assert set(names) <= LABELS.keys(), rule["alert"]
        for name, label in _MATCHED.findall(rule["expr"]):
            assert label in LABELS[name], (rule["alert"], label)
        kept = {"instance"}
        for labels, name in _GROUPED.findall(rule["expr"]):
            wanted = {label.strip() for label in labels.split(",")}
            assert wanted <= LABELS[name], rule["alert"]
            kept |= wanted
        assert set(_SHOWN.findall(" ".join(rule["annotations"].values()))) <= kept, rule["alert"]
    watched = ("cg_stage_waiting_seconds", "cg_stage_oldest_pending_seconds", "cg_dead_letters", "cg_stage_lost_events",
               "cg_not_ready", "cg_rebuild_left_events", "cg_worker_heartbeat_age_seconds")  # fmt: skip
    assert set(watched) <= used


def test_every_rule_has_a_runbook_that_is_there() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / path).read_text()
        headings = {re.sub(r"[^\w -]", "", line.strip("# ")).lower().replace(" ", "-") for line in text.splitlines()
                    if line.startswith("#")}  # fmt: skip
        assert not anchor or anchor in headings, (rule["alert"], anchor)
        assert rule["labels"]["severity"] in ("page", "warn")


def test_a_state_that_a_rule_asks_for_exists() -> None:
    states = re.findall(r'state="([^"]+)"', " ".join(rule["expr"] for rule in RULES))
    assert set(states) <= set(RebuildState.__args__)  # type: ignore[attr-defined]
