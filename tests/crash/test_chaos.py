"""Two workers, killed again and again at random while they share two hundred sagas, half of them declined."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.crash.child import Request
from tests.crash.judge import judge
from tests.crash.lives import End, Zygote
from tests.crash.schedules import LATER, case_of

STORIES = ("chain forward", "chain backward", "diamond forward", "diamond backward")
SAGAS = {story: tuple(f"{story.replace(' ', '-')}-{number}" for number in range(50)) for story in STORIES}
DEADLINE_SECONDS = 300.0


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_SECONDS + 60)
@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_sagas_survive_random_kills_of_their_two_workers(
    zygotes: tuple[Zygote, Zygote], place: Path, seed: int
) -> None:
    """Leases are real and short; every saga ends as its story says, whatever was cut off."""
    for story, sagas in SAGAS.items():
        crowd = Request(directory=str(place), story=story, role="crowd", sagas=sagas, gate="a")
        assert zygotes[0].live(crowd).killed
    everything = tuple(saga for sagas in SAGAS.values() for saga in sagas)
    share = Request(directory=str(place), role="share", sagas=everything, ahead=LATER, pause=0.1, lease=0.6, sweep=0.1)
    kills, last = kill_until_done(zygotes, share, random.Random(seed))  # noqa: S311 - the same kills for the same seed
    assert kills >= 15
    report = last.done()
    for story, sagas in SAGAS.items():
        for saga in sagas:
            assert judge(case_of(place, story, report, saga)) == [], saga


def kill_until_done(zygotes: tuple[Zygote, Zygote], share: Request, chance: random.Random) -> tuple[int, End]:
    """Kill either worker after a random while and start it anew, until one finds nothing left to do."""
    processes = [zygote.start(share) for zygote in zygotes]
    until = time.monotonic() + DEADLINE_SECONDS
    kills = 0
    while True:
        time.sleep(chance.uniform(0.05, 0.45))
        assert time.monotonic() < until, f"after {kills} kills not all sagas are at rest"
        victim = chance.randrange(2)
        with suppress(ProcessLookupError):
            # It may have ended by itself in the meantime; its zygote tells.
            os.kill(processes[victim], signal.SIGKILL)
        end = zygotes[victim].wait()
        if not end.killed:
            zygotes[1 - victim].wait().done()
            return kills, end
        kills += 1
        processes[victim] = zygotes[victim].start(share)
