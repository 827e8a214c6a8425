"""What ``SagaMetrics.snapshot()`` returns: plain figures, frozen; and how they come from counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from saga.types import Phase, SagaStatistics, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from saga.monitoring._figures import Counts, Figures, Histogram, Live, Work


class Durations(msgspec.Struct, frozen=True):
    """How long something took, in seconds. Percentiles are true to within 14 %.

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
        started: Sagas that this process was the first to drive: created here, or stored by ``start(connection=)``.
        by_status: How many are in each status now, as far as this process knows. These it drives, ended, or saw fail
            or park; a saga that it gave away, or lost, is in no status, and one that it claimed from another process
            is in none until its next attempt tells the direction. One that FAILED or parked leaves its status when it
            is claimed here again; what other processes do with it is seen in ``stored`` only.
        in_flight: Sagas that this process drives now.
        oldest_unfinished: Age in seconds of the oldest of those; None if there is none.
        durations: From creation to an end, by the status there. Each end counts: a saga that FAILED, was tried again
            and rolled back has two.
        attempts: Attempts that ended, of actions and compensations.
        retries: Attempts that are repeated after a failure.
        compensations: Compensations that succeeded.
        failures: Attempts that failed definitely.
        takeovers: Sagas taken over from a process that gave no sign of life.
        steps: Figures by step and phase; steps beyond those that are told apart stand under ``other``.
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


def snapshot_of(counts: Counts, now: float) -> MetricsSnapshot:
    """Return what people look at.

    Args:
        counts: What is counted.
        now: This process's monotonic clock.
    """
    by_name: dict[int, list[Live]] = defaultdict(list)
    for live in counts.live.values():
        by_name[id(live.figures)].append(live)
    return MetricsSnapshot(
        sagas={name: _figures_of(figures, by_name[id(figures)], now) for name, figures in counts.figures.items()},
        leases_lost=counts.leases_lost,
        observer_errors=dict(counts.errors),
        stored=counts.stored,
    )


def _figures_of(figures: Figures, live: Collection[Live], now: float) -> SagaFigures:
    by_status = figures.resting + Counter(each.status for each in live)
    works = figures.works.values()
    return SagaFigures(
        started=figures.started,
        by_status={status: count for status, count in by_status.items() if status is not None},
        in_flight=len(live),
        oldest_unfinished=max((now - each.since for each in live), default=None),
        durations={status: _durations_of(histogram) for status, histogram in figures.durations.items()},
        attempts=sum(work.succeeded + work.failed + work.unknown for work in works),
        retries=sum(work.retries for work in works),
        compensations=sum(work.succeeded for work in works if work.phase is Phase.COMPENSATION),
        failures=sum(work.failed for work in works),
        takeovers=figures.takeovers,
        steps={(work.label, work.phase.value): _step_of(work) for work in works},
    )


def _step_of(work: Work) -> StepFigures:
    return StepFigures(
        succeeded=work.succeeded,
        failed=work.failed,
        unknown=work.unknown,
        durations=_durations_of(work.durations),
    )


def _durations_of(histogram: Histogram) -> Durations:
    p50, p95, p99 = (histogram.percentile(percent) for percent in (50, 95, 99))
    return Durations(histogram.count, histogram.total, histogram.least, histogram.most, p50, p95, p99)
