"""A language model through litellm: any provider, or a local server in the OpenAI form. Optional.

litellm is imported at the first call, in a thread: it takes seconds and 160 MB, and only a worker that summarises
needs it. It is told to use the price map it carries, because importing it would fetch one otherwise. Its own retries
wait out what passes quickly (429, 5xx, a broken connection); a breaker then spares a server that is down the requests,
and everybody the waiting. What is asked, and what to make of the answer, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from context_graph.errors import ConfigurationError, ModelUnavailable, PermanentError
from context_graph.settings import LlmSettings

_REFUSES_US = (401, 403, 404)  # the key or the model's name is wrong
_REFUSES_IT = (400, 413, 422)  # this prompt: too long, or against the provider's rules


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked: the rules of the task, and its material."""

    rules: str
    material: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back, and the tokens it cost as the provider counts them; `cut`: it ended at the token cap."""

    text: str
    input_tokens: int
    output_tokens: int
    cut: bool


class LanguageModel(Protocol):
    """Completes a prompt."""

    @property
    def name(self) -> str:
        """The model as litellm names it."""
        ...

    async def complete(self, prompt: Prompt) -> Completion:
        """The answer. Raises ModelUnavailable (an outage), ConfigurationError (key, name), PermanentError (prompt)."""
        ...


class Breaker:
    """Opens after `failures` in a row, for `seconds`; then one try decides. `now`: seconds, monotonic."""

    def __init__(self, failures: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._seconds = seconds
        self._now = now
        self._failed = 0
        self._closed_again_at = 0.0

    def lets_through(self) -> bool:
        """Whether to try: always while closed; of those who come when its time is over, one, who decides for all."""
        if self._failed < self._most:
            return True
        if self._now() < self._closed_again_at:
            return False
        self._closed_again_at = self._now() + self._seconds
        return True

    def succeeded(self) -> None:
        self._failed = 0

    def failed(self) -> None:
        self._failed += 1
        self._closed_again_at = self._now() + self._seconds


class LitellmModel:
    """The model that `CG_LLM__MODEL` names. `now`: seconds, monotonic."""

    def __init__(self, model: str, settings: LlmSettings, now: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._settings = settings
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds, now)

    @property
    def name(self) -> str:
        return self._model

    async def complete(self, prompt: Prompt) -> Completion:
        """See `LanguageModel.complete`."""
        if not self._breaker.lets_through():
            raise ModelUnavailable(f"{self._model} has failed {self._settings.breaker_failures} times in a row")
        litellm = await asyncio.to_thread(_litellm)
        try:
            answer: Any = await litellm.acompletion(**self._arguments(prompt))
        except Exception as error:
            raise self._named(error) from error
        self._breaker.succeeded()
        choice = answer.choices[0]
        return Completion(
            text=choice.message.content or "",
            input_tokens=int(answer.usage.prompt_tokens),
            output_tokens=int(answer.usage.completion_tokens),
            cut=choice.finish_reason == "length",
        )

    def _arguments(self, prompt: Prompt) -> dict[str, Any]:
        settings = self._settings
        return {
            "model": self._model,
            "messages": [{"role": "system", "content": prompt.rules}, {"role": "user", "content": prompt.material}],
            "api_base": settings.api_base,
            # A local server asks for no key, but the client library insists on one.
            "api_key": settings.api_key.get_secret_value()
            if settings.api_key
            else ("none" if settings.api_base else None),
            "timeout": settings.timeout_seconds,
            "max_retries": settings.retries,
            "max_tokens": settings.max_output_tokens,
            "temperature": 0,
            "drop_params": True,  # a model that takes no temperature is asked without one
        }

    def _named(self, error: Exception) -> Exception:
        """Our error for litellm's, by the HTTP status that each of its errors carries.

        An outage counts for the breaker; who refuses is there.
        """
        status = getattr(error, "status_code", None)
        if status in (*_REFUSES_US, *_REFUSES_IT):
            self._breaker.succeeded()
        if status in _REFUSES_US:
            return ConfigurationError(
                f"{self._model} refuses us ({error}): check CG_LLM__MODEL, CG_LLM__API_BASE and CG_LLM__API_KEY"
            )
        if status in _REFUSES_IT:
            return PermanentError(f"{self._model} cannot take this request: {error}")
        self._breaker.failed()
        return ModelUnavailable(f"{self._model} did not answer: {error}")


def open_language_model(settings: LlmSettings) -> LanguageModel | None:
    """The model that is set, or None. Nothing is asked of it yet."""
    return LitellmModel(settings.model, settings) if settings.model else None


def _litellm() -> ModuleType:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' deprecations are not ours to mend
        import litellm  # noqa: PLC0415 - seconds of imports: at the first use, in a thread
    litellm.suppress_debug_info = True  # it would print advertisements on every error
    module: ModuleType = litellm
    return module
