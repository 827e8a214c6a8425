"""Counts what sagas do: in this process, and for Prometheus and OpenTelemetry.

Counting happens in plain integers under one lock, since facts come by the hundred thousand; exporters read them when
they are asked. What is true of all processes together is read from the storage instead.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from saga.checks import check_seconds, refuse
from saga.clock import SystemClock, sleep
from saga.events import (
    AttemptFailed,
    AttemptSucceeded,
    AttemptUnknown,
    Claimed,
    Completed,
    Created,
    RollbackFailed,
    RolledBack,
    TurnedBack,
)
from saga.exceptions import SagaExecutionError, SagaStorageError
from saga.monitoring._figures import Figures, Live
from saga.monitoring._otel_metrics import Instruments
from saga.monitoring._readings import Counts, Reading, reading_of, snapshot_of
from saga.observers import Observer
from saga.types import LeaveReason, Phase, SagaStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from opentelemetry.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

    from saga.clock import Clock
    from saga.context import SagaContext
    from saga.events import Event
    from saga.monitoring._snapshot import MetricsSnapshot
    from saga.storage.base import SagaStorage
    from saga.types import SagaInfo

_ENDS: dict[type[Event], SagaStatus] = {
    Completed: SagaStatus.COMPLETED,
    RolledBack: SagaStatus.ROLLED_BACK,
    RollbackFailed: SagaStatus.FAILED,
}


class SagaMetrics(Observer):
    """Counts sagas, attempts, retries, failures and durations.

    ``snapshot()`` gives the figures in this process. ``to_prometheus()`` and ``to_opentelemetry()`` export them; there,
    no label holds an id or a text of users, and the number of series is bounded. ``watch(storage)`` adds what is read
    from the storage: sagas in flight, sagas that need attention, the age of the oldest unfinished one.
    """

    def __init__(self, *, steps_max: int = 12, clock: Clock | None = None) -> None:
        """Begin at zero.

        Args:
            steps_max: Steps of one saga name that have their own ``step`` label; the others share ``other``. Of
                steps that the first saga of its name did not have, two get their own, since such names may be data.
            clock: Time; the system's by default.

        Raises:
            SagaValidationError: If steps_max is no number of at least 1.
        """
        if isinstance(steps_max, bool) or not isinstance(steps_max, int) or steps_max < 1:
            refuse("steps_max", steps_max, "an integer of at least 1")
        self._steps_max = steps_max
        self._clock: Clock = SystemClock() if clock is None else clock
        self.monotonic = self._clock.monotonic
        self._lock = Lock()
        self._counts = Counts()
        self._figures = self._counts.figures
        self._live = self._counts.live
        self._instruments: Instruments | None = None
        self._takes: dict[type[Event], Callable[[SagaInfo, Any], float | None]] = {
            Created: self._created,
            Claimed: self._claimed,
            AttemptSucceeded: self._succeeded,
            AttemptFailed: self._failed,
            AttemptUnknown: self._unknown,
            TurnedBack: self._turned_back,
            **dict.fromkeys(_ENDS, self._ended),
        }

    # looking

    def snapshot(self) -> MetricsSnapshot:
        """Return the figures of this instant."""
        with self._lock:
            return snapshot_of(self._counts, self.monotonic())

    def reading(self) -> Reading:
        """Return what exporters export, by family."""
        with self._lock:
            return reading_of(self._counts, self._clock.now())

    # exporting

    def to_prometheus(self, registry: CollectorRegistry | None = None) -> None:
        """Register with a registry of prometheus-client; with its default one if none is given.

        Raises:
            SagaExecutionError: If prometheus-client is not installed.
        """
        try:
            from saga.monitoring._prometheus import register  # noqa: PLC0415 - an extra
        except ImportError as error:
            message = "SagaMetrics.to_prometheus() needs prometheus-client: install the extra 'prometheus'"
            raise SagaExecutionError(message) from error
        register(self.reading, registry)

    def to_opentelemetry(self, provider: MeterProvider | None = None) -> None:
        """Export through the OpenTelemetry metrics API; through the global meter provider if none is given.

        Raises:
            SagaExecutionError: If it is exported there already.
        """
        if self._instruments is not None:
            message = "this SagaMetrics is exported to OpenTelemetry already; make a second one"
            raise SagaExecutionError(message)
        self._instruments = Instruments(self.reading, provider)

    @asynccontextmanager
    async def watch(self, storage: SagaStorage, *, every: float = 10.0) -> AsyncIterator[None]:
        """Keep reading the storage's statistics inside ``async with``.

        While the storage is away its figures are missing, rather than old.

        Args:
            storage: An open storage.
            every: Seconds between two readings.

        Raises:
            SagaValidationError: If ``every`` is no number above 0.
        """
        if check_seconds("every", every) is None:
            refuse("every", every, "a number of seconds above 0")
        await self._look(storage)
        task = asyncio.get_running_loop().create_task(self._keep_looking(storage, every))
        task.add_done_callback(self._unwatched)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _keep_looking(self, storage: SagaStorage, every: float) -> None:
        while True:
            await sleep(self._clock, every)
            await self._look(storage)

    def _unwatched(self, _task: asyncio.Task[None]) -> None:
        # However it ended: figures that nobody reads anew must not be shown as if somebody did.
        self._counts.stored = None

    async def _look(self, storage: SagaStorage) -> None:
        try:
            self._counts.stored = await storage.statistics()
        except SagaStorageError:
            self._counts.stored = None

    # observing

    def on_error(self, observer: Observer, _error: BaseException) -> None:
        """Count what an observer raised."""
        with self._lock:
            self._counts.errors[type(observer).__name__] += 1

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Count a fact."""
        take = self._takes.get(type(event))
        if take is not None:
            with self._lock:
                seconds = take(saga, event)
            # Outside of the lock, since a reader of OpenTelemetry holds its own while it asks for the figures.
            if seconds is not None and self._instruments is not None:
                self._instruments.saga_duration(saga.saga_name, _ENDS[type(event)].value, seconds)

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:
        """Time an attempt's user code."""
        if ctx.phase is Phase.COMPENSATION:
            # Of a saga that was taken over nothing else tells that it had turned back before.
            self._turned_back(saga)
        return _Timed(self, saga.saga_name, ctx)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Forget a saga that this process drives no more."""
        with self._lock:
            live = self._live.pop(saga.saga_id, None)
            if live is not None and reason is LeaveReason.LOST:
                self._counts.leases_lost += 1

    def ran(self, saga_name: str, ctx: SagaContext, seconds: float) -> None:
        """Count how long the user code of an attempt ran."""
        with self._lock:
            work = self._of(saga_name).work(ctx.step_name, ctx.phase)
            work.durations.add(seconds)
        if self._instruments is not None:
            self._instruments.step_duration(saga_name, work.label, work.phase.value, seconds)

    def _of(self, saga_name: str) -> Figures:
        figures = self._figures.get(saga_name)
        if figures is None:
            figures = self._figures[saga_name] = Figures(self._steps_max)
        return figures

    def _created(self, saga: SagaInfo, fact: Created) -> None:
        figures = self._of(saga.saga_name)
        figures.started += 1
        if figures.started == 1:
            figures.learn(step.name for step in fact.shape)
        self._live[saga.saga_id] = Live(figures, self.monotonic())

    def _claimed(self, saga: SagaInfo, fact: Claimed) -> None:
        figures = self._of(saga.saga_name)
        if fact.expired:
            figures.takeovers += 1
        if saga.saga_id not in self._live:
            age = 0.0 if saga.created_at is None else max(0.0, self._clock.now() - saga.created_at)
            self._live[saga.saga_id] = Live(figures, self.monotonic() - age)

    def _turned_back(self, saga: SagaInfo, _fact: TurnedBack | None = None) -> None:
        live = self._live.get(saga.saga_id)
        if live is not None:
            live.status = SagaStatus.COMPENSATING

    def _succeeded(self, saga: SagaInfo, fact: AttemptSucceeded) -> None:
        self._of(saga.saga_name).work(fact.step, fact.phase).succeeded += 1

    def _failed(self, saga: SagaInfo, fact: AttemptFailed) -> None:
        work = self._of(saga.saga_name).work(fact.step, fact.phase)
        work.failed += 1
        work.retries += fact.retry_in is not None

    def _unknown(self, saga: SagaInfo, fact: AttemptUnknown) -> None:
        work = self._of(saga.saga_name).work(fact.step, fact.phase)
        work.unknown += 1
        work.retries += fact.retry_in is not None

    def _ended(self, saga: SagaInfo, fact: Completed | RolledBack | RollbackFailed) -> float:
        live = self._live.pop(saga.saga_id, None)
        seconds = 0.0 if live is None else self.monotonic() - live.since
        self._of(saga.saga_name).ended(_ENDS[type(fact)], seconds)
        return seconds


class _Timed:
    """Times what runs inside."""

    __slots__ = ("_begun", "_ctx", "_metrics", "_saga_name")

    def __init__(self, metrics: SagaMetrics, saga_name: str, ctx: SagaContext) -> None:
        self._metrics = metrics
        self._saga_name = saga_name
        self._ctx = ctx
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = self._metrics.monotonic()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._metrics.ran(self._saga_name, self._ctx, self._metrics.monotonic() - self._begun)
