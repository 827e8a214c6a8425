"""Services that are killed and come back: before the pivot sagas turn back, at it and after it they wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from saga import AttemptFailed, AttemptUnknown, Event, Observer, Phase, SagaInfo, SagaStatus
from sagas.demo.domains import DOMAINS
from sagas.demo.plan import StepFault
from tests.acceptance.play import pivot_of, playing

pytestmark = pytest.mark.asyncio

PIVOTS = {"order": "payment", "payment": "payment", "trade": "venue_north", "travel": "payment"}
"""Whose pivot is the call of which service."""

BUDGET = 4
"""Attempts that a step before the pivot has."""

PATIENCE_SECONDS = 30.0


class Doubts(Observer):
    """Counts the attempts of each step that had no good end."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._grew = asyncio.Event()

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Count."""
        if isinstance(event, AttemptUnknown | AttemptFailed):
            self._count[event.step] += 1
            self._grew.set()

    async def until(self, step: str, times: int) -> None:
        """Wait until a step has had so many of them."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self._count[step] < times:
                self._grew.clear()
                await self._grew.wait()


@pytest.mark.parametrize("name", DOMAINS)
async def test_a_pivot_whose_service_dies_with_the_answer_is_asked_until_it_is_back(name: str, tmp_path: Path) -> None:
    """It took place, its answer was lost, and for longer than the budget there was nobody to ask: nothing is undone."""
    domain, service, doubts = DOMAINS[name], PIVOTS[name], Doubts()
    pivot = await pivot_of(domain)
    async with playing(domain, tmp_path, 1, doubts) as play:
        running = asyncio.create_task(play.run(domain.plain(f"{name}-1"), StepFault(step=pivot, fault="reply-lost")))
        await doubts.until(pivot, 1)
        play.stage.services.kill(service)
        await doubts.until(pivot, BUDGET + 2)
        play.stage.services.start(service)
        async with asyncio.timeout(PATIENCE_SECONDS):
            result = await running

        result.raise_for_status()
        assert await play.complaints() == []


async def test_a_service_that_is_away_before_the_pivot_turns_the_saga_back(tmp_path: Path) -> None:
    """No connection means that nothing was sent: four attempts, and then what was reserved is released."""
    domain = DOMAINS["order"]
    async with playing(domain, tmp_path, 1) as play:
        play.stage.services.kill("payment")
        result = await play.run(domain.plain("order-1"))
        play.stage.services.start("payment")

        assert result.status is SagaStatus.ROLLED_BACK
        assert [step.attempts for step in result.steps if step.name == "authorise"] == [BUDGET]
        assert "payment: no connection for /authorisations" in str(result.error)
        assert await play.operations("inventory") == ["reserved", "reserved", "released", "released"]
        assert await play.complaints() == []


async def test_a_service_that_is_away_after_the_pivot_is_waited_for(tmp_path: Path) -> None:
    """The clearing house dies between two trades' fills, and comes back: the trade completes."""
    domain, doubts = DOMAINS["trade"], Doubts()
    async with playing(domain, tmp_path, 1, doubts) as play:
        slow_south = StepFault(step="fill_venue_south", fault="slow=0.4")
        running = asyncio.create_task(play.run(domain.plain("trade-1"), slow_south))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "filled" not in await play.operations("venue_north"):  # noqa: ASYNC110 - what is asked is a process
                await asyncio.sleep(0.02)
        play.stage.services.kill("brokerage")
        await doubts.until("clear", BUDGET + 1)
        play.stage.services.start("brokerage")
        async with asyncio.timeout(PATIENCE_SECONDS):
            (await running).raise_for_status()
        assert await play.complaints() == []


async def test_an_undo_waits_for_a_service_that_is_away(tmp_path: Path) -> None:
    """The hold is voided when the gateway is back."""
    domain, doubts = DOMAINS["order"], Doubts()
    async with playing(domain, tmp_path, 1, doubts) as play:
        refused = StepFault(step="capture", fault="decline")
        # The carrier's undo comes first and takes a while.
        slow = StepFault(step="book_shipment", fault="slow=0.4", phase=Phase.COMPENSATION)
        running = asyncio.create_task(play.run(domain.plain("order-1"), refused, slow))
        await doubts.until("capture", 1)
        play.stage.services.kill("payment")
        await doubts.until("authorise", 2)
        play.stage.services.start("payment")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await running).status is SagaStatus.ROLLED_BACK
        assert await play.operations("payment") == ["authorised", "voided"]
        assert await play.complaints() == []
