"""Writes a record for each fact, with structlog, and lets what user code logs say which saga and step it belongs to.

Nothing is configured behind anybody's back: without further arguments records go to structlog as the application has
configured it, and no handler, filter or processor is installed that was not asked for.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TextIO

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, get_contextvars, reset_contextvars

from saga.checks import refuse
from saga.clock import SystemClock
from saga.events import Claimed, Created
from saga.foreign import read
from saga.monitoring._lines import one_line
from saga.monitoring._records import (
    BY_FIELDS,
    FORMS,
    Live,
    error_text,
    level_by_fields,
)
from saga.monitoring._trace_context import trace_id_of
from saga.observers import Observer
from saga.outcomes import record_of
from saga.redaction import Redaction, traceback_of
from saga.types import LeaveReason

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from saga.clock import Clock
    from saga.context import SagaContext
    from saga.events import Event
    from saga.types import SagaInfo

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_FLOORS = (logging.NOTSET, *LEVELS.values(), logging.CRITICAL)

_BOUND = bind_contextvars(saga_id="", step="")
reset_contextvars(**_BOUND)
_SAGA_ID, _STEP = _BOUND["saga_id"].var, _BOUND["step"].var
"""The variables that structlog itself uses for these keys: asking for them each time costs as much as all the rest."""


class SagaLogger(Observer):
    """Writes one structlog record for each fact that this process appends.

    Its keys are ``event saga_id saga``, and where they apply ``step phase attempt outcome duration_s trace_id error``
    and what else the fact says, but no argument and no result. While user code runs, ``saga_id`` and ``step`` are bound
    to structlog's contextvars, so that its own records carry them; for the standard library see ``SagaLogFilter``.
    """

    def __init__(
        self,
        logger: Any = None,
        *,
        output: Literal["json", "console"] | None = None,
        file: TextIO | None = None,
        level: Level = "info",
        redaction: Redaction | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Say where records go.

        Args:
            logger: A structlog logger; by default the one that structlog is configured to give, asked for when the
                first record is written.
            output: Write lines of its own instead, as JSON or for people, and leave structlog's configuration alone.
            file: Where those lines go; standard error by default.
            level: Nothing below it is written.
            redaction: What is masked in error texts and reasons.
            clock: Time, for durations; the system's by default.

        Raises:
            SagaValidationError: If ``output`` or ``level`` is none of these, or ``output`` comes with a logger.
        """
        if output not in (None, "json", "console") or (output is not None and logger is not None):
            refuse("output", output, "'json' or 'console', and only without a logger")
        if level not in LEVELS:
            refuse("level", level, "'debug', 'info', 'warning' or 'error'")
        self._level = LEVELS[level]
        self._redaction = Redaction.default if redaction is None else redaction
        self._clock: Clock = SystemClock() if clock is None else clock
        self._monotonic = time.monotonic if clock is None else clock.monotonic
        self._given = _lines(output, sys.stderr if file is None else file) if output is not None else logger
        self._write: dict[int, Callable[..., Any]] = {}
        self._enabled: Callable[[int], bool] | None = None
        self._live: dict[str, Live] = {}
        self._errors: set[tuple[str, str]] = set()

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Write a record of a fact."""
        kind = type(event)
        if kind is Created or kind is Claimed:
            self._follow(saga, new=kind is Created)
        level, name, describe = FORMS[kind]
        if level == BY_FIELDS:
            level = level_by_fields(event)
        # Each fact comes by here: a call less counts.
        if level < self._level or (not self._write and not self._wants(level)):
            return
        if self._enabled is not None and not self._enabled(level):
            return
        saga_id, saga_name = saga.saga_id, saga.saga_name
        fields: dict[str, Any] = {
            "saga_id": saga_id,
            "saga": saga_name if saga_name.isprintable() else one_line(saga_name),
        }
        if describe is not None:
            describe(self._redaction, self._live.get(saga_id), event, fields)
        if saga.headers and (trace_id := trace_id_of(saga.headers)):
            fields["trace_id"] = trace_id
        if "step" in fields:
            self._write[level](name, **fields)
        else:
            self._say(level, name, fields)

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:
        """Bind the saga's id and the step while an attempt's user code runs."""
        return _Bound(ctx, self._live.get(saga.saga_id), self._monotonic)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Forget a saga, and say so if another process took it."""
        live = self._live.pop(saga.saga_id, None)
        if live is not None and reason is LeaveReason.LOST and self._wants(logging.WARNING):
            fields = {"saga_id": saga.saga_id, "saga": one_line(saga.saga_name)}
            self._say(logging.WARNING, "claim_lost", fields)

    def on_error(self, observer: Observer, error: BaseException) -> None:
        """Write a record of the first error of each kind that an observer raised."""
        kind = (type(observer).__name__, type(error).__name__)
        # What this one raised it cannot be trusted to write down.
        if observer is self or kind in self._errors or not self._wants(logging.ERROR):
            return
        self._errors.add(kind)
        told = record_of(error)
        fields = {"observer": kind[0], "error": error_text(self._redaction, told.type, told.message)}
        self._say(logging.ERROR, "observer_error", fields)

    def _say(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """Write a record of no step: a saga that another one's step started runs in a copy of that step's context."""
        if _STEP.get(...) is ...:
            self._write[level](event, **fields)
            return
        token = _STEP.set(...)
        try:
            self._write[level](event, **fields)
        finally:
            _STEP.reset(token)

    def _follow(self, saga: SagaInfo, *, new: bool) -> None:
        if saga.saga_id not in self._live:
            known = saga.created_at is not None and not new
            age = max(0.0, self._clock.now() - (saga.created_at or 0.0)) if known else 0.0
            self._live[saga.saga_id] = Live(self._monotonic, age)

    def _wants(self, level: int) -> bool:
        if level < self._level:
            return False
        if not self._write:
            self._open()
        return level >= self._level and (self._enabled is None or self._enabled(level))

    def _open(self) -> None:
        """Ask for the logger, when the first record is written: only then is structlog surely configured."""
        log = (structlog.get_logger("saga") if self._given is None else self._given).bind()
        if isinstance(log, structlog.stdlib.AsyncBoundLogger):
            # Its methods are coroutines, which nobody would await; inside is the logger that they call in a thread.
            log = log.sync_bl
        if inspect.iscoroutinefunction(getattr(type(log), "info", None)):
            refuse(
                "logger", log, "a structlog logger whose methods write when they are called, not when they are awaited"
            )
        self._write = {number: getattr(log, name) for name, number in LEVELS.items()}
        floor = next((n for n in _FLOORS if type(log) is structlog.make_filtering_bound_logger(n)), None)
        if floor is not None:
            # Structlog's own filter never changes: it need not be asked again, nor gone through.
            self._level = max(self._level, floor)
            straight = log._proxy_to_logger  # noqa: SLF001 - which structlog's page on custom wrappers offers
            self._write = {number: partial(straight, name) for name, number in LEVELS.items()}
            return
        for name in ("is_enabled_for", "isEnabledFor"):
            # Others that can tell whether a record would be thrown away are asked each time. The class is, since some
            # loggers take every name that the logger inside has for a way to write a record.
            if hasattr(type(log), name):
                self._enabled = getattr(log, name)


class SagaLogFilter(logging.Filter):
    """Gives records of the standard library's logging the attributes ``saga_id`` and ``step``, and masks secrets.

    Add it to a handler; then every line that goes through it can say ``%(saga_id)s`` and ``%(step)s``, which are ``-``
    outside of steps. It needs a ``SagaLogger`` among the observers, of whatever level. It masks the message, its
    arguments, what was given with ``extra``, tracebacks and stacks; messages stay on one line, the others are indented.
    """

    def __init__(self, redaction: Redaction | None = None) -> None:
        """Say what is masked."""
        super().__init__()
        self._redaction = Redaction.default if redaction is None else redaction

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete a record; none is held back."""
        redaction, given = self._redaction, record.__dict__
        for name in given.keys() - _STANDARD:
            given[name] = read(self._shown, name, given[name], otherwise=redaction.mask)
        bound = get_contextvars()
        for name in _IDENTIFIERS:
            # What the user's own code gave with ``extra`` stays.
            given.setdefault(name, bound.get(name, "-"))
        message: Any = record.msg
        if read(isinstance, message, dict, otherwise=False) and not read(bool, record.args, otherwise=True):
            # A structlog record on its way to structlog's ProcessorFormatter, which copies it.
            record.msg = redaction(None, "", message)
        else:
            record.msg, record.args = _Masked(message, record.args, redaction), None
        if record.stack_info:
            record.stack_info = self._block(record.stack_info)
        self._hide_error(record)
        return True

    def _shown(self, name: str, value: Any) -> Any:
        """Return what may be shown of what was given with ``extra``."""
        value = value if name in _IDENTIFIERS else self._redaction.value(name, value)
        return one_line(value) if isinstance(value, str) else value

    def _hide_error(self, record: logging.LogRecord) -> None:
        """Leave only masked text of an exception: formatters for JSON or structlog render the exception themselves."""
        given = record.exc_info
        error = given[1] if isinstance(given, tuple) and len(given) == len(sys.exc_info()) else None
        if not isinstance(error, BaseException):
            error = None
        if error is not None and not record.exc_text:
            record.exc_text = traceback_of(error)
        if record.exc_text:
            record.exc_text = self._block(record.exc_text)
        if not isinstance(error, MaskedError):
            masked = MaskedError(f"\n{record.exc_text}")
            record.exc_info = None if error is None else (MaskedError, masked, None)

    def _block(self, text: str) -> str:
        """Return lines masked, and indented so that none of them looks like a record."""
        masked = read(self._redaction.text, text, otherwise=self._redaction.mask)
        if isinstance(text, _Block):
            return _Block(masked)
        return _Block("\n".join("  " + one_line(line) for line in masked.split("\n")))


class MaskedError(Exception):
    """Stands in a record for the exception that was logged, and says its masked traceback."""


class _Block(str):
    """Text that has been indented: a record may pass through the filters of several handlers."""

    __slots__ = ()


_OFFSET = len("+00:00")
_IDENTIFIERS = ("saga_id", "step")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "_logger", "_name"}
"""What is no ``extra``: the attributes of every record, and those by which structlog knows its own."""
_BY_KEY = re.compile(r"%\((?P<key>[^)]*)\)[-#0 +]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[hlL]?[a-zA-Z]")


class _Masked:
    """A message that is formatted and masked when a handler asks for its text.

    What goes wrong then is reported by the handler, as always, and not raised where the user's code logs.
    """

    __slots__ = ("_args", "_message", "_redaction")

    def __init__(self, message: object, args: Any, redaction: Redaction) -> None:
        self._message = message
        self._args = args
        self._redaction = redaction

    def __repr__(self) -> str:
        """Return what a handler reports where it cannot format; arguments of a text that names a secret are hidden."""
        return repr(self._redaction.value("", (self._message, self._args)))

    def __str__(self) -> str:
        text = str(self._message)
        if isinstance(self._args, Mapping):
            # ``%(pin)d`` takes nothing but a number, so the mask goes where the key stands.
            text = _BY_KEY.sub(self._without_secret, text)
        return one_line(self._redaction.text(text % self._args if self._args else text))

    def _without_secret(self, found: re.Match[str]) -> str:
        redaction = self._redaction
        return redaction.mask.replace("%", "%%") if redaction.is_secret(found["key"]) else found[0]


class _Bound:
    """Binds contextvars around user code, and times it."""

    __slots__ = ("_begun", "_ctx", "_live", "_monotonic", "_saga_id", "_step")

    def __init__(self, ctx: SagaContext, live: Live | None, monotonic: Callable[[], float]) -> None:
        self._ctx = ctx
        self._live = live
        self._monotonic = monotonic

    def __enter__(self) -> None:
        self._saga_id = _SAGA_ID.set(self._ctx.saga_id)
        self._step = _STEP.set(self._ctx.step_name)
        self._begun = self._monotonic()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        ctx = self._ctx
        if self._live is not None:
            self._live.ran[ctx.step_name, ctx.phase, ctx.attempt] = self._monotonic() - self._begun
        _SAGA_ID.reset(self._saga_id)
        _STEP.reset(self._step)


def _lines(output: Literal["json", "console"], file: TextIO) -> Any:
    """Return a logger that writes lines of its own, whatever structlog is configured to do."""
    if output == "json":
        processors: list[Any] = [_line]
    else:
        processors = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=file.isatty()),
        ]
    return structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def _line(_logger: Any, method: str, record: dict[str, Any]) -> str:
    """Return a record as JSON: what structlog's three processors do, in one call."""
    record["level"] = method
    record["timestamp"] = datetime.now(UTC).isoformat()[:-_OFFSET] + "Z"
    return encoded(record)


def encoded(record: dict[str, Any], **_options: object) -> str:
    """Return a record as JSON; four times as fast as the standard library's encoder, which takes most of a record."""
    return msgspec.json.encode(record, enc_hook=repr).decode()
