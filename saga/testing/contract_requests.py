"""The storage contract: requests of those who own nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from saga.events import Claimed
from saga.testing.contract_kit import (
    FACTS,
    TTL,
    ContractBase,
    append,
    at_rest,
    attention,
    began,
    claim,
    claim_due,
    create,
    record,
    request,
    row,
    stored,
)
from saga.types import AT_REST, SagaStatus

if TYPE_CHECKING:
    from saga.testing.clock import FakeClock


class Requesting(ContractBase):
    """What ``append`` promises those who own nothing and expect nothing."""

    @pytest.mark.asyncio
    async def test_a_request_moves_the_version_and_wakes_a_sleeper(self, clock: FakeClock) -> None:
        """The saga is due now; status, attention and recovery count stay."""
        async with self.storage(clock) as storage:
            look = attention(blocking=False)
            await create(storage, "s", first_row=row(due_in=500.0, attention=look, recoveries=1))
            clock.advance(1)
            assert await claim_due(storage, "early") == []
            answer = await request(storage, "s")
            found = await record(storage, "s")
            assert answer.version == 2
            assert answer.at == pytest.approx(clock.now())
            assert (found.version, found.updated_at, found.due_at) == (2, answer.at, answer.at)
            assert (found.status, found.attention, found.recoveries) == (SagaStatus.EXECUTING, look, 1)
            assert await claim_due(storage, "late") == ["s"]

    @pytest.mark.asyncio
    async def test_a_request_leaves_the_claim_as_it_is(self, clock: FakeClock) -> None:
        """The owner stays and its lease is not extended."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL - 1)
            await request(storage, "s")
            assert (await record(storage, "s")).owner == "host-1"
            assert await claim_due(storage, "early") == []
            clock.advance(1)
            assert await claim_due(storage, "late") == ["s"]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("status", sorted(AT_REST))
    async def test_a_request_to_a_saga_at_rest_does_not_wake_it(self, clock: FakeClock, status: SagaStatus) -> None:
        """It is stored and the version moves, but nothing becomes due."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=at_rest(status))
            assert (await request(storage, "s")).version == 2
            assert (await record(storage, "s")).due_at is None
            assert await claim_due(storage, "t") == []

    @pytest.mark.asyncio
    async def test_a_request_to_a_parked_saga_does_not_wake_it(self, clock: FakeClock) -> None:
        """A blocking attention is rest in every status."""
        async with self.storage(clock) as storage:
            await create(storage, "s", first_row=row(due_in=None, attention=attention(blocking=True)))
            await request(storage, "s")
            assert await claim_due(storage, "t") == []

    @pytest.mark.asyncio
    async def test_the_same_request_again_gives_the_first_answer(self, clock: FakeClock) -> None:
        """Also after others appended."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            first = await request(storage, "s", "w")
            clock.advance(1)
            await request(storage, "s")
            before = await stored(storage, "s")
            assert await request(storage, "s", "w") == first
            assert await stored(storage, "s") == before

    @pytest.mark.asyncio
    async def test_the_facts_stand_in_the_journal_in_the_order_of_their_versions(self, clock: FakeClock) -> None:
        """Whoever wrote them: owner, request, visitor, claim."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("mine"), facts=began())
            await append(storage, "s", 1, claim("mine"), new_row=row(release=True))
            await request(storage, "s")
            await append(storage, "s", 3, None, facts=began())
            assert await claim_due(storage, "theirs", owner="host-2") == ["s"]
            entries = (await stored(storage, "s")).entries
        assert [entry.version for entry in entries] == [1, 2, 3, 4, 5]
        assert (entries[1].events, entries[3].events) == (FACTS, began())
        assert entries[4].events == (Claimed("host-2", 2, 0, expired=False),)
