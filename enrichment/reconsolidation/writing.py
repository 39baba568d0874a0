"""Asking the language model, within the tenant's budget: for a summary, or for facts (`facts_pass.py`).

What comes of it is a value: sentences that their sources hold, or the reason why there are none and whether asking
again can help. An outage, a wrong key and a used-up budget can pass: the session is then asked about again at the next
pass. How often an answer that was refused is asked for again is decided by `asking.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from context_graph.domain.event import TenantId, iso
from context_graph.errors import ConfigurationError, ModelUnavailable, PermanentError
from context_graph.models.language_model import LanguageModel, Prompt
from context_graph.settings import LlmSettings
from context_graph.store.model_usage import ModelTotals, ModelUsage
from enrichment.reconsolidation.summaries import Quote
from enrichment.reconsolidation.written import Line, Refused, prompt_of, read_answer

# A token of any tokenizer in use is at least a character, and some four in English: what a call may cost at worst is
# set aside as if it were two, and corrected after the call.
_CHARACTERS_A_TOKEN = 2

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """Sentences by the model, each with the events that hold it."""

    quotes: tuple[Quote, ...]


@dataclass(frozen=True, slots=True)
class Unwritten:
    """None, and why: `unavailable`, `misconfigured`, `budget`, or what was wrong with the answer."""

    reason: str
    again: bool
    """Whether the next pass should ask again although nothing has changed."""
    refused: bool = False
    """Whether it was asked and what came cannot be believed: asked for again a few times (`asking.py`)."""


class Writer:
    """The model, what it may cost, and the clock that tells the day. `now_ms`: ms UTC."""

    def __init__(
        self, model: LanguageModel, usage: ModelUsage, settings: LlmSettings, now_ms: Callable[[], int]
    ) -> None:
        self._model = model
        self._usage = usage
        self._settings = settings
        self._now_ms = now_ms

    @property
    def model(self) -> str:
        return self._model.name

    def now_ms(self) -> int:
        """ms UTC."""
        return self._now_ms()

    async def ask(self, tenant: TenantId, prompt: Prompt, read: Callable[[str], _T]) -> _T | Unwritten:
        """What `read` makes of the answer: one call, or none when the budget does not cover it.

        `read` raises Refused on an answer that cannot be believed. Raises StoreUnavailable.
        """
        day = iso(self._now_ms())[:10]
        worst = self._worst_case(prompt)
        if not await self._usage.take(tenant, day, worst, self._settings.tokens_per_day):
            log.warning("model budget used up", tenant=tenant, tokens_per_day=self._settings.tokens_per_day)
            return Unwritten("budget", again=True)
        outcome, spent = await self._ask(prompt, read)
        await self._usage.settle(tenant, day, worst, spent)
        if isinstance(outcome, Unwritten):
            log.warning("not written", tenant=tenant, model=self.model, reason=outcome.reason)
        return outcome

    def _worst_case(self, prompt: Prompt) -> int:
        characters = len(prompt.rules) + len(prompt.material)
        return characters // _CHARACTERS_A_TOKEN + self._settings.max_output_tokens

    async def _ask(self, prompt: Prompt, read: Callable[[str], _T]) -> tuple[_T | Unwritten, ModelTotals]:
        try:
            completion = await self._model.complete(prompt)
        except ModelUnavailable as error:
            log.warning("language model away", reason=str(error))
            return Unwritten("unavailable", again=True), ModelTotals(failed=1)
        except ConfigurationError as error:
            log.error("language model misconfigured", reason=str(error))
            return Unwritten("misconfigured", again=True), ModelTotals(failed=1)
        except PermanentError as error:
            log.error("language model refuses the request", reason=str(error))
            return Unwritten("request-refused", again=False, refused=True), ModelTotals(failed=1)
        spent = ModelTotals(calls=1, input_tokens=completion.input_tokens, output_tokens=completion.output_tokens)
        try:
            return read(completion.text), spent
        except Refused as refusal:
            reason = "cut-off" if completion.cut else refusal.reason
            return Unwritten(reason, again=False, refused=True), ModelTotals(
                calls=1, refused=1, input_tokens=completion.input_tokens, output_tokens=completion.output_tokens
            )


def summary_of(lines: Sequence[Line], sentences: int) -> tuple[Prompt, Callable[[str], Written]]:
    """What is asked for a summary of these lines, and how the answer is read."""
    return prompt_of(lines, sentences), lambda text: Written(read_answer(text, lines, sentences))
