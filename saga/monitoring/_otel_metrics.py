"""Shows readings to the OpenTelemetry metrics API: counts when they are asked for, durations as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from saga.monitoring._histogram import Histogram
from saga.monitoring.families import DURATION, FAMILIES, STEP_DURATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider

    from saga.monitoring._readings import Reading
    from saga.monitoring.families import Family


class Instruments:
    """The instruments of one meter.

    The API has no histogram that is asked for its state, so durations are recorded one by one.
    """

    def __init__(self, read: Callable[[], Reading], provider: MeterProvider | None) -> None:
        """Make an instrument for each family; through the global provider if none is given."""
        meter = metrics.get_meter("saga", meter_provider=provider)
        self._read = read
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

    def saga_duration(self, saga: str, outcome: str, seconds: float) -> None:
        """Record how long a saga took."""
        self._sagas.record(seconds, {"saga": saga, "outcome": outcome})

    def step_duration(self, saga: str, step: str, phase: str, seconds: float) -> None:
        """Record how long an attempt's user code ran."""
        self._steps.record(seconds, {"saga": saga, "step": step, "phase": phase})

    def _reader(self, family: Family) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, dict(zip(family.labels, labels, strict=True)))
                for labels, value in self._read().get(family.name, ())
                if not isinstance(value, Histogram)
            ]

        return observe
