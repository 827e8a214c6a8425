"""Shows readings to the OpenTelemetry metrics API: counts when they are asked for, durations as they come."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import MeterProvider, Observation

from saga.exceptions import SagaExecutionError
from saga.monitoring._families import DURATION, FAMILIES, STEP_DURATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.metrics import CallbackOptions

    from saga.monitoring._families import Family
    from saga.monitoring._readings import Labels, Reading

COLLECTION_SECONDS = 1.0
"""Instruments that are asked within this time of each other are asked for one collection."""

_TAKEN: WeakSet[MeterProvider] = WeakSet()
_TAKEN_GLOBALLY: WeakSet[MeterProvider] = WeakSet()
"""Providers through which figures are exported; of a second instrument of one name they drop what it says."""


class Instruments:
    """The instruments of one meter.

    The API has no histogram that is asked for its state, so durations are recorded one by one.
    """

    def __init__(
        self, read: Callable[[], Reading], provider: MeterProvider | None, monotonic: Callable[[], float]
    ) -> None:
        """Make an instrument for each family; through the global provider if none is given.

        Raises:
            SagaExecutionError: If other figures are exported through this provider.
        """
        current = metrics.get_meter_provider()
        provider = current if provider is None else provider
        # What was exported before the application set its provider goes through that one afterwards.
        if provider in _TAKEN or (provider is current and _TAKEN_GLOBALLY):
            message = (
                "this MeterProvider has a SagaMetrics and would drop what a second one counts: share one SagaMetrics"
            )
            raise SagaExecutionError(message)
        _TAKEN.add(provider)
        if provider is current:
            _TAKEN_GLOBALLY.add(provider)
        meter = metrics.get_meter("saga", meter_provider=provider)
        self._collection = _Collection(read, monotonic)
        for family in FAMILIES:
            if family.kind == "counter":
                meter.create_observable_counter(family.otel, [self._reader(family)], family.unit, family.text)
            elif family.kind == "gauge":
                meter.create_observable_gauge(family.otel, [self._reader(family)], family.unit, family.text)
        self._sagas, self._steps = (
            meter.create_histogram(
                family.otel, family.unit, family.text, explicit_bucket_boundaries_advisory=family.buckets
            )
            for family in (DURATION, STEP_DURATION)
        )

    def saga_duration(self, labels: Labels, seconds: float) -> None:
        """Record how long a saga took."""
        self._sagas.record(seconds, dict(zip(DURATION.labels, labels, strict=True)))

    def step_duration(self, labels: Labels, seconds: float) -> None:
        """Record how long an attempt's user code ran."""
        self._steps.record(seconds, dict(zip(STEP_DURATION.labels, labels, strict=True)))

    def _reader(self, family: Family) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            values = self._collection.values(family)
            return [
                Observation(value, dict(zip(family.labels, labels, strict=True))) for labels, value in values.items()
            ]

        return observe


class _Collection:
    """One reading for all instruments of a collection; the API does not say when one begins.

    An instrument that asks again is in the next one, and so is one that asks much later.
    """

    def __init__(self, read: Callable[[], Reading], monotonic: Callable[[], float]) -> None:
        self._read = read
        self._monotonic = monotonic
        self._lock = Lock()
        self._asked: set[str] = set()
        self._reading: Reading = {}
        self._until = 0.0

    def values(self, family: Family) -> Mapping[Labels, float]:
        """Return what an instrument shows."""
        with self._lock:
            now = self._monotonic()
            if family.name in self._asked or now >= self._until:
                self._reading = self._read()
                self._asked.clear()
                self._until = now + COLLECTION_SECONDS
            self._asked.add(family.name)
            return self._reading.get(family.name, {})
