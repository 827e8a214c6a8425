"""Spans while they are open: those of one saga, of one attempt, of one decorated function."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, NoOpTracerProvider, ProxyTracerProvider, Status, StatusCode

from saga.outcomes import record_of
from saga.redaction import one_line

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from saga.context import SagaContext
    from saga.events import AttemptUnknown
    from saga.redaction import Redaction
    from saga.types import Phase

_WITHIN = otel_context.create_key("saga")


class Within(NamedTuple):
    """What the spans that decorators make inside of an attempt share with the attempt's own."""

    tracer: Tracer
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
    """

    __slots__ = ("_given", "_of", "found")

    def __init__(self, given: TracerProvider | None) -> None:
        self._given = given
        self._of: TracerProvider | None = None
        self.found: Tracer | None = None
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


class Inner:
    """Makes a span the current one, and ends it with what the code inside raised."""

    __slots__ = ("_redaction", "_span", "_token")

    def __init__(self, span: Span, redaction: Redaction) -> None:
        self._span = span
        self._redaction = redaction
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        if kind is not None and error is not None:
            say_failure(self._span, kind.__name__, one_line(self._redaction.text(record_of(error).message)), None)
        self._span.end()


def within() -> Within | None:
    """Return what the attempt shares whose user code runs here; None outside of attempts."""
    return cast("Within | None", otel_context.get_value(_WITHIN))
