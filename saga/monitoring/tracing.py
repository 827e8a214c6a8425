"""One saga is one trace, whichever processes run it: a span for the saga, and one for each attempt as its child.

A span lives in one process, and a saga may outlive it. So the saga's span ends as soon as the saga is stored, and what
is stored with it is the span's W3C trace context: attempts in every process are its children. The span of an attempt
that was killed with its process is lost; the span of the takeover says so in an event.

Without an OpenTelemetry SDK nothing is done that costs anything.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
)

from saga.context import SagaContext
from saga.events import (
    AttemptFailed,
    AttemptSucceeded,
    AttemptUnknown,
    Claimed,
    Created,
)
from saga.monitoring._lines import one_line
from saga.monitoring._spans import Attempt, Inner, Trace, Tracers, Within, guarded, say_failure, within
from saga.monitoring._trace_context import context_of, headers_of
from saga.observers import NOTHING, Observer
from saga.redaction import Redaction
from saga.types import LeaveReason, Outcome, Phase, UnknownReason

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span, Tracer, TracerProvider

    from saga.events import Event
    from saga.types import SagaInfo

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = {Phase.ACTION: "step", Phase.COMPENSATION: "compensate"}


class SagaTracer(Observer):
    """Makes OpenTelemetry spans: ``saga NAME``, and below it ``step STEP``, ``compensate STEP`` and ``takeover NAME``.

    While user code runs, the span of its attempt is the current one, so calls that are instrumented become its
    children. Attributes name the saga, the step and the attempt, never an argument, a result or data of a context.
    """

    def __init__(self, provider: TracerProvider | None = None, *, redaction: Redaction | None = None) -> None:
        """Say where spans go.

        Args:
            provider: The global tracer provider by default, whenever it is set.
            redaction: What is masked in error texts.
        """
        self._redaction = Redaction.default if redaction is None else redaction
        self._tracers = Tracers(provider)
        self._within = Within(self._tracers, self._redaction)
        self._opening: dict[str, Span] = {}
        self._live: dict[str, Trace] = {}

    def headers(self, saga: SagaInfo) -> Mapping[str, str]:
        """Begin the span of a new saga as a child of the caller's, and return its trace context to be stored."""
        tracer = self._tracers.get()
        if tracer is None:
            # Without an SDK, what the caller's context says is handed on.
            return {} if trace.get_current_span() is INVALID_SPAN else headers_of()
        span = self._opening[saga.saga_id] = self._root(tracer, saga, None)
        return headers_of(trace.set_span_in_context(span, Context()))

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """End the span of what a fact ends."""
        kind = type(event)
        if kind is Created:
            span = self._opening.pop(saga.saga_id, None)
            if span is not None:
                span.end()
        elif kind is Claimed:
            self._claimed(saga, cast("Claimed", event))
        elif kind in _ENDS_AN_ATTEMPT:
            live = self._live.get(saga.saga_id)
            if live is not None:
                self._ended(live, cast("_Ended", event))

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:
        """Make the attempt's span the current one while its user code runs."""
        tracer = self._tracers.found
        if tracer is None:
            return NOTHING
        live = self._live_of(tracer, saga)
        span = self._begin(tracer, live, saga, ctx)
        return Attempt(live, ctx, span, self._within)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """End what is still open of a saga that this process drives no more."""
        opening = self._opening.pop(saga.saga_id, None)
        if opening is not None and reason is not LeaveReason.LOST:
            # Written in somebody else's transaction. One that never came into being is dropped, and so not exported.
            opening.end()
        live = self._live.pop(saga.saga_id, None)
        if live is not None:
            live.close()

    def _live_of(self, tracer: Tracer, saga: SagaInfo) -> Trace:
        live = self._live.get(saga.saga_id)
        if live is None:
            parent = context_of(saga.headers, Context())
            if not parent:
                # Created where nobody traced: its attempts under this claim are one trace at least.
                root = self._root(tracer, saga, parent)
                root.end()
                parent = trace.set_span_in_context(root, parent)
            live = self._live[saga.saga_id] = Trace(parent)
        return live

    def _root(self, tracer: Tracer, saga: SagaInfo, parent: Context | None) -> Span:
        attributes = {"saga.id": saga.saga_id, "saga.name": saga.saga_name, "saga.version": saga.saga_version}
        return tracer.start_span(f"saga {saga.saga_name}", parent, attributes=attributes)

    def _begin(self, tracer: Tracer, live: Trace, saga: SagaInfo, ctx: SagaContext) -> Span:
        attributes: dict[str, str | int] = {
            "saga.id": saga.saga_id,
            "saga.name": saga.saga_name,
            "saga.version": saga.saga_version,
            "saga.step.name": ctx.step_name,
            "saga.step.attempt": ctx.attempt,
            "saga.phase": str(ctx.phase),
            "saga.idempotency_key": ctx.idempotency_key,
        }
        name = f"{_NAMES[ctx.phase]} {ctx.step_name}"
        return tracer.start_span(name, live.parent, attributes=attributes, links=live.links)

    def _claimed(self, saga: SagaInfo, fact: Claimed) -> None:
        """Look for an SDK anew, and begin the span of a takeover, which ends once it is known what was lost."""
        # What is still here is of a second start of the same saga, which came to nothing.
        self._opening.pop(saga.saga_id, None)
        tracer = self._tracers.get()
        if tracer is None or not fact.expired:
            return
        live = self._live_of(tracer, saga)
        attributes: dict[str, str | int] = {
            "saga.id": saga.saga_id,
            "saga.name": saga.saga_name,
            "saga.version": saga.saga_version,
            "saga.fence": fact.fence,
            "saga.recoveries": fact.recoveries,
        }
        first = Link(trace.get_current_span(live.parent).get_span_context())
        span = tracer.start_span(f"takeover {saga.saga_name}", live.parent, attributes=attributes, links=[first])
        live.taken_over(span)

    def _ended(self, live: Trace, fact: _Ended) -> None:
        attempt = live.attempts.pop((fact.step, fact.phase, fact.attempt), None)
        if attempt is not None:
            self._end(attempt, fact)
        elif isinstance(fact, AttemptUnknown) and fact.reason is UnknownReason.INTERRUPTED:
            live.lost(fact)

    def _end(self, attempt: Attempt, fact: AttemptSucceeded | AttemptFailed | AttemptUnknown) -> None:
        try:
            self._say(attempt, fact)
        finally:
            # What masks may be the user's and raise; the span is exported all the same.
            attempt.span.end(attempt.left_at)

    def _say(self, attempt: Attempt, fact: AttemptSucceeded | AttemptFailed | AttemptUnknown) -> None:
        span, at = attempt.span, attempt.left_at
        if isinstance(fact, AttemptSucceeded):
            span.set_attribute("saga.outcome", Outcome.SUCCEEDED.value)
        else:
            unknown = isinstance(fact, AttemptUnknown)
            span.set_attribute("saga.outcome", (Outcome.UNKNOWN if unknown else Outcome.FAILED).value)
            kind = fact.error.type
            if isinstance(fact, AttemptUnknown):
                span.set_attribute("saga.unknown_reason", fact.reason.value)
                kind = kind or str(fact.reason)
            say_failure(span, kind, one_line(self._redaction.text(fact.error.message)), at)
            if fact.retry_in is not None:
                span.add_event("retry", {"saga.retry_in_s": fact.retry_in}, at)


_Ended = AttemptSucceeded | AttemptFailed | AttemptUnknown
_ENDS_AN_ATTEMPT = frozenset({AttemptSucceeded, AttemptFailed, AttemptUnknown})


_GLOBAL = Tracers(None)


@overload
def trace_saga_action(function: F, /) -> F: ...


@overload
def trace_saga_action(
    *, name: str | None = None, attributes: Mapping[str, str | int | float | bool] | None = None
) -> Callable[[F], F]: ...


def trace_saga_action(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> F | Callable[[F], F]:
    """Give an action, or an async function or method that one calls, a span of its own: ``action NAME``.

    Args:
        function: The async function; omitted where the decorator is written with arguments.
        name: What the span is called; the function's name by default.
        attributes: What the span says beside saga, step and attempt, which are read from a context among the
            function's arguments. They are exported as they stand.

    Raises:
        TypeError: If what is decorated is no async function.
    """
    return _decorated(Phase.ACTION, function, name, attributes)


@overload
def trace_saga_compensation(function: F, /) -> F: ...


@overload
def trace_saga_compensation(
    *, name: str | None = None, attributes: Mapping[str, str | int | float | bool] | None = None
) -> Callable[[F], F]: ...


def trace_saga_compensation(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> F | Callable[[F], F]:
    """Give a compensation a span of its own, ``compensation NAME``; see ``trace_saga_action``.

    Args:
        function: The async function; omitted where the decorator is written with arguments.
        name: What the span is called; the function's name by default.
        attributes: What the span says beside saga, step and attempt.

    Raises:
        TypeError: If what is decorated is no async function.
    """
    return _decorated(Phase.COMPENSATION, function, name, attributes)


def _decorated(
    phase: Phase,
    function: F | None,
    name: str | None,
    attributes: Mapping[str, str | int | float | bool] | None,
) -> F | Callable[[F], F]:
    def decorate(function: F) -> F:
        _check_async(function)
        label = f"{phase} {name or getattr(function, '__name__', type(function).__name__)}"
        said = dict(attributes or {})

        @functools.wraps(function)
        async def traced(*args: Any, **kwargs: Any) -> Any:
            around = within()
            tracers = _GLOBAL if around is None else around.tracers
            inner = guarded(tracers, _inner, around, label, said, args, kwargs, otherwise=None)
            if inner is None:
                return await function(*args, **kwargs)
            with inner:
                return await function(*args, **kwargs)

        return cast("F", traced)

    return decorate if function is None else decorate(function)


def _check_async(function: object) -> None:
    """Refuse what is no async function, where it is decorated: its result would become a coroutine.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        message = f"decorate {_name_of(function.__func__)} below @{kind}: put @{kind} above the trace decorator"
        raise TypeError(message)
    # Below other decorators the function inside tells, and of an object that is called its method.
    inside = inspect.unwrap(cast("Callable[..., Any]", function))
    if not inspect.iscoroutinefunction(inside) and not inspect.iscoroutinefunction(getattr(inside, "__call__", None)):  # noqa: B004 - what it is, not whether
        message = f"{_name_of(function)} is no async function: a trace decorator takes one written with 'async def'"
        raise TypeError(message)


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _inner(
    around: Within | None,
    label: str,
    said: Mapping[str, str | int | float | bool],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Inner | None:
    """Begin the span of a decorated function; None without an SDK."""
    tracer = _GLOBAL.get() if around is None else around.tracers.found
    if tracer is None:
        return None
    span = tracer.start_span(label, attributes={**_said_by(args, kwargs), **said})
    if around is None:
        return Inner(span, Redaction.default, _GLOBAL)
    return Inner(span, around.redaction, around.tracers)


def _said_by(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str | int]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, SagaContext):
            return {
                "saga.id": value.saga_id,
                "saga.step.name": value.step_name,
                "saga.step.attempt": value.attempt,
                "saga.phase": str(value.phase),
            }
    return {}
