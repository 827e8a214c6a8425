"""Turns counts into what is looked at: a snapshot for people and tests, readings by family for exporters."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from saga.monitoring import families
from saga.monitoring._histogram import Histogram
from saga.monitoring._snapshot import MetricsSnapshot, SagaFigures, StepFigures, durations_of
from saga.types import AT_REST, Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import Collection

    from saga.monitoring._figures import Figures, Live, Work
    from saga.types import SagaStatistics, SagaStatus

Reading = dict[str, list[tuple[tuple[str, ...], float | Histogram]]]
"""By the name of a family: the values of its labels, and what they stand at."""


class Counts:
    """Everything that is counted in this process, taken at one instant.

    Attributes:
        figures: Those of each saga name.
        live: The sagas that this process drives, by id.
        leases_lost: Sagas that another process took from this one.
        errors: Errors that observers raised, by type.
        stored: What the storage said last.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self.figures: dict[str, Figures] = {}
        self.live: dict[str, Live] = {}
        self.leases_lost = 0
        self.errors: Counter[str] = Counter()
        self.stored: SagaStatistics | None = None


def reading_of(counts: Counts, now: float) -> Reading:
    """Return what exporters export.

    Args:
        counts: What is counted.
        now: The wall time.
    """
    reading: Reading = defaultdict(list)
    running = Counter(id(live.figures) for live in counts.live.values())
    for name, figures in counts.figures.items():
        reading[families.STARTED.name].append(((name,), figures.started))
        reading[families.TAKEOVERS.name].append(((name,), figures.takeovers))
        reading[families.RUNNING.name].append(((name,), running[id(figures)]))
        for status, count in figures.finished.items():
            reading[families.FINISHED.name].append(((name, status.value), count))
        for status, histogram in figures.durations.items():
            reading[families.DURATION.name].append(((name, status.value), histogram.copy()))
        _add_works(reading, name, figures)
    reading[families.LEASES_LOST.name].append(((), counts.leases_lost))
    reading[families.BUILD.name].append(((_version(),), 1))
    for observer, count in counts.errors.items():
        reading[families.OBSERVER_ERRORS.name].append(((observer,), count))
    if counts.stored is not None:
        _add_stored(reading, counts.stored, now)
    return reading


def _add_works(reading: Reading, name: str, figures: Figures) -> None:
    retries: Counter[str] = Counter()
    for work in figures.works.values():
        labels = (name, work.label, work.phase.value)
        for outcome, count in _outcomes(work).items():
            if count:
                reading[families.ATTEMPTS.name].append(((*labels, outcome), count))
        if work.durations.count:
            reading[families.STEP_DURATION.name].append((labels, work.durations.copy()))
        retries[work.phase.value] += work.retries
    for phase, count in retries.items():
        reading[families.RETRIES.name].append(((name, phase), count))


def _outcomes(work: Work) -> dict[str, int]:
    return {
        Outcome.SUCCEEDED.value: work.succeeded,
        Outcome.FAILED.value: work.failed,
        Outcome.UNKNOWN.value: work.unknown,
    }


def _add_stored(reading: Reading, stored: SagaStatistics, now: float) -> None:
    for name, by_status in stored.by_status.items():
        in_flight = sum(count for status, count in by_status.items() if status not in AT_REST)
        reading[families.IN_FLIGHT.name].append(((name,), in_flight))
    reading[families.NEEDS_ATTENTION.name].append(((), stored.needs_attention))
    since = stored.oldest_unfinished_at
    reading[families.OLDEST.name].append(((), 0.0 if since is None else max(0.0, now - since)))


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
    by_status: Counter[SagaStatus] = Counter(figures.finished)
    by_status.update(each.status for each in live)
    works = figures.works.values()
    return SagaFigures(
        started=figures.started,
        by_status=dict(by_status),
        in_flight=len(live),
        oldest_unfinished=max((now - each.since for each in live), default=None),
        durations={status: durations_of(histogram) for status, histogram in figures.durations.items()},
        attempts=sum(sum(_outcomes(work).values()) for work in works),
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
        durations=durations_of(work.durations),
    )


@cache
def _version() -> str:
    try:
        return version("saga-journal")
    except PackageNotFoundError:
        # Run from a source tree that is not installed.
        return "unknown"
