"""A saga survives ``kill -9`` at any instant: each storage write, each call of user code, and again during recovery."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.child import Cut, Report
from tests.crash.lives import Zygote
from tests.crash.schedules import INSTANTS, guilty, run, run_all
from tests.crash.stories import STORIES
from tests.crash.world import World

Zygotes = tuple[Zygote, Zygote]
COMMITTED_OR_NOT = ("written", "committed")
"""The two instants after which the file differs; ``before`` and ``written`` leave the same."""

HEIRS_CUTS = (Cut(write=1, instant="committed"), *(Cut(write=2, instant=instant) for instant in COMMITTED_OR_NOT))
"""The heir's claim, and its append after it; a claim that was not committed has left nothing behind."""


def undisturbed(zygotes: Zygotes, place: Path, story: str) -> Report:
    """Let the saga run without a death, and return what it left."""
    outcome = run(zygotes[0], place / "undisturbed", story, [])
    assert outcome.problems == []
    assert outcome.last is not None
    return outcome.last


@pytest.mark.parametrize("story", STORIES)
def test_a_saga_that_nobody_kills_makes_one_durable_write_a_step_and_one_more(
    zygotes: Zygotes, place: Path, story: str
) -> None:
    """The writes that are killed below are all there are, each holding an outcome and the start of what comes next."""
    report = undisturbed(zygotes, place, story)
    expected = STORIES[story].writes
    # Siblings' outcomes may share a write; no step has more than one for each of its two phases, and one retry.
    assert report.writes == expected if expected else 4 <= report.writes <= 9
    appended = [fact for facts in report.seen.values() for fact in facts]
    assert appended == [fact for facts in report.journals.values() for fact in facts]


@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("story", STORIES)
def test_a_saga_survives_a_kill_at_every_storage_write(zygotes: Zygotes, place: Path, story: str, instant: str) -> None:
    """Whoever finishes it repeats only what is UNKNOWN, loses no undo and keeps the order."""
    writes = undisturbed(zygotes, place, story).writes
    schedules = [[Cut(write=write, instant=instant)] for write in range(1, writes + 1)]
    assert guilty(run_all(zygotes, place, story, schedules)) == []


@pytest.mark.parametrize("story", STORIES)
def test_a_saga_survives_a_kill_at_every_place_of_its_user_code(zygotes: Zygotes, place: Path, story: str) -> None:
    """Before an action's effect, after it, and the same in compensations."""
    undisturbed(zygotes, place, story)
    world = World(place / "undisturbed")
    effects = {key for _, key in world.bank("s-1")}
    calls = list(dict.fromkeys((call["step"], call["phase"]) for call in world.calls("s-1")))
    places = [(step, phase, "before") for step, phase in calls]
    places += [(step, phase, "after") for step, phase in calls if f"s-1:{step}:action" in effects]
    assert len(places) >= len(calls) + 1
    schedules = [[Cut(place=at)] for at in places]
    assert guilty(run_all(zygotes, place, story, schedules)) == []


@pytest.mark.parametrize("instant", COMMITTED_OR_NOT)
@pytest.mark.parametrize("story", ["chain backward", "diamond backward", "pivot forward"])
def test_a_saga_survives_a_kill_of_its_heir_too(zygotes: Zygotes, place: Path, story: str, instant: str) -> None:
    """The second process dies at its claim or at the append after it; a third one finishes."""
    writes = undisturbed(zygotes, place, story).writes
    first_deaths = [Cut(write=write, instant=instant) for write in range(1, writes + 1)]
    once = run_all(zygotes, place / "once", story, [[cut] for cut in first_deaths])
    twice = [
        [first, second]
        for first, outcome in zip(first_deaths, once, strict=True)
        for second in HEIRS_CUTS
        if outcome.last is not None and second.write <= outcome.last.writes
    ]
    assert len(twice) > len(first_deaths)
    assert guilty(run_all(zygotes, place / "twice", story, twice)) == []
