"""Logging set-up: structlog, one line per event on stderr, as JSON or for people.

Standard library loggers (uvicorn, redis) go through the same renderer, so a log file has one shape. Called once per
process by the command line; modules only ever call `structlog.get_logger(__name__)`.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.types import Processor

from context_graph.settings import Settings

# Chatty below warning, and nothing an operator of this service can act on.
_QUIET = ("asyncio", "httpcore", "httpx", "httpx2", "fastembed", "huggingface_hub", "uvicorn.access", "LiteLLM")


def configure_logging(settings: Settings) -> None:
    """Send every log record of this process to stderr in `settings.log_format`, from `settings.log_level` up."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_format == "json":
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        final += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
