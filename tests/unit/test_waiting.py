"""Latches: something happens once, and whoever waits may give up."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from functools import partial

import pytest

from saga.waiting import Latch
from tests.virtual import VirtualClock


@pytest.mark.asyncio
async def test_everybody_gets_the_first_value() -> None:
    """Those who wait, and those who come later; what is set afterwards is ignored."""
    latch: Latch[int] = Latch()
    waiting = [asyncio.create_task(latch.wait()) for _ in range(3)]
    await asyncio.sleep(1)
    latch.set(1)
    latch.set(2)
    latch.fail(ValueError())
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert await latch.wait() == 1


@pytest.mark.asyncio
async def test_everybody_gets_the_error() -> None:
    """It stays the same one."""
    latch: Latch[int] = Latch()
    waiting = asyncio.create_task(latch.wait())
    await asyncio.sleep(1)
    latch.fail(error := ValueError("boom"))
    latch.set(1)
    for each in (waiting, latch.wait()):
        with pytest.raises(ValueError, match="boom") as raised:
            await each
        assert raised.value is error


@pytest.mark.asyncio
async def test_a_waiter_that_gives_up_disturbs_nobody() -> None:
    """Neither the others nor who sets the value."""
    latch: Latch[None] = Latch()
    patient, hasty = asyncio.create_task(latch.wait()), asyncio.create_task(latch.wait())
    timed = asyncio.create_task(latch.wait_up_to(100, VirtualClock()))
    await asyncio.sleep(1)
    hasty.cancel()
    timed.cancel()
    await asyncio.sleep(1)
    latch.set(None)
    assert await patient is None
    assert hasty.cancelled()
    assert timed.cancelled()


@pytest.mark.parametrize(
    ("seconds", "done", "after"), [(5, False, 5), (-1, False, 0), (20, True, 10), (None, True, 10)]
)
@pytest.mark.asyncio
async def test_waiting_can_be_bounded(seconds: float | None, *, done: bool, after: float) -> None:
    """It says whether the value is set, and takes no longer than needed."""
    latch: Latch[None] = Latch()
    loop = asyncio.get_running_loop()
    loop.call_later(10, latch.set, None)
    assert await latch.wait_up_to(seconds, VirtualClock()) is done
    assert loop.time() == after
    await asyncio.sleep(20)
    assert await latch.wait_up_to(seconds, VirtualClock())


@pytest.mark.asyncio
async def test_an_error_is_something_that_is_set_too() -> None:
    """Who only waits up to a time learns that it is, and not what."""
    latch: Latch[None] = Latch()
    latch.fail(ValueError())
    assert await latch.wait_up_to(0, VirtualClock())


@pytest.mark.asyncio
async def test_waiters_that_gave_up_leave_nothing_behind() -> None:
    """A saga that rests after a month has been waited for by many."""
    latch: Latch[int] = Latch()

    async def give_up() -> None:
        for wait in (latch.wait, partial(latch.wait_up_to, None, VirtualClock("one"))):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await wait()

    await give_up()
    before = futures()
    for _ in range(10):
        await give_up()
    assert futures() == before
    waiting = asyncio.create_task(latch.wait())
    await asyncio.sleep(1)
    latch.set(1)
    assert await waiting == 1


def futures() -> int:
    """Return how many futures somebody still holds."""
    gc.collect()
    return sum(type(each) is asyncio.Future for each in gc.get_objects())
