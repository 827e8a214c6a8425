"""Schedules of deaths: which lives a saga has, and where each of them is cut off."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.child import Cut, Report, Request
from tests.crash.judge import Case, judge
from tests.crash.lives import Zygote
from tests.crash.stories import STORIES
from tests.crash.world import World

INSTANTS = ("before", "written", "committed")
LATER = 60.0
"""Seconds that each life's clock is ahead of the one before it: the lease of the dead has run out."""


@dataclass
class Outcome:
    """What became of one schedule.

    Attributes:
        cuts: Where its lives were cut off.
        problems: Everything that is wrong.
        last: The report of the life that came to its end.
    """

    cuts: Sequence[Cut]
    problems: list[str] = field(default_factory=list)
    last: Report | None = None


def run(zygote: Zygote, place: Path, story: str, cuts: Sequence[Cut]) -> Outcome:
    """Let a saga live through these deaths and one last life, and judge what it leaves."""
    place.mkdir(parents=True)
    outcome = Outcome(cuts)
    for number, cut in enumerate([*cuts, None]):
        role = "heir" if number else "first"
        request = Request(directory=str(place), story=story, role=role, ahead=LATER * number, cut=cut)
        end = zygote.live(request)
        if cut is None:
            outcome.last = end.report
        elif not end.killed:
            outcome.problems.append(f"life {number + 1} was to be killed and ended with status {end.status}")
            return outcome
    if outcome.last is None:
        outcome.problems.append("the last life did not come to its end")
    else:
        outcome.problems += judge(case_of(place, story, outcome.last, "s-1"))
    return outcome


def run_all(zygotes: Iterable[Zygote], place: Path, story: str, schedules: Sequence[Sequence[Cut]]) -> list[Outcome]:
    """Run schedules, as many at once as there are zygotes."""
    free: queue.SimpleQueue[Zygote] = queue.SimpleQueue()
    for zygote in zygotes:
        free.put(zygote)

    def run_one(number: int) -> Outcome:
        zygote = free.get()
        try:
            return run(zygote, place / f"{number}", story, schedules[number])
        finally:
            free.put(zygote)

    with ThreadPoolExecutor(free.qsize()) as threads:
        return list(threads.map(run_one, range(len(schedules))))


def guilty(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the schedules that something is wrong with."""
    return [outcome for outcome in outcomes if outcome.problems]


def case_of(place: Path, story: str, report: Report, saga_id: str) -> Case:
    """Return what one saga left behind."""
    world = World(place)
    return Case(
        saga_id=saga_id,
        end=STORIES[story].end,
        status=report.statuses.get(saga_id),
        dependencies=STORIES[story].dependencies,
        journal=list(report.journals.get(saga_id, [])),
        calls=world.calls(saga_id),
        bank=world.bank(saga_id),
    )
