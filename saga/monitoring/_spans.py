"""Spans while they are open: those of one saga, of one attempt, of one decorated function."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, NoOpTracerProvider, ProxyTracerProvider, Status, StatusCode

from saga.foreign import read
from saga.monitoring._lines import one_line
from saga.outcomes import record_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from saga.context import SagaContext
    from saga.events import AttemptUnknown
    from saga.redaction import Redaction
    from saga.types import Phase

_WITHIN = otel_context.create_key("saga")

T = TypeVar("T")


class Within(NamedTuple):
    """What the spans that decorators make inside of an attempt share with the attempt's own."""

    tracers: Tracers
    redaction: Redaction


def say_failure(span: Span, kind: str, text: str, at: int | None) -> None:
    """Say on a span what was raised: the type and the masked text, without the traceback."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, text or kind))
    span.add_event("exception", {"exception.type": kind, "exception.message": text}, at)


class Trace:
    """What is kept of a saga's trace while this process drives it.

    Attributes:
        parent: The context whose span is the saga's; empty if it was created without one.
        links: Links of all spans that are made here.
        attempts: The attempts whose spans are open, by step, phase and number.
    """

    __slots__ = ("_takeover", "attempts", "links", "parent")

    def __init__(self, parent: Context) -> None:
        self.parent = parent
        self.links: tuple[Link, ...] = ()
        self.attempts: dict[tuple[str, Phase, int], Attempt] = {}
        self._takeover: Span | None = None

    def taken_over(self, span: Span) -> None:
        """Link what follows to the span of a takeover, which stays open until something begins."""
        self._takeover = span
        self.links = (Link(span.get_span_context()),)

    def lost(self, fact: AttemptUnknown) -> None:
        """Note on the takeover that the span of an attempt went down with its process."""
        if self._takeover is not None:
            what: dict[str, str | int] = {
                "saga.step.name": fact.step,
                "saga.phase": str(fact.phase),
                "saga.step.attempt": fact.attempt,
            }
            self._takeover.add_event("attempt lost", what)

    def begun(self) -> None:
        """End the span of a takeover: what was cut off is known once something begins."""
        if self._takeover is not None:
            self._takeover.end()
            self._takeover = None

    def close(self) -> None:
        """End what is open."""
        self.begun()
        for attempt in self.attempts.values():
            attempt.span.end(attempt.left_at)
        self.attempts.clear()


class Attempt:
    """Makes a span the current one while an attempt runs; it is ended once the outcome is stored."""

    __slots__ = ("_live", "_token", "_within", "_work", "left_at", "span")

    def __init__(self, live: Trace, ctx: SagaContext, span: Span, within: Within) -> None:
        self._live = live
        self._within = within
        self._work = (ctx.step_name, ctx.phase, ctx.attempt)
        self._token: Any = None
        self.span = span
        self.left_at: int | None = None

    def __enter__(self) -> None:
        self._live.begun()
        self._live.attempts[self._work] = self
        context = trace.set_span_in_context(self.span)
        self._token = otel_context.attach(otel_context.set_value(_WITHIN, self._within, context))

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # By the clock that the SDK stamps spans with.
        self.left_at = time.time_ns()
        otel_context.detach(self._token)


class Tracers:
    """Gives a tracer where an SDK is installed.

    Attributes:
        found: What the last look found; looking costs more than all else that is done without an SDK.
        reported: Whether the event loop was told that the SDK, or what masks, raised around a decorated function.
    """

    __slots__ = ("_given", "_of", "found", "reported")

    def __init__(self, given: TracerProvider | None) -> None:
        self._given = given
        self._of: TracerProvider | None = None
        self.found: Tracer | None = None
        self.reported = False
        if given is not None:
            self.get()

    def get(self) -> Tracer | None:
        """Return a tracer; None without an SDK, where making spans would be work for nothing."""
        provider = trace.get_tracer_provider() if self._given is None else self._given
        if provider is not self._of:
            self._of = provider
            idle = isinstance(provider, ProxyTracerProvider | NoOpTracerProvider)
            self.found = None if idle else provider.get_tracer("saga")
        return self.found


def guarded(tracers: Tracers, call: Callable[..., T], *arguments: Any, otherwise: T) -> T:
    """Call what makes spans around a decorated function; return this otherwise if it raises.

    There stands no fan-out of observers in between: what a span processor or a redaction of the user's raises would
    take the place of what the function did, and a charge that succeeded would count as one that failed.
    """
    try:
        return read(_reporting, tracers, call, arguments, otherwise=otherwise)
    except asyncio.CancelledError:
        # Nothing is awaited here, so it is none of the function's.
        return otherwise


def _reporting(tracers: Tracers, call: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Call; tell the event loop of the first error."""
    done = False
    try:
        result = call(*arguments)
        done = True
    finally:
        if not done and not tracers.reported:
            tracers.reported = True
            message = "tracing a decorated function raised; this is reported once"
            report = {"message": message, "exception": sys.exc_info()[1]}
            asyncio.get_running_loop().call_exception_handler(report)
    return result


class Inner:
    """Makes a span the current one, and ends it with what the code inside raised; nothing of it is felt there."""

    __slots__ = ("_redaction", "_span", "_token", "_tracers")

    def __init__(self, span: Span, redaction: Redaction, tracers: Tracers) -> None:
        self._span = span
        self._redaction = redaction
        self._tracers = tracers
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = guarded(self._tracers, self._attach, otherwise=None)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            guarded(self._tracers, otel_context.detach, self._token, otherwise=None)
        if error is not None:
            guarded(self._tracers, self._say, error, otherwise=None)
        guarded(self._tracers, self._span.end, otherwise=None)

    def _attach(self) -> Any:
        return otel_context.attach(trace.set_span_in_context(self._span))

    def _say(self, error: BaseException) -> None:
        told = record_of(error)
        say_failure(self._span, told.type, one_line(self._redaction.text(told.message)), None)


def within() -> Within | None:
    """Return what the attempt shares whose user code runs here; None outside of attempts."""
    return cast("Within | None", otel_context.get_value(_WITHIN))
