"""Named entities in texts: spaCy's recogniser, off the event loop.

Only what the recogniser needs of a pipeline is loaded: without tagger, parser and lemmatiser it is half as slow again.
What a label means for this service, and which spans are noise, is decided by the enrichment, not here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from context_graph.errors import ConfigurationError, ModelUnavailable
from context_graph.models.languages import LanguageTest
from context_graph.settings import EntitySettings

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_UNUSED = ("tagger", "morphologizer", "parser", "senter", "sentencizer", "attribute_ruler", "lemmatizer")
_BATCH_TEXTS = 32
_SPANS_VERSION = 1  # raised when the same pipeline would be believed differently: what is remembered of it is void then
# Letters beyond Latin with its extensions: a Latin language's pipeline knows no name that is written in them.
_OTHER_SCRIPT = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff]")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text (characters, end exclusive) and the model's own label for it."""

    text: str
    label: str
    start: int
    end: int


class Recogniser(Protocol):
    """Finds names in texts."""

    @property
    def recogniser_id(self) -> str:
        """The very pipeline: the same one finds the same spans in the same text."""
        ...

    async def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """For each text its spans in order, without overlaps. Raises ModelUnavailable or ConfigurationError."""
        ...


class SpacyRecogniser:
    """A spaCy pipeline: a package, a path, or `blank:xx`, which finds nothing."""

    def __init__(self, settings: EntitySettings, thread: ThreadPoolExecutor) -> None:
        self._settings = settings
        self._thread = thread  # a single one: it alone touches the pipeline
        self._pipeline: Language | None = None
        self._language: LanguageTest | None = None
        self._id = _identity(settings)

    @property
    def recogniser_id(self) -> str:
        return self._id

    async def recognise(self, texts: Sequence[str]) -> list[list[Span]]:
        """See `Recogniser.recognise`. Of each text only the first `max_characters` are read."""
        short = [text[: self._settings.max_characters] for text in texts]
        loop = asyncio.get_running_loop()
        found: list[list[Span]] = []
        for start in range(0, len(short), _BATCH_TEXTS):
            batch = short[start : start + _BATCH_TEXTS]
            found += await loop.run_in_executor(self._thread, self._recognise_batch, batch)
        return found

    def _recognise_batch(self, texts: list[str]) -> list[list[Span]]:
        pipeline = self._loaded()
        try:
            return [self._believed(document) for document in pipeline.pipe(texts, batch_size=_BATCH_TEXTS)]
        except Exception as error:  # spaCy's failures share no root below Exception
            raise ModelUnavailable(f"the recogniser {self._settings.model} failed: {error}") from error

    def _believed(self, document: Doc) -> list[Span]:
        """The spans of a text that is in the pipeline's language; of another language's text all is a guess."""
        spans = [Span(entity.text, entity.label_, entity.start_char, entity.end_char) for entity in document.ents]
        language = self._language
        if not spans or language is None or not language.latin:
            return spans
        if not language.fits(token.lower_ for token in document):
            return []
        return [span for span in spans if not _OTHER_SCRIPT.search(span.text)]

    def _loaded(self) -> Language:
        if self._pipeline is None:
            self._pipeline = _load(self._settings.model)
            self._language = LanguageTest(self._pipeline.lang)
        return self._pipeline


def _identity(settings: EntitySettings) -> str:
    """Name, version where it is a package, and how much of a text it reads."""
    try:
        known = version(settings.model)
    except (PackageNotFoundError, ValueError):
        known = "unversioned"
    return f"{settings.model}/{known}/{settings.max_characters}/{_SPANS_VERSION}"


def _load(name: str) -> Language:
    import spacy  # noqa: PLC0415 - a second of imports: at the first use, in the recogniser's thread

    try:
        if name.startswith("blank:"):
            return spacy.blank(name.removeprefix("blank:"))
        pipeline: Any = spacy.load(name, exclude=_UNUSED)
    except (OSError, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"CG_ENTITIES__MODEL: spaCy cannot load {name!r} ({error}). "
            "Install that package, name another one, or set blank:en to go without"
        ) from error
    if "tok2vec" in pipeline.pipe_names and not pipeline.get_pipe("tok2vec").listening_components:
        pipeline.disable_pipe("tok2vec")  # the recogniser has its own: nobody would read this one's output
    return pipeline


@asynccontextmanager
async def open_recogniser(settings: EntitySettings) -> AsyncIterator[Recogniser]:
    """The recogniser that the settings name; its pipeline is loaded at the first use."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recogniser")
    try:
        yield SpacyRecogniser(settings, thread)
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
