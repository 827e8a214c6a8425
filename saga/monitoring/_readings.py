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
    from collections.abc import Collection, Mapping

    from saga.monitoring._figures import Figures, Live
    from saga.types import SagaStatistics, SagaStatus

Reading = dict[str, list[tuple[tuple[str, ...], float | Histogram]]]
"""By the name of a family: the values of its labels, and what they stand at."""

_NOTHING = Histogram()


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
        self.errors: Mapping[str, int] = {}
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
            reading[families.FINISHED.name].append(((name, status), count))
        for status, histogram in figures.durations.items():
            reading[families.DURATION.name].append(((name, status), histogram.copy()))
        for attempt, count in figures.attempts.items():
            reading[families.ATTEMPTS.name].append(((name, *attempt), count))
        for work, histogram in figures.step_durations.items():
            reading[families.STEP_DURATION.name].append(((name, *work), histogram.copy()))
        for phase, count in figures.retries.items():
            reading[families.RETRIES.name].append(((name, phase), count))
    reading[families.LEASES_LOST.name].append(((), counts.leases_lost))
    reading[families.BUILD.name].append(((_version(),), 1))
    for observer, count in counts.errors.items():
        reading[families.OBSERVER_ERRORS.name].append(((observer,), count))
    if counts.stored is not None:
        _add_stored(reading, counts.stored, now)
    return reading


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
    outcomes: Counter[str] = Counter()
    for (_, _, outcome), count in figures.attempts.items():
        outcomes[outcome] += count
    undone = sum(
        count
        for (_, phase, outcome), count in figures.attempts.items()
        if (phase, outcome) == (Phase.COMPENSATION, Outcome.SUCCEEDED)
    )
    return SagaFigures(
        started=figures.started,
        by_status=dict(by_status),
        in_flight=len(live),
        oldest_unfinished=max((now - each.since for each in live), default=None),
        durations={status: durations_of(histogram) for status, histogram in figures.durations.items()},
        attempts=outcomes.total(),
        retries=figures.retries.total(),
        compensations=undone,
        failures=outcomes[Outcome.FAILED],
        takeovers=figures.takeovers,
        steps=_steps_of(figures),
    )


def _steps_of(figures: Figures) -> dict[tuple[str, str], StepFigures]:
    works = dict.fromkeys([*figures.step_durations, *((step, phase) for step, phase, _ in figures.attempts)])
    return {
        (step, phase): StepFigures(
            succeeded=figures.attempts[step, phase, Outcome.SUCCEEDED],
            failed=figures.attempts[step, phase, Outcome.FAILED],
            unknown=figures.attempts[step, phase, Outcome.UNKNOWN],
            durations=durations_of(figures.step_durations.get((step, phase), _NOTHING)),
        )
        for step, phase in works
    }


@cache
def _version() -> str:
    try:
        return version("saga-journal")
    except PackageNotFoundError:
        # Run from a source tree that is not installed.
        return "unknown"
