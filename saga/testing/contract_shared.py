"""The storage contract: data that several storages share, and that outlive each of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from saga.exceptions import SagaAlreadyExistsError, SagaClaimLostError, SagaVersionMovedError
from saga.storage.base import Appended, SagaStorage
from saga.testing.contract_kit import (
    ANYTHING,
    TTL,
    CommitGate,
    ContractBase,
    all_ids,
    append,
    claim,
    claim_due,
    create,
    request,
    row,
    stored,
)
from saga.types import AT_REST

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from saga.clock import Clock
    from saga.testing.clock import FakeClock


class SharedStorageContract(ContractBase):
    """What holds where two storage objects work on the same data. Mix it in beside ``StorageContract``."""

    def second(self, clock: Clock) -> AbstractAsyncContextManager[SagaStorage]:
        """Return another storage, not yet entered, on the data of ``storage``."""
        return self.storage(clock)

    @pytest.mark.asyncio
    async def test_what_was_answered_is_there_for_another_storage_at_once(self, clock: FakeClock) -> None:
        """Durable when the call returns: nothing waits in the object that wrote it."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            await create(storage, "s", held=claim("t"))
            await append(storage, "s", 1, claim("t"))
            await request(other, "s")
            assert await stored(other, "s") == await stored(storage, "s")
            assert await storage.renew({"s": "t"}, TTL) == await other.renew({"s": "t"}, TTL) == {"s": 3}

    @pytest.mark.asyncio
    async def test_what_was_answered_is_there_when_the_data_are_opened_again(self, clock: FakeClock) -> None:
        """Rows, journals, claims, and the answers to writes."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"))
            first = await append(storage, "s", 1, claim("t"), new_row=row(due_in=3.0), write="w")
            before = await stored(storage, "s")
        clock.advance(1)
        async with self.second(clock) as storage:
            assert await stored(storage, "s") == before
            assert await append(storage, "s", 1, claim("t"), write="w") == first
            assert (await append(storage, "s", 2, claim("t"))).version == 3

    @pytest.mark.asyncio
    async def test_a_takeover_by_another_storage_ends_the_claim(self, clock: FakeClock) -> None:
        """The old owner is told at its next write, renewal or release, and its repeated write still gets its answer."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            await create(storage, "s", held=claim("mine"))
            first = await append(storage, "s", 1, claim("mine"), write="w")
            clock.advance(TTL)
            assert await claim_due(other, "theirs") == ["s"]
            with pytest.raises(SagaClaimLostError):
                await append(storage, "s", 2, claim("mine"))
            assert await append(storage, "s", 1, claim("mine"), write="w") == first
            assert await storage.renew({"s": "mine"}, TTL) == {}
            await storage.release({"s": "mine"})
            assert (await append(other, "s", 3, claim("theirs"))).version == 4

    @pytest.mark.asyncio
    async def test_two_storages_never_claim_the_same_saga(self, clock: FakeClock) -> None:
        """However their calls meet."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            ids = [f"s{place}" for place in range(30)]
            await asyncio.gather(*(create(storage, saga_id) for saga_id in ids))
            parts = await asyncio.gather(
                *(
                    claim_due(side, f"t{place}{name}", limit=4)
                    for place in range(5)
                    for name, side in (("a", storage), ("b", other))
                )
            )
            assert sorted(saga_id for part in parts for saga_id in part) == sorted(ids)

    @pytest.mark.asyncio
    async def test_of_two_storages_that_expect_one_version_exactly_one_wins(self, clock: FakeClock) -> None:
        """Each of many times."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            await create(storage, "s")
            for version in range(1, 11):
                answers = await asyncio.gather(
                    append(storage, "s", version, None), append(other, "s", version, None), return_exceptions=True
                )
                kinds = {type(answer) for answer in answers}
                assert kinds == {Appended, SagaVersionMovedError}

    @pytest.mark.asyncio
    async def test_of_two_storages_that_create_one_id_exactly_one_wins(self, clock: FakeClock) -> None:
        """Each of many times."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            for place in range(10):
                answers = await asyncio.gather(
                    create(storage, f"s{place}"), create(other, f"s{place}"), return_exceptions=True
                )
                assert {type(answer) for answer in answers} == {Appended, SagaAlreadyExistsError}

    @pytest.mark.asyncio
    async def test_many_writers_on_two_storages_all_get_their_answers(self, clock: FakeClock) -> None:
        """Neither shuts the other out."""
        async with self.storage(clock) as storage, self.second(clock) as other:

            async def run(side: SagaStorage, saga_id: str) -> int:
                await create(side, saga_id, held=claim(saga_id))
                for version in range(1, 4):
                    answer = await append(side, saga_id, version, claim(saga_id))
                return answer.version

            runs = [run(side, f"{name}{place}") for place in range(16) for name, side in (("a", storage), ("b", other))]
            assert await asyncio.gather(*runs) == [4] * 32

    @pytest.mark.asyncio
    async def test_a_cursor_of_one_storage_works_on_the_other(self, clock: FakeClock) -> None:
        """A cursor is a place in the data, not in an object."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            for place in range(5):
                await create(storage, f"s{place}")
                clock.advance(1)
            first = await storage.query(ANYTHING, limit=2)
            second = await other.query(ANYTHING, first.cursor, 3)
            assert [item.saga_id for item in (*first.items, *second.items)] == ["s4", "s3", "s2", "s1", "s0"]

    @pytest.mark.asyncio
    async def test_what_one_storage_prunes_is_gone_for_the_other(self, clock: FakeClock) -> None:
        """Rows and journals."""
        async with self.storage(clock) as storage, self.second(clock) as other:
            await create(storage, "s", first_row=row(next(iter(AT_REST)), due_in=None))
            clock.advance(10)
            assert await other.prune(1.0, AT_REST, 10) == 1
            assert await all_ids(storage) == []


class HeldCommitContract(SharedStorageContract):
    """What holds between a storage's statements and its COMMIT. Mix it in where a storage has such a moment."""

    def held(self, clock: Clock, gate: CommitGate) -> AbstractAsyncContextManager[SagaStorage]:
        """Return a storage on the data of ``storage`` that calls ``gate.pass_through()`` just before each COMMIT."""
        raise NotImplementedError

    @pytest.mark.asyncio
    async def test_an_append_meets_a_takeover_that_is_not_committed_yet(self, clock: FakeClock) -> None:
        """It waits for it and is refused: the token was looked at in the statement that writes."""
        gate = CommitGate()
        async with self.storage(clock) as storage, self.held(clock, gate) as taker:
            await create(storage, "s", held=claim("mine"))
            clock.advance(TTL)
            gate.shut()
            takeover = asyncio.create_task(claim_due(taker, "theirs"))
            assert await asyncio.to_thread(gate.wait_until_reached)
            late = asyncio.create_task(append(storage, "s", 1, claim("mine")))
            visit = asyncio.create_task(append(storage, "s", 1, None))
            await _others_come_to_wait()
            gate.open()
            with pytest.raises(SagaClaimLostError):
                await late
            with pytest.raises(SagaVersionMovedError):
                await visit
            assert await takeover == ["s"]
            assert (await append(taker, "s", 2, claim("theirs"))).version == 3

    @pytest.mark.asyncio
    async def test_a_takeover_meets_an_append_that_is_not_committed_yet(self, clock: FakeClock) -> None:
        """It waits for it and finds the claim extended, so it gets nothing."""
        gate = CommitGate()
        async with self.storage(clock) as storage, self.held(clock, gate) as owner:
            await create(owner, "s", held=claim("mine"))
            clock.advance(TTL)
            gate.shut()
            late = asyncio.create_task(append(owner, "s", 1, claim("mine")))
            assert await asyncio.to_thread(gate.wait_until_reached)
            takeover = asyncio.create_task(claim_due(storage, "theirs"))
            renewal = asyncio.create_task(storage.renew({"s": "mine"}, TTL))
            await _others_come_to_wait()
            gate.open()
            assert await takeover == []
            assert await renewal == {"s": 2}
            assert (await late).version == 2

    @pytest.mark.asyncio
    async def test_nobody_reads_what_is_not_committed_yet(self, clock: FakeClock) -> None:
        """Row and journal come together, or not at all."""
        gate = CommitGate()
        async with self.storage(clock) as storage, self.held(clock, gate) as writer:
            await create(storage, "s", held=claim("mine"))
            before = await stored(storage, "s")
            gate.shut()
            late = asyncio.create_task(append(writer, "s", 1, claim("mine")))
            assert await asyncio.to_thread(gate.wait_until_reached)
            assert await stored(storage, "s") == before
            assert await all_ids(storage) == ["s"]
            gate.open()
            await late
            assert len((await stored(storage, "s")).entries) == 2


async def _others_come_to_wait() -> None:
    """Let the threads of other storages run up to the lock; where one is late, the answers are the same."""
    for _ in range(50):
        await asyncio.sleep(0)
