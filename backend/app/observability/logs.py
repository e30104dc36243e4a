"""Structured logs with correlation ids (section 8.5). Nothing personal or secret is logged.

What is logged of our own names neither content nor people. The last processor is the net below:
it masks secrets and addresses in what libraries and tracebacks say (SEC-001, SEC-002).
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

import structlog

from app.config import Settings
from app.security.redact import is_secret_field, mask_text
from app.security.secret_patterns import MASK

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
# PostgreSQL tells the values at fault there.
ROW_DETAIL = re.compile(r"^((?:DETAIL|CONTEXT):).*$", re.MULTILINE)


def configure_logging(settings: Settings, part: str) -> None:
    """Send every log of this process, the libraries' too, to stderr in one format.

    Args:
        settings: `log_format` and `log_level`.
        part: name of the process, added to each line.
    """
    level = LEVELS[settings.log_level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default shows local variables, which hold content and tokens.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    # Tracebacks become text before the masking sees them.
    last: list[Any] = [
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_event,
        renderer,
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(part=part)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING) if level > LEVELS["debug"] else level)
    # It tells every header of HTTP/2, credentials too.
    logging.getLogger("hpack").setLevel(logging.WARNING)


def log_warnings(settings: Settings) -> None:
    """Say at the start what is set and has no effect."""
    for warning in settings.warnings:
        structlog.get_logger().warning("setting_without_effect", detail=warning)


def mask_event(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Mask secrets and email addresses in all values of a log line."""
    return {name: _masked(name, value) for name, value in event.items()}


def _masked(name: str, value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case _ if is_secret_field(name):
            return MASK
        case str():
            return _masked_text(value)
        case Mapping():
            fields = cast("Mapping[object, object]", value)
            return {str(key): _masked(str(key), item) for key, item in fields.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked("", item) for item in cast("list[object]", value)]
        case _:
            return _masked_text(repr(value))


def _masked_text(text: str) -> str:
    masked = mask_text(text)
    if "@" in masked:
        masked = EMAIL.sub("[email]", masked)
    return ROW_DETAIL.sub(rf"\1 {MASK}", masked) if ":" in masked else masked
