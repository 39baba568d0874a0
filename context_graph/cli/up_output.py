"""What `context-graph up` prints: steps while it starts, working memory with its sources, where to look next.

On a terminal a step spins until it is done; elsewhere (CI, a log) each step is a line when it begins and one when it is
done. Paths and commands are never wrapped, so that they can be copied.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from context_graph.domain.event import JsonValue
from context_graph.ingest.transcript_envelopes import JsonObject
from context_graph.local.data_folder import DataFolder

_WIDTH = 100  # columns where nobody looks at a terminal
_EVENTS_NAMED = 3  # events of a summary that are named; the rest are counted

Update = Callable[[str], None]


class Output:
    """A console and the words of `up`."""

    def __init__(self, console: Console | None = None) -> None:
        width = None if sys.stdout.isatty() else _WIDTH
        self._console = console or Console(highlight=False, width=width)

    def line(self, text: str = "", style: str = "") -> None:
        """One line, as long as it is."""
        self._console.print(Text(text, style=style), soft_wrap=True)

    def note(self, text: str) -> None:
        """Something that happened while all runs, such as a child that was started again."""
        self.line(f"{time.strftime('%H:%M:%S')}  {text}", "yellow")

    @contextmanager
    def step(self, doing: str) -> Iterator[Update]:
        """A step of the start. The block calls what it gets with a state to show; the last one stays as the result."""
        began, said = time.monotonic(), ""

        def show(text: str) -> None:
            nonlocal said
            said = text
            status.update(Text(f"{doing}: {text}"))

        if not self._console.is_terminal:
            self.line(f"   {doing} ...", "dim")
        with self._console.status(Text(f"{doing} ...")) as status:
            yield show
        self.line(f"   {doing}: {said or 'done'}  ({time.monotonic() - began:.1f} s)")

    def memory(self, question: str, answer: JsonObject, milliseconds: float) -> None:
        """A question, what the agent would see (every line cites its source), and the sources."""
        self.line()
        self.line(f"Q: {question}", "bold cyan")
        content = answer.get("content")
        for line in str(content).splitlines() if content else ["(nothing was found)"]:
            self._wrapped(line, "bold" if line.startswith("## ") else "")
        self.line("   Sources", "bold")
        items = answer.get("items")
        for ref, item in enumerate(items if isinstance(items, list) else [], 1):
            if isinstance(item, dict):
                self.line(f"   [{ref}] {_source(item)}", "dim")
        budget = answer.get("budget")
        if isinstance(budget, dict):
            used = f"{budget.get('used')} of {budget.get('limit')} tokens"
            self.line(f"   {used}, {milliseconds:.0f} ms", "green")

    def _wrapped(self, line: str, style: str) -> None:
        width = max(40, self._console.width - 3)
        hanging = "  " if line.startswith("- ") else ""
        for part in textwrap.wrap(line, width, subsequent_indent=hanging, break_long_words=False) or [""]:
            self.line(f"   {part}", style)

    def ready(self, base_url: str, folder: DataFolder, key: str, header: str, *, new_key: bool) -> None:
        """Where the service is, how to talk to it, and where to look next."""
        key_file = shlex.quote(str(folder.api_key))
        body = '{"query": "what failed, and what was done about it?", "token_budget": 400, "format": "markdown"}'
        program = command()
        data = "" if folder == DataFolder.at(Path(".context-graph")) else f" --data {shlex.quote(str(folder.root))}"
        self.line()
        self.line("Context Graph is ready.", "bold green")
        self.line(f"   API       {base_url}  (documentation: {base_url}/docs)")
        self.line(f"   Key       {key if new_key else 'as before'}  (kept in {folder.api_key})")
        self.line(f"   Try       curl -s {base_url}/v1/context -H 'Content-Type: application/json' \\")
        self.line(f'               -H "{header}: $(cat {key_file})" \\')
        self.line(f"               -d '{body}'")
        self.line(f"   or        {program} search 'timeout'{data}")
        self.line(f"   Summarise {program} worker consolidation --once{data}  (by itself every few hours)")
        self.line(f"   Check     {program} doctor{data}")
        self.line(f"   Logs      {folder.logs}")
        self.line("Ctrl-C stops everything; the data stays.")


def _source(item: JsonObject) -> str:
    """`evt-1 in session support-7` or `12 events (evt-1, evt-2, evt-3 ...) in session support-7`."""
    events: JsonValue = item.get("event_ids")
    names = [str(event) for event in events] if isinstance(events, list) else []
    if len(names) > _EVENTS_NAMED:
        said = f"{len(names)} events ({', '.join(names[:_EVENTS_NAMED])} ...)"
    else:
        said = ", ".join(names)
    kind = f"{item.get('kind')} of " if item.get("kind") != "event" else ""
    return f"{kind}{said} in session {item.get('session_id')}"


def command() -> str:
    """How this shell calls the command line: by name when it is on PATH, else by the path of this environment."""
    here = Path(sys.executable).with_name("context-graph")
    found = shutil.which("context-graph")
    if found is not None and Path(found).resolve() == here.resolve():
        return "context-graph"
    return shlex.quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))
