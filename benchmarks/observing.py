"""What each observer costs for one fact, beside a bare structlog record and a bare SDK span timed in the same run.

The facts are those of a saga that ran (W1, completing). They are handed over as the engine does it: headers, facts in
their appends, and the context managers around each attempt; so whatever an observer does is in the figure.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.checks import check
from benchmarks.workloads import Linear
from saga import (
    AttemptStarted,
    LeaveReason,
    Observer,
    SagaContext,
    SagaInfo,
    SagaLogger,
    SagaMetrics,
    SagaTracer,
)
from saga.monitoring.logging import encoded
from saga.observers import Observers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.trace import Tracer

    from saga import Event

CHECKS = (
    ("nobody watches: us a fact", "<= 0.5"),
    ("metrics: us a fact", "<= 4"),
    ("metrics, exported to OpenTelemetry: us a fact", None),
    ("logger, its own lines: times a bare structlog record", "<= 1.5"),
    ("logger, structlog as configured: times a bare structlog record", "<= 1.5"),
    ("logger, structlog with a fast encoder: times a bare structlog record", "<= 1.5"),
    ("logger, level filtered: us a fact", "<= 2"),
    ("tracer, for each of its spans: times a bare SDK span", "<= 1.5"),
    ("tracer, no SDK: us a fact", "<= 2"),
    ("a bare structlog record: us", None),
    ("a bare structlog record with a fast encoder: us", None),
    ("a bare SDK span: us", None),
)


class _Recording(Observer):
    """Keeps the facts of a saga."""

    def __init__(self) -> None:
        self.facts: list[Event] = []

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Keep a fact."""
        self.facts.append(event)


class Nowhere:
    """The source of contexts that nobody reads from."""

    def value(self, step: str, key: str, default: Any) -> Any:
        """Know nothing."""
        return default

    def result_of(self, step: str, other: str) -> Any:
        """Know nothing."""

    def resource(self, name: str) -> Any:
        """Know nothing."""

    def checked(self, step: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy."""
        return dict(data)


async def facts_of_one() -> list[Event]:
    """Run one saga and return its facts."""
    recording = _Recording()
    await Linear("o-1", 42, fails=False).execute(observers=[recording])
    return recording.facts


def replayed(observers: Observers, facts: Sequence[Event], contexts: Sequence[SagaContext], sagas: int) -> float:
    """Hand the facts over for so many sagas; return the microseconds for one fact."""
    # The engine makes these for user code, whoever watches.
    made = [iter([replace(ctx, saga_id=f"saga-{number}") for ctx in contexts]) for number in range(sagas)]
    begun = time.perf_counter()
    for number in range(sagas):
        info = SagaInfo(f"saga-{number}", "Linear", "1", {}, 0.0)
        if observers.present:
            info = replace(info, headers=observers.headers(info))
        attempts = made[number]
        for fact in facts:
            observers.on_events(info, (fact,))
            if isinstance(fact, AttemptStarted) and observers.present:
                for leave in observers.enter(info, next(attempts)):
                    leave(None)
        observers.on_leave(info, LeaveReason.REST)
    return 1e6 * (time.perf_counter() - begun) / (sagas * len(facts))


def configured(**renderer: Any) -> Any:
    """Return a structlog logger as an application has it that logs JSON."""
    return structlog.wrap_logger(
        structlog.WriteLogger(io.StringIO()),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(**renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )


def bare_record(log: Any) -> Callable[[int], None]:
    """Return what writes a record as large as those of the logger."""
    log = log.bind()

    def write(number: int) -> None:
        log.info(
            "attempt_succeeded",
            saga_id=f"saga-{number}",
            saga="Linear",
            step="step1",
            phase="action",
            attempt=1,
            outcome="succeeded",
            duration_s=0.001,
        )

    return write


def bare_span(tracer: Tracer) -> Callable[[int], None]:
    """Return what makes a span with the attributes that an attempt's span has."""

    def make(number: int) -> None:
        attributes = {
            "saga.id": f"saga-{number}",
            "saga.name": "Linear",
            "saga.version": "1",
            "saga.step.name": "step1",
            "saga.step.attempt": 1,
            "saga.phase": "action",
            "saga.idempotency_key": f"saga-{number}:step1:action",
        }
        with tracer.start_as_current_span("step step1", attributes=attributes):
            pass

    return make


def timed(call: Callable[[int], None], times: int) -> float:
    """Return the microseconds of one call."""
    begun = time.perf_counter()
    for number in range(times):
        call(number)
    return 1e6 * (time.perf_counter() - begun) / times


def one_round(facts: Sequence[Event], contexts: Sequence[SagaContext], sagas: int) -> Sequence[float]:
    """Measure everything once, in the order of ``CHECKS``."""

    def replay(*observers: Observer) -> float:
        async def inside() -> float:
            return replayed(Observers(observers), facts, contexts, sagas)

        return asyncio.run(inside())

    def beside(bare: Callable[[int], None], *observers: Observer) -> tuple[list[float], float]:
        # Before and after what is held against it, since the machine's speed drifts.
        before = timed(bare, 5 * sagas)
        each = [replay(observer) for observer in observers]
        mean = statistics.mean((before, timed(bare, 5 * sagas)))
        return [one / mean for one in each], mean

    exported = SagaMetrics()
    exported.to_opentelemetry(MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False))
    provider = TracerProvider(shutdown_on_exit=False)
    # A ratio compares observers, not encoders: the bare record is encoded as the one that is held against it.
    fast = {"serializer": encoded}
    default, record = beside(bare_record(configured()), SagaLogger(configured()))
    own = SagaLogger(output="json", file=io.StringIO())
    quick, fast_record = beside(bare_record(configured(**fast)), own, SagaLogger(configured(**fast)))
    span = bare_span(provider.get_tracer("bare"))
    spans = [timed(span, 5 * sagas)]
    # Not every fact makes a span: the saga has one, and each attempt.
    tracing = replay(SagaTracer(provider)) * len(facts) / (1 + len(contexts))
    spans.append(timed(span, 5 * sagas))
    return (
        replay(),
        replay(SagaMetrics()),
        replay(exported),
        quick[0],
        *default,
        quick[1],
        replay(SagaLogger(output="json", file=io.StringIO(), level="error")),
        tracing / statistics.mean(spans),
        replay(SagaTracer()),
        record,
        fast_record,
        statistics.mean(spans),
    )


def of_observers(rounds: int, sagas: int) -> Iterator[dict[str, Any]]:
    """Yield the checks, medians over the rounds.

    Args:
        rounds: How often everything is measured.
        sagas: How many sagas' facts are handed over each time.
    """
    facts = asyncio.run(facts_of_one())
    started = [fact for fact in facts if isinstance(fact, AttemptStarted)]
    contexts = [
        SagaContext(saga_id="", step_name=fact.step, attempt=fact.attempt, phase=fact.phase, source=Nowhere())
        for fact in started
    ]
    measured = [one_round(facts, contexts, sagas) for _ in range(rounds)]
    for (name, required), values in zip(CHECKS, zip(*measured, strict=True), strict=True):
        yield check(f"observers, {name}", statistics.median(values), required)
