"""A trip is booked whole or not at all; no place is promised twice, however many trips want it at once."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from saga import (
    AttemptStarted,
    Event,
    Observer,
    Outcome,
    ParallelFailureStrategy,
    Phase,
    SagaInfo,
    SagaStatus,
)
from sagas.demo.domains.travel import DOMAIN, Trip
from sagas.demo.plan import StepFault
from sagas.travel_booking import GRACE_SECONDS, TravelBookingSaga
from tests.acceptance.play import ANSWER_SECONDS, Play, playing

pytestmark = pytest.mark.asyncio

EARLY, LATE = "VIE-LIS early", "VIE-LIS late"
"""A flight with one seat, and one with two."""

NEVER = f"slow={2 * ANSWER_SECONDS}"
"""A fault: no answer in time."""


CAR_SECONDS = 2.0
"""How long the car rental takes where the page compares the strategies."""


class Turn(Observer):
    """Measures how long after its bookings began a saga begins to undo them."""

    def __init__(self) -> None:
        self._began = 0.0
        self.undone_after = -1.0

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Take the time."""
        match event:
            case AttemptStarted(phase=Phase.ACTION):
                self._began = self._began or time.monotonic()
            case AttemptStarted(phase=Phase.COMPENSATION) if self.undone_after < 0:
                self.undone_after = time.monotonic() - self._began


@pytest_asyncio.fixture
async def agency(tmp_path: Path) -> AsyncIterator[Play]:
    """Suppliers of their own for each test."""
    async with playing(DOMAIN, tmp_path, 1) as play:
        yield play


async def test_a_trip_is_confirmed_by_every_supplier(agency: Play) -> None:
    """What was pending is sold once the money is taken; one mail says so."""
    result = await agency.run(Trip("trip-1"))

    result.raise_for_status()
    for supplier in ("airline", "hotel", "car_rental"):
        assert await agency.operations(supplier) == ["pending", "confirmed"]
    assert await agency.complaints() == []


@pytest.mark.parametrize(
    ("strategy", "hotel", "car", "begins"),
    [
        (ParallelFailureStrategy.FAIL_FAST, Outcome.UNKNOWN, Outcome.UNKNOWN, 0.0),
        (ParallelFailureStrategy.FAIL_FAST_WITH_GRACE, Outcome.SUCCEEDED, Outcome.UNKNOWN, GRACE_SECONDS),
        (ParallelFailureStrategy.WAIT_ALL, Outcome.SUCCEEDED, Outcome.SUCCEEDED, CAR_SECONDS),
    ],
)
async def test_the_strategies_differ_in_what_is_known_of_the_other_bookings(
    tmp_path: Path, strategy: ParallelFailureStrategy, hotel: Outcome, car: Outcome, begins: float
) -> None:
    """The flight is refused at once, the hotel answers within the grace period and the car after it."""
    trip = Trip("trip-1", flight=EARLY, if_one_fails=strategy)
    faults = StepFault(step="book_hotel", fault="slow=0.5"), StepFault(step="book_car", fault=f"slow={CAR_SECONDS}")
    turn = Turn()
    async with playing(DOMAIN, tmp_path, 1, turn, answer_seconds=5.0) as agency:
        result = await agency.run(trip, *faults)

        outcomes = {step.name: step.outcome for step in result.steps}
        assert result.status is SagaStatus.ROLLED_BACK
        assert outcomes["book_flight"] is Outcome.FAILED
        assert (outcomes["book_hotel"], outcomes["book_car"]) == (hotel, car)
        assert turn.undone_after >= begins
        assert await agency.complaints() == []


async def test_places_are_never_promised_twice(agency: Play) -> None:
    """Forty trips want twenty seats, ten rooms and ten cars at once: ten complete, and the shelves are even."""
    trips = [Trip(f"trip-{n}") for n in range(40)]
    results = await asyncio.gather(*(agency.run(trip) for trip in trips))

    ended = Counter(result.status for result in results)
    assert set(ended) == {SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK}
    assert 1 <= ended[SagaStatus.COMPLETED] <= 10
    assert await agency.complaints() == []


async def test_a_place_that_is_only_pending_elsewhere_is_waited_for(agency: Play) -> None:
    """The first trip's card is declined, so the second one gets the seats that the first had marked."""
    first = Trip("trip-1", flight=LATE, card="tok_declined")
    second = Trip("trip-2", flight=LATE)
    # Twice no answer in time, so the first one keeps its mark for a second at least.
    early = asyncio.create_task(agency.run(first, StepFault(step="authorise", fault=NEVER, times=2)))
    await until_pending(agency)
    late = await agency.run(second)

    assert (await early).status is SagaStatus.ROLLED_BACK
    assert late.success
    assert late.steps[0].attempts > 1
    assert await agency.complaints() == []


async def test_a_place_that_is_sold_is_not_waited_for(agency: Play) -> None:
    """The seats were confirmed: the answer is final, and the trip turns back at once."""
    await agency.run(Trip("trip-1", flight=LATE))
    result = await agency.run(Trip("trip-2", flight=LATE))

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.steps[0].attempts == 1
    assert await agency.complaints() == []


async def test_a_pending_mark_is_seen_by_everybody(agency: Play) -> None:
    """Neither free nor sold: that is what a semantic lock is for."""
    trip = Trip("trip-1", flight=LATE)
    running = asyncio.create_task(agency.run(trip, StepFault(step="authorise", fault=NEVER, times=2)))
    assert await until_pending(agency) == {"item": LATE, "total": 2, "held": 2}
    (await running).raise_for_status()
    assert await seats_of(agency) == {"item": LATE, "total": 0, "held": 0}
    assert await agency.complaints() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"travellers": 0}, "trip trip-1: travellers must be from 1 to 2**53, not 0"),
        ({"amount": -1}, "trip trip-1: amount must be from 1 to 2**53, not -1"),
        ({"currency": "???"}, "trip trip-1: currency must be one of AUD, CAD, CHF"),
        ({"email": "nobody"}, "trip trip-1: email must be an address such as ann@example.org"),
        ({"trip_id": "a\nb"}, "trip_id must be 1 to 150 printable characters, not 'a\\nb'"),
    ],
)
async def test_a_trip_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    """Before anything is stored, and not after the money was taken."""
    good: dict[str, Any] = {
        "email": "ann@example.org",
        "flight": "f",
        "hotel": "h",
        "car": "c",
        "travellers": 2,
        "amount": 1,
        "card": "tok_good",
    }
    with pytest.raises(ValueError, match=re.escape(said)):
        TravelBookingSaga(change.pop("trip_id", "trip-1"), **{**good, **change})


async def until_pending(agency: Play) -> dict[str, object]:
    """Wait until seats of the late flight are pending, and return what the airline says of it then."""
    async with asyncio.timeout(10):
        while not (seats := await seats_of(agency))["held"]:  # noqa: ASYNC110 - what is asked is another process
            await asyncio.sleep(0.01)
    return seats


async def seats_of(agency: Play) -> dict[str, object]:
    """Return what the airline says of the late flight."""
    pools = (await agency.stage.books()).pools["airline"]
    return next(dict(pool) for pool in pools if pool["item"] == LATE)
