"""What running sagas share: slots, tasks, and warnings."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from saga import Limits
from saga.environment import Environment, Slots
from saga.observers import Observers
from tests.unit.kit import memory
from tests.virtual import VirtualClock


def environment(**limits: Any) -> Environment:
    """An environment in virtual time."""
    return Environment(memory(), VirtualClock(), Observers(()), {}, Limits(**limits), ttl=15.0)


async def take(slots: Slots, log: list[str], name: str) -> None:
    """Take a slot and write it down."""
    await slots.take()
    log.append(name)


@pytest.mark.asyncio
async def test_slots_go_to_who_waits_longest() -> None:
    """First come, first served, also where one is free just now."""
    slots, log = Slots(1), []
    await slots.take()
    waiting = [asyncio.create_task(take(slots, log, name)) for name in "abc"]
    await asyncio.sleep(1)
    assert log == []
    slots.give_back()
    late = asyncio.create_task(take(slots, log, "late"))
    await asyncio.sleep(1)
    assert log == ["a"]
    for _ in range(3):
        slots.give_back()
        await asyncio.sleep(1)
    assert log == ["a", "b", "c", "late"]
    assert slots.free == 0
    await asyncio.gather(*waiting, late)


@pytest.mark.asyncio
async def test_a_slot_taken_at_once_is_paid_back_before_anybody_gets_one() -> None:
    """The bound may be passed for a while; it is kept again as soon as possible."""
    slots, log = Slots(1), []
    await slots.take()
    await slots.take(at_once=True)
    assert slots.free == -1
    waiting = asyncio.create_task(take(slots, log, "a"))
    await asyncio.sleep(1)
    slots.give_back()
    await asyncio.sleep(1)
    assert log == []
    slots.give_back()
    await waiting
    slots.give_back()
    assert slots.free == 1


@pytest.mark.asyncio
async def test_who_gives_up_waiting_takes_no_slot_with_it() -> None:
    """Neither before nor in the moment in which it got one."""
    slots, log = Slots(1), []
    await slots.take()
    gone, late, next_one = (asyncio.create_task(take(slots, log, name)) for name in ("gone", "late", "next"))
    await asyncio.sleep(1)
    gone.cancel()
    await asyncio.sleep(1)
    slots.give_back()
    late.cancel()
    await asyncio.sleep(1)
    assert log == ["next"]
    assert (gone.cancelled(), late.cancelled()) == (True, True)
    slots.give_back()
    assert slots.free == 1
    await next_one


@pytest.mark.asyncio
async def test_a_task_is_kept_until_it_ends_and_cancelled_at_the_end() -> None:
    """But not waited for longer than an interrupted attempt may take."""

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(1_000)
            except asyncio.CancelledError:
                ended.append("cancelled")

    ended: list[str] = []
    env = environment(abandon_after=3)
    await env.close()
    quick = env.spawn(asyncio.sleep(0))
    slow = env.spawn(stubborn())
    await asyncio.sleep(1)
    assert quick.done()
    await env.close()
    assert asyncio.get_running_loop().time() == 4
    assert ended == ["cancelled"]
    slow.cancel()
    await slow


@pytest.mark.asyncio
async def test_a_task_may_close_what_it_belongs_to() -> None:
    """It does not wait for itself."""
    env = environment()
    await env.spawn(env.close())


def test_each_text_is_warned_of_once() -> None:
    """For each saga."""
    env = environment()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for saga_name in ("A", "A", "B"):
            env.warner(saga_name)("slow")
    assert [str(each.message) for each in told] == ["saga 'A': slow", "saga 'B': slow"]


def test_without_a_ttl_nobody_could_take_a_saga_over() -> None:
    """Its claims never run out, and it sleeps through the longest pause."""
    env = Environment(memory(), VirtualClock(), Observers(()), {}, Limits(), ttl=None)
    assert (env.ttl, env.patient) == (float("inf"), False)
    assert environment().patient
