"""What readiness and `context-graph doctor` conclude about models: one verdict, and a remedy by the kind of fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from context_graph.domain.findings import Finding

_VECTORS_WAIT = "words and entities alone are searched, and vectors wait"
_BRING_BACK = "start it, or mend CG_EMBEDDING__URL; the workers go on by themselves"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model after a trial: its name, what it is for, what went wrong, and the numbers of a vector it made.

    `problem`: it cannot be used as configured; `away`: no answer now. `remote`: a server has it.
    """

    name: str
    use: str
    problem: str | None = None
    dimensions: int | None = None
    away: str | None = None
    remote: bool = False


@dataclass(frozen=True, slots=True)
class EmbedderFacts:
    """What a tenant's live generation is embedded by. `wrong`: another model than its own; `away`: no answer now."""

    tenant: str
    wrong: str | None = None
    away: str | None = None


def model_findings(models: Sequence[ModelFacts], embedders: Sequence[EmbedderFacts], dimensions: int) -> list[Finding]:
    """Of the models that were tried, then of the tenants' embedders. `dimensions`: those of the settings.

    What a tenant's finding says already of the same server is not said twice.
    """
    away = any(embedder.away is not None for embedder in embedders)
    wrong = any(embedder.wrong is not None for embedder in embedders)
    findings: list[Finding] = []
    for model in models:
        found = _model(model, dimensions)
        if not (model.remote and ((found.level == "warn" and away) or (found.level == "wrong" and wrong))):
            findings.append(found)
    return findings + [found for embedder in embedders for found in _embedder(embedder)]


def _model(model: ModelFacts, dimensions: int) -> Finding:
    if model.away is not None:
        return Finding("warn", "models", f"{model.use}: {model.away}; {_VECTORS_WAIT}", _BRING_BACK)
    if model.problem is not None:
        remedy = "mend what it names" if model.remote else "install the extra `models`, or set its path"
        return Finding("wrong", "models", f"{model.use}: {model.problem}", remedy)
    if model.dimensions is None:
        return Finding("ok", "models", f"{model.use}: {model.name} loads")
    if model.dimensions != dimensions:
        words = (
            f"{model.use}: {model.name} gives {model.dimensions} numbers, CG_EMBEDDING__DIMENSIONS says {dimensions}"
        )
        remedy = f"set CG_EMBEDDING__DIMENSIONS={model.dimensions} and rebuild what is there, or name another model"
        return Finding("wrong", "models", words, remedy)
    does = "answers" if model.remote else "loads"
    return Finding("ok", "models", f"{model.use}: {model.name} {does} and gives {model.dimensions} numbers")


def _embedder(embedder: EmbedderFacts) -> list[Finding]:
    """Another model needs an operator. One that is away costs meaning only: text is served, so that is a warning."""
    if embedder.wrong is not None:
        words = f"{embedder.tenant}: {embedder.wrong}"
        return [Finding("wrong", "models", words, "until then words alone are searched, and vectors wait")]
    if embedder.away is not None:
        return [Finding("warn", "models", f"{embedder.tenant}: {embedder.away}; {_VECTORS_WAIT}", _BRING_BACK)]
    return []
