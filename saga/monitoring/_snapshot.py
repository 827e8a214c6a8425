"""What ``SagaMetrics.snapshot()`` returns: plain figures, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from saga.types import SagaStatistics, SagaStatus

if TYPE_CHECKING:
    from saga.monitoring._histogram import Histogram


class Durations(msgspec.Struct, frozen=True):
    """How long something took, in seconds. Percentiles are true to within 13 %.

    Attributes:
        count: How many durations there are.
        total: Their sum.
        least: The shortest.
        most: The longest.
        p50: Half of all do not exceed this.
        p95: 95 % of all do not exceed this.
        p99: 99 % of all do not exceed this.
    """

    count: int
    total: float
    least: float
    most: float
    p50: float
    p95: float
    p99: float


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of one step.

    Attributes:
        succeeded: Attempts that succeeded.
        failed: Attempts that failed definitely.
        unknown: Attempts of which nobody knows the outcome.
        durations: How long the user's code ran.
    """

    succeeded: int
    failed: int
    unknown: int
    durations: Durations


class SagaFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The sagas of one name, as this process saw them.

    Attributes:
        started: Sagas created here.
        by_status: How many are in each status now, or ended here in it.
        in_flight: Sagas that this process drives now.
        oldest_unfinished: Age in seconds of the oldest of those; None if there is none.
        durations: From creation to the end, by the status at the end.
        attempts: Attempts that ended, of actions and compensations.
        retries: Attempts that are repeated after a failure.
        compensations: Compensations that succeeded.
        failures: Attempts that failed definitely.
        takeovers: Sagas taken over from a process that gave no sign of life.
        steps: Figures by step and phase; steps without a label of their own stand under ``other``.
    """

    started: int
    by_status: Mapping[SagaStatus, int]
    in_flight: int
    oldest_unfinished: float | None
    durations: Mapping[SagaStatus, Durations]
    attempts: int
    retries: int
    compensations: int
    failures: int
    takeovers: int
    steps: Mapping[tuple[str, str], StepFigures]


class MetricsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one instant.

    Attributes:
        sagas: Figures by saga name.
        leases_lost: Sagas that another process took from this one.
        observer_errors: Errors that observers raised, by the observer's type.
        stored: What the storage that is watched said last; None if none is watched or it is away.
    """

    sagas: Mapping[str, SagaFigures]
    leases_lost: int
    observer_errors: Mapping[str, int]
    stored: SagaStatistics | None


def durations_of(histogram: Histogram) -> Durations:
    """Return what a histogram says."""
    p50, p95, p99 = (histogram.percentile(percent) for percent in (50, 95, 99))
    return Durations(histogram.count, histogram.total, histogram.least, histogram.most, p50, p95, p99)
