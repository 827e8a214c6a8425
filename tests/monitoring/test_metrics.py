"""SagaMetrics: what is counted, what is exported, and how many series there may be."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import weakref
from contextlib import closing
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from saga import (
    InMemorySagaStorage,
    LeaveReason,
    Observer,
    RetryPolicy,
    Saga,
    SagaContext,
    SagaExecutionError,
    SagaInfo,
    SagaMetrics,
    SagaOrchestrator,
    SagaStatus,
    SagaStorageUnavailableError,
    SagaValidationError,
    SQLiteSagaStorage,
    monitoring,
)
from saga.events import (
    AttemptFailed,
    AttemptSucceeded,
    AttemptUnknown,
    Began,
    Claimed,
    Completed,
    Created,
    RollbackFailed,
    RolledBack,
)
from saga.graph import StepShape
from saga.monitoring._families import FAMILIES
from saga.monitoring._figures import BOUNDS, RESTED_MAX, Histogram
from saga.monitoring._otel_metrics import COLLECTION_SECONDS, Instruments, _Collection
from saga.monitoring._readings import Budget
from saga.observers import Observers
from saga.testing import FakeClock
from saga.types import ErrorRecord, Phase, UnknownReason
from tests.unit.kit import AT_ONCE, chain, fail, step, undo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prometheus_client.samples import Sample

    from saga.events import Event

import msgspec

SERIES_MAX = 200


def flaky() -> Any:
    """Return an action that fails once."""
    calls: list[str] = []

    async def action(ctx: SagaContext) -> str:
        calls.append(ctx.saga_id)
        if len(calls) == 1:
            message = "not yet"
            raise ValueError(message)
        return "done"

    return action


def samples_of(registry: CollectorRegistry) -> list[Sample]:
    """Return what a scrape gives, through the exposition format and its parser."""
    text = generate_latest(registry).decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """Return the one sample of this name and these labels."""
    [found] = [sample.value for sample in samples_of(registry) if (sample.name, sample.labels) == (name, labels)]
    return found


def attempt(step: str, phase: Phase) -> SagaContext:
    """Return the context of an attempt, of which nothing is read but whose it is."""
    return SagaContext(saga_id="s", step_name=step, attempt=1, phase=phase, source=None)  # type: ignore[arg-type]


def failed(phase: Phase, retry_in: float | None = None) -> AttemptFailed:
    """Return that an attempt of step `a` failed."""
    return AttemptFailed("a", phase, 1, ErrorRecord("ValueError", "no"), retry_in)


def lost(phase: Phase, retry_in: float | None = None) -> AttemptUnknown:
    """Return that nobody knows what an attempt of step `a` did."""
    return AttemptUnknown("a", phase, 1, UnknownReason.TIMEOUT, ErrorRecord("TimeoutError", "late"), retry_in)


def gap(metrics: SagaMetrics, *, there: bool) -> bool:
    """Return whether the storage's figures are missing, or are not."""
    return (metrics.snapshot().stored is None) is there


async def until(condition: Callable[[], object]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)


def created(*steps: str) -> Created:
    """Return the first fact of a saga with these steps."""
    return Created(
        name="Order", version="1", shape=tuple(StepShape(name) for name in steps), arguments=msgspec.Raw(b"{}")
    )


@pytest.mark.asyncio
async def test_a_snapshot_says_what_became_of_sagas_and_attempts() -> None:
    """Counts by name and status, attempts, retries, compensations, failures."""
    metrics = SagaMetrics()
    good = chain(step("a", flaky(), retry=AT_ONCE), name="Good")
    bad = chain(step("a"), step("b", fail), name="Bad")
    async with SagaOrchestrator(observers=[metrics]) as orchestrator:
        await orchestrator.execute(good())
        for _ in range(2):
            await orchestrator.execute(bad())
    seen = metrics.snapshot()
    assert seen.sagas["Good"].by_status == {SagaStatus.COMPLETED: 1}
    assert (seen.sagas["Good"].attempts, seen.sagas["Good"].retries, seen.sagas["Good"].failures) == (2, 1, 1)
    told = seen.sagas["Bad"]
    assert (told.started, told.by_status) == (2, {SagaStatus.ROLLED_BACK: 2})
    assert (told.attempts, told.failures, told.compensations, told.retries) == (6, 2, 2, 0)
    assert (told.in_flight, told.oldest_unfinished) == (0, None)
    assert told.durations[SagaStatus.ROLLED_BACK].count == 2
    undone = told.steps["a", "compensation"]
    assert (undone.succeeded, undone.failed, undone.unknown, undone.durations.count) == (2, 0, 0, 2)


@pytest.mark.asyncio
async def test_a_snapshot_shows_what_is_under_way() -> None:
    """How many, in which direction, and how old the oldest is."""
    metrics, reached, go_on = SagaMetrics(), asyncio.Event(), asyncio.Event()

    async def slow(result: Any, ctx: SagaContext) -> None:
        reached.set()
        await go_on.wait()

    async with SagaOrchestrator(observers=[metrics]) as orchestrator:
        handle = await orchestrator.start(chain(step("a", compensation=slow), step("b", fail))())
        await reached.wait()
        seen = metrics.snapshot().sagas["Sample"]
        assert (seen.by_status, seen.in_flight) == ({SagaStatus.COMPENSATING: 1}, 1)
        assert seen.oldest_unfinished is not None
        assert seen.oldest_unfinished > 0
        go_on.set()
        await handle.wait()


def test_durations_are_measured_from_the_creation_also_where_another_process_created_the_saga() -> None:
    """By the storage's instant; the parts of one's own by the monotonic clock, which nobody sets."""
    clock = FakeClock(now=10_000.0)
    metrics = SagaMetrics(clock=clock)
    here = SagaInfo("here", "Order", "1", {}, 10_000.0)
    metrics.on_event(here, created("a"))
    clock.advance(3)
    clock.set_wall_time(99.0)
    metrics.on_event(here, Completed())
    clock.set_wall_time(10_100.0)
    elsewhere = SagaInfo("elsewhere", "Order", "1", {}, 10_040.0)
    metrics.on_event(elsewhere, Claimed("other:1", 2, 1, expired=True))
    assert metrics.snapshot().sagas["Order"].oldest_unfinished == 60
    clock.advance(5)
    metrics.on_event(elsewhere, RolledBack())
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.started, seen.takeovers) == (1, 1)
    assert seen.durations[SagaStatus.COMPLETED].total == 3
    assert seen.durations[SagaStatus.ROLLED_BACK].total == 65


def test_the_run_of_user_code_is_timed_and_nothing_else() -> None:
    """An attempt's duration is that of the code inside, not of the writes around it."""
    clock = FakeClock()
    metrics = SagaMetrics(clock=clock)
    info = SagaInfo("s", "Order", "1")
    metrics.on_event(info, created("a"))
    clock.advance(7)
    with metrics.around(info, attempt("a", Phase.ACTION)):
        clock.advance(2)
    clock.advance(9)
    metrics.on_event(info, AttemptSucceeded("a", Phase.ACTION, 1))
    assert metrics.snapshot().sagas["Order"].steps["a", "action"].durations.total == 2


def test_only_a_saga_that_was_driven_here_counts_as_a_lost_lease() -> None:
    """A start that is refused, since another saga has the id, loses none."""
    metrics = SagaMetrics()
    metrics.on_leave(SagaInfo("never", "Order", "1"), LeaveReason.LOST)
    metrics.on_event(SagaInfo("s", "Order", "1"), created("a"))
    metrics.on_leave(SagaInfo("s", "Order", "1"), LeaveReason.LOST)
    assert metrics.snapshot().leases_lost == 1


@pytest.mark.parametrize("reason", [LeaveReason.REST, LeaveReason.RELEASED])
def test_a_saga_that_is_given_away_or_rests_is_no_lost_lease_and_no_longer_in_flight(reason: LeaveReason) -> None:
    """A gauge that only grows, or an alert at each deployment, would be worse than none."""
    metrics, registry, info = SagaMetrics(), CollectorRegistry(), SagaInfo("s", "Order", "1")
    metrics.to_prometheus(registry)
    metrics.on_event(info, created("a"))
    assert value(registry, "saga_running", saga="Order") == 1
    metrics.on_leave(info, reason)
    seen = metrics.snapshot()
    assert (seen.leases_lost, seen.sagas["Order"].in_flight, seen.sagas["Order"].oldest_unfinished) == (0, 0, None)
    assert value(registry, "saga_running", saga="Order") == 0
    assert value(registry, "saga_leases_lost_total") == 0


@pytest.mark.asyncio
async def test_errors_of_observers_are_counted_by_type() -> None:
    """An observer that breaks is seen where everything else is seen; there may be many types, but not many series."""

    class Broken(Observer):
        def on_event(self, saga: SagaInfo, event: Any) -> None:
            raise RuntimeError

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    metrics, registry = SagaMetrics(), CollectorRegistry()
    metrics.to_prometheus(registry)
    Observers([metrics, Broken()]).on_events(SagaInfo("s", "Order", "1"), (Began(), Began()))
    assert metrics.snapshot().observer_errors == {"Broken": 2}
    assert value(registry, "saga_observer_errors_total", observer="Broken") == 2
    for number in range(10):
        metrics.on_error(type(f"Broken{number}", (Observer,), {})(), RuntimeError())
    assert value(registry, "saga_observer_errors_total", observer="other") == 7


@pytest.mark.asyncio
async def test_a_hundred_sagas_that_run_alone_leave_their_other_observers_free() -> None:
    """One SagaMetrics is given to `execute` again and again, with observers that are new each time."""
    metrics, cls = SagaMetrics(), chain(step("a", fail), name="Order")
    others = [weakref.ref(await alone(cls(), metrics)) for _ in range(100)]
    gc.collect()
    # The loop may still hold what ran last.
    assert sum(other() is not None for other in others) <= 1
    assert metrics.snapshot().sagas["Order"].by_status == {SagaStatus.ROLLED_BACK: 100}


async def alone(saga: Saga, metrics: SagaMetrics) -> Observer:
    """Run a saga alone; return an observer that was only told of this one."""
    other = Observer()
    await saga.execute(observers=[metrics, other])
    return other


def test_a_saga_that_nobody_was_told_was_created_starts_where_it_is_claimed_first() -> None:
    """As one that was stored in the caller's own transaction; its age is the storage's."""
    clock = FakeClock(now=1_000.0)
    metrics = SagaMetrics(clock=clock)
    info = SagaInfo("s", "Order", "1", {}, 990.0)
    metrics.on_event(info, Claimed("host:1", 1))
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.started, seen.takeovers, seen.by_status) == (1, 0, {SagaStatus.EXECUTING: 1})
    assert seen.oldest_unfinished == 10
    metrics.on_leave(info, LeaveReason.RELEASED)
    metrics.on_event(info, Claimed("host:1", 2))
    metrics.on_event(info, Completed())
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.started, seen.takeovers, seen.by_status) == (1, 0, {SagaStatus.COMPLETED: 1})
    here = SagaInfo("t", "Order", "1")
    metrics.on_event(here, created("a"))
    metrics.on_event(here, Claimed("host:1", 1))
    assert metrics.snapshot().sagas["Order"].started == 2


@pytest.mark.asyncio
async def test_a_saga_that_starts_in_the_callers_transaction_counts_as_started(tmp_path: Path) -> None:
    """Else more would be finished than ever began."""
    metrics, cls = SagaMetrics(), chain(step("a"), name="Order")
    file = tmp_path / "sagas.db"
    async with (
        SQLiteSagaStorage(file) as storage,
        SagaOrchestrator(storage, sagas=[cls], observers=[metrics]) as orchestrator,
    ):
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            handle = await orchestrator.start(cls(), connection=connection)
            connection.execute("COMMIT")
        await orchestrator.recover()
        assert (await handle.wait()).success
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.started, seen.by_status, seen.in_flight) == (1, {SagaStatus.COMPLETED: 1}, 0)


def test_steps_of_sagas_without_a_known_shape_are_told_apart_until_the_first_has_completed() -> None:
    """No fact tells the shape of one that was stored by its caller, and names of steps may be data there, too."""
    metrics = SagaMetrics()
    for number in range(20):
        info = SagaInfo(f"s-{number}", "Order", "1")
        metrics.on_event(info, Claimed("host:1", 1))
        for name in ("validate", f"reserve_{number}", "pay"):
            metrics.on_event(info, AttemptSucceeded(name, Phase.ACTION, 1))
        metrics.on_event(info, Completed())
    told = {name for name, _ in metrics.snapshot().sagas["Order"].steps}
    assert told == {"validate", "reserve_0", "pay", "reserve_1", "reserve_2", "other"}


def test_a_shape_that_is_told_later_is_learned_though_others_were_claimed_before() -> None:
    """A claim that another process began says little about the steps."""
    metrics, old, new = SagaMetrics(), SagaInfo("old", "Order", "1"), SagaInfo("new", "Order", "1")
    metrics.on_event(old, Claimed("host:1", 2))
    metrics.on_event(old, AttemptSucceeded("z", Phase.ACTION, 1))
    metrics.on_event(old, Completed())
    metrics.on_event(new, created("a", "b", "c", "d"))
    for name in ("a", "b", "c", "d", "e1", "e2", "e3"):
        metrics.on_event(new, AttemptSucceeded(name, Phase.ACTION, 1))
    told = {name for name, _ in metrics.snapshot().sagas["Order"].steps}
    assert told == {"z", "a", "b", "c", "d", "e1", "e2", "other"}


def test_a_saga_that_failed_leaves_that_status_when_it_is_claimed_again() -> None:
    """One saga is in one status; what was exported counts each end."""
    metrics, registry, info = SagaMetrics(), CollectorRegistry(), SagaInfo("s", "Order", "1")
    metrics.to_prometheus(registry)
    metrics.on_event(info, created("a"))
    metrics.on_event(info, RollbackFailed())
    metrics.on_leave(info, LeaveReason.REST)
    assert metrics.snapshot().sagas["Order"].by_status == {SagaStatus.FAILED: 1}
    metrics.on_event(info, Claimed("host:1", 2))
    assert metrics.snapshot().sagas["Order"].by_status == {SagaStatus.COMPENSATING: 1}
    metrics.on_event(info, RolledBack())
    metrics.on_leave(info, LeaveReason.REST)
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.started, seen.by_status) == (1, {SagaStatus.ROLLED_BACK: 1})
    assert {status: each.count for status, each in seen.durations.items()} == {
        SagaStatus.FAILED: 1,
        SagaStatus.ROLLED_BACK: 1,
    }
    for outcome in ("failed", "rolled_back"):
        assert value(registry, "saga_finished_total", saga="Order", outcome=outcome) == 1


def test_an_id_that_comes_again_is_another_saga() -> None:
    """The first one that failed was pruned; nobody carries it on."""
    metrics, info = SagaMetrics(), SagaInfo("s", "Order", "1")
    metrics.on_event(info, created("a"))
    metrics.on_event(info, RollbackFailed())
    metrics.on_event(info, created("a"))
    metrics.on_leave(info, LeaveReason.RELEASED)
    metrics.on_event(info, Claimed("host:1", 2))
    assert metrics.snapshot().sagas["Order"].by_status == {SagaStatus.FAILED: 1}


@pytest.mark.asyncio
async def test_a_parked_saga_is_kept_until_it_is_claimed_again() -> None:
    """It waits for a person here, too."""
    metrics = SagaMetrics()
    calls: list[str] = []

    async def mended(ctx: SagaContext) -> None:
        calls.append(ctx.saga_id)
        if len(calls) == 1:
            raise ValueError

    once = RetryPolicy(max_attempts=1)
    cls = chain(step("a", pivot=True), step("b", mended, retry=once), name="Order")
    async with SagaOrchestrator(observers=[metrics]) as orchestrator:
        result = await orchestrator.execute(cls())
        assert result.attention is not None
        seen = metrics.snapshot().sagas["Order"]
        assert (seen.started, seen.by_status, seen.in_flight) == (1, {SagaStatus.EXECUTING: 1}, 0)
        await orchestrator.retry(result.saga_id, "mended")
        assert (await orchestrator.execute(cls(), saga_id=result.saga_id)).success
    assert metrics.snapshot().sagas["Order"].by_status == {SagaStatus.COMPLETED: 1}


def test_only_so_many_sagas_that_rest_are_remembered() -> None:
    """A process may live for years; what is forgotten stays counted where it was."""
    metrics = SagaMetrics()
    for number in range(RESTED_MAX + 1):
        metrics.on_event(SagaInfo(str(number), "Order", "1"), RollbackFailed())
    for number in (0, 1):
        metrics.on_event(SagaInfo(str(number), "Order", "1"), Claimed("host:1", 2))
    assert metrics.snapshot().sagas["Order"].by_status == {SagaStatus.FAILED: RESTED_MAX, SagaStatus.COMPENSATING: 1}


@pytest.mark.parametrize(
    ("phase", "status"), [(Phase.ACTION, SagaStatus.EXECUTING), (Phase.COMPENSATION, SagaStatus.COMPENSATING)]
)
def test_a_saga_of_another_process_is_in_a_status_when_its_first_attempt_tells_which(
    phase: Phase, status: SagaStatus
) -> None:
    """A claim does not say whether it had turned back before; a guess would be wrong half of the time."""
    metrics, info = SagaMetrics(), SagaInfo("s", "Order", "1")
    metrics.on_event(info, Claimed("host:1", 2, 1, expired=True))
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.by_status, seen.in_flight) == ({}, 1)
    with metrics.around(info, attempt("a", phase)):
        assert metrics.snapshot().sagas["Order"].by_status == {status: 1}


def test_only_a_claim_that_had_expired_is_a_takeover() -> None:
    """A saga that slept and is woken was taken from nobody."""
    metrics = SagaMetrics()
    for number, expired in enumerate((False, True, False)):
        metrics.on_event(SagaInfo(str(number), "Order", "1"), Claimed("host:1", 2, expired=expired))
    assert metrics.snapshot().sagas["Order"].takeovers == 1


def test_the_oldest_saga_is_the_one_whose_age_is_shown() -> None:
    """The youngest would always look fine."""
    clock = FakeClock()
    metrics = SagaMetrics(clock=clock)
    for name in ("first", "second"):
        metrics.on_event(SagaInfo(name, "Order", "1"), created("a"))
        clock.advance(10)
    assert metrics.snapshot().sagas["Order"].oldest_unfinished == 20


def test_each_outcome_of_each_phase_is_counted_for_itself() -> None:
    """Attempts of unknown outcome and their repetitions too; an undo is one that succeeded."""
    metrics, registry, info = SagaMetrics(), CollectorRegistry(), SagaInfo("s", "Order", "1")
    metrics.to_prometheus(registry)
    action, undoing = Phase.ACTION, Phase.COMPENSATION
    told: list[Event] = [failed(action, 1.0), failed(action), *[lost(action, 1.0)] * 2, lost(action)]
    told += [*[failed(undoing, 1.0)] * 4, lost(undoing, 1.0)]
    for fact in (created("a"), *told, AttemptSucceeded("a", undoing, 6)):
        metrics.on_event(info, fact)
    seen = metrics.snapshot().sagas["Order"]
    assert (seen.attempts, seen.retries, seen.failures, seen.compensations) == (11, 8, 6, 1)
    assert [(w.succeeded, w.failed, w.unknown) for w in seen.steps.values()] == [(0, 2, 3), (1, 4, 1)]
    assert value(registry, "saga_retries_total", saga="Order", phase="action") == 3
    assert value(registry, "saga_retries_total", saga="Order", phase="compensation") == 5
    work = {"saga": "Order", "step": "a", "phase": "action"}
    assert value(registry, "saga_step_attempts_total", **work, outcome="unknown") == 3


def test_durations_are_summed_and_their_percentiles_told_apart() -> None:
    """A sum that was a count, or one percentile for all, would go unnoticed on a panel."""
    clock, registry = FakeClock(), CollectorRegistry()
    metrics = SagaMetrics(clock=clock)
    metrics.to_prometheus(registry)
    for number in range(1, 101):
        info = SagaInfo(str(number), "Order", "1")
        metrics.on_event(info, created("a"))
        with metrics.around(info, attempt("a", Phase.ACTION)):
            clock.advance(number)
        metrics.on_event(info, Completed())
    seen = metrics.snapshot().sagas["Order"]
    for durations in (seen.durations[SagaStatus.COMPLETED], seen.steps["a", "action"].durations):
        assert (durations.count, durations.total, durations.least, durations.most) == (100, 5_050, 1, 100)
        assert durations.p50 == pytest.approx(50, rel=0.14)
        assert durations.p95 == pytest.approx(95, rel=0.14)
        assert durations.p99 == pytest.approx(99, rel=0.14)
        assert durations.p50 < durations.p95
    assert value(registry, "saga_duration_seconds_sum", saga="Order", outcome="completed") == 5_050
    assert value(registry, "saga_duration_seconds_count", saga="Order", outcome="completed") == 100
    assert value(registry, "saga_step_duration_seconds_sum", saga="Order", step="a", phase="action") == 5_050


def test_what_a_rule_takes_the_increase_of_is_there_at_zero() -> None:
    """An increase is seen from the second value on, and the first saga that fails must be seen."""
    metrics, registry = SagaMetrics(), CollectorRegistry()
    metrics.to_prometheus(registry)
    assert value(registry, "saga_leases_lost_total") == 0
    metrics.on_event(SagaInfo("s", "Order", "1"), created("a"))
    for outcome in ("completed", "rolled_back", "failed"):
        assert value(registry, "saga_finished_total", saga="Order", outcome=outcome) == 0
    for phase in Phase:
        assert value(registry, "saga_retries_total", saga="Order", phase=phase.value) == 0
    assert value(registry, "saga_takeovers_total", saga="Order") == 0


@pytest.mark.asyncio
async def test_a_scrape_says_the_same_as_the_snapshot() -> None:
    """By the names and labels that the dashboard and the alerts use."""
    metrics, registry = SagaMetrics(), CollectorRegistry()
    metrics.to_prometheus(registry)
    cls = chain(step("a", flaky(), retry=AT_ONCE), step("b", fail), name="Order")
    async with SagaOrchestrator(observers=[metrics]) as orchestrator:
        await orchestrator.execute(cls())
    assert value(registry, "saga_started_total", saga="Order") == 1
    assert value(registry, "saga_finished_total", saga="Order", outcome="rolled_back") == 1
    for outcome in ("succeeded", "failed"):
        labels = {"saga": "Order", "step": "a", "phase": "action", "outcome": outcome}
        assert value(registry, "saga_step_attempts_total", **labels) == 1
    assert value(registry, "saga_retries_total", saga="Order", phase="action") == 1
    assert value(registry, "saga_running", saga="Order") == 0
    work = {"saga": "Order", "step": "a", "phase": "action"}
    told = metrics.snapshot().sagas["Order"]
    assert value(registry, "saga_step_duration_seconds_sum", **work) == told.steps["a", "action"].durations.total > 0
    seconds = told.durations[SagaStatus.ROLLED_BACK].total
    assert value(registry, "saga_duration_seconds_sum", saga="Order", outcome="rolled_back") == seconds > 0


def test_each_family_has_a_help_text_and_keeps_the_rules_of_names() -> None:
    """One prefix, base units, `_total` on counters only (which the client adds)."""
    registry = CollectorRegistry()
    SagaMetrics().to_prometheus(registry)
    kinds = {family.name: (family.type, family.documentation) for family in registry.collect()}
    assert set(kinds) == {family.name for family in FAMILIES}
    for name, (kind, text) in kinds.items():
        assert name.startswith("saga_")
        assert text.endswith(".")
        assert ("duration" in name) == name.endswith("duration_seconds")
        assert (kind == "summary") == ("duration" in name)


@pytest.mark.asyncio
async def test_the_same_figures_go_to_opentelemetry() -> None:
    """Under names with dots, which its Prometheus exporter turns into those of ours."""
    metrics, reader = SagaMetrics(), InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics.to_opentelemetry(provider)
    async with InMemorySagaStorage() as storage, metrics.watch(storage):
        async with SagaOrchestrator(storage, observers=[metrics]) as orchestrator:
            await orchestrator.execute(chain(step("a"), name="Order")())
        data = reader.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    found: dict[str, tuple[Any, list[Any]]] = {
        metric.name: (metric, list(metric.data.data_points)) for metric in scope.metrics
    }
    for family in FAMILIES:
        if found.get(family.otel):
            # A gauge of unit "1" would be called a ratio by collectors.
            assert found[family.otel][0].unit == family.unit != "1"
            for point in found[family.otel][1]:
                assert set(point.attributes or {}) == set(family.labels)
    assert set(found) >= {"saga.started", "saga.finished", "saga.duration", "saga.step.attempts", "saga.step.duration"}
    attempts = {tuple(dict(point.attributes).items()): point.value for point in found["saga.step.attempts"][1]}
    work = {"saga": "Order", "step": "a", "phase": "action"}
    assert attempts == {
        tuple({**work, "outcome": outcome}.items()): int(outcome == "succeeded")
        for outcome in ("succeeded", "failed", "unknown")
    }
    [duration] = found["saga.duration"][1]
    assert (duration.count, dict(duration.attributes)) == (1, {"saga": "Order", "outcome": "completed"})
    with pytest.raises(SagaExecutionError, match="already"):
        metrics.to_opentelemetry(provider)
    provider.shutdown()


@pytest.mark.asyncio
async def test_ten_thousand_sagas_make_few_series() -> None:
    """Here with steps that are named after data, retries, failures and undos: ids and texts are in no label."""

    class Picking(Saga):
        def __init__(self, sku: str, *, declined: bool) -> None:
            self.sku = sku
            self.declined = declined

        async def build(self) -> None:
            await self.add_step("validate", self._do, undo)
            await self.add_step(f"reserve_{self.sku}", self._do, undo)
            await self.add_step("pay", fail if self.declined else self._do, undo)

        async def _do(self, ctx: SagaContext) -> None:
            return None

    metrics, registry = SagaMetrics(), CollectorRegistry()
    metrics.to_prometheus(registry)
    async with (
        InMemorySagaStorage() as storage,
        metrics.watch(storage),
        SagaOrchestrator(storage, observers=[metrics]) as orchestrator,
    ):
        for hundred in range(100):
            await asyncio.gather(
                *(
                    orchestrator.execute(Picking(f"sku-{hundred}-{number}", declined=number % 3 == 0))
                    for number in range(100)
                )
            )
    samples = samples_of(registry)
    assert sum(s.value for s in samples if s.name == "saga_started_total") == 10_000
    assert len(samples) <= SERIES_MAX
    steps = {sample.labels["step"] for sample in samples if "step" in sample.labels}
    assert "other" in steps
    assert len(steps) == 6


def app(names: int, steps: int) -> list[type[Saga]]:
    """Return the sagas of an application; the last step of each fails where it is asked to."""

    def saga(number: int) -> type[Saga]:
        class Numbered(Saga):
            saga_name = f"Saga{number}"

            def __init__(self, *, fails: bool) -> None:
                self.fails = fails

            async def build(self) -> None:
                for place in range(steps - 1):
                    await self.add_step(f"step{place}", self._do, undo)
                await self.add_step("last", fail if self.fails else self._do, undo)

            async def _do(self, ctx: SagaContext) -> None:
                return None

        return Numbered

    return [saga(number) for number in range(names)]


@pytest.mark.asyncio
@pytest.mark.parametrize(("names", "steps"), [(1, 12), (4, 6), (4, 9), (30, 4), (3, 40)])
async def test_there_is_one_budget_of_series_for_all_names_and_steps(names: int, steps: int) -> None:
    """However large the application; nothing is lost, it is only told apart less."""
    metrics, registry, reader = SagaMetrics(), CollectorRegistry(), InMemoryMetricReader()
    metrics.to_prometheus(registry)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics.to_opentelemetry(provider)
    async with (
        InMemorySagaStorage() as storage,
        SagaOrchestrator(storage, observers=[metrics]) as orchestrator,
        metrics.watch(storage, every=0.01),
    ):
        before: dict[tuple[str, str], float] = {}
        for cls in app(names, steps):
            for fails in (False, True):
                await orchestrator.execute(cls(fails=fails))
            samples = {(each.name, str(each.labels)): each.value for each in samples_of(registry)}
            # A series that is told apart once stays so, and a counter never falls.
            assert before.keys() <= samples.keys()
            assert all(samples[key] >= was for key, was in before.items() if "_total" in key[0])
            before = samples
    found = samples_of(registry)
    assert len(found) <= SERIES_MAX
    assert sum(each.value for each in found if each.name == "saga_started_total") == 2 * names
    attempts = sum(figures.attempts for figures in metrics.snapshot().sagas.values())
    assert sum(each.value for each in found if each.name == "saga_step_attempts_total") == attempts
    labelled = {(each.labels["saga"], each.labels["step"]) for each in found if "step" in each.labels}
    own = [pair for pair in labelled if pair[1] != "other"]
    assert len(own) >= min(names * steps, 9)
    # A step whose attempts are told apart is told apart by all of them, and by its seconds.
    attempts_of: dict[tuple[str, ...], set[str]] = {}
    for each in found:
        if each.name == "saga_step_attempts_total":
            work = (each.labels["saga"], each.labels["step"], each.labels["phase"])
            attempts_of.setdefault(work, set()).add(each.labels["outcome"])
    timed = {
        (each.labels["saga"], each.labels["step"], each.labels["phase"])
        for each in found
        if each.name == "saga_step_duration_seconds_sum"
    }
    assert attempts_of == {work: {"succeeded", "failed", "unknown"} for work in timed}
    # And one that is not is still counted under its saga, where that has a label.
    for name in {saga for saga, _ in labelled} - {"other"}:
        told = metrics.snapshot().sagas[name]
        counted = [each for each in found if each.name == "saga_step_attempts_total" and each.labels["saga"] == name]
        assert sum(each.value for each in counted) == told.attempts
    data = reader.get_metrics_data()
    assert data is not None
    points = [
        point for metric in data.resource_metrics[0].scope_metrics[0].metrics for point in metric.data.data_points
    ]
    assert len(points) <= SERIES_MAX
    provider.shutdown()


@pytest.mark.asyncio
async def test_steps_leave_room_for_the_names_that_come_later() -> None:
    """Else one large saga would hide how the others end."""
    metrics, registry = SagaMetrics(series_max=133), CollectorRegistry()
    metrics.to_prometheus(registry)
    async with SagaOrchestrator(observers=[metrics]) as orchestrator:
        for cls in app(6, 6):
            await orchestrator.execute(cls(fails=True))
            samples_of(registry)
    started = {each.labels["saga"]: each.value for each in samples_of(registry) if each.name == "saga_started_total"}
    assert started == {"Saga0": 1, "Saga1": 1, "Saga2": 1, "Saga3": 1, "other": 2}
    assert len(samples_of(registry)) <= 133


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("names", "steps", "undone", "series_max"),
    [
        *((1, 12, False, 200), (2, 8, False, 200), (3, 5, False, 200), (4, 4, False, 200)),
        *((1, 8, True, 200), (2, 4, True, 200), (3, 3, True, 200), (4, 2, True, 200)),
        (10, 6, True, 33 + 10 * (25 + 6 * 8)),
    ],
)
async def test_as_many_steps_are_told_apart_as_the_docs_say(
    names: int, steps: int, *, undone: bool, series_max: int
) -> None:
    """All phases of all steps of all names, none of them under `other`."""
    metrics, registry = SagaMetrics(series_max=series_max), CollectorRegistry()
    metrics.to_prometheus(registry)
    async with (
        InMemorySagaStorage() as storage,
        SagaOrchestrator(storage, observers=[metrics]) as orchestrator,
        metrics.watch(storage),
    ):
        for cls in app(names, steps):
            for fails in {False, undone}:
                await orchestrator.execute(cls(fails=fails))
        found = samples_of(registry)
    works = {
        (each.labels["saga"], each.labels["step"], each.labels["phase"]) for each in found if "step" in each.labels
    }
    assert not [work for work in works if "other" in work]
    assert len(works) == names * (2 * steps - 1 if undone else steps)


def test_the_first_attempt_that_fails_makes_a_difference() -> None:
    """Its series is there before, at 0, with those of the other outcomes and the seconds."""
    metrics, registry, info = SagaMetrics(), CollectorRegistry(), SagaInfo("s", "Order", "1")
    metrics.to_prometheus(registry)
    metrics.on_event(info, created("a", "b"))
    for name in "ab":
        work = {"saga": "Order", "step": name, "phase": "action"}
        assert value(registry, "saga_step_duration_seconds_sum", **work) == 0
        for outcome in ("succeeded", "failed", "unknown"):
            assert value(registry, "saga_step_attempts_total", **work, outcome=outcome) == 0


@pytest.mark.asyncio
async def test_names_that_are_only_stored_take_no_labels_from_those_that_are_driven_here() -> None:
    """A fleet may have more names than one process has room for; each shows its own ones."""
    metrics, registry = SagaMetrics(), CollectorRegistry()
    metrics.to_prometheus(registry)
    async with InMemorySagaStorage() as storage:
        async with SagaOrchestrator(storage) as other:
            for cls in app(30, 2):
                await other.execute(cls(fails=False))
        async with metrics.watch(storage):
            before = [each.labels["saga"] for each in samples_of(registry) if each.name == "saga_in_flight"]
            assert len(before) == 5
            for number in (29, 28, 27, 26):
                metrics.on_event(SagaInfo(str(number), f"Saga{number}", "1"), created("step0", "last"))
            found = samples_of(registry)
    driven = {f"Saga{number}" for number in (29, 28, 27, 26)}
    for name in ("saga_in_flight", "saga_attention", "saga_started_total"):
        assert driven <= {each.labels["saga"] for each in found if each.name == name}
    told = [each.labels["saga"] for each in found if each.name == "saga_in_flight"]
    assert set(before) <= set(told)
    assert len(told) == len(set(told)) == 9
    assert len(found) <= SERIES_MAX


def test_a_name_that_was_only_stored_keeps_its_label_when_it_is_driven() -> None:
    """And pays for what it did not have; a saga that is itself called `other` is one of those."""
    budget = Budget(133)
    assert budget.stored("Order") == "other"
    assert [budget.name(name) for name in ("a", "b", "c", "d", "e", "other")] == ["a", "b", "c", "d", "other", "other"]
    assert (budget.stored("a"), budget.stored("Order")) == ("a", "other")
    budget = Budget(136)
    assert (budget.stored("Order"), budget.stored("Refund")) == ("Order", "other")
    assert [budget.name(name) for name in ("Order", "b", "c", "d", "e")] == ["Order", "b", "c", "d", "other"]
    assert budget.stored("Refund") == "Refund"


def test_a_second_one_is_refused_where_its_counts_would_be_lost() -> None:
    """OpenTelemetry drops what a second instrument of the same name says, prometheus-client refuses it itself."""
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    SagaMetrics().to_opentelemetry(provider)
    second = SagaMetrics()
    with pytest.raises(SagaExecutionError, match="share one SagaMetrics"):
        second.to_opentelemetry(provider)
    elsewhere = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    second.to_opentelemetry(elsewhere)
    registry = CollectorRegistry()
    SagaMetrics().to_prometheus(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        second.to_prometheus(registry)
    for each in (provider, elsewhere):
        each.shutdown()


def test_a_second_one_is_refused_also_if_the_provider_was_set_meanwhile() -> None:
    """What was exported before goes through the one that is set, so it has its figures already."""
    script = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from saga import SagaExecutionError, SagaMetrics
SagaMetrics().to_opentelemetry()
metrics.set_meter_provider(MeterProvider())
try:
    SagaMetrics().to_opentelemetry()
except SagaExecutionError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "share one SagaMetrics" in told.stdout


def test_an_end_is_counted_under_the_name_of_the_saga_that_ended() -> None:
    """Two storages may have the same id for sagas of different names, where two orchestrators share observers."""
    clock = FakeClock(now=1_000.0)
    metrics = SagaMetrics(clock=clock)
    order, refund = SagaInfo("4711", "Order", "1", {}, 1_000.0), SagaInfo("4711", "Refund", "1", {}, 1_010.0)
    metrics.on_event(order, created("a"))
    clock.advance(10)
    clock.set_wall_time(1_010.0)
    metrics.on_event(refund, created("b"))
    clock.advance(5)
    clock.set_wall_time(1_015.0)
    metrics.on_event(order, Completed())
    metrics.on_leave(order, LeaveReason.REST)
    assert metrics.snapshot().sagas["Refund"].in_flight == 1
    metrics.on_event(refund, RolledBack())
    seen = metrics.snapshot().sagas
    assert (seen["Order"].by_status, seen["Refund"].by_status) == (
        {SagaStatus.COMPLETED: 1},
        {SagaStatus.ROLLED_BACK: 1},
    )
    assert seen["Order"].durations[SagaStatus.COMPLETED].total == 15
    assert seen["Refund"].durations[SagaStatus.ROLLED_BACK].total == 5


def test_the_instruments_of_one_collection_share_a_reading() -> None:
    """A reading takes the lock that facts need; the next collection has its own."""
    reader, readings = InMemoryMetricReader(), count(1)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    clock = FakeClock()
    Instruments(lambda: {"saga_started": {("Order",): next(readings)}}, provider, clock.monotonic)
    for number in (1, 2):
        data = reader.get_metrics_data()
        assert data is not None
        found: dict[str, Any] = {
            metric.name: metric.data for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }
        assert [point.value for point in found["saga.started"].data_points] == [number]
    assert next(readings) == 3
    provider.shutdown()


def test_an_instrument_that_asks_much_later_is_asked_for_another_collection() -> None:
    """By the clock that the figures have, so that both can be moved in a test."""
    clock, readings = FakeClock(), count(1)
    collection = _Collection(
        lambda: {family.name: {("Order",): next(readings)} for family in FAMILIES}, clock.monotonic
    )
    shown = []
    for family, later in (
        (FAMILIES[0], 0.0),
        (FAMILIES[1], 0.9 * COLLECTION_SECONDS),
        (FAMILIES[2], COLLECTION_SECONDS),
    ):
        clock.advance(later)
        shown.append(collection.values(family)["Order",])
    assert shown[0] < len(FAMILIES)
    assert shown[1] <= len(FAMILIES) < shown[2]


def test_without_prometheus_client_the_error_names_the_extra() -> None:
    """And everything else works without it."""
    code = """
import sys
sys.modules["prometheus_client"] = None
from saga import SagaExecutionError, SagaMetrics
try:
    SagaMetrics().to_prometheus()
except SagaExecutionError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "extra 'prometheus'" in done.stdout


def test_so_many_steps_have_a_label_of_their_own() -> None:
    """The first saga's, two more, and never more than was said."""
    metrics = SagaMetrics(steps_max=4)
    info = SagaInfo("s", "Order", "1")
    metrics.on_event(info, created("a", "b", "c"))
    for name in "abcdef":
        metrics.on_event(info, AttemptSucceeded(name, Phase.ACTION, 1))
    assert set(metrics.snapshot().sagas["Order"].steps) == {(name, "action") for name in ("a", "b", "c", "d", "other")}
    for wrong in (0, True, 1.5, "3"):
        with pytest.raises(SagaValidationError, match="steps_max"):
            SagaMetrics(steps_max=wrong)  # type: ignore[arg-type]
        with pytest.raises(SagaValidationError, match="series_max"):
            SagaMetrics(series_max=wrong)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_what_is_true_of_all_processes_is_read_from_the_storage() -> None:
    """An observer that saw nothing knows the sagas in flight, those that need attention, and the oldest."""
    clock = FakeClock()
    metrics, registry = SagaMetrics(clock=clock), CollectorRegistry()
    metrics.to_prometheus(registry)
    reached, forever = asyncio.Event(), asyncio.Event()

    async def wait(ctx: SagaContext) -> None:
        reached.set()
        await forever.wait()

    async def stuck(result: Any, ctx: SagaContext) -> None:
        raise RuntimeError

    broken = chain(step("a", compensation=stuck, compensation_retry=AT_ONCE), step("b", fail), name="Broken")
    async with InMemorySagaStorage() as storage, SagaOrchestrator(storage, drain_timeout=0) as orchestrator:
        assert (await orchestrator.execute(broken())).status is SagaStatus.FAILED
        await orchestrator.start(chain(step("a", wait, timeout=None), name="Order")())
        await reached.wait()
        oldest = (await storage.statistics()).oldest_unfinished_at
        assert oldest is not None
        clock.set_wall_time(oldest + 90)
        async with metrics.watch(storage):
            assert value(registry, "saga_in_flight", saga="Order") == 1
            assert value(registry, "saga_in_flight", saga="Broken") == 0
            assert value(registry, "saga_needs_attention") == 1
            assert value(registry, "saga_attention", saga="Broken") == 1
            assert value(registry, "saga_attention", saga="Order") == 0
            assert value(registry, "saga_oldest_unfinished_seconds", saga="Order") == 90
            assert value(registry, "saga_oldest_unfinished_seconds", saga="Broken") == 0
        assert not [sample for sample in samples_of(registry) if sample.name == "saga_needs_attention"]
        assert metrics.snapshot().sagas == {}


@pytest.mark.asyncio
async def test_a_storage_that_is_away_leaves_a_gap_and_comes_back() -> None:
    """Old figures would look like good ones."""

    class Away(InMemorySagaStorage):
        away = False

        async def statistics(self) -> Any:
            if self.away:
                message = "away"
                raise SagaStorageUnavailableError(message)
            return await super().statistics()

    clock = FakeClock()
    metrics = SagaMetrics(clock=clock)
    async with Away() as storage, metrics.watch(storage, every=5):
        for away in (False, True, False):
            storage.away = away
            await asyncio.sleep(0)
            clock.advance(5)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (metrics.snapshot().stored is None) is away
    with pytest.raises(SagaValidationError, match="every"):
        async with metrics.watch(storage, every=0):
            pass


@pytest.mark.asyncio
async def test_a_storage_that_does_not_answer_leaves_a_gap() -> None:
    """It may hang rather than fail, and figures of an hour ago would look like good ones."""

    class Hanging(InMemorySagaStorage):
        hangs = False

        async def statistics(self) -> Any:
            if self.hangs:
                await asyncio.Event().wait()
            return await super().statistics()

    metrics = SagaMetrics()
    async with Hanging() as storage, metrics.watch(storage, every=0.001, within=0.001):
        for hangs in (True, False, True):
            storage.hangs = hangs
            await until(partial(gap, metrics, there=hangs))
    for wrong in ({"every": 0}, {"within": 0}):
        with pytest.raises(SagaValidationError, match="above 0"):
            async with metrics.watch(storage, **wrong):
                pass


@pytest.mark.asyncio
async def test_a_bug_in_a_storage_ends_the_watch_where_it_is_seen() -> None:
    """In the loop's exception handler, and by figures that are missing; the watch is left as usual."""

    class Buggy(InMemorySagaStorage):
        buggy = False

        async def statistics(self) -> Any:
            if self.buggy:
                raise OSError
            return await super().statistics()

    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context))
    metrics = SagaMetrics()
    async with Buggy() as storage, metrics.watch(storage, every=0.001):
        assert metrics.snapshot().stored is not None
        storage.buggy = True
        await until(lambda: reports)
        assert metrics.snapshot().stored is None
    [report] = reports
    assert isinstance(report["exception"], OSError)
    assert "SagaMetrics.watch()" in report["message"]


@pytest.mark.asyncio
async def test_a_second_watch_is_refused_until_the_first_has_ended() -> None:
    """The figures of two storages in one place would be those of neither."""
    metrics = SagaMetrics()
    async with InMemorySagaStorage() as one, InMemorySagaStorage() as two:
        async with metrics.watch(one):
            with pytest.raises(SagaExecutionError, match="watches a storage already"):
                async with metrics.watch(two):
                    pass
            assert metrics.snapshot().stored is not None
        async with metrics.watch(two):
            assert metrics.snapshot().stored is not None


def test_what_a_snapshot_is_can_be_named() -> None:
    """A function that takes one has a type for it, and a wrong name is none."""
    assert isinstance(SagaMetrics().snapshot(), monitoring.MetricsSnapshot)
    assert all(hasattr(monitoring, name) for name in monitoring.__all__)
    with pytest.raises(AttributeError, match="MetricsSnapshott"):
        _ = monitoring.MetricsSnapshott  # type: ignore[attr-defined]


def test_percentiles_are_true_to_within_fourteen_percent() -> None:
    """From microseconds to months, with a fixed number of buckets, wherever in its bucket a duration lies."""
    histogram = Histogram()
    assert (histogram.percentile(50), histogram.count) == (0.0, 0)
    for number in range(1, 1_001):
        histogram.add(number / 1_000)
    for percent in (1, 50, 95, 99, 100):
        assert histogram.percentile(percent) == pytest.approx(percent / 100, rel=0.14)
    assert (histogram.least, histogram.most) == (0.001, 1.0)
    for bound in BOUNDS[1:]:
        for seconds in (bound, bound / 1.249):
            alike = Histogram()
            for each in (BOUNDS[0], *[seconds] * 98, BOUNDS[-1]):
                alike.add(each)
            assert alike.percentile(95) == pytest.approx(seconds, rel=0.14)
    histogram.add(0.0)
    histogram.add(2 * BOUNDS[-1])
    assert histogram.percentile(100) == 2 * BOUNDS[-1]
    assert histogram.percentile(0) <= BOUNDS[0]
