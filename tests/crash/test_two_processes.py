"""Two processes on one SQLite file: each saga has one driver, and one that was paused past its lease writes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.child import Cut, Report, Request
from tests.crash.judge import judge, kind_of
from tests.crash.lives import Zygote
from tests.crash.schedules import LATER, case_of
from tests.crash.stories import STORIES
from tests.crash.world import World

Zygotes = tuple[Zygote, Zygote]
CROWD = tuple(f"s-{number}" for number in range(100))
DEADLINE_SECONDS = 20.0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it never held"
        time.sleep(0.005)


def test_each_of_a_hundred_sagas_is_driven_by_exactly_one_of_two_processes(zygotes: Zygotes, place: Path) -> None:
    """Both sweep the same file for what a dead process left, and nothing runs twice."""
    crowd = Request(directory=str(place), story="chain backward", role="crowd", sagas=CROWD, gate="b")
    assert zygotes[0].live(crowd).killed
    share = Request(directory=str(place), role="share", sagas=CROWD, ahead=LATER, sweep=0.02)
    processes = [zygote.start(share) for zygote in zygotes]
    reports = [zygote.wait().done() for zygote in zygotes]
    drivers = []
    for saga_id in CROWD:
        case = case_of(place, "chain backward", reports[0], saga_id)
        assert judge(case) == []
        owners = [fact["owner"] for fact in case.of_kind("claimed")]
        assert len(owners) == 2, "its first process, and one heir"
        [driver] = {call["pid"] for call in case.calls if call["pid"] in processes}
        assert owners[1].endswith(f":{driver}")
        drivers.append(driver)
    assert set(drivers) == set(processes), "both had their share"


@pytest.mark.parametrize("story", ["chain forward", "chain backward", "diamond sibling", "pivot forward"])
def test_a_process_that_is_paused_in_front_of_a_write_has_every_write_refused(
    zygotes: Zygotes, place: Path, story: str
) -> None:
    """For its own clock no time has passed, so nothing but the claim token stops it."""
    paused, heir = zygotes
    for write in range(1, (STORIES[story].writes or 6) + 1):
        directory = place / f"{write}"
        directory.mkdir()
        cut = Cut(write=write, instant="before", stop=True)
        process = paused.start(Request(directory=str(directory), story=story, cut=cut))
        paused.wait_until_stopped()
        request = Request(directory=str(directory), story=story, role="heir", ahead=LATER)
        report = heir.live(request).done()
        calls = World(directory).calls("s-1")
        os.kill(process, signal.SIGCONT)
        late = paused.wait().done()
        assert_nothing_was_added(report, late)
        assert World(directory).calls("s-1") == calls, "it called nothing after it had lost the saga"
        assert judge(case_of(directory, story, late, "s-1")) == []


def test_a_process_that_is_paused_in_a_step_past_its_lease_stops_when_it_wakes(zygotes: Zygotes, place: Path) -> None:
    """With real leases: another one takes over after the ttl and finishes; the paused one finds its claim gone."""
    paused, heir = zygotes
    first = Request(directory=str(place), story="chain forward", gate="c", lease=0.6)
    process = paused.start(first)
    wait_for(lambda: any(call["step"] == "c" for call in World(place).calls("s-1")))
    os.kill(process, signal.SIGSTOP)
    paused.wait_until_stopped()
    report = heir.live(Request(directory=str(place), story="chain forward", role="heir", lease=0.6, sweep=0.1)).done()
    (place / "open").touch()
    os.kill(process, signal.SIGCONT)
    late = paused.wait().done()
    assert_nothing_was_added(report, late)
    assert late.left == {"s-1": "lost"}
    assert judge(case_of(place, "chain forward", late, "s-1")) == []


def assert_nothing_was_added(heir: Report, late: Report) -> None:
    """All that stands after the takeover was appended by the heir, and all before it by the other process."""
    journal = late.journals["s-1"]
    assert journal == heir.journals["s-1"]
    claims = [place for place, fact in enumerate(journal) if kind_of(fact) == "claimed"]
    if len(claims) == 1:
        # It was paused before the saga existed; the heir created it.
        assert heir.seen["s-1"] == journal
        assert late.seen == {}
        return
    takeover = claims[-1]
    assert heir.seen["s-1"] == journal[takeover:]
    assert late.seen["s-1"] == journal[:takeover]
