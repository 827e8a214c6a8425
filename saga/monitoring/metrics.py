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
from saga.monitoring._figures import Counts, Figures, Live
from saga.monitoring._otel_metrics import Instruments
from saga.monitoring._readings import SERIES_MIN, Budget, reading_of
from saga.monitoring._snapshot import snapshot_of
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
    from saga.monitoring._readings import Labels, Reading
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

    Orchestrators may share one as long as no two of them drive a saga of the same id.
    """

    def __init__(self, *, steps_max: int = 12, series_max: int = 200, clock: Clock | None = None) -> None:
        """Begin at zero.

        Args:
            steps_max: Steps of one saga name that are told apart; the others share ``other``. Of steps that the first
                saga of its name did not have, two get their own, since such names may be data.
            series_max: How many series are exported, of all names together. Once they are used up, new steps share
                ``other``, and new saga names too.
            clock: Time; the system's by default.

        Raises:
            SagaValidationError: If steps_max is no integer of at least 1, or series_max is less than four names take.
        """
        for name, value, least in (("steps_max", steps_max, 1), ("series_max", series_max, SERIES_MIN)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                refuse(name, value, f"an integer of at least {least}")
        self._steps_max = steps_max
        self._clock: Clock = SystemClock() if clock is None else clock
        self._monotonic = self._clock.monotonic
        self._lock = Lock()
        self._counts = Counts()
        self._figures = self._counts.figures
        self._live = self._counts.live
        self._budget = Budget(series_max)
        self._watching = False
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
            return snapshot_of(self._counts, self._monotonic())

    def _reading(self) -> Reading:
        with self._lock:
            return reading_of(self._counts, self._budget, self._clock.now())

    # exporting

    def to_prometheus(self, registry: CollectorRegistry | None = None) -> None:
        """Register with a registry of prometheus-client; with its default one if none is given.

        Raises:
            SagaExecutionError: If prometheus-client is not installed.
            ValueError: If another SagaMetrics is registered there (prometheus-client's "Duplicated timeseries"): share
                one SagaMetrics, or give this one a registry of its own.
        """
        try:
            from saga.monitoring._prometheus import register  # noqa: PLC0415 - an extra
        except ImportError as error:
            message = "SagaMetrics.to_prometheus() needs prometheus-client: install the extra 'prometheus'"
            raise SagaExecutionError(message) from error
        register(self._reading, registry)

    def to_opentelemetry(self, provider: MeterProvider | None = None) -> None:
        """Export through the OpenTelemetry metrics API; through the global meter provider if none is given.

        Raises:
            SagaExecutionError: If it is exported already, or another SagaMetrics is through this provider, which would
                drop what a second one counts.
        """
        if self._instruments is not None:
            message = "this SagaMetrics is exported to OpenTelemetry already: share one SagaMetrics, and export it once"
            raise SagaExecutionError(message)
        self._instruments = Instruments(self._reading, provider, self._monotonic)

    @asynccontextmanager
    async def watch(self, storage: SagaStorage, *, every: float = 10.0, within: float = 5.0) -> AsyncIterator[None]:
        """Keep reading the storage's statistics inside ``async with``.

        While the storage is away, or does not answer in time, its figures are missing, rather than old. Any other
        error is a bug: it ends the reading, goes to the event loop's exception handler, and the figures stay away.

        Args:
            storage: An open storage.
            every: Seconds between two readings.
            within: Seconds that one reading may take.

        Raises:
            SagaValidationError: If ``every`` or ``within`` is no number above 0.
            SagaExecutionError: If this SagaMetrics watches a storage already.
        """
        for name, value in (("every", every), ("within", within)):
            if check_seconds(name, value) is None:
                refuse(name, value, "a number of seconds above 0")
        if self._watching:
            message = "this SagaMetrics watches a storage already; a second one needs a registry or provider of its own"
            raise SagaExecutionError(message)
        self._watching = True
        try:
            await self._look(storage, within)
            task = asyncio.get_running_loop().create_task(self._keep_looking(storage, every, within))
            task.add_done_callback(self._unwatched)
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
        finally:
            self._watching = False

    async def _keep_looking(self, storage: SagaStorage, every: float, within: float) -> None:
        while True:
            await sleep(self._clock, every)
            await self._look(storage, within)

    def _unwatched(self, task: asyncio.Task[None]) -> None:
        # However it ended: figures that nobody reads anew must not be shown as if somebody did.
        self._counts.stored = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            message = "SagaMetrics.watch() reads the storage no more: statistics() raised"
            task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})

    async def _look(self, storage: SagaStorage, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                self._counts.stored = await storage.statistics()
        except (SagaStorageError, TimeoutError):
            self._counts.stored = None

    # observing

    def on_error(self, observer: Observer, error: BaseException) -> None:  # noqa: ARG002 - its type says enough
        """Count that an observer raised."""
        with self._lock:
            self._counts.errors[type(observer).__name__] += 1

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Count a fact."""
        take = self._takes.get(type(event))
        if take is not None:
            with self._lock:
                seconds = take(saga, event)
            if seconds is not None and self._instruments is not None:
                with self._lock:
                    labels = (self._budget.name(saga.saga_name), _ENDS[type(event)].value)
                # Outside of the lock, since a reader of OpenTelemetry holds its own while it asks for the figures.
                self._instruments.saga_duration(labels, seconds)

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:
        """Time an attempt's user code."""
        # Of a saga that another process left nothing else tells in which direction it goes.
        live = self._live_of(saga)
        if live is not None:
            if ctx.phase is Phase.COMPENSATION:
                live.status = SagaStatus.COMPENSATING
            elif live.status is None:
                live.status = SagaStatus.EXECUTING
        return _Timed(self._monotonic, self._ran, saga.saga_name, ctx)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Forget a saga that this process drives no more, unless it rests: a person may wake it."""
        with self._lock:
            live = self._live_of(saga)
            if live is None:
                return
            del self._live[saga.saga_id]
            if reason is LeaveReason.LOST:
                self._counts.leases_lost += 1
            elif reason is LeaveReason.REST:
                live.figures.resting[live.status] += 1
                self._counts.rest(saga.saga_id, live.status)

    def _ran(self, saga_name: str, ctx: SagaContext, seconds: float) -> None:
        labels: Labels | None = None
        with self._lock:
            work = self._of(saga_name).work(ctx.step_name, ctx.phase)
            work.durations.add(seconds)
            if self._instruments is not None:
                labels = self._budget.work(saga_name, work.label, work.phase.value)
        if labels is not None and self._instruments is not None:
            self._instruments.step_duration(labels, seconds)

    def _of(self, saga_name: str) -> Figures:
        figures = self._figures.get(saga_name)
        if figures is None:
            figures = self._figures[saga_name] = Figures(self._steps_max)
        return figures

    def _created(self, saga: SagaInfo, fact: Created) -> None:
        figures = self._of(saga.saga_name)
        figures.started += 1
        if not figures.learned:
            figures.learn(step.name for step in fact.shape)
        # An id may come again once its first saga was pruned.
        self._counts.rested.pop(saga.saga_id, None)
        self._live[saga.saga_id] = Live(figures, self._monotonic(), SagaStatus.EXECUTING, whole=True)

    def _claimed(self, saga: SagaInfo, fact: Claimed) -> None:
        figures = self._of(saga.saga_name)
        if fact.expired:
            figures.takeovers += 1
        if self._live_of(saga) is not None:
            return
        status = self._counts.wake(saga.saga_id, figures)
        # Nobody drove it before: it was stored in the transaction of a caller, and nobody was told of that.
        first = fact.fence == 1
        if first:
            figures.started += 1
            status = SagaStatus.EXECUTING
        self._live[saga.saga_id] = Live(figures, self._monotonic() - self._age(saga), status, whole=first)

    def _live_of(self, saga: SagaInfo) -> Live | None:
        """Return what is kept of a saga; another one of a second storage may have the same id."""
        live = self._live.get(saga.saga_id)
        return live if live is not None and live.figures is self._figures.get(saga.saga_name) else None

    def _age(self, saga: SagaInfo) -> float:
        """Return for how long a saga has been there, by the wall clock, since another process may have created it."""
        return 0.0 if saga.created_at is None else max(0.0, self._clock.now() - saga.created_at)

    def _turned_back(self, saga: SagaInfo, _fact: TurnedBack) -> None:
        live = self._live_of(saga)
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
        figures, live = self._of(saga.saga_name), self._live_of(saga)
        if live is not None:
            del self._live[saga.saga_id]
        status = _ENDS[type(fact)]
        seconds = self._age(saga) if live is None else self._monotonic() - live.since
        figures.ended(status, seconds)
        if status is SagaStatus.FAILED:
            self._counts.rest(saga.saga_id, status)
        elif live is not None and live.whole and status is SagaStatus.COMPLETED and not figures.learned:
            # No fact told its shape, but all of its steps have run here.
            figures.learn()
        return seconds


class _Timed:
    """Times what runs inside."""

    __slots__ = ("_begun", "_ctx", "_monotonic", "_ran", "_saga_name")

    def __init__(
        self,
        monotonic: Callable[[], float],
        ran: Callable[[str, SagaContext, float], None],
        saga_name: str,
        ctx: SagaContext,
    ) -> None:
        self._monotonic = monotonic
        self._ran = ran
        self._saga_name = saga_name
        self._ctx = ctx
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = self._monotonic()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ran(self._saga_name, self._ctx, self._monotonic() - self._begun)
