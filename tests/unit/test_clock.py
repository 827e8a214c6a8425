"""The clock that tests move, and the host's clock."""

import asyncio
import time

import pytest

from saga.clock import Clock, SystemClock, sleep
from saga.testing import FakeClock


def test_time_stands_still_until_it_is_moved() -> None:
    """All of a FakeClock's clocks move together."""
    clock = FakeClock(now=100.0)
    before = (clock.now(), clock.monotonic(), clock.boot_time())
    assert (clock.now(), clock.monotonic(), clock.boot_time()) == before
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic(), clock.boot_time()) == tuple(instant + 2.5 for instant in before)


def test_timers_fire_in_the_order_of_their_time_and_see_their_own_instant() -> None:
    """Ties fire in the order they were set; what is not due stays."""
    clock = FakeClock(now=0.0)
    fired: list[tuple[str, float]] = []

    def set_timer(name: str, seconds: float) -> None:
        clock.call_later(seconds, lambda: fired.append((name, clock.now())))

    for name, seconds in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0), ("d", 9.0)):
        set_timer(name, seconds)
    clock.advance(3.0)
    assert fired == [("a", 1.0), ("b1", 2.0), ("b2", 2.0), ("c", 3.0)]
    assert clock.next_timer() == 6.0
    clock.advance(6.0)
    assert fired[-1] == ("d", 9.0)
    assert clock.next_timer() is None


def test_a_timer_that_a_timer_sets_fires_where_it_comes_due() -> None:
    """Within the same move."""
    clock = FakeClock(now=0.0)
    fired: list[float] = []

    def first() -> None:
        fired.append(clock.now())
        clock.call_later(1.0, lambda: fired.append(clock.now()))
        clock.call_later(5.0, lambda: fired.append(clock.now()))

    clock.call_later(1.0, first)
    clock.advance(4.0)
    assert fired == [1.0, 2.0]
    assert clock.now() == 4.0


def test_a_cancelled_timer_does_not_fire() -> None:
    """And it is not the next one."""
    clock = FakeClock()
    fired: list[int] = []
    clock.call_later(1.0, lambda: fired.append(1)).cancel()
    assert clock.next_timer() is None
    clock.advance(2.0)
    assert fired == []


def test_a_timer_for_no_time_at_all_waits_for_a_move() -> None:
    """As on a real loop, nothing is called back before the caller returned."""
    clock = FakeClock()
    fired: list[int] = []
    clock.call_later(0.0, lambda: fired.append(1))
    assert fired == []
    clock.advance(0.0)
    assert fired == [1]


@pytest.mark.parametrize("seconds", [-0.1, float("nan")])
def test_a_clock_does_not_go_back(seconds: float) -> None:
    """Only the wall clock may be set."""
    clock = FakeClock(now=100.0)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(seconds)
    before = clock.monotonic()
    clock.set_wall_time(50.0)
    assert (clock.now(), clock.monotonic()) == (50.0, before)


def test_chance_is_what_the_test_says() -> None:
    """Tokens differ, and a second clock repeats them."""
    clock = FakeClock()
    assert clock.random() == 0.5
    clock.number = 0.25
    assert clock.random() == 0.25
    assert [clock.token(), clock.token()] == [FakeClock().token(), "token-2"]


@pytest.mark.asyncio
async def test_sleeping_ends_when_the_clock_was_moved_far_enough() -> None:
    """Through the Clock, so that no test waits."""
    clock = FakeClock()
    sleeper = asyncio.create_task(sleep(clock, 10.0))
    await asyncio.sleep(0)
    clock.advance(9.0)
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.advance(1.0)
    await sleeper


@pytest.mark.asyncio
async def test_a_sleep_that_is_cancelled_forgets_its_timer() -> None:
    """Nothing is left that could fire."""
    clock = FakeClock()
    sleeper = asyncio.create_task(sleep(clock, 10.0))
    await asyncio.sleep(0)
    assert clock.next_timer() == 10.0
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert clock.next_timer() is None


def test_the_hosts_clocks_go_forward() -> None:
    """And its tokens don't repeat."""
    clock: Clock = SystemClock()
    before = (clock.monotonic(), clock.boot_time())
    assert abs(clock.now() - time.time()) < 5
    assert clock.monotonic() >= before[0]
    assert clock.boot_time() >= before[1]
    assert clock.boot_id() == clock.boot_id()
    assert 0.0 <= clock.random() <= 1.0
    assert len({clock.token() for _ in range(100)}) == 100
