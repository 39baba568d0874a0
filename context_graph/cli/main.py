"""The command line's entry: the table of commands, and how a failure is told.

What this service raises on purpose becomes one clear line on stderr and exit code 1; wrong usage is exit code 2; only a
defect shows a traceback. No model and no web framework is imported before a command needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from context_graph.cli.accountability import feedback, knew, receipt
from context_graph.cli.archiving import archive
from context_graph.cli.client_commands import context, ingest, lineage, search
from context_graph.cli.dead_letters import dead_letters
from context_graph.cli.doctor import doctor
from context_graph.cli.erasure import forget
from context_graph.cli.facts import facts, reread
from context_graph.cli.forgetting import forgetting
from context_graph.cli.rebuilding import rebuild, verify
from context_graph.cli.run import api, worker
from context_graph.cli.tail import tail
from context_graph.cli.tenants_and_keys import keys, tenants
from context_graph.cli.up import up
from context_graph.errors import ContextGraphError

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("up", up),
    ("doctor", doctor),
    ("ingest", ingest),
    ("context", context),
    ("search", search),
    ("lineage", lineage),
    ("facts", facts),
    ("reread", reread),
    ("knew", knew),
    ("receipt", receipt),
    ("feedback", feedback),
    ("tail", tail),
    ("forget", forget),
    ("rebuild", rebuild),
    ("verify", verify),
    ("api", api),
    ("worker", worker),
)
GROUPS: tuple[typer.Typer, ...] = (tenants, keys, dead_letters, archive, forgetting)


def build_app() -> typer.Typer:
    """The application with every command and group of the tables."""
    app = typer.Typer(
        name="context-graph",
        help="The memory that agents can be held to account for. Begin with `context-graph up`.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, command in COMMANDS:
        app.command(name)(command)
    for group in GROUPS:
        app.add_typer(group)
    return app


def main() -> None:
    """Run the command that the arguments name; ends the process with its exit code."""
    try:
        build_app()()
    except ContextGraphError as error:
        _fail([error])
    except ExceptionGroup as group:
        ours, defects = group.split(ContextGraphError)
        if ours is None or defects is not None:
            raise
        _fail(list(_leaves(ours)))
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as a shell says it


def _leaves(group: BaseExceptionGroup[ContextGraphError]) -> list[ContextGraphError]:
    found: list[ContextGraphError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _fail(errors: list[ContextGraphError]) -> None:
    for error in errors:
        sys.stderr.write(f"context-graph: {error}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
