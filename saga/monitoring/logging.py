"""Writes a record for each fact, with structlog, and lets what user code logs say which saga and step it belongs to.

Nothing is configured behind anybody's back: without further arguments records go to structlog as the application has
configured it, and no handler, filter or processor is installed that was not asked for.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Literal, TextIO

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, get_contextvars, reset_contextvars

from saga.checks import refuse
from saga.clock import SystemClock
from saga.events import (
    AttemptFailed,
    AttemptNotRun,
    AttemptStarted,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionCleared,
    AttentionSet,
    Began,
    CancelRequested,
    Claimed,
    CompensationSkipped,
    Completed,
    Created,
    LateOutcome,
    Reshaped,
    RetryRequested,
    RollbackFailed,
    RolledBack,
    TurnedBack,
)
from saga.monitoring._trace_context import trace_id_of
from saga.observers import Observer
from saga.redaction import Redaction, one_line
from saga.types import LeaveReason, Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from saga.clock import Clock
    from saga.context import SagaContext
    from saga.events import Event
    from saga.types import ErrorRecord, SagaInfo

Level = Literal["debug", "info", "warning", "error"]
LEVELS: dict[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_INFO = logging.INFO
_BY_FIELDS = -1
"""What it says decides: a takeover is a warning, blocking attention an error."""

_LEVEL_OF: dict[type[Event], int] = {
    AttemptFailed: logging.WARNING,
    AttemptUnknown: logging.WARNING,
    LateOutcome: logging.WARNING,
    TurnedBack: logging.WARNING,
    RollbackFailed: logging.ERROR,
    AttentionSet: _BY_FIELDS,
    Claimed: _BY_FIELDS,
}
"""Facts that are no good news; others are ``info``."""

_BOUND = bind_contextvars(saga_id="", step="")
reset_contextvars(**_BOUND)
_SAGA_ID, _STEP = _BOUND["saga_id"].var, _BOUND["step"].var
"""The variables that structlog itself uses for these keys: asking for them each time costs as much as all the rest."""

_ENDS = {Completed: "completed", RolledBack: "rolled_back", RollbackFailed: "failed"}


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
        self._monotonic = self._clock.monotonic
        self._given = _lines(output, sys.stderr if file is None else file) if output is not None else logger
        self._own = output is not None
        self._write: dict[int, Callable[..., Any]] = {}
        self._enabled: Callable[[int], bool] | None = None
        self._live: dict[str, _Live] = {}

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Write a record of a fact."""
        kind = type(event)
        if kind is Created or kind is Claimed:
            self._follow(saga, new=kind is Created)
        level = _LEVEL_OF.get(kind, _INFO)
        if level == _BY_FIELDS:
            level = _level_by_fields(event)
        if level < self._level or not self._wants(level):
            return
        name = saga.saga_name
        fields: dict[str, Any] = {"saga_id": saga.saga_id, "saga": name if name.isprintable() else one_line(name)}
        describe = _FIELDS.get(kind)
        if describe is not None:
            describe(self, saga, event, fields)
        if saga.headers and (trace_id := trace_id_of(saga.headers)):
            fields["trace_id"] = trace_id
        self._write[level](_NAMES[kind], **fields)

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:
        """Bind the saga's id and the step while an attempt's user code runs."""
        return _Bound(ctx, self._live.get(saga.saga_id), self._monotonic)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Forget a saga, and say so if another process took it."""
        live = self._live.pop(saga.saga_id, None)
        if live is not None and reason is LeaveReason.LOST and self._wants(logging.WARNING):
            self._write[logging.WARNING]("claim_lost", saga_id=saga.saga_id, saga=one_line(saga.saga_name))

    def shown(self, text: str) -> str:
        """Return a text as it may stand in a record: masked, and on one line."""
        return one_line(self._redaction.text(text))

    def ran(self, saga: SagaInfo, step: str, phase: Phase) -> float | None:
        """Return how many seconds the user code of the attempt that just ended ran; None if not in this process."""
        live = self._live.get(saga.saga_id)
        seconds = None if live is None else live.ran.pop((step, phase), None)
        return None if seconds is None else round(seconds, 6)

    def age(self, saga: SagaInfo) -> float | None:
        """Return how many seconds ago the saga was created."""
        live = self._live.get(saga.saga_id)
        return None if live is None else round(self._monotonic() - live.since, 6)

    def _follow(self, saga: SagaInfo, *, new: bool) -> None:
        if saga.saga_id not in self._live:
            known = saga.created_at is not None and not new
            age = max(0.0, self._clock.now() - (saga.created_at or 0.0)) if known else 0.0
            self._live[saga.saga_id] = _Live(self._monotonic() - age)

    def _wants(self, level: int) -> bool:
        if level < self._level:
            return False
        if not self._write:
            log = (structlog.get_logger("saga") if self._given is None else self._given).bind()
            self._write = {number: getattr(log, name) for name, number in LEVELS.items()}
            for name in () if self._own else ("is_enabled_for", "isEnabledFor"):
                # Two kinds of structlog's loggers can tell whether a record would be thrown away. The class is asked,
                # since a third kind takes every name that the logger inside has for a way to write a record.
                if hasattr(type(log), name):
                    self._enabled = getattr(log, name)
        return self._enabled is None or self._enabled(level)


class SagaLogFilter(logging.Filter):
    """Gives records of the standard library's logging the attributes ``saga_id`` and ``step``, and masks secrets.

    Add it to a handler; then every line that goes through it can say ``%(saga_id)s`` and ``%(step)s``, which are ``-``
    outside of steps. It needs a ``SagaLogger`` among the observers, of whatever level.
    """

    def __init__(self, redaction: Redaction | None = None) -> None:
        """Say what is masked in messages and tracebacks."""
        super().__init__()
        self._redaction = Redaction.default if redaction is None else redaction

    def filter(self, record: logging.LogRecord) -> bool:
        """Complete a record; none is held back."""
        bound = get_contextvars()
        for name in ("saga_id", "step"):
            # What the user's own code gave with ``extra`` stays.
            if not hasattr(record, name):
                setattr(record, name, bound.get(name, "-"))
        record.msg, record.args = _Masked(record.msg, record.args, self._redaction), None
        if record.exc_info and not record.exc_text:
            record.exc_text = _PLAIN.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._redaction.text(record.exc_text)
        return True


_PLAIN = logging.Formatter()


class _Masked:
    """A message that is formatted and masked when a handler asks for its text.

    What goes wrong then is reported by the handler, as always, and not raised where the user's code logs.
    """

    __slots__ = ("_args", "_message", "_redaction")

    def __init__(self, message: object, args: Any, redaction: Redaction) -> None:
        self._message = message
        self._args = args
        self._redaction = redaction

    def __str__(self) -> str:
        text = str(self._message)
        return self._redaction.text(text % self._args if self._args else text)


class _Live:
    """What is kept of a saga while this process drives it: since when it exists, how long attempts ran."""

    __slots__ = ("ran", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.ran: dict[tuple[str, Phase], float] = {}


class _Bound:
    """Binds contextvars around user code, and times it."""

    __slots__ = ("_begun", "_ctx", "_live", "_monotonic", "_tokens")

    def __init__(self, ctx: SagaContext, live: _Live | None, monotonic: Callable[[], float]) -> None:
        self._ctx = ctx
        self._live = live
        self._monotonic = monotonic
        self._begun = 0.0
        self._tokens: Any = None

    def __enter__(self) -> None:
        self._tokens = (_SAGA_ID.set(self._ctx.saga_id), _STEP.set(self._ctx.step_name))
        self._begun = self._monotonic()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        ctx = self._ctx
        if self._live is not None:
            self._live.ran[ctx.step_name, ctx.phase] = self._monotonic() - self._begun
        saga_id, step = self._tokens
        _SAGA_ID.reset(saga_id)
        _STEP.reset(step)


def _lines(output: Literal["json", "console"], file: TextIO) -> Any:
    """Return a logger that writes lines of its own, whatever structlog is configured to do."""
    renderer: Any = structlog.processors.JSONRenderer(serializer=_encoded)
    if output == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=file.isatty())
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=[structlog.processors.add_log_level, stamp, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        context_class=dict,
        cache_logger_on_first_use=True,
    )


def _encoded(record: dict[str, Any], **_options: object) -> str:
    """Return a record as JSON; four times as fast as the standard library's encoder, which takes most of a record."""
    return msgspec.json.encode(record, enc_hook=repr).decode()


def _level_by_fields(event: Event) -> int:
    if isinstance(event, AttentionSet):
        return logging.ERROR if event.blocking else logging.WARNING
    return logging.WARNING if isinstance(event, Claimed) and event.expired else logging.INFO


def _created(_log: SagaLogger, _saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    fields["version"] = one_line(event.version)
    if event.deadline is not None:
        fields["deadline_s"] = event.deadline


def _attempt(_log: SagaLogger, _saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    fields["step"] = event.step
    fields["phase"] = event.phase
    fields["attempt"] = event.attempt


def _ended(log: SagaLogger, saga: SagaInfo, event: Any, fields: dict[str, Any], outcome: str) -> None:
    _attempt(log, saga, event, fields)
    fields["outcome"] = outcome
    seconds = log.ran(saga, event.step, event.phase)
    if seconds is not None:
        fields["duration_s"] = seconds


def _succeeded(log: SagaLogger, saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    _ended(log, saga, event, fields, Outcome.SUCCEEDED)


def _failed(log: SagaLogger, saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    unknown = isinstance(event, AttemptUnknown)
    _ended(log, saga, event, fields, Outcome.UNKNOWN if unknown else Outcome.FAILED)
    if unknown:
        fields["reason"] = event.reason
    error: ErrorRecord = event.error
    fields["error"] = ": ".join(part for part in (one_line(error.type), log.shown(error.message)) if part)
    if event.retry_in is not None:
        fields["retry_in_s"] = round(event.retry_in, 3)


def _late(log: SagaLogger, saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    _ended(log, saga, event, fields, event.outcome)


def _not_run(log: SagaLogger, saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    _ended(log, saga, event, fields, "not_run")


def _finished(log: SagaLogger, saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
    fields["outcome"] = _ENDS[type(event)]
    seconds = log.age(saga)
    if seconds is not None:
        fields["duration_s"] = seconds


def _said(*names: str, text: str = "") -> Callable[[SagaLogger, SagaInfo, Any, dict[str, Any]], None]:
    """Return what takes over these fields of a fact, where they say something; in the text may stand anything."""

    def describe(log: SagaLogger, _saga: SagaInfo, event: Any, fields: dict[str, Any]) -> None:
        for name in names:
            value = getattr(event, name)
            if value is not None:
                fields[name] = value
        if text:
            fields[text] = log.shown(getattr(event, text))

    return describe


_FIELDS: dict[type[Event], Callable[[SagaLogger, SagaInfo, Any, dict[str, Any]], None]] = {
    Created: _created,
    Claimed: _said("owner", "fence", "recoveries", "expired"),
    AttemptStarted: _attempt,
    AttemptSucceeded: _succeeded,
    AttemptFailed: _failed,
    AttemptUnknown: _failed,
    AttemptNotRun: _not_run,
    LateOutcome: _late,
    CompensationSkipped: _said("step", "reason"),
    TurnedBack: _said("cause", "step"),
    Completed: _finished,
    RolledBack: _finished,
    RollbackFailed: _finished,
    CancelRequested: _said(text="reason"),
    RetryRequested: _said(text="reason"),
    AttentionSet: _said("code", "blocking", text="message"),
}

_NAMES: dict[type[Event], str] = {
    kind: str(kind.__struct_config__.tag).partition(".")[0] for kind in (*_FIELDS, Began, Reshaped, AttentionCleared)
}
"""What a record of a fact is called: the fact's own name, without the number of its format."""
