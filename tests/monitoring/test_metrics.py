"""SagaMetrics: what is counted, what is exported, and how many series there may be."""

from __future__ import annotations

import asyncio
import subprocess
import sys
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
    Saga,
    SagaContext,
    SagaExecutionError,
    SagaInfo,
    SagaMetrics,
    SagaOrchestrator,
    SagaStatus,
    SagaStorageUnavailableError,
    SagaValidationError,
)
from saga.events import AttemptSucceeded, Began, Claimed, Completed, Created, RolledBack
from saga.graph import StepShape
from saga.monitoring._histogram import BOUNDS, Histogram
from saga.monitoring.families import FAMILIES
from saga.observers import Observers
from saga.testing import FakeClock
from saga.types import Phase
from tests.unit.kit import AT_ONCE, chain, fail, step, undo

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

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
    ctx = SagaContext(saga_id="s", step_name="a", attempt=1, phase=Phase.ACTION, source=None)  # type: ignore[arg-type]
    metrics.on_event(info, created("a"))
    clock.advance(7)
    with metrics.around(info, ctx):
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


@pytest.mark.asyncio
async def test_errors_of_observers_are_counted_by_type() -> None:
    """An observer that breaks is seen where everything else is seen."""

    class Broken(Observer):
        def on_event(self, saga: SagaInfo, event: Any) -> None:
            raise RuntimeError

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    metrics, registry = SagaMetrics(), CollectorRegistry()
    metrics.to_prometheus(registry)
    Observers([metrics, Broken()]).on_events(SagaInfo("s", "Order", "1"), (Began(), Began()))
    assert metrics.snapshot().observer_errors == {"Broken": 2}
    assert value(registry, "saga_observer_errors_total", observer="Broken") == 2


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
    assert value(registry, "saga_step_duration_seconds_count", **work) == 2
    assert value(registry, "saga_step_duration_seconds_bucket", **work, le="+Inf") == 2
    assert value(registry, "saga_duration_seconds_count", saga="Order", outcome="rolled_back") == 1


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
        assert (kind == "histogram") == ("duration" in name)


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
            assert found[family.otel][0].unit == family.unit
            for point in found[family.otel][1]:
                assert set(point.attributes or {}) == set(family.labels)
    assert set(found) >= {"saga.started", "saga.finished", "saga.duration", "saga.step.attempts", "saga.step.duration"}
    [attempts] = found["saga.step.attempts"][1]
    assert attempts.value == 1
    assert dict(attempts.attributes) == {"saga": "Order", "step": "a", "phase": "action", "outcome": "succeeded"}
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
            assert value(registry, "saga_oldest_unfinished_seconds") == 90
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


def test_percentiles_are_true_to_within_a_bucket() -> None:
    """From microseconds to months, with a fixed number of buckets."""
    histogram = Histogram()
    assert (histogram.percentile(50), histogram.count) == (0.0, 0)
    for number in range(1, 1_001):
        histogram.add(number / 1_000)
    for percent in (1, 50, 95, 99, 100):
        assert histogram.percentile(percent) == pytest.approx(percent / 100, rel=0.13)
    assert (histogram.least, histogram.most) == (0.001, 1.0)
    assert histogram.below((0.1, 1.0)) == [100, 1_000]
    histogram.add(0.0)
    histogram.add(2 * BOUNDS[-1])
    assert histogram.percentile(100) == 2 * BOUNDS[-1]
    assert histogram.percentile(0) == 0.0
    assert histogram.copy().percentile(50) == histogram.percentile(50)


def test_every_exported_bound_is_one_of_the_histogram() -> None:
    """Else its bucket could not be told from the counts."""
    assert {bound for family in FAMILIES for bound in family.buckets} <= set(BOUNDS)
